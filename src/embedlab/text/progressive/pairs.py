"""What is trained on: pairs that a search confirms, with hard negatives mined by an existing model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from embedlab._core.errors import InputError
from embedlab._core.extras import require

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from embedlab.models.encoder import Encoder

_log = logging.getLogger(__name__)


def filter_pairs(
    dataset: Dataset, model: SentenceTransformer | Encoder, *, top_k: int = 1, corpus: Sequence[str] = ()
) -> Dataset:
    """Keep the rows whose positive is found again by searching for their anchor.

    A wrong pair stays the hardest of all however long one trains, and a loss that turns to the hard ones turns to it.

    Args:
        dataset: Rows with ``anchor`` and ``positive``; further columns are kept.
        model: Searches. A model that knows the language of the data is enough; its errors become the data's.
        top_k: How far down its own positive may stand, at least 1.
        corpus: Texts that are searched besides the positives of all rows.

    Returns:
        The rows that are kept, in order.

    Raises:
        InputError: ``top_k`` is below 1, a column is missing, or no row is left.
    """
    from embedlab.text.synthesis.consistency import consistency_filter

    anchors, positives = _texts(dataset, "anchor"), _texts(dataset, "positive")
    pairs = list(zip(anchors, positives, strict=True))
    _, report = consistency_filter(pairs, [*positives, *corpus], cast("Encoder", model), top_k=top_k)
    if not report.kept.any():
        raise InputError(
            f"top_k={top_k}: searching for its anchor finds the positive of none of the {len(pairs)} rows; take a "
            "larger top_k, or a model that knows these texts"
        )
    _log.info("kept %d of %d pairs", report.kept.sum(), len(pairs))
    return dataset.select(report.kept.nonzero()[0])


def mine_tuples(
    dataset: Dataset,
    model: SentenceTransformer,
    *,
    num_negatives: int = 5,
    skip: int = 0,
    relative_margin: float | None = None,
    corpus: Sequence[str] = (),
) -> Dataset:
    """Give each pair its hard negatives: the nearest texts that are positives of other anchors only.

    Args:
        dataset: Rows with ``anchor`` and ``positive``; rows of the same anchor share their positives.
        model: Searches, before it is trained or another one; the host's miner does the work.
        num_negatives: Hard negatives per row, at least 1. (paper: K.) Published 5.
        skip: Nearest texts that are passed over, from 0: they may be unmarked positives.
        relative_margin: Drop candidates nearer than ``p - |p| * relative_margin``, for ``p`` the cosine of anchor and
            positive; None keeps them.
        corpus: Texts that may become negatives besides the positives of all rows.

    Returns:
        Rows with ``anchor``, ``positive``, ``negative_1`` to ``negative_K``; those without K candidates are left out.

    Raises:
        InputError: there are too few texts to mine from, or no row has as many negatives.
    """
    from sentence_transformers.util import mine_hard_negatives

    anchors, positives = _texts(dataset, "anchor"), _texts(dataset, "positive")
    if num_negatives < 1 or skip < 0:
        raise InputError(f"num_negatives={num_negatives}, skip={skip}: expected at least 1, and at least 0")
    pool = len({*positives, *corpus})
    if num_negatives + skip >= pool:
        raise InputError(
            f"num_negatives={num_negatives} after skip={skip}: there are {pool} different texts to mine from, one of "
            "them the positive; ask for fewer, or give a corpus"
        )
    pairs = require("datasets", extra="train").Dataset.from_dict({"anchor": anchors, "positive": positives})
    mined: Dataset = mine_hard_negatives(
        pairs,
        model,
        corpus=list(corpus) or None,
        num_negatives=num_negatives,
        range_min=skip,
        # the host looks at a window, which must hold the anchor's own positives and what the margin drops
        range_max=min(pool, 10 * num_negatives + skip) if relative_margin is not None else None,
        relative_margin=relative_margin,
        output_format="n-tuple",
        verbose=False,
    )
    if not len(mined):
        raise InputError(
            f"num_negatives={num_negatives}: no row has as many candidates after skip={skip} and "
            f"relative_margin={relative_margin}; ask for fewer, or lower the margin"
        )
    if len(mined) < len(pairs):
        _log.info("%d of %d rows have %d negatives", len(mined), len(pairs), num_negatives)
    return mined


def _texts(dataset: Dataset, column: str) -> list[str]:
    """Read a column of texts, every one of which must be there."""
    if column not in dataset.column_names:
        raise InputError(f"dataset lacks the column {column!r}: it has {', '.join(dataset.column_names) or 'none'}")
    texts: list[Any] = dataset[column][:]
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"{column} of row {row + 1} is {text!r:.40}: every row needs a text there, and all rows as many "
                "negatives; leave the row out, or mine negatives for all"
            )
    return texts


def check_tuples(dataset: Dataset) -> Dataset:
    """Refuse rows with a missing or empty text, such as rows with fewer negatives than the others.

    Args:
        dataset: Rows whose columns are all texts.

    Returns:
        The same rows.

    Raises:
        InputError: a text is missing; the message names its column and row.
    """
    for column in dataset.column_names:
        _texts(dataset, column)
    return dataset
