"""Which documents must not serve as negatives of a query: those that are likely to answer it too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


class FalseNegatives:
    """Tell, for queries and documents of a batch, which pairs are no safe negatives.

    A document is left out for a query when it is the query's own positive, is listed as relevant, belongs to the same
    group as the positive (chunks of one text, packages of one source), or is nearly the positive's copy by cosine.
    Sampler and loss ask the same object, so that drawn and in-batch negatives are treated alike.

    Args:
        positives: The document that answers each query (Q,).
        relevant: Further documents known to answer each query, one collection per query; None for none.
        groups: Group of each document (N,), whole numbers; below 0 for no group. None for no groups.
        vectors: Vectors of the documents (N, D), needed for ``threshold``; may be memory-mapped.
        threshold: Cosine with the positive from which a document counts as its copy, in (0, 1]; None to compare none.

    Raises:
        InputError: lengths that do not fit, a threshold without vectors or out of range.

    Example:
        >>> unsafe = FalseNegatives([0, 2], groups=[7, 7, 8])
        >>> unsafe.mask([0, 1], [0, 1, 2])
        array([[ True,  True, False],
               [False, False,  True]])
    """

    def __init__(
        self,
        positives: ArrayLike,
        *,
        relevant: Sequence[Sequence[int]] | None = None,
        groups: ArrayLike | None = None,
        vectors: NDArray[np.floating] | None = None,
        threshold: float | None = None,
    ) -> None:
        self.positives = np.asarray(positives, np.int64)
        if relevant is not None and len(relevant) != len(self.positives):
            raise InputError(f"relevant: {len(relevant)} entries for {len(self.positives)} queries, expected one each")
        if threshold is not None and (vectors is None or not 0 < threshold <= 1):
            raise InputError(f"threshold={threshold} must be in (0, 1], and needs the documents' vectors")
        self.groups = None if groups is None else np.asarray(groups, np.int64)
        self.vectors, self.threshold = vectors, threshold
        # pairs as single numbers, so that a whole batch is looked up at once
        known = [(query, int(doc)) for query, docs in enumerate(relevant or ()) for doc in docs]
        self._known = np.unique(_keys(*(np.array(known, np.int64).reshape(-1, 2).T)))

    def mask(self, queries: ArrayLike, documents: ArrayLike) -> Mask:
        """Compare queries with documents.

        Args:
            queries: Numbers of queries (B,).
            documents: Numbers of documents: (M,) to compare each query with all of them, or (B, M) for documents of
                its own. Negative ones stand for none and are always masked.

        Returns:
            True where the document must not be a negative of the query (B, M); the own positive included.
        """
        rows, columns = np.asarray(queries, np.int64), np.asarray(documents, np.int64)
        own = self.positives[rows]  # (B,)
        found = (own[:, None] == columns) | (columns < 0)
        if len(self._known):
            found |= np.isin(_keys(rows[:, None], columns), self._known)
        if self.groups is not None:
            groups = self.groups[own][:, None]
            found |= (groups >= 0) & (groups == self.groups[columns])
        if self.threshold is not None and self.vectors is not None:
            positives = _unit(self.vectors[own])
            if columns.ndim == 1:
                found |= positives @ _unit(self.vectors[columns]).T >= self.threshold
            else:
                for row, (positive, candidates) in enumerate(zip(positives, columns, strict=True)):
                    found[row] |= _unit(self.vectors[candidates]) @ positive >= self.threshold
        return np.asarray(found)


def _keys(queries: Integers, documents: Integers) -> Integers:
    return np.asarray((queries << 32) | (documents & 0xFFFFFFFF))


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    rows = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))
