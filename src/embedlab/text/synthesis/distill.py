"""A teacher's scores as labels: margins for the host's MarginMSELoss, soft labels for its DistillKLDivLoss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.models.encoder import Encoder, unit_rows
from embedlab.text.synthesis.judge import Pairs, Scores, as_judge
from embedlab.text.synthesis.triplets import Triplet

Objective = Literal["margin", "kl"]


def distillation_rows(
    triplets: Sequence[Triplet], teacher: Any, *, objective: Objective = "margin"
) -> dict[str, list[Any]]:
    """Label triplets with a teacher's scores, in the columns that the host's losses take.

    Args:
        triplets: Triplets, all with the same number of negatives, at least one.
        teacher: An ``LLMJudge``, a ``CrossEncoder``, an ``Encoder`` (its cosines), or a function from (query, passage)
            pairs to scores.
        objective: ``"margin"``: labels are s(q, positive) - s(q, negative), for ``MarginMSELoss``. ``"kl"``: labels
            are all scores, the positive's first, for ``DistillKLDivLoss``, which makes chances of them.

    Returns:
        Columns ``query``, ``positive``, ``negative_1`` ... and ``label``, ready for ``datasets.Dataset.from_dict``.

    Raises:
        InputError: there are no triplets, or their numbers of negatives differ or are 0.

    Example:
        >>> triplets, teacher = [Triplet("q", "yes", ("no",))], lambda pairs: [len(text) for _, text in pairs]
        >>> [distillation_rows(triplets, teacher, objective=each)["label"] for each in ("margin", "kl")]
        [[1.0], [[3.0, 2.0]]]
    """
    if objective not in ("margin", "kl"):
        raise unknown_name("objective", objective, ("margin", "kl"))
    counts = {len(each.negatives) for each in triplets}
    if len(counts) != 1 or 0 in counts:
        raise InputError(f"triplets with {sorted(counts)} negatives: all need the same number, at least one")
    width = 1 + counts.pop()
    pairs = [(each.query, text) for each in triplets for text in (each.positive, *each.negatives)]
    scores = teacher_scores(teacher, pairs).reshape(len(triplets), width)  # (N, 1 + K)
    margins = scores[:, :1] - scores[:, 1:]  # (N, K)
    labels = scores.tolist() if objective == "kl" else (margins[:, 0] if width == 2 else margins).tolist()
    columns: dict[str, list[Any]] = {
        "query": [each.query for each in triplets],
        "positive": [each.positive for each in triplets],
    }
    for place in range(width - 1):
        columns[f"negative_{place + 1}"] = [each.negatives[place] for each in triplets]
    return columns | {"label": labels}


def teacher_scores(teacher: Any, pairs: Pairs) -> Scores:
    """Score pairs with whatever teaches.

    Args:
        teacher: An ``Encoder`` (cosines), or anything that ``as_judge`` takes.
        pairs: (query, passage).

    Returns:
        One score a pair, (N,).
    """
    if isinstance(teacher, Encoder):
        queries, passages = (
            {text: i for i, text in enumerate(dict.fromkeys(side))} for side in zip(*pairs, strict=True)
        )
        left = _unit(teacher.encode_query(list(queries)))[[queries[query] for query, _ in pairs]]
        right = _unit(teacher.encode_document(list(passages)))[[passages[passage] for _, passage in pairs]]
        return np.asarray(np.einsum("nd,nd->n", left, right), dtype=np.float64)
    return as_judge(teacher).relevance(pairs)


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    return unit_rows(np.array(vectors, dtype=np.float32))
