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
        return cls(rows, vectors, none_if_all(_nonzero(vectors)), vectors)

    @property
    def bytes_held(self) -> int:
        """Bytes of memory this holds."""
        return self.rows.nbytes + self.vectors.nbytes

    def follow(self, present: RowIds, read: Callable[[RowIds], Floats]) -> Matrix | None:
        """Return the matrix of a later version.

        New rows go behind the old ones in place: whoever still uses this matrix does not see them.

        Args:
            present: Row numbers of that version, in any order.
            read: Reads the vectors of some rows.

        Returns:
            The matrix; None if too little of this one is left to build on.
        """
        moved = changes(self.rows, present)
        if moved is None:
            return None
        there, fresh = moved
        count = len(self.rows)
        total = count + len(fresh)
        room = self.room
        if total > len(room):
            room = np.empty((int(total * _SPARE) + 1024, self.vectors.shape[1]), np.float32)
            room[:count] = self.vectors
        if len(fresh):
            room[count:total] = read(fresh)
        before = there if self.usable is None else there & self.usable
        usable = np.concatenate([before, _nonzero(room[count:total])])
        return Matrix(np.concatenate([self.rows, fresh]), room[:total], none_if_all(usable), room)

    def nearest(self, vector: Floats, among: RowIds | None, depth: int) -> tuple[RowIds, Floats]:
        """Find the rows nearest to a vector.

        Args:
            vector: Unit vector (D,).
            among: Rows to choose from; None for all.
            depth: Most rows to return.

        Returns:
            Rows and their cosines, best first; both (K,).
        """
        # vecdot, not @: a threaded matrix product waits for processors that the full-text search keeps busy
        scores: Floats = np.vecdot(self.vectors, vector)  # (N, D), (D,) -> (N,)
        return best_rows(self.rows, scores, allowed_rows(self.rows, self.usable, among), depth)

    def of_rows(self, rows: RowIds) -> Floats:
        """Return the vectors of some rows, in their order."""
        return self.vectors[np.searchsorted(self.rows, rows)]


def changes(rows: RowIds, present: RowIds) -> tuple[NDArray[np.bool_], RowIds] | None:
    """Tell what happened to rows since an earlier version.

    Rows never change and new ones get higher numbers, until compaction numbers them all anew.

    Args:
        rows: Row numbers that are held, in ascending order (N,).
        present: Row numbers of the later version, in any order.

    Returns:
        Which of the rows are still there (N,), and those that are new, ascending; None if too few are left.
    """
    there = np.isin(rows, present, assume_unique=True)
    fresh = np.sort(present[~np.isin(present, rows, assume_unique=True)])
    if 2 * there.sum() < len(rows) or (len(fresh) and len(rows) and fresh[0] < rows[-1]):
        return None
    return there, fresh


def allowed_rows(rows: RowIds, usable: NDArray[np.bool_] | None, among: RowIds | None) -> NDArray[np.bool_] | None:
    """Tell which rows a search may return.

    Args:
        rows: Row numbers that are held (N,).
        usable: Which of them can be found at all (N,); None for all.
        among: Rows to choose from; None for all.

    Returns:
        The mask (N,); None if all may.
    """
    if among is None:
        return usable
    found = np.isin(rows, among, assume_unique=True)
    return found if usable is None else found & usable


def best_rows(rows: RowIds, scores: Floats, allowed: NDArray[np.bool_] | None, depth: int) -> tuple[RowIds, Floats]:
    """Return the rows with the largest scores.

    Args:
        rows: Row numbers (N,), ascending.
        scores: Their scores (N,); those of rows that are not allowed are overwritten.
        allowed: Which may be returned (N,); None for all.
        depth: Most rows to return.

    Returns:
        Rows and scores, best first, of equals the lower row; both (K,).
    """
    if allowed is not None:
        scores[~allowed] = -np.inf
    depth = min(depth, len(scores) if allowed is None else int(allowed.sum()))
    if depth == 0:
        return np.empty(0, np.uint64), np.empty(0, np.float32)
    top = np.sort(np.argpartition(scores, len(scores) - depth)[-depth:])  # sorted: ties keep the order of the rows
    top = top[np.argsort(-scores[top], kind="stable")]
    return rows[top], scores[top]


def none_if_all(usable: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return a mask, or None if it allows everything."""
    return None if usable.all() else usable


def _nonzero(vectors: Floats) -> NDArray[np.bool_]:
    squares: Floats = np.vecdot(vectors, vectors)
    return squares > 0.0
