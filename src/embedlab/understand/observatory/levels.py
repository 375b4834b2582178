"""How a table becomes a text, and which parts of it are the objects to embed: columns, rows, the table, cells.

A level is a function from a table to a ``Serialisation``; ``register_level`` adds one under a new name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from embedlab._core.errors import InputError, unknown_name
from embedlab.data.tables import Table

#: (text, object it belongs to); None stands for the mark that the model puts before a text, such as [CLS].
Piece: TypeAlias = tuple[str | None, int]


@dataclass(frozen=True, slots=True)
class Serialisation:
    """A table as a text in pieces.

    Attributes:
        pieces: In order, each with the number of its object, -1 for pieces of none.
        num_objects: How many objects there are; one without pieces has no embedding.
        at_mark: Whether an object is read at its mark, or as the mean over its tokens.
        follows: What the objects move with when a table is reordered: ``"columns"``, ``"rows"``, ``"cells"`` (row by
            row, headers first) or nothing.
    """

    pieces: tuple[Piece, ...]
    num_objects: int
    at_mark: bool
    follows: Literal["columns", "rows", "cells", "nothing"] = "nothing"

    def texts(self) -> list[str]:
        """Return what stands in each object, joined by spaces; empty for an object without any text."""
        parts: list[list[str]] = [[] for _ in range(self.num_objects)]
        for text, owner in self.pieces:
            if text and owner >= 0:
                parts[owner].append(text)
        return [" ".join(part) for part in parts]


Level: TypeAlias = Callable[[Table], Serialisation]
LEVELS: dict[str, Level] = {}


def register_level(name: str) -> Callable[[Level], Level]:
    """Make a serialisation known under a name, as a decorator.

    Args:
        name: What encoders and properties are to call it.

    Returns:
        The decorator, which gives the function back.

    Raises:
        InputError: the name is taken.
    """
    if name in LEVELS:
        raise InputError(f"name={name!r} is taken by another level: choose a new one")

    def add(level: Level) -> Level:
        LEVELS[name] = level
        return level

    return add


def serialise(table: Table, *, level: str) -> Serialisation:
    """Write a table as text.

    Args:
        table: The table.
        level: What the objects are: ``"column"``, ``"row"``, ``"table"``, ``"cell"`` or a registered name.

    Returns:
        The text in pieces.

    Raises:
        InputError: there is no such level.

    Example:
        >>> serialise(Table("t", ("a", "b"), (("1",), ("2",))), level="column").texts()
        ['a 1', 'b 2']
    """
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    return LEVELS[level](table)


@register_level("column")
def by_column(table: Table) -> Serialisation:
    """Write column after column, a mark before each: ``[CLS] header v1 v2 .. [CLS] header v1 ..``.

    Args:
        table: The table.

    Returns:
        One object per column.
    """
    pieces: list[Piece] = []
    for j, (title, cells) in enumerate(zip(table.header, table.columns, strict=True)):
        pieces += [(None, j), (title, j), *((cell, j) for cell in cells)]
    return Serialisation(tuple(pieces), table.num_columns, at_mark=True, follows="columns")


@register_level("row")
def by_row(table: Table) -> Serialisation:
    """Write row after row, a mark before each and every cell after its header: ``[CLS] h1 v1 h2 v2 .. [CLS] h1 ..``.

    Args:
        table: The table.

    Returns:
        One object per row.
    """
    pieces: list[Piece] = []
    for i in range(table.num_rows):
        pieces.append((None, i))
        for title, cells in zip(table.header, table.columns, strict=True):
            pieces += [(title, i), (cells[i], i)]
    return Serialisation(tuple(pieces), table.num_rows, at_mark=True, follows="rows")


@register_level("table")
def as_a_whole(table: Table) -> Serialisation:
    """Write column after column behind one single mark.

    Args:
        table: The table.

    Returns:
        One object.
    """
    pieces: list[Piece] = [(None, 0)]
    for title, cells in zip(table.header, table.columns, strict=True):
        pieces += [(title, 0), *((cell, 0) for cell in cells)]
    return Serialisation(tuple(pieces), 1, at_mark=True)


@register_level("cell")
def by_cell(table: Table) -> Serialisation:
    """Write as for columns, but read every cell: object ``i * columns + j`` is column j of row i, row 0 the header.

    Args:
        table: The table.

    Returns:
        (rows + 1) * columns objects; a missing value has no embedding.
    """
    width, pieces = table.num_columns, []
    for j, (title, cells) in enumerate(zip(table.header, table.columns, strict=True)):
        pieces += [(None, -1), *((cell, i * width + j) for i, cell in enumerate((title, *cells)))]
    return Serialisation(tuple(pieces), (table.num_rows + 1) * width, at_mark=False, follows="cells")
