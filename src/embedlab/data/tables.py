"""Relational tables as text: from CSV files, SQLite databases, pandas or polars frames, or plain columns."""

from __future__ import annotations

import csv
import io
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from embedlab._core.errors import InputError

Frame: TypeAlias = Any  # a Table, a pandas or polars frame, or a mapping from header to values

_CSV = {".csv", ".tsv", ".tab"}
_SQLITE = {".sqlite", ".sqlite3", ".db", ".db3"}
_MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose cells are texts already, so that every variant of it reads the same.

    Columns are known by position; headers may be empty or occur twice.

    Attributes:
        name: What it is called.
        header: One text per column.
        columns: For each column its cells, from the first row to the last; an empty text is a missing value.
    """

    name: str
    header: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]

    @property
    def num_rows(self) -> int:
        """Rows below the header."""
        return len(self.columns[0]) if self.columns else 0

    @property
    def num_columns(self) -> int:
        """Columns."""
        return len(self.header)

    def take_rows(self, rows: Iterable[int]) -> Table:
        """Return the table with these rows in this order."""
        order = list(rows)
        return Table(self.name, self.header, tuple(tuple(column[row] for row in order) for column in self.columns))

    def take_columns(self, columns: Iterable[int]) -> Table:
        """Return the table with these columns in this order."""
        order = list(columns)
        return Table(self.name, tuple(self.header[j] for j in order), tuple(self.columns[j] for j in order))

    def with_header(self, header: Iterable[str]) -> Table:
        """Return the table under other headers."""
        return Table(self.name, tuple(header), self.columns)

    def head(self, num_rows: int) -> Table:
        """Return the table with its first rows only."""
        return Table(self.name, self.header, tuple(column[:num_rows] for column in self.columns))

    def is_text(self, column: int) -> bool:
        """Tell whether more than half of the column's cells, missing ones aside, are neither numbers nor dates."""
        cells = [cell for cell in self.columns[column] if cell]
        return sum(any(map(str.isalpha, cell)) for cell in cells) > len(cells) / 2


def as_table(data: Frame, *, name: str = "table") -> Table:
    """Make a table of a frame, writing every cell as text once.

    Missing values (None, NaN, NaT) become the empty text, and whole numbers lose their ``.0``, since a column of
    integers with a gap is often handed over as floats.

    Args:
        data: A pandas or polars frame, a mapping from header to values, or a table, which comes back as it is.
        name: What to call it.

    Returns:
        The table.

    Raises:
        InputError: ``data`` is none of these, or its columns differ in length.

    Example:
        >>> as_table({"city": ["Oslo", None], "people": [709037.0, float("nan")]}).columns
        (('Oslo', ''), ('709037', ''))
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, Mapping):
        header, columns = list(data), [list(values) for values in data.values()]
    elif hasattr(data, "iloc"):  # pandas; by position, since headers may occur twice
        header = list(data.columns)
        columns = [data.iloc[:, j].tolist() for j in range(len(header))]
    elif hasattr(data, "get_columns"):  # polars
        header, columns = list(data.columns), [column.to_list() for column in data.get_columns()]
    else:
        raise InputError(
            f"data of type {type(data).__name__} is no table: give a pandas or polars frame, or a dict of columns"
        )
    return _table(name, header, columns)


def read_tables(source: str | Path | Frame | Mapping[str, Frame] | Iterable[Frame]) -> list[Table]:
    """Read all tables of a source.

    Args:
        source: A folder of CSV, TSV or SQLite files (searched to any depth), one such file, a frame, a mapping from
            names to frames, or several frames.

    Returns:
        The tables, by path and name; those of a database are called ``file.table`` if the source holds more files.

    Raises:
        InputError: there is no table, or a file is not what its ending says.

    Example:
        >>> [table.name for table in read_tables({"a": {"x": [1, 2]}, "b": {"y": []}})]
        ['a', 'b']
    """
    if isinstance(source, (str, Path)):
        return _told_apart(_read_path(Path(source)))
    if isinstance(source, Table) or hasattr(source, "iloc") or hasattr(source, "get_columns"):
        return [as_table(source)]
    if isinstance(source, Mapping):
        if any(_is_frame(value) for value in source.values()):
            tables = [as_table(value, name=str(name)) for name, value in source.items()]
        else:
            tables = [as_table(source)]
    elif isinstance(source, Iterable):
        tables = [as_table(value, name=f"table{place}") for place, value in enumerate(source)]
    else:
        raise InputError(f"source of type {type(source).__name__}: give a folder, a file or frames")
    if not tables:
        raise InputError("source holds no table")
    return _told_apart(tables)


def read_csv(content: str, *, name: str = "table", header: Sequence[str] | None = None) -> Table:
    """Read a table from the text of a CSV file, whatever parts its columns: comma, semicolon, tab or bar.

    Args:
        content: The text.
        name: What to call the table.
        header: Headers, if the file has none; otherwise its first line holds them.

    Returns:
        The table. Rows that are too short get missing values; a row that is too long widens the table.

    Raises:
        InputError: the text holds no row at all, or a cell of more than 128 KiB.

    Example:
        >>> read_csv("a;b\\n1;2\\n3\\n").columns
        (('1', '3'), ('2', ''))
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(content, newline=""), delimiter=_delimiter(content)) if row]
    except csv.Error as error:
        raise InputError(f"{name} is no readable CSV: {error}") from error
    if header is None:
        if not rows:
            raise InputError(f"{name} holds no row: a header at least is needed")
        header, rows = rows[0], rows[1:]
    width = max([len(header), *map(len, rows)])
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    return _table(name, [*header, *[""] * (width - len(header))], [[row[j] for row in padded] for j in range(width)])


def _table(name: str, header: Sequence[object], columns: Sequence[Sequence[object]]) -> Table:
    lengths = sorted({len(column) for column in columns})
    if len(lengths) > 1:
        raise InputError(f"{name}: columns differ in length, from {lengths[0]} to {lengths[-1]}: make them equal")
    texts = tuple(tuple(map(_text, column)) for column in columns)
    return Table(name, tuple(_text(title) for title in header), texts)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(bytes(value))} bytes"
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return " ".join(str(value).split())


def _told_apart(tables: list[Table]) -> list[Table]:
    """Number the later ones of tables with the same name."""
    seen: Counter[str] = Counter()
    named = []
    for table in tables:
        seen[table.name] += 1
        count = seen[table.name]
        named.append(table if count == 1 else Table(f"{table.name}#{count}", table.header, table.columns))
    return named


def _is_frame(value: object) -> bool:
    return isinstance(value, Table | Mapping) or hasattr(value, "iloc") or hasattr(value, "get_columns")


def _delimiter(content: str) -> str:
    first = content.lstrip("\n").split("\n", 1)[0]
    return max(",;\t|", key=first.count)  # the first of equals, so a single column is comma-separated


def _read_path(path: Path) -> list[Table]:
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix.lower() in _CSV | _SQLITE and each.is_file())
    elif path.is_file():
        files = [path]
    else:
        raise InputError(f"{path} does not exist: give a folder of CSV files, a CSV file or a SQLite database")
    tables: list[Table] = []
    for file in files:
        name = file.relative_to(path).with_suffix("").as_posix() if path.is_dir() else file.stem
        if file.stat().st_size > _MAX_BYTES:
            raise InputError(f"{file} has more than {_MAX_BYTES >> 20} MiB: give a part of it")
        if file.suffix.lower() in _SQLITE or _is_sqlite(file):
            tables += _read_sqlite(file, prefix="" if len(files) == 1 else f"{name}.")
        elif file.stat().st_size:
            tables.append(read_csv(_decoded(file), name=name))
    if not tables:
        raise InputError(f"{path} holds no table: CSV, TSV and SQLite files are read")
    return tables


def _is_sqlite(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(16) == b"SQLite format 3\0"


def _decoded(file: Path) -> str:
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    if "\0" in text:
        raise InputError(f"{file} is no text file: CSV, TSV and SQLite files are read")
    return text


def _read_sqlite(file: Path, *, prefix: str) -> Iterator[Table]:
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            listed = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
            for (name,) in database.execute(listed).fetchall():
                quoted = name.replace('"', '""')
                rows = database.execute(f'SELECT * FROM "{quoted}"')  # a name cannot be a parameter
                header = [item[0] for item in rows.description]
                columns = list(zip(*rows.fetchall(), strict=True)) or [()] * len(header)
                yield _table(f"{prefix}{name}", header, columns)
    except sqlite3.Error as error:
        raise InputError(f"{file} is no readable SQLite database: {error}") from error
