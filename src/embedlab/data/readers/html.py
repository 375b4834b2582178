"""HTML: what a person reads on the page, with its headings; scripts, styles and navigation are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from embedlab.data.documents import Document, FoundFile, Value
from embedlab.data.limits import ReadLimits, Refused
from embedlab.data.outline import Extract, outline
from embedlab.data.readers.plain import read_bytes
from embedlab.data.text import decode

_CHARSET = re.compile(
    rb"""<meta[^>]{1,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})|<\?xml[^>]{1,80}encoding=["']([\w.:-]+)""", re.I
)
_UNREAD = {"script", "style", "nav", "noscript", "template", "svg", "iframe", "object", "select", "button", "head"}
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_INLINE = re.compile(
    "a|abbr|acronym|b|bdi|bdo|big|button|cite|code|data|del|dfn|em|font|i|img|input|ins|kbd|label|mark|noscript|q|rp|rt"
    "|ruby|s|samp|script|select|small|span|strike|strong|style|sub|sup|svg|template|time|tt|u|var|wbr"
)
_LINES = {"li", "tr", "dt", "dd", "br"}  # items follow each other without an empty line


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document]:
    """Read an HTML page."""
    data = read_bytes(file, limits.max_markup_bytes)
    declared = _CHARSET.search(data, 0, 4096)
    text, _ = decode(data, (declared[1] or declared[2]).decode() if declared else None)
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True, no_network=True)
    root = etree.fromstring(text.encode("utf-8", "replace"), parser) if text.strip() else None
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise Refused("its tags are nested too deeply")
    if root is None:
        yield Document(file.source, "", file.path.stem, "html")
        return
    extract = Extract()
    _walk(root, extract)
    title = " ".join((root.findtext(".//title") or "").split())
    title = title or next((part.title for part in extract.parts if part.level), file.path.stem)
    yield Document(file.source, extract.text, title, "html", blocks=outline(extract.parts), metadata=_metadata(root))


def _walk(root: Any, extract: Extract) -> None:
    pieces: list[str] = []  # of the paragraph being gathered
    level = verbatim = 0

    def flush() -> None:
        text = "".join(pieces)
        extract.add(text if verbatim else re.sub(r" *\n[\n ]*", "\n", re.sub(" +", " ", text)), level)
        pieces.clear()

    def gather(text: str | None) -> None:
        if text:
            pieces.append(text if verbatim else re.sub(r"[ \t\r\n\f]+", " ", text))

    walker = etree.iterwalk(root, events=("start", "end"))
    for event, node in walker:
        tag = node.tag
        if event == "start":
            if tag in _UNREAD or "hidden" in node.attrib or node.get("role") == "navigation":
                walker.skip_subtree()
                continue
            if tag in _HEADINGS:
                flush()
                level = _HEADINGS[tag]
            elif tag in _LINES:
                pieces.append("\n")
            elif tag in ("td", "th"):
                pieces.append(" | " if node.getprevious() is not None else "")
            elif not _INLINE.fullmatch(tag) and node.getparent() is not None and node.getparent().tag not in _LINES:
                flush()
            verbatim += tag == "pre"
            gather(node.text)
        else:
            if tag in _HEADINGS or not (tag in _LINES or tag in ("td", "th") or _INLINE.fullmatch(tag)):
                flush()
                level = 0
            verbatim -= tag == "pre"
            gather(node.tail)
    flush()


def _metadata(root: Any) -> dict[str, Value]:
    found: dict[str, Value] = {}
    if root.get("lang"):
        found["lang"] = root.get("lang")[:35]
    for node in root.iter("meta"):
        name = (node.get("name") or "").lower()
        if name in ("author", "description", "date") and node.get("content"):
            found[name] = " ".join(node.get("content").split())[:300]
    return found
