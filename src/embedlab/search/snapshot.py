"""One version of a collection as searches see it: full-text lookups, exact nearest vectors, rows by number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedlab.search.filters import filter_errors
from embedlab.search.matrix import Floats, Matrix, RowIds
from embedlab.search.store import CONTENT, SHOWN, Store, lance_errors, soon, vectors_of

if TYPE_CHECKING:
    import pyarrow as pa

_FILTERS_KEPT = 32
_TAKES_BEFORE_HOLDING = 8  # a single search must not read all texts, but a service soon saves by it


@dataclass(frozen=True, slots=True)
class Found:
    """Rows with their scores, best first. Both (K,)."""

    rows: RowIds
    scores: Floats


class Snapshot:
    """A version of the passages table that does not move while it is read.

    Args:
        store: The collection's tables.
        before: The snapshot this one follows; vectors it holds are not read again.
    """

    def __init__(self, store: Store, before: Snapshot | None = None) -> None:
        self._store = store
        self._table = store.pinned()
        self._filters: OrderedDict[str, RowIds] = OrderedDict()
        self._guard = threading.Lock()
        self._takes = 0
        # a row never changes, so what was held of an earlier version still holds
        self._held: tuple[RowIds, pa.Table] | None = before._held if before is not None else None
        with lance_errors("reading", store.address):
            self.version: int = soon(self._table.version()).result()
            count: int = soon(self._table.count_rows()).result()
            self._spare_bytes = store.settings.cache_bytes - count * store.dim * 4
            fits = self._spare_bytes >= 0
            self.matrix: Matrix | None = self._load(before.matrix if before is not None else None) if fits else None
            self.count = count

    def is_latest(self) -> bool:
        """Tell whether no later version has been committed."""
        with lance_errors("reading", self._store.address):
            return bool(self._store.passages.version == self.version)

    def columns(self) -> dict[str, str]:
        """Return the columns that filters may use, with their types."""
        return self._store.columns()

    def lexical(self, text: str, where: str | None, depth: int) -> Callable[[], Found]:
        """Begin to look for the rows with the largest BM25 for a query's words; call the result to have them."""
        from lancedb.query import MatchQuery

        if not text or not self.count:
            return _nothing
        with _reading(self._store, where):
            query = self._table.query().nearest_to_text(MatchQuery(text, CONTENT))  # type: ignore[call-arg]
            # asking for no column but the score spares a pass over the data files
            query = query.select(["_score"]).with_row_id().limit(depth)
            future = soon((query.where(where) if where else query).to_arrow())

        def collect() -> Found:
            with _reading(self._store, where):
                table = future.result()
            return Found(_numbers(table["_rowid"]), table["_score"].to_numpy().astype(np.float32))

        return collect

    def dense(self, vector: Floats, where: str | None, depth: int) -> Found:
        """Return the rows nearest by cosine; rows whose vector is zero are near to nothing."""
        if not self.count or not vector.any():
            return _nothing()
        if self.matrix is None:
            return self._dense_on_disk(vector, where, depth)
        # vecdot, not @: a threaded matrix product waits for processors that the full-text search keeps busy
        scores: Floats = np.vecdot(self.matrix.vectors, vector)  # (N, D), (D,) -> (N,)
        allowed = self.matrix.among(self._matching(where)) if where else self.matrix.usable
        if allowed is not None:
            scores[~allowed] = -np.inf
        depth = min(depth, len(scores) if allowed is None else int(allowed.sum()))
        if depth == 0:
            return _nothing()
        top = np.sort(np.argpartition(scores, len(scores) - depth)[-depth:])  # sorted: ties keep the order of the rows
        top = top[np.argsort(-scores[top], kind="stable")]
        return Found(self.matrix.rows[top], scores[top])

    def cosines(self, vector: Floats, rows: RowIds) -> Floats:
        """Return the cosine of some rows with a vector, in their order."""
        if not len(rows):
            return np.empty(0, np.float32)
        return self.vectors(rows) @ vector

    def vectors(self, rows: RowIds) -> Floats:
        """Return the vectors of some rows, in their order."""
        return self.matrix.of_rows(rows) if self.matrix is not None else self._read(rows)

    def take(self, rows: RowIds, columns: Sequence[str]) -> pa.Table:
        """Return columns of some rows, in their order."""
        with lance_errors("reading", self._store.address):
            query = self._table.take_row_ids([int(row) for row in rows]).with_row_id().select(list(columns))
            table = soon(query.to_arrow()).result()
        where = {row: index for index, row in enumerate(table["_rowid"].to_pylist())}
        return table.take([where[int(row)] for row in rows])

    def shown(self, rows: RowIds) -> pa.Table:
        """Return what some passages are shown with, in their order, from memory if that has become worth it."""
        held = self._held
        if held is not None:
            numbers, table = held
            at = np.minimum(np.searchsorted(numbers, rows), len(numbers) - 1)
            if np.array_equal(numbers[at], rows):
                return table.take(at)
        self._takes += 1
        if self._takes > _TAKES_BEFORE_HOLDING and self.matrix is not None:
            with self._guard:
                if self._takes > _TAKES_BEFORE_HOLDING:
                    self._hold()
        return self.take(rows, SHOWN)

    def _hold(self) -> None:
        self._takes = 0
        with lance_errors("reading", self._store.address):
            # files hold text compressed, hence twice; what they hold of vectors is counted already
            bytes_on_disk = self._store.stats("total_bytes")
            if not self.count or 2 * bytes_on_disk - self.count * self._store.dim * 4 > self._spare_bytes:
                return
            table = self._all(SHOWN).sort_by("_rowid")
        # one chunk per column: taking rows from many small ones is slow
        self._held = _numbers(table["_rowid"]), table.combine_chunks()

    def find(self, where: str, columns: Sequence[str]) -> pa.Table:
        """Return columns, and ``_rowid``, of the rows a condition holds for."""
        with _reading(self._store, where):
            query = self._table.query().where(where).select(list(columns)).with_row_id()
            return soon(query.to_arrow()).result()

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
            query = self._table.query().nearest_to(vector.astype(kind)).column("vector").distance_type("dot")
            query = query.where(condition).select(["_distance"]).with_row_id().limit(depth)
            table = soon(query.to_arrow()).result()
        rows, scores = _numbers(table["_rowid"]), 1.0 - table["_distance"].to_numpy().astype(np.float32)
        return Found(rows[scores != 0.0], scores[scores != 0.0])

    def _load(self, before: Matrix | None) -> Matrix:
        if before is not None:
            after = before.follow(_numbers(self._all(["ordinal"])["_rowid"]), self._read)
            if after is not None:
                return after
        table = self._all(["vector"])
        return Matrix.of(_numbers(table["_rowid"]), vectors_of(table["vector"], self._store.dim))

    def _all(self, columns: Sequence[str]) -> pa.Table:
        return soon(self._table.query().select(list(columns)).with_row_id().to_arrow()).result()

    def _read(self, rows: RowIds) -> Floats:
        return vectors_of(self.take(rows, ["vector"])["vector"], self._store.dim)


@contextmanager
def _reading(store: Store, where: str | None) -> Iterator[None]:
    with lance_errors("searching", store.address), filter_errors(where, store.columns):
        yield


def _numbers(column: pa.ChunkedArray) -> RowIds:
    return column.to_numpy().astype(np.uint64, copy=False)  # type: ignore[no-any-return]


def _nothing() -> Found:
    return Found(np.empty(0, np.uint64), np.empty(0, np.float32))
