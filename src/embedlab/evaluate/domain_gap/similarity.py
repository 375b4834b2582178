"""How alike are the data sets of a benchmark? Cosines between their mean embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedlab._core.errors import InputError
from embedlab.evaluate.domain_gap.finding import Finding, interval_text
from embedlab.evaluate.domain_gap.material import as_data, texts_of
from embedlab.models.encoder import Encoder
from embedlab.ops.significance import bootstrap_interval


def dataset_similarity(
    datasets: Mapping[str, Any] | Sequence[Any],
    *,
    encoder: Encoder | None = None,
    num_texts: int = 300,
    seed: int = 0,
) -> Finding:
    """Compare data sets by the cosine of their mean embeddings: a benchmark of look-alikes is a narrow one.

    Args:
        datasets: Name -> texts, ``LabelData``, ``PairData``, ``RetrievalData`` or an mteb task; or a list of tasks.
        encoder: The encoder; None for the embedded default model. Published: all-MiniLM-L6-v2.
        num_texts: Texts of each data set, at most.
        seed: Decides which.

    Returns:
        The matrix of cosines, data sets by data sets, and the mean of each pair with its interval over data sets.

    Raises:
        InputError: there are fewer than two data sets, or the encoder knows no word of one.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    from pandas import DataFrame

    named = datasets if isinstance(datasets, Mapping) else {task.metadata.name: task for task in datasets}
    if len(named) < 2:
        raise InputError(f"datasets holds {len(named)}: two at least can be compared")
    if encoder is None:
        from embedlab.models import load_model

        encoder = load_model()
    means = []
    for name, given in named.items():
        mean = encoder.encode_document(texts_of(as_data(given), num_texts=num_texts, seed=seed)).mean(axis=0)
        if not np.any(mean):
            raise InputError(f"datasets: {encoder.name} knows no word of {name}")
        means.append(mean / np.linalg.norm(mean))
    cosines = np.stack(means).astype(np.float64) @ np.stack(means).astype(np.float64).T  # (N, N)
    count = len(means)
    others = (cosines.sum(axis=1) - np.diag(cosines)) / (count - 1)  # of each data set to the others
    mean = bootstrap_interval(others, seed=seed)
    frame = DataFrame(cosines, index=list(named), columns=list(named))
    frame.index.name = "dataset"
    shown = interval_text(mean.estimate, mean.low, mean.high)
    verdict = f"The {count} data sets are on average {shown} alike (cosine of mean embeddings, {encoder.name})."
    return Finding("How alike are the data sets?", frame, verdict)
