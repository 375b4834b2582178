"""Cutting documents into passages along their structure, with offsets that always lead back into the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from embedlab._core.errors import InputError
from embedlab.data.documents import Block, Document

# Where a text may be cut, best first; the match is what lies between two passages or ends the first.
_PARAGRAPH = re.compile(r"(?:\r\n?|\n)[^\S\r\n]*(?:\r\n?|\n)\s*")
_SENTENCE = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？｡]+[」』”]*\s*|[।۔؟]\s*")
_LINE = re.compile(r"(?:\r\n?|\n)\s*")
_WORD = re.compile(r"\s+")
_BOUNDARIES = (_PARAGRAPH, _SENTENCE, _LINE, _WORD)
# Characters that continue the one before: combining marks, joiners, variation selectors, skin tones.
_CONTINUES = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u064b-\u065f\u0900-\u0903\u093a-\u094f\u200c\u200d\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef]"
)
_MOST_CONTINUED = 32
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document of a size to embed and to show.

    Args:
        text: Always ``document.text[start:end]``.
        start: First character in the document's text.
        end: One past the last.
        headings: The headings above it, outermost first.
        page: Page number from 1, if the format has pages.
    """

    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None


def split_passages(document: Document, *, max_chars: int = 1000, overlap_chars: int = 0) -> list[Passage]:
    """Cut a document into passages.

    Neighbouring blocks under the same headings are put together while they fit; what does not fit is cut between
    paragraphs, else sentences, else lines, else words, else anywhere but inside a character. Time grows with the
    length of the text, not faster.

    Args:
        document: What a reader gave.
        max_chars: Longest passage, at least 16. The default served hybrid search best among 400 to 1200 and uncut (on
            SciFact's training claims and CACM); dense search alone does better with 400 to 800.
        overlap_chars: How much of a passage's end the next one may repeat when one block is cut; less than half of
            ``max_chars``.

    Returns:
        The passages in order; none for an empty text. Without overlap they share no character, and together they hold
        every character of the blocks but white space.

    Raises:
        InputError: a length is out of its range.

    Example:
        >>> [p.text for p in split_passages(Document("a.txt", "One two. Three four five."), max_chars=16)]
        ['One two.', 'Three four five.']
    """
    if max_chars < 16:
        raise InputError(f"max_chars: {max_chars} is too small: give at least 16")
    if not 0 <= overlap_chars < max_chars / 2:
        raise InputError(
            f"overlap_chars: {overlap_chars} is not in [0, {max_chars / 2:g}): less than half of max_chars"
        )
    text = document.text
    passages = []
    for run in _runs(document, max_chars):
        for start, end in _cut(text, run.start, run.end, max_chars, overlap_chars):
            passages.append(Passage(text[start:end], start, end, run.headings, run.page))
    return passages


def _runs(document: Document, max_chars: int) -> Iterator[Block]:
    """Put together neighbouring blocks with the same headings and page while they fit into one passage."""
    run: Block | None = None
    for block in document.blocks:
        if run is not None:
            alike = run.headings == block.headings and run.page == block.page
            if alike and block.end - run.start <= max_chars and not document.text[run.end : block.start].strip():
                run = Block(run.start, block.end, run.headings, run.page)
                continue
            yield run
        run = block
    if run is not None:
        yield run


def _cut(text: str, start: int, end: int, max_chars: int, overlap: int) -> Iterator[tuple[int, int]]:
    start, end = _trim(text, start, end)
    fresh = start  # the first character that no passage holds yet
    while fresh < end:
        if end - start <= max_chars:
            yield start, end
            return
        stop = _boundary(text, fresh, start + max_chars, end)
        piece = _trim(text, start, stop)
        if piece[0] < piece[1]:
            yield piece
        fresh = _trim(text, stop, end)[0]
        start = _step_back(text, piece[0], fresh, overlap) if overlap else fresh


def _boundary(text: str, start: int, limit: int, end: int) -> int:
    """Find the best place to cut in (start, limit]; pieces come out about equal rather than full and a scrap."""
    size = limit - start
    pieces = -(-(end - start) // size)
    low = start + max(1, (end - start) // pieces // 2)
    for boundary in _BOUNDARIES:
        # a boundary may begin at the limit itself: its white space belongs to nobody
        last = None
        for found in boundary.finditer(text, low, min(limit + 1, end)):
            if len(found[0].rstrip()) + found.start() <= limit:
                last = found
        if last is not None:
            return min(last.end(), limit)
    stop = limit
    while stop > max(low, limit - _MOST_CONTINUED) and (_CONTINUES.match(text, stop) or text[stop - 1] == "\u200d"):
        stop -= 1
    return stop if stop > max(low, limit - _MOST_CONTINUED) else limit


def _step_back(text: str, start: int, fresh: int, overlap: int) -> int:
    """Move the next start back by at most ``overlap`` characters, to the beginning of a sentence or word."""
    low = max(start + 1, fresh - overlap)
    for boundary in (_SENTENCE, _WORD):
        found = boundary.search(text, low, fresh)
        if found is not None and found.end() < fresh:
            return found.end()
    return fresh


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    found = _SPACE.match(text, start, end)
    start = found.end() if found else start
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
