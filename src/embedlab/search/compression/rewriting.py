"""Rewriting the vectors of a collection: a column is filled beside the others, and one commit puts it in its place.

Nothing reads the new column before that commit. Whoever dies, or is interrupted, or fails while it is written leaves
the collection as it was, but for a column and an index that ``tidy`` takes away, which every writer calls first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import CollectionError, EmbedlabError
from embedlab.search.compression.column import CODE, FORMER, PENDING
from embedlab.search.store import VECTOR, lance_errors

if TYPE_CHECKING:
    import pyarrow as pa

    from embedlab.search.intake import Stop
    from embedlab.search.store import Store

_READ_ROWS = 4096
_COMMIT_BYTES = 32 << 20  # a commit is worth this much; more than one is in memory at no time
OnShare = Callable[[str, float], None]


def rows_of(store: Store, columns: list[str], *, row_ids: bool = False) -> Iterator[pa.Table]:
    """Read columns of all rows of the present version, batch by batch.

    Args:
        store: The collection's tables.
        columns: The columns.
        row_ids: Whether to read ``_rowid`` as well.

    Yields:
        The rows, in the order of storage.
    """
    import pyarrow as pa

    with lance_errors("reading", store.address):
        query = store.passages.search().select(columns).with_row_id(row_ids).limit(None)
        for read in query.to_batches(_READ_ROWS):
            if read.num_rows:
                yield pa.Table.from_batches([read])


def fill(
    store: Store,
    field: pa.Field,
    columns: list[str],
    values: Callable[[pa.Table], pa.Array],
    *,
    told: Callable[[float], None],
    stop: Stop,
) -> None:
    """Write a column beside the others; ``switch`` puts it in its place.

    Args:
        store: The collection's tables; the caller holds the lock.
        field: The column as it shall be; it is called ``PENDING`` until then.
        columns: Columns that the values are made of.
        values: Makes the values of some rows.
        told: Told the share that is done, in [0, 1].
        stop: Asked between batches whether to stop.

    Raises:
        KeyboardInterrupt: it was asked to stop; the column is gone again.
        CollectionError: it can't be written; the column is gone again.
    """
    import pyarrow as pa
    from lancedb.index import BTree

    pending = field.with_name(PENDING)
    with lance_errors("rewriting", store.address), gone_if_it_fails(store):
        table, count = store.passages, store.passages.count_rows()
        if not count:
            table.add_columns([pending])
            return
        table.add_columns([pending])
        schema = pa.schema([pa.field("id", pa.string()), pending])
        waiting: list[pa.Table] = []
        done, size = 0, 0
        for rows in rows_of(store, ["id", *columns]):  # of the version in which reading began
            waiting.append(pa.table([rows["id"], values(rows)], schema=schema))
            done += rows.num_rows
            size += waiting[-1].nbytes
            if size > _COMMIT_BYTES or done == count:
                # rows that an index finds keep their place, and only the new column is written: the text, its index and
                # the other vectors stay as they are. Each commit takes its files out of that index again.
                table.create_index("id", config=BTree(), replace=True)
                table.merge_insert("id").when_matched_update_all().execute(pa.concat_tables(waiting))
                waiting, size = [], 0
            told(done / count)
            if stop.asked:
                raise KeyboardInterrupt
        table.drop_index(_index_of_ids(store))


def switch(store: Store, name: str) -> None:
    """Put the filled column in its place: one commit, after which every search uses it.

    Args:
        store: The collection's tables; the caller holds the lock.
        name: ``CODE`` or ``VECTOR``; a column of that name goes.
    """
    with lance_errors("rewriting", store.address):
        renamed: list[Any] = [{"path": PENDING, "rename": name}]
        if name in store.passages.schema.names:
            renamed.insert(0, {"path": name, "rename": FORMER})
        store.passages.alter_columns(*renamed)


def drop_codes(store: Store) -> None:
    """Take the codes away, so that vectors are searched again.

    Args:
        store: The collection's tables; the caller holds the lock.

    Raises:
        CollectionError: there are no vectors to fall back to.
    """
    if VECTOR not in store.passages.schema.names:
        raise CollectionError(f"collection {store.name!r} has no vectors beside its codes: they must be made first")
    with lance_errors("rewriting", store.address):
        store.passages.drop_columns([CODE])


def drop_vectors(store: Store) -> None:
    """Take the vectors away and write what is left anew, so that their bytes on disk go too.

    Args:
        store: The collection's tables; the caller holds the lock.
    """
    with lance_errors("rewriting", store.address):
        store.passages.drop_columns([VECTOR])
        # files are written anew when there are two or more small ones beside each other: one row moves out of its own
        first = store.passages.search().select(["id"]).limit(1).to_arrow()["id"]
        if len(first):
            where = "id = '" + first[0].as_py().replace("'", "''") + "'"
            store.passages.update(where=where, values_sql={"prefix": "prefix"})
        store.compact()  # brings the row into the text index: only files that are both in it are merged
        store.compact()


def tidy(store: Store) -> list[str]:
    """Take away what an interrupted rewriting left; a collection without leftovers is not touched.

    Args:
        store: The collection's tables; the caller holds the lock.

    Returns:
        What was taken away.
    """
    left = leftovers(store)
    with lance_errors("tidying", store.address):
        index = _index_of_ids(store)
        if index:
            store.passages.drop_index(index)
        columns = [name for name in left if name in (PENDING, FORMER)]
        if columns:
            store.passages.drop_columns(columns)
    return left


def leftovers(store: Store) -> list[str]:
    """Name what an interrupted rewriting left.

    Args:
        store: The collection's tables.

    Returns:
        Columns and indices.
    """
    with lance_errors("reading", store.address):
        found = [name for name in store.passages.schema.names if name in (PENDING, FORMER)]
        index = _index_of_ids(store)
    return [*found, index] if index else found


@contextmanager
def gone_if_it_fails(store: Store) -> Iterator[None]:
    """Take the pending column away if the block raises.

    Args:
        store: The collection's tables; the caller holds the lock.
    """
    try:
        yield
    except BaseException:
        with suppress(EmbedlabError):  # on a full disk, say: the next writer tidies up
            tidy(store)
        raise


def _index_of_ids(store: Store) -> str:
    return next((str(index.name) for index in store.passages.list_indices() if list(index.columns) == ["id"]), "")
