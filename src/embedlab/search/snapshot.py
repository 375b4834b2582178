"""One version of a collection as searches see it: full-text lookups, exact nearest vectors, rows by number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab.search.compression.codes import Codes, CodeTable
from embedlab.search.compression.column import CODE, CodeColumn, codes_of
from embedlab.search.filters import filter_errors
from embedlab.search.matrix import Floats, Matrix, RowIds
from embedlab.search.store import CONTENT, SHOWN, VECTOR, Store, lance_errors, soon, vectors_of

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

    Vectors or codes are held in memory from the first search that needs them.

    Args:
        store: The collection's tables.
        before: The snapshot this one follows; what it holds is not read again.
        code: The column of codes to search; one of another name is about to become it.
        verify: How many candidates to score by their vectors; None for what the column says.
    """

    def __init__(
        self, store: Store, before: Snapshot | None = None, *, code: str = CODE, verify: int | None = None
    ) -> None:
        self._store, self._code = store, code
        # whoever has not looked anything up yet passes on what came before
        self._before: Snapshot | None = before._before if before is not None and before._nearby is None else before
        self._table = store.pinned()
        self._filters: OrderedDict[str, RowIds] = OrderedDict()
        self._guard = threading.Lock()
        self._takes = 0
        # a row never changes, so what was held of an earlier version still holds
        self._held: tuple[RowIds, pa.Table] | None = before._held if before is not None else None
        with lance_errors("reading", store.address):
            self.version: int = soon(self._table.version()).result()
            self.count: int = soon(self._table.count_rows()).result()
            schema = soon(self._table.schema()).result()
        self.coded = CodeColumn.of(schema, code)
        self._vector_column = store.vector_column(schema)
        said = self.coded.verify if self.coded is not None and self._vector_column == VECTOR else 0
        self._verify = said if verify is None else verify
        self._spare_bytes = store.settings.cache_bytes - self.count * (
            self.coded.bytes_per_vector if self.coded is not None else store.dim * 4
        )
        self._nearby: Matrix | CodeTable | None = None

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
        held = self._held_vectors()
        if held is None:
            return self._dense_on_disk(vector, where, depth)
        among = self._matching(where) if where else None
        if isinstance(held, Matrix):
            return Found(*held.nearest(vector, among, depth))
        rows, scores = held.nearest(vector, among, max(depth, self._verify))
        return self._verified(vector, rows, scores, depth)

    def cosines(self, vector: Floats, rows: RowIds) -> Floats:
        """Return the cosine of some rows with a vector, in their order."""
        if not len(rows):
            return np.empty(0, np.float32)
        held = self._held_vectors()
        if isinstance(held, CodeTable) and not self._verify:
            return held.scores(vector, rows)
        return self.vectors(rows) @ vector

    def row_ids(self, where: str | None = None) -> RowIds:
        """Return the numbers of all rows, or of those a condition holds for, in any order."""
        if where is not None:
            return self._matching(where)
        with lance_errors("reading", self._store.address):
            return _numbers(self._all(["ordinal"])["_rowid"])

    def vectors(self, rows: RowIds) -> Floats:
        """Return the vectors of some rows, in their order."""
        held = self._held_vectors()
        return held.of_rows(rows) if isinstance(held, Matrix) else self._read(rows)

    @property
    def bytes_held(self) -> int:
        """Bytes of memory that the vectors or codes take; 0 if none are held."""
        held = self._held_vectors()
        return held.bytes_held if held is not None else 0

    def _verified(self, vector: Floats, rows: RowIds, scores: Floats, depth: int) -> Found:
        """Score the first candidates by their vectors on disk; the others stay behind them."""
        count = min(self._verify, len(rows))
        if count:
            exact = self._read(rows[:count]) @ vector
            order = np.argsort(-exact, kind="stable")
            rows = np.concatenate([rows[:count][order], rows[count:]])
            scores = np.concatenate([exact[order], np.minimum(scores[count:], exact.min())])
        return Found(rows[:depth], scores[:depth])

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
        if self._takes > _TAKES_BEFORE_HOLDING and self._spare_bytes >= 0:
            with self._guard:
                if self._takes > _TAKES_BEFORE_HOLDING:
                    self._hold()
        return self.take(rows, SHOWN)

    def _hold(self) -> None:
        self._takes = 0
        with lance_errors("reading", self._store.address):
            # files hold text compressed, hence twice
            bytes_of_text = self._store.stats("total_bytes") - self.count * self._stored_bytes_per_vector()
            if not self.count or 2 * bytes_of_text > self._spare_bytes:
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
            query = self._table.query().nearest_to(vector.astype(kind)).column(VECTOR).distance_type("dot")
            query = query.where(condition).select(["_distance"]).with_row_id().limit(depth)
            table = soon(query.to_arrow()).result()
        rows, scores = _numbers(table["_rowid"]), 1.0 - table["_distance"].to_numpy().astype(np.float32)
        return Found(rows[scores != 0.0], scores[scores != 0.0])

    def _held_vectors(self) -> Matrix | CodeTable | None:
        """Return what vectors are looked up in; None if they are too many to be held. Codes are always held."""
        if self._nearby is None and (self.coded is not None or self._spare_bytes >= 0):
            with self._guard:
                if self._nearby is None:
                    with lance_errors("reading", self._store.address):
                        self._nearby = self._followed() or self._load()
                    self._before = None
        return self._nearby

    def _followed(self) -> Matrix | CodeTable | None:
        before = self._before
        if before is None or before._nearby is None or before.coded != self.coded:
            return None
        present = _numbers(self._all(["ordinal"])["_rowid"])
        if isinstance(before._nearby, Matrix):
            return before._nearby.follow(present, self._read)
        return before._nearby.follow(present, self._read_codes)

    def _load(self) -> Matrix | CodeTable:
        if self.coded is None:
            table = self._all([VECTOR])
            return Matrix.of(_numbers(table["_rowid"]), vectors_of(table[VECTOR], self._store.dim))
        codec = self._store.codec(self.coded)
        table = self._all([self._code])
        codes, there = codes_of(table[self._code], self.coded.bytes_per_vector)
        return CodeTable.of(codec, _numbers(table["_rowid"]), codes, there)

    def _stored_bytes_per_vector(self) -> int:
        kept = 2 if self._store.settings.vector_type == "float16" else 4
        codes = self.coded.bytes_per_vector if self.coded is not None else 0
        return codes + (self._store.dim * kept if self._vector_column == VECTOR else 0)

    def _all(self, columns: Sequence[str]) -> pa.Table:
        return soon(self._table.query().select(list(columns)).with_row_id().to_arrow()).result()

    def _read(self, rows: RowIds) -> Floats:
        return self._store.vectors_in(self.take(rows, [self._vector_column]))

    def _read_codes(self, rows: RowIds) -> tuple[Codes, NDArray[np.bool_]]:
        column = self.take(rows, [self._code])[self._code]
        return codes_of(column, column.type.list_size)


@contextmanager
def _reading(store: Store, where: str | None) -> Iterator[None]:
    with lance_errors("searching", store.address), filter_errors(where, store.columns):
        yield


def _numbers(column: pa.ChunkedArray) -> RowIds:
    return column.to_numpy().astype(np.uint64, copy=False)  # type: ignore[no-any-return]


def _nothing() -> Found:
    return Found(np.empty(0, np.uint64), np.empty(0, np.float32))
