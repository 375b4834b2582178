"""Plain text: one document, the file itself. Also how every other reader gets at the bytes of its file."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from embedlab.data.documents import Document, FoundFile, Value
from embedlab.data.limits import ReadLimits, Refused, check_size
from embedlab.data.text import decode


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document]:
    """Read a text file in whatever encoding."""
    text, metadata = read_text(file, limits.max_file_bytes)
    yield Document(file.source, text, title=file.path.stem, format="txt", metadata=metadata)


def read_bytes(file: FoundFile, limit: int) -> bytes:
    """Read a file whole, but never more than the limit, whatever became of it since it was found."""
    facts = file.path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise Refused("it is no regular file any more")
    check_size(facts.st_size, limit)
    with file.path.open("rb") as stream:
        data = stream.read(limit + 1)
    check_size(len(data), limit)
    return data


def read_text(file: FoundFile, limit: int) -> tuple[str, dict[str, Value]]:
    """Read and decode a file; the encoding becomes metadata when it is worth telling."""
    text, encoding = decode(read_bytes(file, limit))
    return text, {} if encoding == "utf-8" else {"encoding": encoding}
