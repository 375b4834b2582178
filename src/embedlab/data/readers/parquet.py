"""Parquet: each row is a document; row groups are streamed, so that a large file takes little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pyarrow.types as kind

from embedlab.data.documents import Document, FoundFile, Unreadable
from embedlab.data.limits import ReadLimits, Refused, check_size
from embedlab.data.records import document_from

_BATCH = 256


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document | Unreadable]:
    """Read the rows of a Parquet file, numbered from 1."""
    check_size(file.path.stat().st_size, limits.max_stream_bytes)
    with pq.ParquetFile(file.path) as plain:
        columns = _readable(plain.schema_arrow)
        leaves = [plain.schema.column(place) for place in range(len(plain.schema))]
        for group in range(plain.num_row_groups):
            check_size(plain.metadata.row_group(group).total_byte_size, limits.max_expanded_bytes, f"row group {group}")
    if not columns:
        raise Refused("none of its columns holds text, numbers or lists of these")
    # repeated values stay stored once: a small file of one huge value a million times over must not unfold
    strings = [
        leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.path.split(".")[0] in columns
    ]
    with pq.ParquetFile(file.path, read_dictionary=strings, pre_buffer=False) as table:
        number = 0
        for batch in table.iter_batches(_BATCH, columns=columns):
            names = batch.schema.names
            for row in range(batch.num_rows):
                number += 1
                source = f"{file.source}#row={number}"
                record = {name: _plain(batch.column(place)[row].as_py()) for place, name in enumerate(names)}
                try:
                    yield document_from(record, source, "parquet", max_chars=limits.max_record_chars)
                except Refused as error:
                    yield Unreadable(source, str(error))


def _readable(schema: Any) -> list[str]:
    """Columns that can become text or facts: no bytes, no nested tables, no vectors."""
    return [field.name for field in schema if not _is_opaque(field.type)]


def _is_opaque(form: Any) -> bool:
    if kind.is_list(form) or kind.is_large_list(form) or kind.is_fixed_size_list(form):
        return not (kind.is_string(form.value_type) or kind.is_large_string(form.value_type))
    return bool(kind.is_nested(form) or kind.is_binary(form) or kind.is_large_binary(form))


def _plain(value: object) -> object:
    """Dates and decimals as people write them."""
    return value if value is None or isinstance(value, str | int | float | list) else str(value)
