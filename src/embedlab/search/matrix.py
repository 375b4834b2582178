"""All vectors of a collection in memory, kept in step with the table without reading it anew after every commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RowIds = NDArray[np.uint64]
Floats = NDArray[np.float32]
_SPARE = 1.25  # room for rows to come, so that most commits copy nothing


@dataclass(frozen=True, slots=True)
class Matrix:
    """Vectors by row number; rows that were deleted since stay in place but are not usable.

    Args:
        rows: Row numbers in ascending order (N,).
        vectors: Their vectors (N, D); the first rows of ``room``.
        usable: Which of them are there and not zero (N,); None if all are.
        room: Where rows to come are put (M, D), M >= N.
    """

    rows: RowIds
    vectors: Floats
    usable: NDArray[np.bool_] | None
    room: Floats

    @classmethod
    def of(cls, rows: RowIds, vectors: Floats) -> Matrix:
        """Make a matrix of rows in any order."""
        order = np.argsort(rows)
        if not np.array_equal(order, np.arange(len(rows))):
            rows, vectors = rows[order], vectors[order]
        return cls(rows, vectors, _none_if_all(_nonzero(vectors)), vectors)

    def follow(self, present: RowIds, read: Callable[[RowIds], Floats]) -> Matrix | None:
        """Return the matrix of a later version.

        Rows never change and new ones get higher numbers, until compaction numbers them all anew. New rows go behind
        the old ones in place: whoever still uses this matrix does not see them.

        Args:
            present: Row numbers of that version, in any order.
            read: Reads the vectors of some rows.

        Returns:
            The matrix; None if too little of this one is left to build on.
        """
        there = np.isin(self.rows, present, assume_unique=True)
        fresh = np.sort(present[~np.isin(present, self.rows, assume_unique=True)])
        count = len(self.rows)
        if 2 * there.sum() < count or (len(fresh) and count and fresh[0] < self.rows[-1]):
            return None
        total = count + len(fresh)
        room = self.room
        if total > len(room):
            room = np.empty((int(total * _SPARE) + 1024, self.vectors.shape[1]), np.float32)
            room[:count] = self.vectors
        if len(fresh):
            room[count:total] = read(fresh)
        before = there if self.usable is None else there & self.usable
        usable = np.concatenate([before, _nonzero(room[count:total])])
        return Matrix(np.concatenate([self.rows, fresh]), room[:total], _none_if_all(usable), room)

    def among(self, rows: RowIds) -> NDArray[np.bool_]:
        """Tell which rows of the matrix are among some others, and usable."""
        found = np.isin(self.rows, rows, assume_unique=True)
        return found if self.usable is None else found & self.usable

    def of_rows(self, rows: RowIds) -> Floats:
        """Return the vectors of some rows, in their order."""
        return self.vectors[np.searchsorted(self.rows, rows)]


def _nonzero(vectors: Floats) -> NDArray[np.bool_]:
    squares: Floats = np.vecdot(vectors, vectors)
    return squares > 0.0


def _none_if_all(usable: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    return None if usable.all() else usable
