"""What a collection holds, read in bulk: vectors, passages, documents, a description, an export."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.search.filters import normalise_filter
from embedlab.search.places import Description, Place
from embedlab.search.records import CollectionInfo, DocumentInfo, PassageInfo
from embedlab.search.store import CONTENT, SHOWN, VECTOR, Store, from_json, lance_errors, quoted

if TYPE_CHECKING:
    import pyarrow as pa


def vectors(store: Store, ids: Sequence[str] | None) -> tuple[list[str], NDArray[np.float32]]:
    """Return passage ids and vectors; arguments as for ``Collection.vectors``."""
    if ids is not None and not ids:
        return [], np.empty((0, store.dim), np.float32)
    table = store.scan(["id", store.vector_column()], None if ids is None else f"id IN ({quoted(ids)})")
    found, matrix = table["id"].to_pylist(), store.vectors_in(table)
    if ids is None:
        return found, matrix
    index = {name: row for row, name in enumerate(found)}
    unknown = [name for name in ids if name not in index]
    if unknown:
        raise InputError(f"ids: there is no passage {unknown[0]!r} (any more): take ids from recent hits")
    return list(ids), matrix[[index[name] for name in ids]]


def passages(store: Store, where: str | None, limit: int | None) -> Iterator[PassageInfo]:
    """Yield stored passages; arguments as for ``Collection.passages``."""
    given = normalise_filter(where, store.columns) if where is not None else None
    for row in store.scan(SHOWN, f"{CONTENT} != ''", given=given, limit=limit).to_pylist():
        yield PassageInfo(
            id=row["id"],
            source=row["source"],
            title=row["title"],
            text=row[CONTENT][row["prefix"] :],
            start=row["start"],
            end=row["end"],
            page=row["page"],
            headings=tuple(row["headings"]),
            format=row["format"],
            metadata=from_json(row["metadata"]),
        )


def documents(store: Store, where: str | None, limit: int | None) -> list[DocumentInfo]:
    """Return stored documents; arguments as for ``Collection.documents``."""
    given = normalise_filter(where, store.columns) if where is not None else None
    wanted = ["source", "title", "format", "root", "doc_passages", "content_hash", "metadata"]
    rows = store.scan(wanted, "ordinal = 0", given=given).sort_by("source").slice(0, limit).to_pylist()
    return [
        DocumentInfo(
            source=row["source"],
            title=row["title"],
            format=row["format"],
            root=row["root"],
            passages=row["doc_passages"],
            content_hash=row["content_hash"],
            metadata=from_json(row["metadata"]),
        )
        for row in rows
    ]


def describe(spot: Place, description: Description, store: Store) -> CollectionInfo:
    """Describe a collection."""
    rows = store.scan(["root", "format"], "ordinal = 0")
    with lance_errors("reading", spot.address):
        passages = store.passages.count_rows(f"{CONTENT} != ''")
        latest = max((version["timestamp"] for version in store.passages.list_versions()), default=None)
    formats, coded = Counter(rows["format"].to_pylist()), store.coded()
    return CollectionInfo(
        name=spot.name,
        path=spot.address,
        model=description.model,
        fingerprint=description.fingerprint,
        dim=description.dim,
        documents=rows.num_rows,
        passages=passages,
        bytes_on_disk=spot.size_bytes(),
        created_at=description.created_at,
        updated_at=latest.astimezone(UTC).isoformat(timespec="seconds") if latest else description.created_at,
        roots=tuple(sorted(set(rows["root"].to_pylist()) - {""})),
        formats=dict(sorted(formats.items())),
        columns=store.columns(),
        settings=description.settings,
        schema_version=description.schema_version,
        codec=coded.codec if coded is not None else "",
        bytes_per_code=coded.bytes_per_vector if coded is not None else 0,
        verify=coded.verify if coded is not None else 0,
        vectors_kept=VECTOR in store.passages.schema.names,
        bridge=description.bridge,
    )


def export(store: Store, path: Path) -> int:
    """Write all passages with their vectors to a Parquet file, in one step."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = store.passages.schema
    inside = ("doc", "ordinal", "doc_passages", "prefix", CONTENT, VECTOR)
    columns = [name for name in schema.names if name not in inside and not name.startswith("_")]
    # float32: most readers of Parquet know no half floats
    vector = pa.field(VECTOR, pa.list_(pa.float32(), store.dim))
    out = pa.schema([pa.field("text", pa.string()), *(schema.field(name) for name in columns), vector])
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    count = 0
    try:
        with lance_errors("exporting", store.address):
            wanted = [*columns, "prefix", CONTENT, store.vector_column(schema)]
            query = store.passages.search().where(f"{CONTENT} != ''").select(wanted)
            with pq.ParquetWriter(fresh, out, compression="zstd") as writer:
                for batch in query.limit(None).to_batches(4096):
                    writer.write_table(_exported(store, batch, out))
                    count += batch.num_rows
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return count


def _exported(store: Store, batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    values: dict[str, Any] = {name: batch.column(name) for name in batch.schema.names}
    pairs = zip(values.pop(CONTENT).to_pylist(), values.pop("prefix").to_pylist(), strict=True)
    values["text"] = pa.array([content[start:] for content, start in pairs], pa.string())
    flat = pa.array(store.vectors_in(pa.Table.from_batches([batch])).ravel())
    values[VECTOR] = pa.FixedSizeListArray.from_arrays(flat, type=schema.field(VECTOR).type)
    return pa.table([values[name] for name in schema.names], schema=schema)
