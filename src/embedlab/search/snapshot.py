"""One version of a collection as searches see it: full-text lookups, exact nearest vectors, rows by number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab.search.filters import filter_errors
from embedlab.search.store import CONTENT, SHOWN, Store, lance_errors, vectors_of

if TYPE_CHECKING:
    import pyarrow as pa

RowIds = NDArray[np.uint64]
Floats = NDArray[np.float32]
_FILTERS_KEPT = 32
_TAKES_BEFORE_HOLDING = 8  # one search from the command line must not read all texts; a service soon saves by it


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
    usable: NDArray[np.bool_] | None  # None: all of them are


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
        self._guard = threading.Lock()
        self._takes = 0
        self._held: tuple[RowIds, pa.Table] | None = None
        with lance_errors("reading", store.address):
            count: int = self._table.count_rows()
            self._spare_bytes = store.settings.cache_bytes - count * store.dim * 4
            fits = self._spare_bytes >= 0
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
        # vecdot, not @: a threaded matrix product waits for processors that the full-text search keeps busy
        scores: Floats = np.vecdot(self.matrix.vectors, vector)  # (N, D), (D,) -> (N,)
        allowed = self.matrix.usable
        if where:
            matching = np.isin(self.matrix.rows, self._matching(where), assume_unique=True)
            allowed = matching if allowed is None else allowed & matching
        if allowed is not None:
            scores[~allowed] = -np.inf
        depth = min(depth, len(scores) if allowed is None else int(allowed.sum()))
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
            known: Floats = np.vecdot(self.matrix.vectors[np.searchsorted(self.matrix.rows, rows)], vector)
            return known
        return vectors_of(self.take(rows, ["vector"])["vector"], self._store.dim) @ vector

    def take(self, rows: RowIds, columns: Sequence[str]) -> pa.Table:
        """Return columns of some rows, in their order."""
        with lance_errors("reading", self._store.address):
            table = self._table.take_row_ids([int(row) for row in rows]).with_row_id().select(list(columns)).to_arrow()
        where = {row: index for index, row in enumerate(table["_rowid"].to_pylist())}
        return table.take([where[int(row)] for row in rows])

    def shown(self, rows: RowIds) -> pa.Table:
        """Return what some passages are shown with, in their order, from memory if that has become worth it."""
        self._takes += 1
        if self._held is None and self._takes > _TAKES_BEFORE_HOLDING and self.matrix is not None:
            with self._guard:
                if self._held is None:
                    self._hold()
        if self._held is None:
            return self.take(rows, SHOWN)
        numbers, table = self._held
        return table.take(np.searchsorted(numbers, rows))

    def _hold(self) -> None:
        with lance_errors("reading", self._store.address):
            # files hold text compressed, hence twice; what they hold of vectors is counted already
            stats: Any = self._table.stats()  # a dict in some versions, whatever its annotation says
            bytes_on_disk = stats["total_bytes"] if isinstance(stats, dict) else stats.total_bytes
            if 2 * bytes_on_disk - self.count * self._store.dim * 4 > self._spare_bytes:
                self._takes = -(1 << 62)  # too large to hold: never try again on this version
                return
            table = self._table.search().select(list(SHOWN)).with_row_id(True).limit(None).to_arrow().sort_by("_rowid")
        # one chunk per column: taking rows from many small ones is slow
        self._held = _numbers(table["_rowid"]), table.combine_chunks()

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
        usable = np.einsum("nd,nd->n", vectors, vectors) > 0.0
        return Matrix(rows, vectors, None if usable.all() else usable)


@contextmanager
def _reading(store: Store, where: str | None) -> Iterator[None]:
    with lance_errors("searching", store.address), filter_errors(where, store.columns):
        yield


def _numbers(column: pa.ChunkedArray) -> RowIds:
    return column.to_numpy().astype(np.uint64, copy=False)  # type: ignore[no-any-return]


def _nothing() -> Found:
    return Found(np.empty(0, np.uint64), np.empty(0, np.float32))
