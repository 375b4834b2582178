"""Other words for the same header: abbreviations and synonyms, from WordNet where it is installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from embedlab._core.errors import InputError, unknown_name
from embedlab.data.tables import Frame, read_tables
from embedlab.understand.observatory.encoders import TableEmbedder
from embedlab.understand.observatory.measures import cosines
from embedlab.understand.observatory.results import (
    PropertyResult,
    measure_over_tables,
    nothing_measured,
    register_property,
)

#: A header in, another of the same meaning out; the same one where it knows none.
Perturbation: TypeAlias = Callable[[str], str]

#: Where Debian's package wordnet-base puts WordNet 3.0, and where its authors' own installer does.
WORDNET_FOLDERS = ("/usr/share/wordnet", "/usr/local/WordNet-3.0/dict")

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_VOWELS = re.compile(r"(?<!^)[aeiou]", re.IGNORECASE)

#: Where WordNet is not installed: words that headers are made of, each with a close synonym
SYNONYMS = {
    "address": "location", "age": "years", "amount": "sum", "author": "writer", "birth": "nativity",
    "category": "class", "city": "town", "client": "customer", "code": "identifier", "comment": "remark",
    "company": "firm", "cost": "price", "count": "number", "country": "nation", "customer": "client",
    "date": "day", "description": "account", "email": "e-mail", "employee": "worker", "end": "finish",
    "film": "movie", "founded": "established", "gender": "sex", "genre": "style", "height": "stature",
    "hire": "employment", "id": "identifier", "invoice": "bill", "kind": "sort", "language": "tongue",
    "location": "place", "manager": "director", "mean": "average", "movie": "film", "name": "designation",
    "nation": "country", "number": "count", "occupation": "job", "order": "purchase", "phone": "telephone",
    "place": "location", "player": "participant", "population": "inhabitants", "position": "place",
    "price": "cost", "product": "article", "quantity": "amount", "rank": "position", "region": "area",
    "result": "outcome", "salary": "wage", "score": "points", "sector": "branch", "sex": "gender",
    "size": "extent", "source": "origin", "start": "beginning", "state": "province", "status": "condition",
    "street": "road", "surname": "family name", "team": "squad", "telephone": "phone", "time": "hour",
    "title": "heading", "total": "sum", "town": "city", "type": "kind", "unit": "piece", "user": "consumer",
    "value": "worth", "venue": "site", "weight": "mass", "year": "twelvemonth",
}  # fmt: skip


@register_property("perturbation_robustness")
def perturbation_robustness(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    perturbations: Sequence[str | Perturbation] = ("abbreviation", "synonym"),
    seed: int = 0,
) -> PropertyResult:
    """Measure how much a column's embedding changes when its header says the same in another way (property 7).

    All headers of a table are changed at once, values stay, and both versions are cut at the same row. Only columns
    whose header did change count.

    Args:
        encoder: The encoder under test.
        tables: Tables; those without a header that changes are skipped.
        perturbations: ``"abbreviation"``, ``"synonym"``, or functions of a header.
        seed: Decides the bootstrap resamples.

    Returns:
        A measure ``cosine_<perturbation>`` for each, between the original column and the changed one.

    Raises:
        InputError: there is no such perturbation, or none changes a header of any table.
    """
    tables = read_tables(tables)
    measures, details, skipped = {}, {}, {}
    for given in perturbations:
        change, name = _perturbation(given)
        values: list[float] = []
        objects: list[str] = []
        owners: list[str] = []
        for table in tables:
            header = tuple(map(change, table.header))
            changed = [j for j, (old, new) in enumerate(zip(table.header, header, strict=True)) if old != new]
            if not changed:
                continue
            other = table.with_header(header)
            try:
                rows = encoder.num_rows_that_fit([table, other], level="column")
                first, second = encoder.embed([table.head(rows), other.head(rows)], level="column")
            except InputError as error:
                skipped[table.name] = str(error)
                continue
            for j in changed:
                if np.isfinite(first[j]).all() and np.isfinite(second[j]).all():
                    values.append(float(cosines(first[j], second[j][None])[0]))
                    objects.append(f"{table.name}.{table.header[j]} -> {header[j]}")
                    owners.append(table.name)
        details[f"changed_{name}"] = float(len(values))
        if values:
            measures[f"cosine_{name}"] = measure_over_tables(values, objects, owners, seed=seed)
    if not measures:
        why = "no header has a word that changes"
        raise nothing_measured("perturbation_robustness", encoder.name, "column", skipped, why=why)
    notes = () if wordnet_folder() else ("WordNet is not installed: synonyms come from a short built-in list",)
    return PropertyResult("perturbation_robustness", encoder.name, "column", measures, details, skipped, notes)


def abbreviate(header: str) -> str:
    """Shorten the words of a header as people do in schemas: without vowels, long ones cut to four letters.

    Args:
        header: A header in any style.

    Returns:
        The shorter header, in the same style.

    Example:
        >>> abbreviate("BillingCountry"), abbreviate("unit_price"), abbreviate("Id")
        ('BllnCntr', 'unt_prc', 'Id')
    """
    return _WORDS.sub(lambda word: _VOWELS.sub("", word[0])[:4] if len(word[0]) > 3 else word[0], header)


def synonym(header: str, *, words: Mapping[str, str] | None = None) -> str:
    """Replace the words of a header by synonyms.

    Args:
        header: A header in any style.
        words: Lower-case word -> synonym; by default WordNet's, or a short built-in list where it is not installed.

    Returns:
        The header with what could be replaced, in the same style.

    Example:
        >>> synonym("BillingCity", words={"city": "town"}), synonym("unit price", words={"price": "cost"})
        ('BillingTown', 'unit cost')
    """

    def replaced(match: re.Match[str]) -> str:
        word = match[0]
        found = words.get(word.lower()) if words is not None else _known_synonym(word.lower())
        if not found:
            return word
        if word.isupper() and len(word) > 1:
            return found.upper()
        return found[0].upper() + found[1:] if word[0].isupper() else found

    return _WORDS.sub(replaced, header)


def wordnet_folder() -> Path | None:
    """Find an installed WordNet (Debian: package wordnet-base).

    Returns:
        The folder with ``index.noun`` and ``data.noun``, or None.
    """
    folders = (Path(folder) for folder in WORDNET_FOLDERS)
    return next((folder for folder in folders if (folder / "index.noun").is_file()), None)


def wordnet_synonym(word: str, *, folder: Path) -> str | None:
    """Look up another word for a noun, in the first of its senses that has one.

    Args:
        word: A noun in lower case.
        folder: Where ``index.noun`` and ``data.noun`` of WordNet 3 are.

    Returns:
        The synonym, or None if WordNet knows none.
    """
    for offset in _senses(folder).get(word, ()):
        with (folder / "data.noun").open("rb") as data:
            data.seek(offset)
            fields = data.readline().decode("latin-1").split()
        lemmas = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
        other = next((lemma for lemma in lemmas if lemma.lower() != word), None)
        if other is not None:
            return other
    return None


@cache
def _senses(folder: Path) -> dict[str, tuple[int, ...]]:
    """Nouns of WordNet with the places of their senses, the commonest sense first."""
    senses: dict[str, tuple[int, ...]] = {}
    for line in (folder / "index.noun").read_text(encoding="latin-1").splitlines():
        if line and line[0] != " ":  # the licence stands in front, indented
            fields = line.split()
            senses[fields[0]] = tuple(map(int, fields[-int(fields[2]) :]))
    return senses


@cache
def _known_synonym(word: str) -> str | None:
    folder = wordnet_folder()
    return wordnet_synonym(word, folder=folder) if folder else SYNONYMS.get(word)


def _perturbation(given: str | Perturbation) -> tuple[Perturbation, str]:
    known: dict[str, Perturbation] = {"abbreviation": abbreviate, "synonym": synonym}
    if not isinstance(given, str):
        return given, getattr(given, "__name__", "custom")
    if given not in known:
        raise unknown_name("perturbation", given, known)
    return known[given], given
