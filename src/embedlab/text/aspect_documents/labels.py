"""Labels from where people have them: a table, a list of names to look for in the text, or pairs of examples."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedlab._core.errors import InputError
from embedlab.text.aspect_documents.names import check_aspect

SEPARATOR = ";"

_WORD = re.compile(r"\w+")


def read_labels(path: str | os.PathLike[str], *, separator: str = SEPARATOR) -> dict[str, dict[str, set[str]]]:
    """Read labels of documents from CSV with a header, or JSON lines.

    The column ``source`` says which document; every other one is an aspect. In CSV a cell holds labels with the
    separator between them, in JSON lines a list or such a text.

    Args:
        path: A file that ends in ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson``.
        separator: What stands between two labels of a text.

    Returns:
        Aspect -> source -> labels.

    Raises:
        InputError: the file cannot be read as such, or has no column ``source`` or no aspect.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for place, row in _rows(path, ("source",)):
        for aspect, value in row.items():
            if aspect != "source":
                labels = found.setdefault(_aspect(aspect, place), {}).setdefault(str(row["source"]), set())
                labels.update(split_labels(value, separator=separator))
    if not found:
        raise InputError(f"{path}: no aspect in it; besides 'source' a column for each aspect is needed")
    return found


def read_entities(path: str | os.PathLike[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Read lists of names from CSV with a header, or JSON lines: columns ``aspect``, ``name`` and, if any, ``aliases``.

    Args:
        path: The file; ``aliases`` is a list, or a text with ``;`` between them.

    Returns:
        Aspect -> name -> all its spellings.

    Raises:
        InputError: the file cannot be read as such, or lacks a column.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for place, row in _rows(path, ("aspect", "name")):
        name = str(row["name"]).strip()
        if name:
            aliases = sorted(split_labels(row.get("aliases"), separator=SEPARATOR))
            own = found.setdefault(_aspect(row["aspect"], place), {})
            own[name] = tuple(dict.fromkeys((*own.get(name, ()), name, *aliases)))
    return found


def read_examples(path: str | os.PathLike[str]) -> dict[str, list[tuple[str, str]]]:
    """Read pairs of documents that are alike from CSV or JSON lines: columns ``aspect``, ``first`` and ``second``.

    Args:
        path: The file; ``first`` and ``second`` are sources of documents.

    Returns:
        Aspect -> pairs of sources.

    Raises:
        InputError: the file cannot be read as such, or lacks a column.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for place, row in _rows(path, ("aspect", "first", "second")):
        found.setdefault(_aspect(row["aspect"], place), []).append((str(row["first"]), str(row["second"])))
    return found


def entity_labels(texts: Iterable[str], entities: Mapping[str, Sequence[str]]) -> list[set[str]]:
    """Label texts with the names that stand in them, as whole words.

    Case does not count, but for names of one word in capitals (``SVM``, ``BiLSTM``), which must stand as they are.
    What lies between words does not count either: ``bi-LSTM`` is found in ``bi - LSTM``.

    Args:
        texts: The texts.
        entities: Name -> its spellings.

    Returns:
        The names found in each text.

    Raises:
        InputError: a spelling holds no word.

    Example:
        >>> entity_labels(["We train a U - Net .", "a net"], {"U-Net": ["U-Net", "UNet"]})
        [{'U-Net'}, set()]
    """
    names: dict[tuple[str, ...], set[str]] = {}
    for name, spellings in entities.items():
        for spelling in spellings:
            words = _WORD.findall(spelling)
            if not words:
                raise InputError(f"entity {name!r}: the spelling {spelling!r} holds no word")
            fixed = len(words) == 1 and sum(letter.isupper() for letter in spelling) > 1
            names.setdefault(tuple(words) if fixed else tuple(word.casefold() for word in words), set()).add(name)
    lengths = sorted({len(words) for words in names})
    found = []
    for text in texts:
        exact = _WORD.findall(text)
        folded = [word.casefold() for word in exact]
        labels: set[str] = set()
        for size in lengths:
            for words in (folded, exact) if size == 1 else (folded,):
                for start in range(len(words) - size + 1):
                    labels |= names.get(tuple(words[start : start + size]), set())
        found.append(labels)
    return found


def split_labels(value: Any, *, separator: str = SEPARATOR) -> set[str]:
    """Return the labels that a cell holds.

    Args:
        value: A text, a list, a number, or None.
        separator: What stands between two labels of a text.

    Returns:
        The labels without space around them; none for None and for empty text.

    Example:
        >>> sorted(split_labels("LSTM; CRF;"))
        ['CRF', 'LSTM']
    """
    if value is None:
        return set()
    parts = value if isinstance(value, list | tuple | set | frozenset) else str(value).split(separator)
    return {str(part).strip() for part in parts} - {""}


def _aspect(name: Any, place: str) -> str:
    try:
        return check_aspect(str(name))
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _rows(path: str | os.PathLike[str], needed: Sequence[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield (file and line, row), each checked to have the columns needed."""
    file = Path(path)
    kind = file.suffix.lower()
    if kind not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        raise InputError(f"{file}: must end in .csv, .tsv, .jsonl or .ndjson")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows: Iterable[Any] = (
                csv.DictReader(lines, delimiter="\t" if kind == ".tsv" else ",", restkey="", strict=True)
                if kind in (".csv", ".tsv")
                else (json.loads(line) for line in lines if line.strip())
            )
            for number, row in enumerate(rows, start=2 if kind in (".csv", ".tsv") else 1):
                place = f"{file}, line {number}"
                lacks = [name for name in needed if not isinstance(row, dict) or row.get(name) in (None, "")]
                if lacks:
                    raise InputError(f"{place}: no {lacks[0]!r}; every row needs {', '.join(needed)}")
                if "" in row:
                    raise InputError(f"{place}: more cells than columns; put cells that hold a comma between quotes")
                yield place, row
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise InputError(f"{file} can't be read: {error}") from error
