"""Tables of a task folder: CSV, TSV or JSON lines, columns known by many names, and errors that name file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedlab._core.errors import InputError

#: What a column can mean, and the names by which it is known; case, spaces, ``_`` and ``-`` make no difference.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "first": ("sentence1", "sentence a", "text1", "text a", "s1", "first", "premise", "question1", "source"),
    "second": ("sentence2", "sentence b", "text2", "text b", "s2", "second", "hypothesis", "question2", "target"),
    "score": ("score", "similarity", "similarity score", "relatedness", "relatedness score", "gold", "rating"),
    "text": (
        "text", "sentence", "document", "content", "title", "headline", "question", "query", "utterance", "comment",
        "review", "tweet", "abstract", "message", "body",
    ),
    "label": ("label", "labels", "class", "category", "intent", "topic", "tag", "sentiment", "is duplicate"),
    "language": ("language", "lang"),
}  # fmt: skip
TABLES = (".csv", ".tsv", ".jsonl")
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of a file whose meaning is known.

    Args:
        path: The file.
        lines: The line on which each row begins or, where fields hold line ends, ends.
        columns: Values by meaning, see ``COLUMN_NAMES``; with two columns named by languages, by these codes.
    """

    path: Path
    lines: list[int]
    columns: dict[str, list[str]]

    def texts(self, meaning: str) -> list[str]:
        """Return a column, or say in which line it is empty."""
        for line, value in zip(self.lines, self.columns[meaning], strict=True):
            if not value.strip():
                raise InputError(f"{self.path}, line {line}: the {meaning} is empty; fill it in or remove the row")
        return self.columns[meaning]

    def numbers(self, meaning: str) -> list[float]:
        """Return a column as numbers, or say in which line there is none."""
        numbers = []
        for line, value in zip(self.lines, self.columns[meaning], strict=True):
            try:
                numbers.append(float(value))
            except ValueError:
                numbers.append(math.nan)
            if not math.isfinite(numbers[-1]):
                raise InputError(f"{self.path}, line {line}: the {meaning} {value!r:.80} is not a finite number")
        return numbers

    def truths(self, meaning: str) -> list[int]:
        """Return a column as 1 and 0, or say in which line there is something else."""
        truths = []
        for line, value in zip(self.lines, self.columns[meaning], strict=True):
            known = value.strip().lower()
            if known not in _YES + _NO:
                raise InputError(f"{self.path}, line {line}: the {meaning} {value!r:.80} of a pair must be 1 or 0")
            truths.append(int(known in _YES))
        return truths


def read_table(path: Path, *, languages: dict[str, str]) -> Table:
    """Read a table and recognise its columns.

    Args:
        path: A file of CSV (comma, semicolon or tab; quotes), TSV (no quotes) or JSON lines, zipped with gzip or not.
        languages: Codes that name columns of parallel texts.

    Returns:
        The columns that are known; others are left out.

    Raises:
        InputError: the file is empty or broken, or has no columns that make a task.
    """
    text = read_text(path)
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if "\0" in text:
        raise InputError(f"{path}, line {_line_of(text, text.index(chr(0)))}: holds a NUL byte; this is no text")
    rows = _json_rows(path, text) if kind == ".jsonl" else _separated_rows(path, text, tabs=kind == ".tsv")
    header: list[str] = next(rows)[1]
    places = _meanings(path, header, languages)
    lines: list[int] = []
    columns: dict[str, list[str]] = {meaning: [] for meaning in places}
    for line, fields in rows:
        lines.append(line)
        for meaning, place in places.items():
            columns[meaning].append(fields[place])
    if not lines:
        raise InputError(f"{path}: has a header and no rows; add rows or remove the file")
    return Table(path, lines, columns)


def read_text(path: Path) -> str:
    """Read a UTF-8 file, zipped with gzip or not, or say in which line it is something else."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the file in that encoding") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read or unzipped ({error}); make the file anew") from error


def _separated_rows(path: Path, text: str, *, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """Go through (line, fields), the header first; every row must have as many fields as the header."""
    first = text.lstrip("\n").split("\n", 1)[0]
    mark = "\t" if tabs else max(",;\t", key=first.count)
    before = csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # a document may be long
    try:
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=mark,
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
            strict=True,
        )
        header: list[str] = []
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise InputError(f"{path}, line {reader.line_num}: broken row ({error}); check its quotes") from error
            if not any(field.strip() for field in fields):
                continue
            header = header or fields
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: has {len(fields)} fields, the header has {len(header)}; "
                    + ("a TSV field cannot hold a tab" if tabs else f"quote fields that hold {mark!r}")
                )
            yield reader.line_num, fields
    finally:
        csv.field_size_limit(before)
    if not header:
        raise InputError(f"{path}: is empty; add a header and rows or remove the file")


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    keys: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}); every line is one object") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: an object is needed, got {line.strip()[:80]!r}")
        if not keys:
            keys = list(row)
            yield number, keys
        missing = [key for key in keys if key not in row]
        if missing:
            raise InputError(f"{path}, line {number}: has no {missing[0]!r}, which the first line has")
        yield number, ["" if row[key] is None else str(row[key]) for key in keys]
    if not keys:
        raise InputError(f"{path}: is empty; add rows or remove the file")


def _meanings(path: Path, header: list[str], languages: dict[str, str]) -> dict[str, int]:
    """Return the place of each column that is known, if together they make a task."""
    plain = [re.sub(r"[\W_]+", "", name.lower()) for name in header]
    places: dict[str, int] = {}
    for meaning, names in COLUMN_NAMES.items():
        known = [plain.index(name) for name in (n.replace(" ", "") for n in names) if name in plain]
        if known:
            places[meaning] = known[0]  # the names are in order of preference
    if {"first", "second"} <= places.keys() or {"text", "label"} <= places.keys():
        return places
    if len(header) == 2 and all(name.strip().lower() in languages for name in header):
        return {name.strip().lower(): place for place, name in enumerate(header)}
    raise InputError(
        f"{path}, line 1: the columns {', '.join(repr(name[:40]) for name in header[:12])} make no task; give the file "
        "a header with text and label, or sentence1 and sentence2 with score or label, or two language codes"
    )


def _line_of(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
