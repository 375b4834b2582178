"""Vectors with what is known about them: texts, names, labels, lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.understand.tte_depth.rows import matrix

_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Space:
    """A set of vectors to look at.

    Args:
        vectors: One vector per text; a memory map stays on disk. A zero row (a text of which the model knows no word)
            is left out and counted.
        name: What to call the set.
        texts: The texts, one per row.
        ids: Names of the rows, shown beside the texts; rows of one name, such as passages of one document, are drawn
            together for the interval of Q.
        labels: One per row, such as topics or clusters.
        lengths: Lengths of the texts; their characters if only texts are given.
        length_unit: What ``lengths`` count.
        model: The model that made the vectors.

    Shape:
        vectors (N, D), all else N entries

    Attributes:
        rows: Numbers of the rows that are not zero, (M,); the other fields keep only these.
        left_out: How many zero rows there were.

    Raises:
        InputError: the vectors are not a matrix of finite numbers with a row that is not zero, or another argument does
            not have one entry per row.
    """

    vectors: NDArray[Any]
    name: str = "vectors"
    texts: Sequence[str] | None = None
    ids: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    lengths: NDArray[np.float64] | None = None
    length_unit: str = "characters"
    model: str | None = None
    rows: NDArray[np.intp] = field(init=False)
    left_out: int = field(init=False)

    def __post_init__(self) -> None:
        """Check everything, and leave zero rows out."""
        vectors = matrix(f"{self.name}: vectors", self.vectors)
        for what in ("texts", "ids", "labels", "lengths"):
            given = getattr(self, what)
            if given is not None and len(given) != len(vectors):
                raise InputError(
                    f"{self.name}: {len(given)} {what} for {len(vectors)} vectors: give one per row, in the same order"
                )
        kept = _not_zero(self.name, vectors)
        if not kept.any():
            raise InputError(f"{self.name}: every row is zero: the model knew no word of any text")
        rows = np.flatnonzero(kept)
        lengths = self.lengths
        if lengths is None and self.texts is not None:
            lengths = np.array([len(text) for text in self.texts], dtype=np.float64)
        set_ = object.__setattr__
        set_(self, "rows", rows)
        set_(self, "vectors", vectors if kept.all() else vectors[rows])  # a memory map is copied only if it must be
        set_(self, "lengths", None if lengths is None else np.asarray(lengths, dtype=np.float64)[rows])
        for what in ("texts", "ids", "labels"):
            given = getattr(self, what)
            set_(self, what, None if given is None else [given[row] for row in rows] if not kept.all() else list(given))
        set_(self, "left_out", len(kept) - len(rows))

    def __len__(self) -> int:
        """Return the number of rows that are looked at."""
        return len(self.rows)


def _not_zero(name: str, vectors: NDArray[Any]) -> NDArray[np.bool_]:
    kept = np.empty(len(vectors), dtype=bool)
    for start in range(0, len(vectors), _CHUNK):
        block = np.asarray(vectors[start : start + _CHUNK], dtype=np.float64)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise InputError(
                f"{name}: row {start + int(finite.argmin())} holds NaN or infinity: embed that text anew or drop it"
            )
        kept[start : start + _CHUNK] = block.any(axis=1)
    return kept
