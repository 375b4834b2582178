"""Word documents: paragraphs, headings by style, tables row by row; offsets are into what was extracted."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import docx
from lxml import etree

from embedlab.data.documents import Document, FoundFile, Value
from embedlab.data.limits import MIB, ReadLimits, Refused, check_size
from embedlab.data.outline import Extract, outline
from embedlab.data.readers.plain import read_bytes

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # says again what stands before it
_SPACING = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n"}
_HEADING = re.compile(r"heading (\d)", re.I)


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document]:
    """Read a Word document."""
    data = read_bytes(file, limits.max_file_bytes)
    check_archive(data, limits)
    word = docx.Document(io.BytesIO(data))  # its XML parser neither expands entities nor fetches anything
    levels = {style.style_id: level for style in word.styles if (level := _level(style))}
    extract = Extract()
    _walk(word.element.body, levels, extract)
    facts = word.core_properties
    first = next((part.title for part in extract.parts if part.level), "")
    metadata: dict[str, Value] = {"author": facts.author} if facts.author else {}
    if facts.language:
        metadata["lang"] = facts.language
    title = facts.title or first or file.path.stem
    yield Document(file.source, extract.text, title, "docx", blocks=outline(extract.parts), metadata=metadata)


def check_archive(data: bytes, limits: ReadLimits) -> None:
    """Refuse a zip archive that would unpack to more than allowed, before anything of it is unpacked.

    Args:
        data: The archive.
        limits: What is allowed.

    Raises:
        Refused: an entry, all of them together, or their number go beyond the limits.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    check_size(total, limits.max_expanded_bytes, "unpacked, the file")
    if total > 8 * MIB and total > limits.max_expansion * len(data):
        raise Refused(f"it unpacks to {total / len(data):,.0f} times its size, {limits.max_expansion} are allowed")
    if len(entries) > 10_000:
        raise Refused(f"it is an archive of {len(entries):,} parts, 10,000 are allowed")
    for entry in entries:
        if entry.filename.lower().endswith((".xml", ".rels")):
            check_size(entry.file_size, limits.max_markup_bytes, f"its part {entry.filename[:60]!r}")


def _level(style: Any) -> int:
    name = style.name or ""
    found = _HEADING.fullmatch(name)
    return int(found[1]) + 1 if found else int(name.lower() == "title")


def _walk(body: Any, levels: dict[str, int], extract: Extract) -> None:
    walker = etree.iterwalk(body, events=("start",), tag=(f"{_W}p", f"{_W}tbl", _FALLBACK))
    for _, node in walker:
        if node.tag == f"{_W}p":
            style = node.find(f"{_W}pPr/{_W}pStyle")
            extract.add(_text(node), levels.get(style.get(f"{_W}val"), 0) if style is not None else 0)
        elif node.tag == f"{_W}tbl":
            rows = (" | ".join(_text(cell) for cell in row.iter(f"{_W}tc")) for row in node.iterchildren(f"{_W}tr"))
            extract.add("\n".join(rows))
        walker.skip_subtree()


def _text(node: Any) -> str:
    pieces: list[str] = []
    paragraphs = 0
    walker = etree.iterwalk(node, events=("start",))
    for _, part in walker:
        if part.tag == f"{_W}t":
            pieces.append(part.text or "")
        elif part.tag in _SPACING:
            pieces.append(_SPACING[part.tag])
        elif part.tag == f"{_W}p":
            pieces.append(" " if paragraphs else "")
            paragraphs += 1
        elif part.tag in (_FALLBACK, f"{_W}pPr"):
            walker.skip_subtree()
    return "".join(pieces).strip()
