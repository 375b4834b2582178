"""The two Lance tables of a collection, and the only place that talks to LanceDB about writing.

``passages`` is the single truth: every row carries what is known of its document, a document is never split over two
commits and a changed one is swapped in a single commit, so readers see whole documents only. A document without text
keeps one row with empty text. ``files`` merely remembers which files are fully taken in; losing a row of it costs a
second look at the file, never a passage.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import CollectionError, EmbedlabError
from embedlab.search.compression.column import CODE, CodeColumn, codes_array, open_codec, vectors_from
from embedlab.search.filters import filter_errors
from embedlab.search.places import Description, Place, is_uri
from embedlab.search.records import Scalar, Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from embedlab.search.codecs import Codec

T = TypeVar("T")

PASSAGES = "passages"
FILES = "files"
VECTOR = "vector"
CONTENT = "content"  # title, headings and text in one column: what is embedded and full-text indexed
# what a passage is shown with
SHOWN = ("id", "source", "title", "format", "headings", "start", "end", "page", "prefix", CONTENT, "metadata")
_HIDDEN = (VECTOR, "doc", "prefix", "metadata", "content_hash", "doc_passages", "ordinal")  # not offered to filters
_MAX_METADATA_COLUMNS = 64
_OLD_VERSIONS_KEPT = timedelta(minutes=30)  # a reader holds a version for the length of one call
_DELETE_CHUNK = 2000
_MOST_CRUMBS, _CRUMB_ROWS = 32, 1024


def document_key(root: str, source: str) -> str:
    """Return the key of a document: the same place always gives the same key."""
    return hashlib.blake2b(f"{root}\0{source}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def passage_schema(dim: int, vector_type: str, extra: Sequence[pa.Field] = ()) -> pa.Schema:
    """Return the schema of the passages table.

    Args:
        dim: Width of the vectors.
        vector_type: ``"float16"`` or ``"float32"``.
        extra: Columns for metadata.
    """
    import pyarrow as pa

    item = pa.float16() if vector_type == "float16" else pa.float32()
    text, time = pa.string(), pa.timestamp("us", tz="UTC")
    own = [
        ("id", text), ("doc", text), ("ordinal", pa.int32()), ("doc_passages", pa.int32()), ("root", text),
        ("file", text), ("source", text), ("title", text), ("format", text), ("headings", pa.list_(text)),
        ("start", pa.int64()), ("end", pa.int64()), ("page", pa.int32()), ("prefix", pa.int32()), (CONTENT, text),
        ("content_hash", text), ("metadata", text), ("mtime", time), ("indexed_at", time),
        (VECTOR, pa.list_(item, dim)),
    ]  # fmt: skip
    return pa.schema([pa.field(name, kind) for name, kind in own] + list(extra))


def file_schema() -> pa.Schema:
    """Return the schema of the files table."""
    import pyarrow as pa

    text, whole = pa.string(), pa.int64()
    own = {"key": text, "root": text, "file": text, "size": whole, "mtime_ns": whole, "documents": pa.int32()}
    return pa.schema([*own.items(), ("indexed_at", pa.timestamp("us", tz="UTC"))])


def column_name(key: str, taken: Iterable[str]) -> str:
    """Return the column that holds a metadata key: word characters only, never one of the collection's own."""
    name = re.sub(r"\W+", "_", key).strip("_") or "value"
    return f"meta_{name}" if name in taken else name


def vectors_of(column: pa.ChunkedArray, dim: int) -> NDArray[np.float32]:
    """Return a vector column as one matrix (N, D) float32."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in column.chunks]
    if not parts:
        return np.empty((0, dim), np.float32)
    return np.concatenate(parts).astype(np.float32, copy=False)


@contextmanager
def lance_errors(doing: str, where: str) -> Iterator[None]:
    """Turn whatever LanceDB raises into one clear CollectionError."""
    try:
        yield
    except EmbedlabError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        text = re.sub(r", [\w./-]+\.rs:\d+:\d+", "", str(error)).strip()
        if "No space left" in text or "os error 28" in text or getattr(error, "errno", None) == 28:
            raise CollectionError(
                f"the disk is full while {doing} {where}: what was committed before is intact; "
                "free some space and run the same command again"
            ) from error
        if "Permission denied" in text or "os error 13" in text or "Read-only file system" in text:
            raise CollectionError(f"not allowed to write while {doing} {where}: check the folder's owner") from error
        raise CollectionError(f"{doing} {where} failed: {text.splitlines()[0] if text else error!r}") from error


def soon(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on LanceDB's own event loop; a loop of ours would be one thread more, and not survive a fork."""
    from lancedb.background_loop import LOOP

    return asyncio.run_coroutine_threadsafe(coroutine, LOOP.loop)


class Store:
    """Open tables of one collection.

    Args:
        address: Folder or URI that holds the tables.
        settings: The collection's settings.
        dim: Width of the vectors.
        name: Name of the collection, for what is said when something is wrong.
        model: Fingerprint of the model whose vectors are stored; empty if that is not known.
        create: Whether to make the tables.
    """

    def __init__(
        self, address: str, *, settings: Settings, dim: int, name: str = "", model: str = "", create: bool = False
    ) -> None:
        import lancedb

        self.address, self.settings, self.dim, self.name, self.model = address, settings, dim, name or address, model
        self._readers: Any = None
        self._codecs: dict[CodeColumn, Codec] = {}
        with lance_errors("opening", address):
            # interval 0: every read looks for newer versions, so that other processes' commits are seen
            self._db = lancedb.connect(address, read_consistency_interval=timedelta(0))
            if create:
                self.passages = self._db.create_table(PASSAGES, schema=passage_schema(dim, settings.vector_type))
                self.files = self._db.create_table(FILES, schema=file_schema())
            else:
                self.passages = self._db.open_table(PASSAGES)
                self.files = self._db.open_table(FILES)

    @classmethod
    def at(cls, spot: Place, description: Description) -> Store:
        """Open the tables of a collection."""
        return cls(
            spot.address,
            settings=description.settings,
            dim=description.dim,
            name=spot.name,
            model=description.stored_model,
        )

    def pinned(self) -> Any:
        """Return an asynchronous handle of the passages table that stays at the present version.

        Searches use it through ``soon``: going straight to the coroutines costs half of what the blocking methods do.
        """
        import lancedb

        with lance_errors("opening", self.address):
            if self._readers is None:
                self._readers = soon(lancedb.connect_async(self.address)).result()
            return soon(self._readers.open_table(PASSAGES, version=self.passages.version)).result()

    def columns(self) -> dict[str, str]:
        """Return the columns that filters may use, with their types."""
        shown = (each for each in self.passages.schema if each.name not in _HIDDEN and not each.name.startswith("_"))
        return {field.name: str(field.type) for field in shown}

    def coded(self) -> CodeColumn | None:
        """Return what the present version says about its codes; None if the collection is not compressed."""
        return CodeColumn.of(self.passages.schema)

    def codec(self, column: CodeColumn) -> Codec:
        """Return the codec of a column of codes.

        Raises:
            CollectionError: it is missing, damaged, or not that of these codes.
        """
        if column not in self._codecs:
            self._codecs[column] = open_codec(column, self.address, name=self.name, dim=self.dim, model=self.model)
        return self._codecs[column]

    def vector_column(self, schema: pa.Schema | None = None) -> str:
        """Return the column that vectors are read from: the vectors themselves, or the codes if they were dropped."""
        names = (self.passages.schema if schema is None else schema).names
        return VECTOR if VECTOR in names else CODE

    def vectors_in(self, table: pa.Table) -> NDArray[np.float32]:
        """Return the vectors of rows that were read with their ``vector_column``, decoded if need be; (N, D)."""
        if VECTOR in table.column_names:
            return vectors_of(table[VECTOR], self.dim)
        column = CodeColumn.of(table.schema)
        if column is None:
            raise CollectionError(f"collection {self.name!r} has neither vectors nor codes: restore it from a backup")
        return vectors_from(self.codec(column), table[CODE])

    def stored_vectors(self, vectors: NDArray[np.float32]) -> dict[str, pa.Array]:
        """Return the columns that hold some vectors (N, D) in the present version: as they are, as codes, or both."""
        import pyarrow as pa

        schema, kind = self.passages.schema, np.float16 if self.settings.vector_type == "float16" else np.float32
        kept = vectors.astype(kind)
        columns: dict[str, pa.Array] = {}
        if VECTOR in schema.names:
            columns[VECTOR] = pa.FixedSizeListArray.from_arrays(pa.array(kept.ravel()), type=schema.field(VECTOR).type)
        column = CodeColumn.of(schema)
        if column is not None:  # of the vectors as they are stored, so that codes can be made again
            columns[CODE] = codes_array(self.codec(column), kept.astype(np.float32))
        return columns

    def scan(
        self, columns: Sequence[str], where: str | None = None, *, given: str | None = None, limit: int | None = None
    ) -> pa.Table:
        """Read some columns of the rows for which our own condition and that of a person hold."""
        both = " AND ".join(f"({part})" for part in (where, given) if part)
        with lance_errors("reading", self.address), filter_errors(given, self.columns):
            query = self.passages.search().select(list(columns))
            if both:
                query = query.where(both)
            return query.limit(limit).to_arrow()

    def known(self, where: str = "true") -> pa.Table:
        """Return one row per document: doc, root, file, source, content_hash, doc_passages."""
        wanted = ["doc", "root", "file", "source", "content_hash", "doc_passages"]
        return self.scan(wanted, f"ordinal = 0 AND {where}")

    # writing: the caller holds the collection's lock

    def replace(self, rows: pa.Table | None, drop: Sequence[str]) -> None:
        """Write whole documents in one commit, in place of earlier versions of them and of documents that are gone.

        Args:
            rows: All passages of the documents, in the table's schema; None if documents only go.
            drop: Keys of documents whose present rows go: those replaced by ``rows`` and those that vanished.
        """
        with lance_errors("writing", self.address):
            if rows is None:
                self._delete(drop)
                return
            if not drop:
                self.passages.add(rows)
                return
            merge = self.passages.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete(f"doc IN ({quoted(drop)})").execute(rows)

    def delete(self, docs: Sequence[str]) -> None:
        """Delete documents by key."""
        with lance_errors("deleting from", self.address):
            self._delete(docs)

    def _delete(self, docs: Sequence[str]) -> None:
        for start in range(0, len(docs), _DELETE_CHUNK):
            self.passages.delete(f"doc IN ({quoted(docs[start : start + _DELETE_CHUNK])})")

    def remember_files(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Note files as fully taken in; call it after their passages are committed."""
        import pyarrow as pa

        if not rows:
            return
        with lance_errors("writing", self.address):
            table = pa.Table.from_pylist([dict(row) for row in rows], schema=file_schema())
            merge = self.files.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(table)

    def forget_files(self, keys: Sequence[str]) -> None:
        """Drop notes of files; call it before their passages change, so that a crash leads to a second look."""
        with lance_errors("writing", self.address):
            for start in range(0, len(keys), _DELETE_CHUNK):
                self.files.delete(f"key IN ({quoted(keys[start : start + _DELETE_CHUNK])})")

    def known_files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of change of every file that is fully taken in, by key."""
        with lance_errors("reading", self.address):
            table = self.files.search().select(["key", "size", "mtime_ns"]).limit(None).to_arrow()
        rows = zip(*(table[name].to_pylist() for name in ("key", "size", "mtime_ns")), strict=True)
        return {key: (size, mtime_ns) for key, size, mtime_ns in rows}

    def ensure_columns(self, metadata: Iterable[Mapping[str, Scalar]]) -> dict[str, str]:
        """Add a column for every metadata key that has none yet, and return the column of each key.

        A key beyond the first 64 gets no column: it is kept with the document, but filters do not know it.
        """
        import pyarrow as pa

        schema = self.passages.schema
        own = set(passage_schema(self.dim, self.settings.vector_type).names)
        room = _MAX_METADATA_COLUMNS - sum(name not in own and not name.startswith("_") for name in schema.names)
        columns: dict[str, str] = {}
        fresh: dict[str, pa.Field] = {}
        for facts in metadata:
            for key, value in facts.items():
                if key in columns:
                    continue
                name = column_name(key, own)
                if name not in schema.names and name not in fresh:
                    if len(fresh) >= room:
                        continue
                    # one number type only: a later 2.5 must fit where the first value was 2
                    kind = pa.bool_() if isinstance(value, bool) else pa.string()
                    kind = pa.float64() if isinstance(value, int | float) and not isinstance(value, bool) else kind
                    fresh[name] = pa.field(name, kind)
                columns[key] = name
        if fresh:
            with lance_errors("adding columns to", self.address):
                self.passages.add_columns(list(fresh.values()))
        return columns

    def index_text(self, *, rebuild: bool = False) -> None:
        """Make the full-text index, or bring it up to date when enough rows are outside of it."""
        from lancedb.index import FTS

        with lance_errors("indexing the text of", self.address):
            rows = self.passages.count_rows()
            if rows == 0:
                return
            chosen = self.settings
            if rebuild or not any(CONTENT in index.columns for index in self.passages.list_indices()):
                config = FTS(
                    with_position=chosen.phrase_search,
                    language=chosen.language,
                    stem=chosen.stem,
                    remove_stop_words=chosen.remove_stop_words,
                )
                self.passages.create_index(CONTENT, config=config, replace=True)
            elif self.unindexed_rows() > max(256, rows // 50) or self._in_crumbs(rows):
                self.compact()

    def _in_crumbs(self, rows: int) -> bool:
        """Tell whether the rows lie in many files of a few rows each, as after many small additions."""
        fragments = self.stats("fragment_stats", "num_fragments")
        return fragments > _MOST_CRUMBS and rows < fragments * _CRUMB_ROWS

    def stats(self, *path: str) -> int:
        """Return one of the table's statistics; they come as a dict in some versions, whatever the annotation says."""
        found: Any = self.passages.stats()
        for name in path:
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        return int(found)

    def unindexed_rows(self) -> int:
        """Return how many rows the full-text index does not cover yet; searches scan those."""
        for index in self.passages.list_indices():
            if CONTENT in index.columns:
                stats = self.passages.index_stats(index.name)
                return int(stats.num_unindexed_rows) if stats is not None else 0
        return int(self.passages.count_rows())

    def compact(self) -> None:
        """Merge small files, bring indices up to date and drop versions no reader can still be using."""
        with lance_errors("compacting", self.address):
            # unverified files are leftovers of writers that died; where the lock holds, no writer is alive
            alone = not is_uri(self.address)
            for table in (self.passages, self.files):
                table.optimize(cleanup_older_than=_OLD_VERSIONS_KEPT, delete_unverified=alone)


def metadata_columns(
    facts: Sequence[Mapping[str, Scalar]], columns: Mapping[str, str], schema: pa.Schema
) -> dict[str, list[Any]]:
    """Lay metadata out in columns; a value that does not fit its column's type becomes null there."""
    import pyarrow as pa

    laid: dict[str, list[Any]] = {}
    for key, name in columns.items():
        kind = schema.field(name).type
        values: list[Any] = []
        for row in facts:
            value = row.get(key)
            if value is None or (pa.types.is_string(kind) and isinstance(value, str)):
                values.append(value)
            elif pa.types.is_string(kind):
                values.append(str(value))
            elif pa.types.is_boolean(kind):
                values.append(value if isinstance(value, bool) else None)
            else:
                values.append(float(value) if isinstance(value, int | float) else None)
        laid[name] = values
    return laid


def to_json(metadata: Mapping[str, Scalar]) -> str:
    """Return metadata as a JSON object, empty text for none (most documents have none)."""
    return json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False) if metadata else ""


def from_json(text: str | None) -> dict[str, Scalar]:
    """Return metadata from its stored form."""
    return dict(json.loads(text)) if text else {}


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


def quoted(values: Iterable[str]) -> str:
    """Return values as a list of SQL strings."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
