"""Tables as text, csv and tsv: each row is a document of its own."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from embedlab.data.documents import Document, FoundFile, Unreadable
from embedlab.data.limits import ReadLimits, Refused, check_size
from embedlab.data.records import document_from
from embedlab.data.text import decode

_SAMPLE = 1 << 16
_NUMBER = re.compile(r"\s*[-+]?[\d.,]+\s*%?\s*")


def read(file: FoundFile, limits: ReadLimits) -> Iterator[Document | Unreadable]:
    """Read the rows of a table, numbered from 1 below the header."""
    check_size(file.path.stat().st_size, limits.max_stream_bytes)
    with file.path.open("rb") as stream:
        sample = stream.read(_SAMPLE)
        text, encoding = decode(sample[: sample.rfind(b"\n") + 1] if len(sample) == _SAMPLE else sample)
        stream.seek(0)
        errors = "embedlab-stray" if encoding == "utf-8" else "replace"
        lines = _Lines(io.TextIOWrapper(stream, encoding, errors, newline=""), limits)
        form = file.path.suffix.lower()[1:]
        rows = csv.reader(lines, delimiter="\t" if form == "tsv" else find_delimiter(text))
        header: list[str] | None = None
        number = 0
        while True:
            lines.pending = 0
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                yield Unreadable(f"{file.source}#row={number}", f"not a row: {error}")
                continue
            if header is None:
                named = looks_like_header(row)
                header = _names(row, named)
                if named:
                    continue
            number += 1
            if any(cell.strip() for cell in row):
                source = f"{file.source}#row={number}"
                yield _document(row, header, source, form, limits, named)


def find_delimiter(sample: str) -> str:
    """Find which of comma, semicolon, tab and bar parts the columns: the one that parts all lines alike.

    Args:
        sample: The first lines.

    Returns:
        The delimiter; a comma when none fits.

    Example:
        >>> find_delimiter("a;b;c\\n1,5;2,5;3,5\\n")
        ';'
    """
    lines = sample.splitlines(keepends=True)[:50]
    best, best_score = ",", 0.0
    for delimiter in ",;\t|":
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        usual = max(set(widths), key=widths.count, default=1)
        score = widths.count(usual) / len(widths) + usual / 1000 if usual > 1 else 0.0
        if score > best_score:
            best, best_score = delimiter, score
    return best


def looks_like_header(row: list[str]) -> bool:
    """Tell a row of column names from a row of values: short, all different, none empty, none a number.

    Args:
        row: The first row.

    Returns:
        Whether these are names.
    """
    cells = [cell.strip() for cell in row]
    short = all(0 < len(cell) <= 64 and not _NUMBER.fullmatch(cell) for cell in cells)
    return short and len(set(cells)) == len(cells)


class _Lines:
    """Lines of a file, none of which can fill the memory, nor can a row that runs over many of them."""

    def __init__(self, stream: io.TextIOWrapper, limits: ReadLimits) -> None:
        self.stream = stream
        self.limit = limits.max_record_chars
        self.pending = 0  # characters of the row being read
        self.first = True

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.stream.readline(self.limit + 1)
        if not line:
            raise StopIteration
        if self.first:
            self.first = False
            line = line.removeprefix("\ufeff")
        self.pending += len(line)
        if self.pending > self.limit:
            raise Refused(f"a row has over {self.limit:,} characters; the rows before it were read")
        return line


def _names(row: list[str], named: bool) -> list[str]:
    return [cell.strip() if named else f"column {place}" for place, cell in enumerate(row, start=1)]


def _document(
    row: list[str], header: list[str], source: str, form: str, limits: ReadLimits, named: bool
) -> Document | Unreadable:
    names = [*header, *(f"column {place}" for place in range(len(header) + 1, len(row) + 1))]
    try:
        return document_from(
            dict(zip(names, row, strict=False)), source, form, max_chars=limits.max_record_chars, unnamed=not named
        )
    except Refused as error:
        return Unreadable(source, str(error))
