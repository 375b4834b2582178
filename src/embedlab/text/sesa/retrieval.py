"""Exact search among many explicit vectors by lists: for each concept, who has it and how much."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require

Floats = NDArray[np.float32]
_SCORES_AT_ONCE = 2**23  # entries of one block of scores, 32 MB


class ExplicitIndex:
    """Rank items by cosine in an explicit space, looking only at the lists of the concepts that a query has.

    The result is that of the dense product, to rounding; memory and work follow the entries that are not 0.

    Args:
        vectors: Explicit vectors, a matrix or a sparse one of scipy.
        normalize: Whether to rank by cosine; otherwise by the dot product.

    Shape:
        vectors (N, m)

    Raises:
        InputError: a number is not finite, or it is no matrix.

    Example:
        >>> index = ExplicitIndex([[1.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
        >>> places, scores = index.search([[0.0, 2.0]], top_k=2)
        >>> places.tolist(), scores.round(2).tolist()
        ([[2, 1]], [[1.0, 0.7099999785423279]])
    """

    def __init__(self, vectors: ArrayLike | Any, *, normalize: bool = True) -> None:
        self.normalize = normalize
        self._lists = _rows(vectors, normalize).T.tocsr()  # (m, N): one list for each concept

    def __len__(self) -> int:
        """Return the number of items."""
        return int(self._lists.shape[1])

    @property
    def size_bytes(self) -> int:
        """What the lists take in memory."""
        return int(sum(part.nbytes for part in (self._lists.data, self._lists.indices, self._lists.indptr)))

    def search(self, queries: ArrayLike | Any, *, top_k: int = 10) -> tuple[NDArray[np.int64], Floats]:
        """Find the nearest items.

        Args:
            queries: Explicit vectors, a matrix or a sparse one.
            top_k: How many to find, at most.

        Shape:
            queries (Q, m) -> (Q, K) int64, (Q, K) float32

        Returns:
            Places of items and their scores, best first; of equal scores the earlier item first.

        Raises:
            InputError: ``top_k`` is below 1, or the queries have another width.
        """
        rows = _rows(queries, self.normalize)
        if top_k < 1 or rows.shape[1] != self._lists.shape[0]:
            raise InputError(f"top_k={top_k}, queries {rows.shape}: at least 1, and {self._lists.shape[0]} columns")
        width = min(top_k, len(self))
        places, best = np.empty((rows.shape[0], width), np.int64), np.empty((rows.shape[0], width), np.float32)
        step = max(1, _SCORES_AT_ONCE // max(1, len(self)))
        for start in range(0, rows.shape[0], step):
            scores = (rows[start : start + step] @ self._lists).toarray()
            places[start : start + step] = found = top_places(scores, width)
            best[start : start + step] = np.take_along_axis(scores, found, axis=1)
        return places, best


def top_places(scores: Floats, top_k: int) -> NDArray[np.int64]:
    """Return the places of the largest scores of each row, best first; of equals the earlier.

    Args:
        scores: The scores.
        top_k: How many, at most as many as columns.

    Shape:
        scores (Q, N) -> (Q, K)

    Returns:
        Places of columns.
    """
    found = np.empty((len(scores), top_k), np.int64)
    for row, line in zip(found, scores, strict=True):
        least = np.partition(line, -top_k)[-top_k] if top_k else 0.0
        candidates = np.flatnonzero(line >= least)  # all that tie with the last, in order
        row[:] = candidates[np.argsort(-line[candidates], kind="stable")[:top_k]]
    return found


def _rows(vectors: ArrayLike | Any, normalize: bool) -> Any:
    sparse = require("scipy.sparse", extra="train")
    rows = sparse.csr_array(vectors if sparse.issparse(vectors) else np.asarray(vectors, np.float32), dtype=np.float32)
    if rows.ndim != 2 or not np.isfinite(rows.data).all():
        raise InputError(f"vectors of shape {rows.shape}: expected a matrix of finite numbers")
    if normalize:
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1))).ravel()
        rows = sparse.csr_array(rows.multiply((1 / np.where(lengths > 0, lengths, 1))[:, None]), dtype=np.float32)
    return rows
