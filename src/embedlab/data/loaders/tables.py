"""Relational tables: a music shop, airports, companies, tables of Wikipedia, and schemas of many databases."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass

from embedlab._core.errors import InputError
from embedlab.data.loaders.opening import data_file, open_text
from embedlab.data.tables import Table, read_csv, read_tables

_AIRPORTS = (
    "Airport ID,Name,City,Country,IATA,ICAO,Latitude,Longitude,Altitude,Timezone,DST,Tz database timezone,Type,Source"
)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database is made of, without its rows.

    Attributes:
        name: Its name.
        tables: For each table its name and the names of its columns.
        primary_keys: (table, column) positions.
        foreign_keys: Pairs of (table, column) positions: which column refers to which.
    """

    name: str
    tables: tuple[tuple[str, tuple[str, ...]], ...]
    primary_keys: tuple[tuple[int, int], ...]
    foreign_keys: tuple[tuple[tuple[int, int], tuple[int, int]], ...]


def load_chinook() -> list[Table]:
    """Load Chinook, the database of a music shop: 11 tables with keys, from 5 media types to 8,715 playlist entries.

    Returns:
        The tables by name.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.
    """
    return read_tables(data_file("chinook", "Chinook_Sqlite.sqlite"))


def load_openflights() -> Table:
    """Load the airports of OpenFlights; the file has no header, these are the names of its documentation.

    Returns:
        The table.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.
    """
    content = open_text("openflights", "airports.dat.gz").replace("\\N", "")  # \N stands for a missing value
    return read_csv(content, name="airports", header=_AIRPORTS.split(","))


def load_sp500() -> Table:
    """Load the companies of the S&P 500 index: in this table the sub-industry decides the sector.

    Returns:
        The table.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.
    """
    return read_csv(open_text("sp500", "constituents.csv"), name="constituents")


def load_wikitablequestions(limit: int | None = None) -> list[Table]:
    """Load tables of Wikipedia articles, as collected for WikiTableQuestions.

    Args:
        limit: Only the first so many, by name; None for all 1,109.

    Returns:
        The tables.

    Raises:
        InputError: ``limit`` is below 1.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Pasupat and Liang (2015), Compositional Semantic Parsing on Semi-Structured Tables.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} must be at least 1, or None for all")
    with zipfile.ZipFile(data_file("wikitablequestions", "wikitablequestions.zip")) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".csv"))[:limit]
        return [read_csv(_unescaped(archive.read(name)), name=name.removesuffix(".csv")) for name in names]


def load_spider_schemas() -> list[Schema]:
    """Load the schemas of the 166 databases of Spider, with keys.

    Returns:
        The schemas, under the names that people wrote for them.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Yu et al. (2018), Spider: A Large-Scale Human-Labeled Dataset for Complex and Cross-Domain Semantic Parsing and
        Text-to-SQL Task.
    """
    return [_schema(entry) for entry in json.loads(open_text("spider-schemas", "tables.json.gz"))]


def _schema(entry: dict[str, list[list[int]]]) -> Schema:
    columns: list[list[str]] = [[] for _ in entry["table_names"]]
    places: list[tuple[int, int]] = []  # number of a column -> its table and its place there
    for table, name in entry["column_names"]:
        places.append((table, len(columns[table]) if table >= 0 else -1))
        if table >= 0:  # the column * stands for all
            columns[table].append(str(name))
    primary = [number for key in entry["primary_keys"] for number in (key if isinstance(key, list) else [key])]
    return Schema(
        name=str(entry["db_id"]),
        tables=tuple((str(name), tuple(own)) for name, own in zip(entry["table_names"], columns, strict=True)),
        primary_keys=tuple(places[number] for number in primary),
        foreign_keys=tuple((places[a], places[b]) for a, b in entry["foreign_keys"]),
    )


def _unescaped(content: bytes) -> str:
    """These files write a quote inside a cell as \\", where CSV doubles it."""
    return content.decode("utf-8").replace('\\"', '""')
