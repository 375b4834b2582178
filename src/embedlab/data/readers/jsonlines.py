"""JSON lines: one object a line, one document each; the fields of BEIR's corpora are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from embedlab.data.documents import Document, FoundFile, Unreadable
from embedlab.data.limits import ReadLimits, Refused, check_size
from embedlab.data.records import document_from
from embedlab.data.text import decode


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document | Unreadable]:
    """Read the objects of a file, numbered by line from 1."""
    check_size(file.path.stat().st_size, limits.max_stream_bytes)
    most = 4 * limits.max_record_chars  # bytes
    with file.path.open("rb") as stream:
        for number, line in enumerate(_lines(stream, most), start=1):
            source = f"{file.source}#row={number}"
            try:
                if line is None:
                    raise Refused(f"the line has over {most:,} bytes")
                if line.strip():
                    yield _document(line, source, limits)
            except (Refused, ValueError, RecursionError) as error:
                yield Unreadable(source, _reason(error))


def _lines(stream: BinaryIO, most: int) -> Iterator[bytes | None]:
    """Give the lines; None for one that is too long, whose rest is passed over in small pieces."""
    while line := stream.readline(most + 1):
        if len(line) <= most:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(1 << 20)
        yield None


def _document(line: bytes, source: str, limits: ReadLimits) -> Document:
    record = json.loads(decode(line)[0])
    if not isinstance(record, dict):
        raise Refused(f"the line holds no JSON object but a {type(record).__name__}")
    return document_from(record, source, "jsonl", max_chars=limits.max_record_chars)


def _reason(error: Exception) -> str:
    if isinstance(error, Refused):
        return str(error)
    return "the line is nested too deeply" if isinstance(error, RecursionError) else f"the line is no JSON: {error}"
