"""Texts with one class each."""

from __future__ import annotations

from embedlab.data.datasets import LabelData
from embedlab.data.loaders.opening import csv_rows, open_text


def load_banking77(split: str = "test") -> LabelData:
    """Load Banking77: questions of bank customers, 77 intents.

    Args:
        split: ``"train"`` or ``"test"``.

    Returns:
        Questions and intents.

    Raises:
        MissingDataError: there is no such file in ``EMBEDLAB_DATA``.

    References:
        Casanueva et al. (2020), Efficient Intent Detection with Dual Sentence Encoders.
    """
    rows = list(csv_rows(open_text("banking77", f"{split}.csv.gz")))
    return LabelData([row["text"] for row in rows], [row["category"] for row in rows])
