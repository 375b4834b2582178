"""All collections of this user: list, describe, remove, export."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import CollectionError
from embedlab.search.places import Description, Place, missing, named_places, place
from embedlab.search.records import CollectionInfo
from embedlab.search.store import CONTENT, Store, lance_errors

if TYPE_CHECKING:
    import pyarrow as pa


def list_collections() -> list[CollectionInfo]:
    """Describe the named collections of this user, sorted by name; ``doctor`` tells about damaged ones."""
    found = []
    for spot in named_places():
        try:
            description = spot.read()
            found.append(
                describe(spot, description, Store(spot.address, settings=description.settings, dim=description.dim))
            )
        except CollectionError:
            continue  # one damaged collection must not hide the others
    return found


def remove_collection(name_or_path: str | os.PathLike[str]) -> None:
    """Delete a collection and everything in it.

    Args:
        name_or_path: As for ``Collection.open``.

    Raises:
        CollectionError: it does not exist, or another process is writing to it.
    """
    spot = place(name_or_path)
    if not spot.exists():
        raise missing(spot)
    with spot.writing():
        spot.remove()


def describe(spot: Place, description: Description, store: Store) -> CollectionInfo:
    """Describe a collection."""
    rows = store.scan(["root", "format"], "ordinal = 0")
    with lance_errors("reading", spot.address):
        passages = store.passages.count_rows(f"{CONTENT} != ''")
        latest = max((version["timestamp"] for version in store.passages.list_versions()), default=None)
    formats = Counter(rows["format"].to_pylist())
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
    )


def export(store: Store, path: Path) -> int:
    """Write all passages with their vectors to a Parquet file, in one step."""
    import secrets

    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = store.passages.schema
    columns = [name for name in schema.names if name not in ("doc", "ordinal", "doc_passages", "prefix", CONTENT)]
    # float32: most readers of Parquet know no half floats
    out = pa.schema(
        [pa.field("text", pa.string())]
        + [
            pa.field("vector", pa.list_(pa.float32(), store.dim)) if name == "vector" else schema.field(name)
            for name in columns
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    count = 0
    try:
        with lance_errors("exporting", store.address):
            query = store.passages.search().where(f"{CONTENT} != ''").select([*columns, "prefix", CONTENT])
            with pq.ParquetWriter(fresh, out, compression="zstd") as writer:
                for batch in query.limit(None).to_batches(4096):
                    writer.write_table(_exported(batch, out))
                    count += batch.num_rows
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return count


def _exported(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    values: dict[str, Any] = {name: batch.column(name) for name in batch.schema.names}
    pairs = zip(values.pop(CONTENT).to_pylist(), values.pop("prefix").to_pylist(), strict=True)
    values["text"] = pa.array([content[start:] for content, start in pairs], pa.string())
    values["vector"] = values["vector"].cast(schema.field("vector").type)
    return pa.table([values[name] for name in schema.names], schema=schema)
