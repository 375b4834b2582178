"""The passages of a folder as a flat corpus: text, the headings above it, and the document it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedlab.data.documents import Document
from embedlab.data.files import find_files, read_file
from embedlab.data.passages import split_passages


@dataclass(frozen=True, slots=True)
class CorpusPassage:
    """A passage that knows where it stands.

    Args:
        text: The passage.
        headings: The document's title, if it has one, then the headings above the passage, outermost first.
        document: The document it comes from; passages of one document must not be split over training and test.
    """

    text: str
    headings: tuple[str, ...] = ()
    document: str = ""


def read_corpus(path: Path) -> Iterator[CorpusPassage]:
    """Read every document below a path and cut it into passages.

    Args:
        path: A file or a folder; what cannot be read is passed over, as `embedlab index` would report.

    Yields:
        The passages in order, none of them blank.

    Raises:
        InputError: ``path`` is not there.
    """
    for file in find_files(path):
        for document in read_file(file):
            if not isinstance(document, Document):
                continue
            above = (document.title,) if document.title else ()
            for passage in split_passages(document):
                if passage.text.strip():
                    yield CorpusPassage(passage.text, (*above, *passage.headings), document.source)
