"""Vectors of two halves as they are stored and searched: dense numbers, and a few words with their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from embedlab._core.errors import InputError

Floats = NDArray[np.float32]
_SCORES_AT_ONCE = 2**24  # entries of one block of scores, 64 MB


@dataclass(frozen=True, slots=True)
class DuplexDocuments:
    """Documents as they are stored.

    Attributes:
        dense: The dense parts, (N, d') float32; d' is 0 in mode ``"ot"``.
        words: The strongest words of each document and their scores, (N, V), ``sparse_k`` entries a row; none in mode
            ``"cls"``.
    """

    dense: Floats
    words: sparse.csr_array

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def bits_per_document(self) -> float:
        """Mean size: 32 bits for each number, and for each word's place as many as the vocabulary needs."""
        place = int(np.ceil(np.log2(max(2, self.words.shape[1]))))
        return float(32 * self.dense.shape[1] + (32 + place) * self.words.nnz / max(1, len(self)))

    def with_words(self, count: int) -> Self:
        """Keep fewer words of each document, such as to compare representations of one size.

        Args:
            count: How many to keep, the strongest; at least 0.

        Returns:
            The documents, as if they had been encoded with this ``sparse_k``.

        Raises:
            InputError: ``count`` is negative.
        """
        if count < 0:
            raise InputError(f"count={count}: must be at least 0")
        starts = self.words.indptr
        rows = np.repeat(np.arange(len(self)), np.diff(starts))
        order = np.lexsort((-self.words.data, rows))  # within each document, strongest first
        kept = np.sort(order[np.arange(len(order)) - starts[rows] < count])
        ends = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(self)))])
        words = sparse.csr_array((self.words.data[kept], self.words.indices[kept], ends), shape=self.words.shape)
        return type(self)(self.dense, words)

    def save(self, path: str | Path) -> None:
        """Write the vectors to an ``.npz`` file, without pickle.

        Args:
            path: The file.
        """
        parts = {name: getattr(self.words, name) for name in ("data", "indices", "indptr", "shape")}
        with Path(path).open("wb") as file:
            np.savez(file, dense=self.dense, **parts)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` has written.

        Args:
            path: The file.

        Returns:
            The documents.
        """
        with np.load(path, allow_pickle=False) as parts:
            words = sparse.csr_array(
                (parts["data"], parts["indices"], parts["indptr"]), shape=tuple(parts["shape"].tolist())
            )
            return cls(parts["dense"], words)


@dataclass(frozen=True, slots=True)
class DuplexQueries:
    """Queries: they keep the scores of all words.

    Attributes:
        dense: The dense parts, (Q, d') float32.
        words: The scores of all words, (Q, V) float32; all 0 in mode ``"cls"``.
    """

    dense: Floats
    words: Floats

    def __len__(self) -> int:
        return len(self.dense)


def score(queries: DuplexQueries, documents: DuplexDocuments) -> Floats:
    r"""Score every document for every query.

    :math:`\hat h_q \cdot \hat h_d + \sum_{i \in I_d} \mu_q[i] \mu_d[i]`, the sum over the words that a document keeps.

    Args:
        queries: From ``DuplexEncoder.encode_query``.
        documents: From ``DuplexEncoder.encode_document``.

    Shape:
        queries Q, documents N -> (Q, N) float32

    Returns:
        The scores, larger is nearer.

    Raises:
        InputError: the parts differ in width.
    """
    if queries.dense.shape[1] != documents.dense.shape[1] or queries.words.shape[1] != documents.words.shape[1]:
        raise InputError(
            f"queries have parts {queries.dense.shape[1]} and {queries.words.shape[1]} wide, documents "
            f"{documents.dense.shape[1]} and {documents.words.shape[1]}: encode both with one encoder in one mode"
        )
    return np.asarray(queries.dense @ documents.dense.T + (documents.words @ queries.words.T).T, dtype=np.float32)


class DuplexIndex:
    """Find the best documents for a query, exactly; or sooner, by the lists of the query's strongest words.

    Args:
        documents: The documents.

    Example:
        >>> words = sparse.csr_array(np.array([[0.0, 2.0], [3.0, 0.0]], dtype=np.float32))
        >>> index = DuplexIndex(DuplexDocuments(np.zeros((2, 1), np.float32), words))
        >>> index.search(DuplexQueries(np.ones((1, 1), np.float32), np.array([[1.0, 1.0]], np.float32)), top_k=1)
        (array([[1]]), array([[3.]], dtype=float32))
    """

    def __init__(self, documents: DuplexDocuments) -> None:
        self.documents = documents
        self._lists: Any = None

    def search(
        self, queries: DuplexQueries, *, top_k: int = 10, query_words: int | None = None
    ) -> tuple[NDArray[np.int64], Floats]:
        """Rank the documents.

        Args:
            queries: The queries.
            top_k: How many to find, at most.
            query_words: None scores exactly, by every word that a document keeps. A number looks only at the lists of
                so many of the query's strongest words (in size): less work, and other scores.

        Shape:
            queries Q -> (Q, K) int64, (Q, K) float32

        Returns:
            Places of documents and their scores, best first; of equal scores the earlier document first.

        Raises:
            InputError: ``top_k`` or ``query_words`` is below 1, or the widths differ.
        """
        if top_k < 1 or (query_words is not None and query_words < 1):
            raise InputError(f"top_k={top_k}, query_words={query_words}: each must be at least 1")
        width = min(top_k, len(self.documents))
        places, best = np.empty((len(queries), width), np.int64), np.empty((len(queries), width), np.float32)
        step = max(1, _SCORES_AT_ONCE // max(1, len(self.documents)))
        for start in range(0, len(queries), step):
            block = DuplexQueries(queries.dense[start : start + step], queries.words[start : start + step])
            scores = score(block, self.documents) if query_words is None else self._by_lists(block, query_words)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :width]
            places[start : start + step] = order
            best[start : start + step] = np.take_along_axis(scores, order, axis=1)
        return places, best

    def _by_lists(self, queries: DuplexQueries, query_words: int) -> Floats:
        if self._lists is None:
            self._lists = self.documents.words.tocsc()  # one list of documents for each word
        kept = strongest_words(queries.words, query_words, by_size=True)
        return np.asarray(queries.dense @ self.documents.dense.T + (self._lists @ kept.T).toarray().T, dtype=np.float32)


def strongest_words(rows: Floats, count: int, *, by_size: bool = False) -> sparse.csr_array:
    """Keep the largest entries of each row.

    Args:
        rows: Scores of words.
        count: How many to keep of each row.
        by_size: Whether large negative scores count as strong too.

    Shape:
        rows (N, V) -> (N, V) sparse

    Returns:
        The rows, ``count`` entries each, also where these are 0 or negative.
    """
    num, width = rows.shape
    count = min(count, width)
    if num == 0 or count == 0:
        return sparse.csr_array((num, width), dtype=np.float32)
    keys = np.abs(rows) if by_size else rows
    places = np.sort(np.argpartition(-keys, count - 1, axis=1)[:, :count], axis=1)
    values = np.take_along_axis(rows, places, axis=1)
    ends = np.arange(num + 1) * count
    return sparse.csr_array((values.ravel(), places.ravel().astype(np.int32), ends), shape=(num, width))


def joined(parts: Sequence[sparse.csr_array], width: int) -> sparse.csr_array:
    """Put blocks of rows one below the other.

    Args:
        parts: The blocks; may be none.
        width: Of a row, for no blocks at all.

    Returns:
        All rows.
    """
    return (
        sparse.csr_array(sparse.vstack(parts, format="csr"))
        if parts
        else sparse.csr_array((0, width), dtype=np.float32)
    )
