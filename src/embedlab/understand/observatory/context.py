"""Does a column's embedding tell its type, and how much does the context around it change? (property 8)"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.data.tables import Frame, Table, read_tables
from embedlab.ops.significance import bootstrap_interval
from embedlab.understand.observatory.encoders import TableEmbedder
from embedlab.understand.observatory.measures import cosines, majority, units
from embedlab.understand.observatory.results import (
    Measure,
    PropertyResult,
    measure_over_tables,
    nothing_measured,
    register_property,
)

Floats = NDArray[np.float64]
SETTINGS = ("alone", "subject", "neighbours", "table")


@dataclass(frozen=True, slots=True)
class _Instance:
    """A few rows of a column whose type is known."""

    table: Table  # those rows, headers blank
    column: int
    subject: int
    kind: str
    text: bool
    label: str


@register_property("heterogeneous_context")
def heterogeneous_context(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    types: Mapping[tuple[str, int], str] | None = None,
    num_types: int = 10,
    num_instances: int = 8,
    seed: int = 0,
) -> PropertyResult:
    """Measure whether columns cluster by type, alone and in the company of other columns (property 8).

    Without headers, some rows of a column are embedded alone, with the subject column, with the direct neighbours, and
    in the whole table. In each setting k-means makes as many clusters as there are types, and their purity is the share
    of columns whose type is the commonest of their cluster; text and other columns apart.

    Args:
        encoder: The encoder under test.
        tables: Tables; those too wide for the encoder are skipped.
        types: (table name, column position) -> type, for the columns to use. By default the last word of the header,
            so that BillingCity and City are one type.
        num_types: Commonest types to use of text columns, and as many of others. Published 10.
        num_instances: Parts of a table that are embedded, each of min(100 / columns, 3) rows, and instances of a type
            that count, so that no type outweighs the others.
        seed: Decides parts, clusters and resamples.

    Returns:
        Measures ``purity_<setting>_<text|other>``, and ``cosine_<setting>_<text|other>`` between alone and in context.

    Raises:
        InputError: there are not two types with two instances each, or an option has a value that is not allowed.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    tables = read_tables(tables)
    if num_types < 2 or num_instances < 1:
        raise InputError(f"num_types={num_types} must be at least 2 and num_instances={num_instances} at least 1")
    clustering = require("sklearn.cluster", extra="evaluate")
    instances, skipped = _instances(encoder, tables, types, num_instances, seed)
    measures: dict[str, Measure] = {}
    details: dict[str, float] = {}
    for text in (True, False):
        side = "text" if text else "other"
        own = _commonest([each for each in instances if each.text == text], num_types, num_instances)
        kinds = [each.kind for each in own]
        if len(set(kinds)) < 2:
            continue
        spaces = {setting: _embed(encoder, own, setting) for setting in SETTINGS}
        known = np.all([np.isfinite(space).all(axis=1) for space in spaces.values()], axis=0)
        kinds = [kind for kind, ok in zip(kinds, known, strict=True) if ok]
        labels = tuple(f"{each.label} ({each.kind})" for each, ok in zip(own, known, strict=True) if ok)
        if len(set(kinds)) < 2:
            continue
        details |= {f"types_{side}": float(len(set(kinds))), f"columns_{side}": float(len(kinds))}
        details[f"chance_{side}"] = max(Counter(kinds).values()) / len(kinds)
        for setting, space in spaces.items():
            hits = majority(_clusters(clustering, space[known], len(set(kinds)), seed), kinds)
            measures[f"purity_{setting}_{side}"] = Measure(bootstrap_interval(hits, seed=seed), hits, labels)
            if setting != "alone":
                pairs = zip(spaces["alone"][known], space[known], strict=True)
                near = [float(cosines(a, b[None])[0]) for a, b in pairs]
                owners = [label.split("[")[0] for label in labels]
                measures[f"cosine_{setting}_{side}"] = measure_over_tables(near, labels, owners, seed=seed)
    if not measures:
        why = "there are not two types of columns with two instances each"
        raise nothing_measured("heterogeneous_context", encoder.name, "column", skipped, why=why)
    return PropertyResult("heterogeneous_context", encoder.name, "column", measures, details, skipped)


def type_of_header(header: str) -> str:
    """Guess a column's type from its header: the last word, in lower case.

    Args:
        header: A header in any style.

    Returns:
        The type; empty if the header holds no word.

    Example:
        >>> type_of_header("BillingCity"), type_of_header("home_city"), type_of_header("Founded (year)")
        ('city', 'city', 'year')
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", header)
    return words[-1].lower() if words else ""


def _instances(
    encoder: TableEmbedder,
    tables: Sequence[Table],
    types: Mapping[tuple[str, int], str] | None,
    num_instances: int,
    seed: int,
) -> tuple[list[_Instance], dict[str, str]]:
    """Parts of all tables, every column of a known type in each of them."""
    instances: list[_Instance] = []
    skipped: dict[str, str] = {}
    for place, table in enumerate(tables):
        if table.num_rows == 0 or table.num_columns == 0:
            skipped[table.name] = "it is empty"
            continue
        blank = table.with_header([""] * table.num_columns)
        size = min(max(1, min(100 // table.num_columns, 3)), table.num_rows)
        starts = np.arange(0, table.num_rows - size + 1, size)
        rng = np.random.default_rng([seed, place])
        chosen = np.sort(rng.choice(starts, size=min(num_instances, len(starts)), replace=False))
        try:
            for start in map(int, chosen):
                part = blank.take_rows(range(start, start + size))
                part = part.head(max(1, encoder.num_rows_that_fit([part], level="column")))
                if encoder.num_rows_that_fit([part], level="column") < part.num_rows:
                    raise InputError(f"{table.name!r}: one row is too long for {encoder.name!r}")
                for j, title in enumerate(table.header):
                    kind = type_of_header(title) if types is None else types.get((table.name, j), "")
                    if kind and any(part.columns[j]):
                        label = f"{table.name}[{title}, row {start}]"
                        instances.append(_Instance(part, j, _subject(table), kind, table.is_text(j), label))
        except InputError as error:
            skipped[table.name] = str(error)
            instances = [each for each in instances if each.table.name != table.name]
    return instances, skipped


def _subject(table: Table) -> int:
    """The column that says what the rows are about: among the text columns, the one with most values."""
    texts = [j for j in range(table.num_columns) if table.is_text(j)] or list(range(table.num_columns))
    return max(texts, key=lambda j: (len(set(table.columns[j])), -j))


def _commonest(instances: Sequence[_Instance], num_types: int, most: int) -> list[_Instance]:
    """Instances of the commonest types, so many of each that no type outweighs the others."""
    counts = Counter(each.kind for each in instances)
    kinds = sorted((kind for kind in counts if counts[kind] > 1), key=lambda kind: (-counts[kind], kind))[:num_types]
    kept: list[_Instance] = []
    for kind in kinds:
        own = [each for each in instances if each.kind == kind]
        kept += [own[round(place)] for place in np.linspace(0, len(own) - 1, min(most, len(own)))]
    return kept


def _embed(encoder: TableEmbedder, instances: Sequence[_Instance], setting: str) -> Floats:
    """Embeddings of the columns in one setting, (N, D); equal pieces are embedded once."""
    pieces: dict[tuple[int, tuple[int, ...]], int] = {}
    tables: list[Table] = []
    places = []
    for each in instances:
        j = each.column
        around = {
            "alone": {j},
            "subject": {each.subject, j},
            "neighbours": {j - 1, j, j + 1},
            "table": set(range(each.table.num_columns)),
        }[setting]
        columns = tuple(sorted(c for c in around if 0 <= c < each.table.num_columns))
        key = (id(each.table), columns)
        if key not in pieces:
            pieces[key] = len(tables)
            tables.append(each.table.take_columns(columns))
        places.append((pieces[key], columns.index(j)))
    embedded = encoder.embed(tables, level="column")
    return np.stack([embedded[piece][column] for piece, column in places])


def _clusters(clustering: Any, space: Floats, count: int, seed: int) -> list[int]:
    distinct = len(np.unique(space, axis=0))
    model = clustering.KMeans(n_clusters=min(count, distinct), n_init=10, random_state=seed)
    return [int(cluster) for cluster in model.fit_predict(units(space))]
