"""PDF: the text of its pages, as far as it is text; offsets are into what was extracted, blocks know their page."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError

from embedlab.data.documents import Block, Document, FoundFile, Value
from embedlab.data.limits import ReadLimits, Refused, check_size
from embedlab.data.readers.plain import read_bytes
from embedlab.data.text import whole_characters

_HYPHEN = re.compile(r"(?<=[a-zà-ÿ])[-\u00ad]\n(?=[a-zà-ÿ])")  # a word broken at the end of a line
_PARSER_LOG = logging.getLogger("pypdf")
_PARSER_LOG.addHandler(logging.NullHandler())  # its remarks on sloppy files go to who listens, not to the terminal


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document]:
    """Read a PDF file page by page."""
    stream = io.BytesIO(read_bytes(file, limits.max_file_bytes))
    try:
        reader = PdfReader(stream)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("it is encrypted: store a copy without a password")
        pages = len(reader.pages)
    except (DependencyError, FileNotDecryptedError):
        raise Refused("it is encrypted: store a copy without a password") from None
    if pages > limits.max_pages:
        raise Refused(f"it has {pages:,} pages, {limits.max_pages:,} are allowed: split it")
    text, blocks = _pages(reader, limits)
    if not blocks:
        raise Refused(f"no text in its {pages:,} pages: scanned pictures need text recognition first")
    title, metadata = _metadata(reader)
    metadata["pages"] = pages
    yield Document(file.source, text, title or file.path.stem, "pdf", blocks=blocks, metadata=metadata)


def _pages(reader: Any, limits: ReadLimits) -> tuple[str, tuple[Block, ...]]:
    pieces: list[str] = []
    blocks: list[Block] = []
    length = number = 0
    deadline = time.monotonic() + limits.max_seconds

    def check_time(*_: object) -> None:
        if time.monotonic() > deadline:
            raise Refused(f"reading took over {limits.max_seconds:g} s and had come to page {number}: split it")

    for number, page in enumerate(reader.pages, start=1):
        check_time()
        content = page.get_contents()
        check_size(len(content.get_data()) if content is not None else 0, limits.max_markup_bytes, f"page {number}")
        # looked at with every operator, for a page may call itself up a billion times over
        found = page.extract_text(visitor_operand_before=check_time)
        piece = whole_characters(_HYPHEN.sub("", found).replace("\0", " ").strip())
        if not piece:
            continue
        start = length + 2 if pieces else 0
        length = start + len(piece)
        pieces.append(piece)
        blocks.append(Block(start, length, page=number))
        if length > limits.max_expanded_bytes:
            raise Refused(f"its text is longer than {limits.max_expanded_bytes:,} characters: split it")
    return "\n\n".join(pieces), tuple(blocks)


def _metadata(reader: Any) -> tuple[str, dict[str, Value]]:
    try:
        info = reader.metadata or {}
        facts = {key: whole_characters(str(info.get(f"/{key.title()}") or "")).strip() for key in ("title", "author")}
    except (KeyError, TypeError, ValueError):
        return "", {}  # a broken information table does not spoil the pages
    return facts["title"][:300], {"author": facts["author"][:300]} if facts["author"] else {}
