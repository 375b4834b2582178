"""Where training data come from: objects in memory, tables, JSON lines, Parquet, folders of documents, collections."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab.text.training.recipe import TrainingData
from embedlab.text.training.rows import read_columns

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Source:
    """One place that data come from.

    Attributes:
        data: A path, or an object: ``TrainingData``, a ``datasets.Dataset``, rows as dicts, or a ``Collection``.
        name: What the data set is called; None for the file's name.
        columns: Our name of a column -> its name there.
        queries: How plain texts get queries: ``"offline"``, or the URL of a chat endpoint (``http://.../v1#model``).
        per_passage: Queries per passage.
        top_k: A query is kept if its passage is among so many nearest; None to keep all.
        limit: Use the first so many rows only.
    """

    data: Any
    name: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    queries: str = "offline"
    per_passage: int = 1
    top_k: int | None = 1
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows, and what may not be parted.

    Attributes:
        data: The rows.
        groups: For each row its group, such as the document it was cut from; None where only equal texts tie rows.
        headings: For each passage of a document the headings above it; None for other data.
        source: What the rows were made from.
        made: Whether the queries were made, not given.
    """

    data: TrainingData
    groups: Sequence[str] | None
    headings: Sequence[tuple[str, ...]] | None
    source: Source
    made: bool = False


_KEYS = ("path", "name", "columns", "queries", "per_passage", "top_k", "limit")


def as_sources(given: Any) -> list[Source]:
    """Understand what a caller or a recipe file calls data.

    Args:
        given: A path, an object, a mapping with ``path`` and further keys, a mapping name -> any of these, or a list.

    Returns:
        The sources, in order.

    Raises:
        InputError: nothing is given, a key is unknown, or a file does not exist.
    """
    if isinstance(given, Mapping) and not _is_dataset_dict(given):
        if "path" in given:
            return [_from_mapping(given)]
        bad = next((key for key, value in given.items() if key in _KEYS and not isinstance(value, Mapping)), None)
        if bad is not None:
            raise InputError(f"data: {bad!r} is given, but no path: say path: FILE_OR_FOLDER")
        return [replace(source, name=str(name)) for name, value in given.items() for source in as_sources(value)]
    if _is_dataset_dict(given):
        return [Source(rows, str(name)) for name, rows in given.items()]
    rows = isinstance(given, list | tuple) and all(isinstance(each, Mapping) and "path" not in each for each in given)
    if isinstance(given, list | tuple) and not rows:
        return [source for each in given for source in as_sources(each)]
    if given is None or (isinstance(given, list | tuple) and not given):
        raise InputError("data: none given: name a file, a folder of documents, or pass a datasets.Dataset")
    if isinstance(given, str | Path):
        _existing(given)
    return [Source(given)]


def _from_mapping(given: Mapping[str, Any]) -> Source:
    for key in given:
        if key not in _KEYS:
            raise unknown_name("key of data", str(key), _KEYS)
    columns = given.get("columns") or {}
    if not isinstance(columns, Mapping):
        raise InputError(f"columns={columns!r}: expected a mapping such as {{anchor: question, positive: answer}}")
    for key in ("per_passage", "top_k", "limit"):
        value = given.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{key}={value!r}: must be a whole number of at least 1")
    _existing(given["path"])
    rest = {key: value for key, value in given.items() if key not in ("path", "columns")}
    return Source(given["path"], columns={str(own): str(column) for own, column in columns.items()}, **rest)


def _existing(path: str | Path) -> None:
    if not Path(path).exists():
        near = sorted(each.name for each in Path(path).parent.glob("*"))[:8] if Path(path).parent.is_dir() else []
        hint = f"; there are {', '.join(near)}" if near else ""
        raise InputError(f"data: {path} does not exist{hint}")


def load(sources: Sequence[Source]) -> list[Loaded]:
    """Read all sources.

    Args:
        sources: What ``as_sources`` gave.

    Returns:
        The rows of each; names are told apart by numbers.

    Raises:
        InputError: a file cannot be read, or rows are wrong; see ``read_columns``.
    """
    loaded: list[Loaded] = []
    taken: set[str] = set()
    for place, source in enumerate(sources):
        found = _load(source, source.name or _name_of(source.data, place))
        name = unique = found.data.name
        number = 1
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique)
        data = TrainingData(unique, found.data.kind, found.data.rows)
        loaded.append(Loaded(data, found.groups, found.headings, source))
    return loaded


def _name_of(data: Any, place: int) -> str:
    if isinstance(data, str | Path):
        return Path(data).resolve().stem
    return str(getattr(data, "name", None) or f"data{place + 1 if place else ''}")


def _load(source: Source, name: str) -> Loaded:
    data = source.data
    if isinstance(data, TrainingData):
        return Loaded(data, None, None, source)
    if isinstance(data, str | Path):
        path = Path(data)
        if path.is_dir() or path.suffix.lower() not in _TABLES:
            return _documents(path, name, source)
        columns = _table(path)
        if {"text", "vector", "source", "headings"} <= columns.keys():  # an exported collection
            above: Any = [tuple(each or ()) for each in columns["headings"]]
            return _passages(columns["text"], columns["source"], above, name, source, "the collection is empty")
    elif _is_dataset(data):
        columns = {column: data[column][:] for column in data.column_names if not column.startswith("__")}
        columns = {column: _class_names(data, column, values) for column, values in columns.items()}
    elif hasattr(data, "passages") and hasattr(data, "documents"):
        return _collection(data, name, source)
    elif isinstance(data, list | tuple) and all(isinstance(each, Mapping) for each in data):
        columns = _columns_of(data, name)
    else:
        raise InputError(
            f"data {name!r} is of type {type(data).__name__}: expected a path, a datasets.Dataset, a list of dicts, "
            "TrainingData or a collection"
        )
    if source.limit is not None:
        columns = {column: values[: source.limit] for column, values in columns.items()}
    rows, groups = read_columns(columns, name=name, chosen=source.columns)
    return Loaded(rows, groups, None, source)


def _is_dataset(data: Any) -> bool:
    return type(data).__module__.startswith("datasets.") and hasattr(data, "column_names")


def _is_dataset_dict(data: Any) -> bool:
    return type(data).__module__.startswith("datasets.") and isinstance(data, dict)


def _class_names(data: Any, column: str, values: list[Any]) -> list[Any]:
    names = getattr(data.features[column], "names", None)
    return [names[value] for value in values] if names else values


def _table(path: Path) -> dict[str, list[Any]]:
    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            parquet: Any = require("pyarrow.parquet", extra="train")
            table: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
            return table
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"data: {path} cannot be read as UTF-8: {error}") from error
    except ValueError as error:
        raise InputError(f"data: {path} is no readable Parquet file: {error}") from error
    if ending in (".csv", ".tsv"):
        return _separated(content, path, "\t" if ending == ".tsv" else None)
    rows = []
    for number, line in enumerate(content.splitlines() if ending != ".json" else [content]):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"data: {path}, line {number + 1}: no JSON ({error})") from error
        rows.extend(row if isinstance(row, list) and ending == ".json" else [row])
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"data: {path}, row {number + 1}: {row!s:.60} is no object of column: value")
    return _columns_of(rows, str(path))


def _columns_of(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[Any]]:
    if not rows:
        raise InputError(f"data {name!r} holds no row: give at least two")
    columns = list(rows[0])
    for number, row in enumerate(rows):
        if set(row) != set(columns):
            odd = sorted(set(row) ^ set(columns))
            raise InputError(
                f"data {name!r}, row {number + 1}: its columns are not those of the first row ({', '.join(odd)}): "
                "mixed kinds belong in files of their own"
            )
    return {column: [row[column] for row in rows] for column in columns}


def _separated(content: str, path: Path, delimiter: str | None) -> dict[str, list[Any]]:
    """Read a CSV keeping texts as they are, line breaks included."""
    head = content[: content.find("\n") + 1 or None]
    delimiter = delimiter or max(",;\t|", key=head.count)
    try:
        lines = [row for row in csv.reader(content.splitlines(keepends=True), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise InputError(f"data: {path} is no readable CSV: {error}") from error
    if len(lines) < 2:
        raise InputError(f"data: {path} holds no row below its header: give at least two")
    header = lines[0]
    for number, row in enumerate(lines[1:]):
        if len(row) != len(header):
            raise InputError(
                f"data: {path}, row {number + 1}: {len(row)} cells under {len(header)} headers: put texts with "
                f"{delimiter!r} in double quotes"
            )
    return {title: [row[place] for row in lines[1:]] for place, title in enumerate(header)}


def _documents(path: Path, name: str, source: Source) -> Loaded:
    """Cut documents into passages; a passage's group is its document."""
    from embedlab.data.corpus import read_corpus

    found = list(read_corpus(path))
    texts, groups, headings = [e.text for e in found], [e.document for e in found], [e.headings for e in found]
    return _passages(texts, groups, headings, name, source, f"{path} holds no document that can be read")


def _collection(data: Any, name: str, source: Source) -> Loaded:
    found = [(each.text, each.source, tuple(each.headings)) for each in data.passages()]
    texts, groups, headings = [each[0] for each in found], [each[1] for each in found], [each[2] for each in found]
    return _passages(texts, groups, headings, name, source, "the collection is empty")


def _passages(texts: list[str], groups: list[str], headings: Any, name: str, source: Source, empty: str) -> Loaded:
    if not texts:
        raise InputError(f"data {name!r}: {empty}")
    end = source.limit
    rows, _ = read_columns({"text": texts[:end]}, name=name)
    return Loaded(rows, groups[:end], headings[:end], source)
