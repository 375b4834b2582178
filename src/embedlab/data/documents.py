"""What readers give and everything else takes: documents, their blocks, and files that could not be read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a document's text that belongs together: a paragraph, a table, a docstring.

    Args:
        start: First character of the block in ``Document.text``.
        end: One past its last character.
        headings: The headings above it, outermost first.
        page: Page number from 1, for formats that have pages.
    """

    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its structure and where it came from.

    Args:
        source: Stable id: the path below the indexed folder, in posix form, with ``#row=12`` for records of one file.
        text: The text; for txt, md, rst and py it is the decoded file itself, so offsets lead into the file.
        title: What to call it in a list of hits; may be empty.
        format: The reader that made it, e.g. ``"md"``.
        content_hash: 32 hex digits that change when text, title, structure or metadata change; worked out when empty.
        blocks: In order, never overlapping; text outside them is not indexed. Empty means the whole text.
        metadata: Flat facts that searches can filter by.
    """

    source: str
    text: str
    title: str = ""
    format: str = "txt"
    content_hash: str = ""
    blocks: tuple[Block, ...] = ()
    metadata: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.blocks and self.text:
            object.__setattr__(self, "blocks", (Block(0, len(self.text)),))
        if not self.content_hash:
            object.__setattr__(self, "content_hash", content_hash(self))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or record that could not be read, and why, in one sentence.

    Args:
        source: As in `Document`.
        reason: What is wrong with it and, where there is something to do, what to do.
    """

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read.

    Args:
        path: Where it lies.
        source: Its id: the path below the indexed folder, in posix form.
        size: Bytes.
        mtime_ns: Time of its last change, nanoseconds since 1970.
    """

    path: Path
    source: str
    size: int
    mtime_ns: int


def content_hash(document: Document) -> str:
    """Hash everything of a document that reaches an index, so that equal hashes mean nothing to do.

    Args:
        document: The document; its ``source`` and ``content_hash`` do not count.

    Returns:
        BLAKE2b, 128 bits, as 32 hex digits.

    Example:
        >>> Document("a.txt", "one").content_hash == Document("b.txt", "one").content_hash
        True
        >>> Document("a.txt", "one").content_hash == Document("a.txt", "two").content_hash
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    blocks = [(block.start, block.end, block.headings, block.page) for block in document.blocks]
    rest = repr((len(document.text), document.title, document.format, blocks, sorted(document.metadata.items())))
    digest.update(document.text.encode("utf-8", "surrogatepass"))
    digest.update(rest.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
