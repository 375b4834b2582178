"""reStructuredText: the source is the text; the parser tells where sections begin, whatever directives are in them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from copy import copy
from functools import cache
from typing import Any

from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.parsers.rst import Parser, states
from docutils.utils import new_document

from embedlab.data.documents import Document, FoundFile
from embedlab.data.limits import ReadLimits
from embedlab.data.outline import Part, outline
from embedlab.data.readers.plain import read_text

_LOG = logging.getLogger(__name__)
_LINE = re.compile(r"\r\n?|\n")
_ODD_LINE_ENDS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # the parser counts lines at these too
_MARKUP = re.compile(r":[\w:.+-]+:(?=`)|[`*|]+|_$")


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document]:
    """Read a reStructuredText file with its sections."""
    text, metadata = read_text(file, limits.max_file_bytes)
    parts = list(_parts(text)) if len(text) <= limits.max_outline_bytes else [Part(0, len(text))]
    title = next((part.title for part in parts if part.level), file.path.stem)
    yield Document(file.source, text, title, "rst", blocks=outline(parts), metadata=metadata)


def _parts(text: str) -> Iterator[Part]:
    starts = [0, *(found.end() for found in _LINE.finditer(text)), len(text)]
    lines = _LINE.split(text)
    done = 0
    for level, number in _sections(text):
        title = _title_line(lines, number)
        if title is None:
            continue
        overlined = title > 0 and lines[title - 1].strip() and lines[title - 1].strip() == lines[title + 1].strip()
        first = starts[title - 1 if overlined else title]
        if text[done:first].strip():
            yield Part(done, first)
        done = starts[min(title + 2, len(starts) - 1)]
        yield Part(first, done, level, _MARKUP.sub("", lines[title].strip()))
    if text[done:].strip():
        yield Part(done, len(text))


def _sections(text: str) -> Iterator[tuple[int, int]]:
    """Depth and line number (from 1, at the title or its underline) of every section, in order."""
    document = new_document("", copy(_settings()))
    try:
        Parser(inliner=_inliner()).parse(_ODD_LINE_ENDS.sub(" ", text), document)
    except Exception:  # noqa: BLE001 - directives run code of their own; the sections found so far still hold
        _LOG.debug("some sections may be missing", exc_info=True)
    stack: list[tuple[Any, int]] = [(document, 0)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, nodes.section):
            depth += 1
            if node.line:
                yield depth, node.line
        stack.extend((child, depth) for child in reversed(node.children) if isinstance(child, nodes.section))


def _title_line(lines: list[str], number: int) -> int | None:
    """Index of the title near the line the parser names, which may be the title's or its underline's."""
    for index in (number - 2, number - 1, number):
        if 0 <= index < len(lines) - 1:
            title, under = lines[index].strip(), lines[index + 1].rstrip()
            if title and under and len(set(under)) == 1 and not under[0].isalnum() and len(set(title)) > 1:
                return index
    return None


@cache
def _settings() -> Any:
    settings = get_default_settings(Parser)
    settings.report_level = 5  # unknown directives and roles, such as Sphinx's, are none of our business
    settings.halt_level = 6
    settings.warning_stream = False
    settings.file_insertion_enabled = False  # a document must not read other files
    settings.raw_enabled = False
    return settings


class _NoInline(states.Inliner):
    """Leaves lines as they are: only sections are wanted, and looking inside lines takes a third of the time."""

    def init_customizations(self, settings: object) -> None:
        """Everything is set already."""

    def parse(self, text: str, lineno: int, memo: object, parent: object) -> tuple[list[Any], list[Any]]:
        return [nodes.Text(text)], []


@cache
def _inliner() -> _NoInline:
    full = states.Inliner()
    full.init_customizations(_settings())
    quiet = _NoInline()
    vars(quiet).update(vars(full))  # directives look up the patterns
    return quiet
