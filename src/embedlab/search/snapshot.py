"""One version of a collection as searches see it: full-text lookups, exact nearest vectors, rows by number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab.search.filters import filter_errors
from embedlab.search.store import CONTENT, Store, lance_errors, vectors_of

if TYPE_CHECKING:
    import pyarrow as pa

RowIds = NDArray[np.uint64]
Floats = NDArray[np.float32]
_FILTERS_KEPT = 32


@dataclass(frozen=True, slots=True)
class Found:
    """Rows with their scores, best first. Both (K,)."""

    rows: RowIds
    scores: Floats


@dataclass(frozen=True, slots=True)
class Matrix:
    """All vectors in memory: row numbers in ascending order (N,), vectors (N, D), which of them are not zero (N,)."""

    rows: RowIds
    vectors: Floats
    usable: NDArray[np.bool_]


class Snapshot:
    """A version of the passages table that does not move while it is read.

    Args:
        store: The collection's tables.
        before: The snapshot this one follows; vectors it holds are not read again.
    """

    def __init__(self, store: Store, before: Snapshot | None = None) -> None:
        self._store = store
        self._table = store.pinned()
        self.version: int = self._table.version
        self._filters: OrderedDict[str, RowIds] = OrderedDict()
        with lance_errors("reading", store.address):
            count: int = self._table.count_rows()
            fits = count * store.dim * 4 <= store.settings.cache_bytes
            self.matrix: Matrix | None = self._load(before.matrix if before is not None else None) if fits else None
            self.count = count
            self.text_indexed = any(CONTENT in index.columns for index in self._table.list_indices())

    def is_latest(self) -> bool:
        """Tell whether no later version has been committed."""
        with lance_errors("reading", self._store.address):
            return bool(self._store.passages.version == self.version)

    def columns(self) -> dict[str, str]:
        """Return the columns that filters may use, with their types."""
        return self._store.columns()

    def lexical(self, text: str, where: str | None, depth: int) -> Found:
        """Return the rows with the largest BM25 for a query's words."""
        from lancedb.query import MatchQuery

        if not text or not self.count:
            return _nothing()
        with _reading(self._store, where):
            query = self._table.search(MatchQuery(text, CONTENT), query_type="fts")  # type: ignore[call-arg]
            if where:
                query = query.where(where, prefilter=True)
            # asking for no column but the score spares a pass over the data files
            table = query.select(["_score"]).with_row_id(True).limit(depth).to_arrow()
        return Found(_numbers(table["_rowid"]), table["_score"].to_numpy().astype(np.float32))

    def dense(self, vector: Floats, where: str | None, depth: int) -> Found:
        """Return the rows nearest by cosine; rows whose vector is zero are near to nothing."""
        if not self.count or not vector.any():
            return _nothing()
        if self.matrix is None:
            return self._dense_on_disk(vector, where, depth)
        scores = self.matrix.vectors @ vector  # (N, D) @ (D,) -> (N,)
        allowed = self.matrix.usable
        if where:
            rows = self._matching(where)
            allowed = allowed & np.isin(self.matrix.rows, rows, assume_unique=True)
        if not allowed.all():
            scores = np.where(allowed, scores, -np.inf)
        depth = min(depth, int(allowed.sum()))
        if depth == 0:
            return _nothing()
        top = np.argpartition(-scores, depth - 1)[:depth]
        top = top[np.argsort(-scores[top], kind="stable")]
        return Found(self.matrix.rows[top], scores[top])

    def cosines(self, vector: Floats, rows: RowIds) -> Floats:
        """Return the cosine of some rows with a vector, in their order."""
        if not len(rows):
            return np.empty(0, np.float32)
        if self.matrix is not None:
            return self.matrix.vectors[np.searchsorted(self.matrix.rows, rows)] @ vector
        return vectors_of(self.take(rows, ["vector"])["vector"], self._store.dim) @ vector

    def take(self, rows: RowIds, columns: Sequence[str]) -> pa.Table:
        """Return columns of some rows, in their order."""
        with lance_errors("reading", self._store.address):
            table = self._table.take_row_ids([int(row) for row in rows]).with_row_id().select(list(columns)).to_arrow()
        where = {row: index for index, row in enumerate(table["_rowid"].to_pylist())}
        return table.take([where[int(row)] for row in rows])

    def find(self, where: str, columns: Sequence[str]) -> pa.Table:
        """Return columns, and ``_rowid``, of the rows a condition holds for."""
        with _reading(self._store, where):
            return self._table.search().where(where).select(list(columns)).with_row_id(True).limit(None).to_arrow()

    def _matching(self, where: str) -> RowIds:
        rows = self._filters.get(where)
        if rows is None:
            rows = _numbers(self.find(where, ["ordinal"])["_rowid"])
            self._filters[where] = rows
            while len(self._filters) > _FILTERS_KEPT:
                self._filters.popitem(last=False)
        return rows

    def _dense_on_disk(self, vector: Floats, where: str | None, depth: int) -> Found:
        kind = np.float16 if self._store.settings.vector_type == "float16" else np.float32
        condition = f"{CONTENT} != ''" + (f" AND ({where})" if where else "")
        with _reading(self._store, where):
            query = self._table.search(vector.astype(kind), vector_column_name="vector").distance_type("dot")
            query = query.where(condition, prefilter=True).select(["_distance"]).with_row_id(True)
            table = query.limit(depth).to_arrow()
        rows, scores = _numbers(table["_rowid"]), 1.0 - table["_distance"].to_numpy().astype(np.float32)
        return Found(rows[scores != 0.0], scores[scores != 0.0])

    def _load(self, before: Matrix | None) -> Matrix:
        """Read the vectors; a row keeps its number until compaction, so only numbers not seen yet are read."""
        dim = self._store.dim
        if before is None:
            table = self._table.search().select(["vector"]).with_row_id(True).limit(None).to_arrow()
            rows, vectors = _numbers(table["_rowid"]), vectors_of(table["vector"], dim)
        else:
            rows = _numbers(self._table.search().select(["ordinal"]).with_row_id(True).limit(None).to_arrow()["_rowid"])
            old = np.isin(rows, before.rows, assume_unique=True)
            vectors = np.empty((len(rows), dim), np.float32)
            vectors[old] = before.vectors[np.searchsorted(before.rows, rows[old])]
            fresh = rows[~old]
            if len(fresh):
                vectors[~old] = vectors_of(self.take(fresh, ["vector"])["vector"], dim)
        order = np.argsort(rows)
        if not np.array_equal(order, np.arange(len(rows))):
            rows, vectors = rows[order], vectors[order]
        return Matrix(rows, vectors, np.einsum("nd,nd->n", vectors, vectors) > 0.0)


@contextmanager
def _reading(store: Store, where: str | None) -> Iterator[None]:
    with lance_errors("searching", store.address), filter_errors(where, store.columns):
        yield


def _numbers(column: pa.ChunkedArray) -> RowIds:
    return column.to_numpy().astype(np.uint64, copy=False)  # type: ignore[no-any-return]


def _nothing() -> Found:
    return Found(np.empty(0, np.uint64), np.empty(0, np.float32))
