"""From a flat run of headings and paragraphs to a text and blocks that know the headings above them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from embedlab.data.documents import Block
from embedlab.data.text import whole_characters


class Part(NamedTuple):
    """A heading (``level`` from 1) or a stretch of body text (``level`` 0), as a span of the text."""

    start: int
    end: int
    level: int = 0
    title: str = ""


def outline(parts: Iterable[Part]) -> tuple[Block, ...]:
    """Give each stretch of body text the chain of headings above it.

    A heading belongs to the block that follows it, so that it is found and shown with its text; headings without text
    of their own go with the first text below them.

    Args:
        parts: Headings and bodies in the order of the text.

    Returns:
        The blocks, in order.

    Example:
        >>> [block.headings for block in outline([Part(0, 3, 1, "A"), Part(4, 7, 2, "B"), Part(8, 12)])]
        [('A', 'B')]
    """
    blocks: list[Block] = []
    chain: list[tuple[int, str]] = []
    waiting: Part | None = None  # the first heading, with the end of the last, that has no text yet
    for part in parts:
        headings = tuple(title for _, title in chain if title)
        if part.level:
            if waiting and part.level <= chain[-1][0]:
                blocks.append(Block(waiting.start, waiting.end, headings))
                waiting = None
            while chain and chain[-1][0] >= part.level:
                chain.pop()
            chain.append((part.level, part.title))
            waiting = Part(waiting.start if waiting else part.start, part.end)
        elif part.end > part.start:
            blocks.append(Block(waiting.start if waiting else part.start, part.end, headings))
            waiting = None
    if waiting:
        blocks.append(Block(waiting.start, waiting.end, tuple(title for _, title in chain if title)))
    return tuple(blocks)


class Extract:
    """Puts together the text of a format whose file is not text, and keeps the parts.

    Example:
        >>> extract = Extract()
        >>> extract.add("Tea", level=1)
        >>> extract.add("Boil water.")
        >>> extract.text, outline(extract.parts)
        ('Tea\\n\\nBoil water.', (Block(start=0, end=16, headings=('Tea',), page=None),))
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._pieces: list[str] = []
        self._length = 0

    def add(self, text: str, level: int = 0, title: str = "") -> None:
        """Append a paragraph or, with a level from 1, a heading, whose title is its text unless given."""
        text = whole_characters(text.strip())
        if not text:
            return
        start = self._length + 2 if self._pieces else 0
        self._pieces.append(text)
        self._length = start + len(text)
        self.parts.append(Part(start, self._length, level, title or " ".join(text.split()) if level else ""))

    @property
    def text(self) -> str:
        """Everything so far, parted by empty lines."""
        return "\n\n".join(self._pieces)
