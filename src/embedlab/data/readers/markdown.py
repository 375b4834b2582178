"""Markdown: the source is the text, so offsets lead into the file; the parser tells where blocks begin and end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from markdown_it import MarkdownIt

from embedlab.data.documents import Document, FoundFile, Value
from embedlab.data.limits import ReadLimits
from embedlab.data.outline import Part, outline
from embedlab.data.readers.plain import read_text

_LINE = re.compile(r"\r\n?|\n")
_FRONT_MATTER = re.compile(r"---[ \t]*(?:\r\n?|\n)(.*?)(?:\r\n?|\n)(?:---|\.\.\.)[ \t]*(?:\r\n?|\n|\Z)", re.DOTALL)
_MARKUP = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])|[*`]+|(?:^|\s)#+\s*$|<[^>]*>")


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document]:
    """Read a Markdown file with its headings and front matter."""
    text, metadata = read_text(file, limits.max_file_bytes)
    facts, body_start = front_matter(text)
    parts = list(parts_of(text, body_start)) if len(text) <= limits.max_outline_bytes else [Part(body_start, len(text))]
    first = next((part.title for part in parts if part.level), "")
    title = str(facts.get("title", "")) or first or file.path.stem
    yield Document(file.source, text, title, "md", blocks=outline(parts), metadata={**facts, **metadata})


def front_matter(text: str) -> tuple[dict[str, Value], int]:
    """Read the ``key: value`` lines of a YAML header; what is nested stays out.

    Args:
        text: The file.

    Returns:
        The facts, and where the text proper begins.

    Example:
        >>> front_matter("---\\ntitle: Tea\\ndraft: true\\n---\\nBoil.")
        ({'title': 'Tea', 'draft': True}, 32)
    """
    found = _FRONT_MATTER.match(text)
    if not found:
        return {}, 0
    facts: dict[str, Value] = {}
    for line in _LINE.split(found[1]):
        key, colon, value = line.partition(":")
        if colon and re.fullmatch(r"[A-Za-z_][\w-]*", key) and value.strip():
            facts[key] = _scalar(value.strip())
    return facts, found.end()


def _scalar(value: str) -> Value:
    if value[0] in "'\"" and value[-1] == value[0] and len(value) > 1:
        return value[1:-1]
    if value in ("true", "false"):
        return value == "true"
    if re.fullmatch(r"[+-]?\d{1,15}", value):
        return int(value)
    if re.fullmatch(r"[+-]?\d{1,15}\.\d{1,15}", value):
        return float(value)
    return value.strip("[]")


def parts_of(text: str, start: int = 0) -> Iterator[Part]:
    """Find the headings and top-level blocks of Markdown.

    Args:
        text: The source.
        start: Where it begins, after a front matter.

    Yields:
        Spans of the source, in order.
    """
    # NUL cannot occur and line ends count alike here and in the parser, so its line numbers are ours
    lines = [start, *(found.end() for found in _LINE.finditer(text, start)), len(text)]
    tokens = _parser().parse(text[start:])
    for place, token in enumerate(tokens):
        if token.level or token.nesting < 0 or not token.map:
            continue
        first, last = lines[token.map[0]], lines[min(token.map[1], len(lines) - 1)]
        if token.type == "heading_open":
            yield Part(first, last, int(token.tag[1]), _MARKUP.sub(r"\1", tokens[place + 1].content).strip())
        else:
            yield Part(first, last)


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])  # spans are enough: no need to look inside the lines
    return parser
