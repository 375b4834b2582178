"""Concepts, texts and pairs from the tables that people have, and models learned from them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import InputError
from embedlab.data.corpus import read_corpus
from embedlab.text.sesa.esa import ESA
from embedlab.text.sesa.measures import auc
from embedlab.text.sesa.negatives import negative_pairs
from embedlab.text.sesa.space import ConceptSpace, Item

if TYPE_CHECKING:
    from embedlab.text.sesa.model import SESA

SEPARATOR = ";"
_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
_HELD_OUT = 0.1


@dataclass(frozen=True, slots=True)
class Declaring:
    """Texts, and the concepts that each declares.

    Attributes:
        texts: The texts, each once.
        concepts: The concepts of each text; empty where it declares none.
    """

    texts: list[str]
    concepts: list[list[str]]


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained model and how it does on pairs held out.

    Attributes:
        model: The model.
        pairs: Number of training pairs.
        auc: On the pairs held out, which also decided when to stop.
        auc_esa: Of ESA on the same pairs, made of the same training texts.
    """

    model: SESA
    pairs: int
    auc: float
    auc_esa: float


def read_concepts(path: str | os.PathLike[str]) -> ConceptSpace:
    """Read an inventory of concepts: a table with the columns ``name`` and, if there are any, ``description``.

    Args:
        path: A file that ends in .csv, .tsv, .jsonl or .ndjson.

    Returns:
        The concepts, in the order of the rows.

    Raises:
        InputError: the file cannot be read as such, has no column ``name``, or has a name twice.
    """
    rows = [row for _, row in _rows(path, "name")]
    descriptions = [str(row.get("description") or "").strip() for row in rows]
    return ConceptSpace([str(row["name"]).strip() for row in rows], descriptions if any(descriptions) else None)


def read_declaring(path: str | os.PathLike[str], space: ConceptSpace, *, separator: str = SEPARATOR) -> Declaring:
    """Read texts with the concepts that they declare, or any documents, which declare none.

    Args:
        path: A table (.csv, .tsv, .jsonl, .ndjson) with the column ``text`` and perhaps ``concepts``: names as a list,
            or with the separator between them. Or a folder or file of documents, whose passages are the texts.
        space: The concepts that may be declared.
        separator: What stands between two names.

    Returns:
        The texts; one that comes again joins its concepts.

    Raises:
        InputError: the file cannot be read as such, there is no text, or a concept is unknown.
    """
    found: dict[str, dict[str, None]] = {}
    if Path(path).suffix.lower() in _ENDINGS:
        for place, row in _rows(path, "text"):
            text = str(row["text"] or "").strip()
            names = _names(row.get("concepts"), separator)
            try:
                space.multi_hot([names])
            except InputError as error:
                raise InputError(f"{place}: {error}") from error
            if text:
                found.setdefault(text, {}).update(dict.fromkeys(names))
    else:
        found = {passage.text: {} for passage in read_corpus(Path(path)) if passage.text.strip()}
    if not found:
        raise InputError(f"{path}: holds no text")
    return Declaring(list(found), [list(names) for names in found.values()])


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str, bool]]:
    """Read pairs of texts: a table with the columns ``first``, ``second`` and, if any, ``label`` (0 or 1; 1 if absent).

    Args:
        path: A file that ends in .csv, .tsv, .jsonl or .ndjson.

    Returns:
        First text, second text, whether they are relevant to each other.

    Raises:
        InputError: the file cannot be read as such, or a label is neither 0 nor 1.
    """
    pairs = []
    for place, row in _rows(path, "first", "second"):
        label = str(row.get("label") if row.get("label") is not None else 1).strip().lower()
        if label not in ("0", "1", "0.0", "1.0", "true", "false"):
            raise InputError(f"{place}: label={label!r}: must be 0 or 1")
        pairs.append((str(row["first"]), str(row["second"]), label in ("1", "1.0", "true")))
    return pairs


def learn(
    space: ConceptSpace,
    items: Declaring,
    *,
    pairs: Sequence[tuple[str, str, bool]] | None = None,
    epochs: int = 30,
    learning_rate: float = 0.03,
    seed: int = 0,
    **options: Any,
) -> Learned:
    """Train SESA on texts that declare concepts, holding a tenth of them out to decide when to stop.

    Without pairs, what belongs together is a text and the set that it declares; other sets are drawn as negatives.

    Args:
        space: The concepts.
        items: Texts and what they declare.
        pairs: Pairs of texts with labels; if none is 0, other second texts are drawn as negatives.
        epochs: At most so many.
        learning_rate: Of Adam.
        seed: Decides what is held out and drawn.
        **options: As for ``SESA``.

    Returns:
        The model, and its AUC beside that of ESA.

    Raises:
        InputError: there is too little to learn from, or an option is out of range.
    """
    from embedlab.text.sesa.model import SESA

    known = {text: names for text, names in zip(items.texts, items.concepts, strict=True) if names}
    firsts = list(dict.fromkeys(first for first, *_ in pairs)) if pairs else list(known)
    if len(firsts) < 10:
        raise InputError(f"{len(firsts)} texts to learn from: give ten or more, with concepts or in pairs")
    order = np.random.default_rng(seed).permutation(len(firsts))
    cut = max(2, int(_HELD_OUT * len(firsts)))
    out, kept = (np.sort(part).tolist() for part in (order[:cut], order[cut:]))
    parts = [
        _labelled(pairs, {firsts[place] for place in part}, seed)
        if pairs
        else _declared([firsts[place] for place in part], known, space, seed)
        for part in (kept, out)
    ]
    held_out = {firsts[place] for place in out}
    shown = {text: names for text, names in known.items() if text not in held_out}
    model = SESA(space, seed=seed, **options)
    model.fit(*parts[0], concepts=shown, validation=parts[1], epochs=epochs, learning_rate=learning_rate)
    esa = ESA(space).fit(list(shown), list(shown.values()))
    scores = [auc(each.score_pairs(parts[1][0]), parts[1][1]) for each in (model, esa)]
    return Learned(model, len(parts[0][0]), *scores)


Labelled = tuple[list[tuple[str, str | Item]], np.ndarray[Any, np.dtype[np.float32]]]


def _declared(texts: list[str], known: Mapping[str, list[str]], space: ConceptSpace, seed: int) -> Labelled:
    """Pair each text with the set it declares, and with sets of others that are not the same."""
    sets = space.multi_hot([known[text] for text in texts])
    same = [np.flatnonzero((sets == row).all(axis=1)) for row in sets]
    rows, columns, labels = negative_pairs([[place] for place in range(len(texts))], sets, sets, seed=seed)
    wrong = [not label and column in same[row] for row, column, label in zip(rows, columns, labels, strict=True)]
    items = [Item(concepts=known[text]) for text in texts]
    kept = np.flatnonzero(~np.array(wrong))
    found: list[tuple[str, str | Item]] = [(texts[rows[place]], items[columns[place]]) for place in kept]
    return found, labels[kept].astype(np.float32)


def _labelled(pairs: Sequence[tuple[str, str, bool]], firsts: set[str], seed: int) -> Labelled:
    """Take the pairs of some first texts; without a negative among them, draw some."""
    own = [pair for pair in pairs if pair[0] in firsts]
    if not all(label for *_, label in own):
        return [(first, second) for first, second, _ in own], np.array([label for *_, label in own], np.float32)
    texts, seconds = (list(dict.fromkeys(pair[side] for pair in own)) for side in (0, 1))
    number = {text: place for place, text in enumerate(seconds)}
    relevant = [[number[second] for first, second, _ in own if first == text] for text in texts]
    nothing = np.zeros((len(seconds), 1))
    rows, columns, labels = negative_pairs(relevant, nothing, np.zeros((len(texts), 1)), positives=None, seed=seed)
    return [(texts[row], seconds[column]) for row, column in zip(rows, columns, strict=True)], labels.astype(np.float32)


def _names(value: object, separator: str) -> list[str]:
    if value is None:
        return []
    parts = value if isinstance(value, list) else str(value).split(separator)
    return [name for part in parts if (name := str(part).strip())]


def _rows(path: str | os.PathLike[str], *needed: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where a row stands and what it holds, by column in lower case."""
    file = Path(path)
    ending = file.suffix.lower()
    if ending not in _ENDINGS:
        raise InputError(f"{path}: expected a table that ends in {', '.join(_ENDINGS)}")
    try:
        content = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a UTF-8 text file: {error}") from error
    if ending in (".csv", ".tsv"):
        delimiter = "\t" if ending == ".tsv" else ","
        rows: list[Any] = list(csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter))
    else:
        try:
            rows = [json.loads(line) for line in content.splitlines() if line.strip()]
        except ValueError as error:
            raise InputError(f"{path} is not one JSON object a line: {error}") from error
    for number, row in enumerate(rows, start=1):
        place = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{place}: expected an object with {', '.join(needed)}")
        named = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
        missing = [column for column in needed if named.get(column) is None]
        if missing:
            raise InputError(f"{place}: has no {missing[0]!r}, only {', '.join(named)}")
        yield place, named
