"""Joinable columns: finding them exactly, whether cosine follows overlap (property 3), and finding them by search."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.data.tables import Frame, Table, read_tables
from embedlab.ops.significance import bootstrap_interval
from embedlab.ops.weighted import Spearman
from embedlab.understand.observatory.encoders import TableEmbedder
from embedlab.understand.observatory.measures import containment, cosines, jaccard, multiset_jaccard, units
from embedlab.understand.observatory.results import (
    Measure,
    PropertyResult,
    nothing_measured,
    register_property,
)

Floats = NDArray[np.float64]
_OVERLAPS = ("containment", "jaccard", "multiset_jaccard")


@dataclass(frozen=True, slots=True)
class Join:
    """Two columns that share values.

    Attributes:
        query: (table, column) positions of the column that looks for a partner.
        candidate: (table, column) positions of the partner, in another table.
        containment: Share of the query's distinct values that the candidate has, in [0, 1].
        jaccard: Shared distinct values among all, in [0, 1].
        multiset_jaccard: The same counting repeated values, in [0, 1/2].
    """

    query: tuple[int, int]
    candidate: tuple[int, int]
    containment: float
    jaccard: float
    multiset_jaccard: float


@dataclass(frozen=True, slots=True)
class OverlapPair:
    """Two columns made from one, with an overlap that is known.

    Attributes:
        source: Name of the column they were made from.
        query: The first, as a table of one column.
        candidate: The second.
    """

    source: str
    query: Table
    candidate: Table


def find_joins(tables: Frame, *, min_containment: float = 0.0) -> list[Join]:
    """Find all pairs of columns in different tables that share values, exactly.

    Args:
        tables: Tables, frames, or anything else that ``read_tables`` takes.
        min_containment: Pairs up to this containment are left out, in [0, 1).

    Returns:
        The pairs, the largest containment first.

    Raises:
        InputError: ``min_containment`` is out of range, or there is no table.

    Example:
        >>> pair = find_joins({"a": {"id": [1, 2]}, "b": {"ref": [2, 2, 3]}})[0]
        >>> pair.query, pair.candidate, pair.containment, pair.multiset_jaccard
        ((0, 0), (1, 0), 0.5, 0.2)
    """
    if not 0 <= min_containment < 1:
        raise InputError(f"min_containment={min_containment} must be in [0, 1)")
    known = read_tables(tables)
    values = {
        (t, j): {cell for cell in column if cell}
        for t, table in enumerate(known)
        for j, column in enumerate(table.columns)
    }
    holders: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, own in values.items():
        for cell in own:
            holders[cell].append(place)
    joins = []
    for query, own in values.items():
        shared = Counter(place for cell in own for place in holders[cell] if place[0] != query[0])
        for candidate, count in shared.items():
            if count / len(own) > min_containment:
                one, two = (known[t].columns[j] for t, j in (query, candidate))
                union = len(own) + len(values[candidate]) - count
                joins.append(Join(query, candidate, count / len(own), count / union, multiset_jaccard(one, two)))
    return sorted(joins, key=lambda join: (-join.containment, join.query, join.candidate))


@register_property("join_relationship")
def join_relationship(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    num_values: int = 12,
    num_repeats: int = 6,
    max_sources: int = 12,
    max_chunks: int = 4,
    seed: int = 0,
) -> PropertyResult:
    """Measure whether columns that share more values are nearer to each other (property 3).

    Measured twice. *Controlled*: pairs made from one column with 0 to all values in common, so that nothing else
    varies. *Raw*: all columns of different tables that share any value; there, overlaps are often accidents, since
    small integers are everywhere.

    Args:
        encoder: The encoder under test.
        tables: Tables; text columns with enough distinct values are the sources of controlled pairs.
        num_values: Distinct values in each column of a controlled pair.
        num_repeats: Controlled pairs per source and number of shared values.
        max_sources: Source columns, drawn at random from more.
        max_chunks: Parts of a long raw column that are embedded and averaged, spread evenly.
        seed: Decides pairs and resamples.

    Returns:
        Measures ``containment``, ``jaccard`` and ``multiset_jaccard``, Spearman's correlation of that overlap with the
        cosine over controlled pairs, and ``raw_...`` the same over raw pairs; intervals resample columns, since pairs
        share them.

    Raises:
        InputError: there are neither controlled nor raw pairs, or an option has a value that is not allowed.
    """
    tables = read_tables(tables)
    measures: dict[str, Measure] = {}
    details: dict[str, float] = {}
    pairs = overlap_pairs(tables, num_values=num_values, num_repeats=num_repeats, max_sources=max_sources, seed=seed)
    if pairs:
        sides = [side for pair in pairs for side in (pair.query, pair.candidate)]
        rows = encoder.num_rows_that_fit(sides, level="column")
        sides = [side.head(rows) for side in sides]
        vectors = np.stack([columns[0] for columns in encoder.embed(sides, level="column")])
        near = np.array([cosines(a, b[None])[0] for a, b in zip(vectors[::2], vectors[1::2], strict=True)])
        columns = [(a.columns[0], b.columns[0]) for a, b in zip(sides[::2], sides[1::2], strict=True)]
        overlaps = {
            "containment": [containment(a, b) for a, b in columns],
            "jaccard": [jaccard(a, b) for a, b in columns],
            "multiset_jaccard": [multiset_jaccard(a, b) for a, b in columns],
        }
        sources = [pair.source for pair in pairs]
        measures |= _correlations("", near, overlaps, sources, sources, seed)
        details |= {"pairs": float(len(pairs)), "sources": float(len(set(sources)))}
    joins = find_joins(tables) if tables else []
    embedded, skipped = column_embeddings(encoder, tables, max_chunks=max_chunks)
    joins = [join for join in joins if join.query in embedded and join.candidate in embedded]
    if len(joins) > 1:
        near = np.array([cosines(embedded[join.query], embedded[join.candidate][None])[0] for join in joins])
        raw = {name: [float(getattr(join, name)) for join in joins] for name in _OVERLAPS}
        names = [_named(tables, join) for join in joins]
        measures |= _correlations("raw_", near, raw, names, [str(join.query) for join in joins], seed)
        details["raw_pairs"] = float(len(joins))
    if not measures:
        why = f"no text column has {2 * num_values} values to make pairs of, and too few columns share values"
        raise nothing_measured("join_relationship", encoder.name, "column", skipped, why=why)
    return PropertyResult("join_relationship", encoder.name, "column", measures, details, skipped)


def join_discovery(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    min_containment: float = 0.5,
    top_k: Sequence[int] = (1, 5, 10),
    max_chunks: int = 4,
    seed: int = 0,
) -> PropertyResult:
    """Search for joinable columns by nothing but their embeddings, and count how many of the true ones are found.

    Args:
        encoder: The encoder under test.
        tables: The tables to join, at least 2.
        min_containment: A column of another table that holds more than this share of the query's values is a partner.
        top_k: Numbers of columns to look at.
        max_chunks: As in ``join_relationship``.
        seed: Decides the resamples.

    Returns:
        A measure ``recall_<k>`` for each k, the mean over query columns of the share of their partners among the k
        nearest columns of other tables; what a random order would reach is in ``details``.

    Raises:
        InputError: no column has a partner, or an option has a value that is not allowed.
    """
    tables = read_tables(tables)
    if not top_k or min(top_k) < 1:
        raise InputError(f"top_k={tuple(top_k)!r} must be numbers of at least 1")
    embedded, skipped = column_embeddings(encoder, tables, max_chunks=max_chunks)
    partners: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
    for join in find_joins(tables, min_containment=min_containment):
        if join.query in embedded and join.candidate in embedded:
            partners[join.query].add(join.candidate)
    if not partners:
        why = f"no column shares more than {min_containment:g} of its values with one of another table"
        raise nothing_measured("join_discovery", encoder.name, "column", skipped, why=why)
    places = sorted(embedded)
    directions = units(np.stack([embedded[place] for place in places]))
    recalls: dict[int, list[float]] = {k: [] for k in top_k}
    chances: dict[int, list[float]] = {k: [] for k in top_k}
    for query, wanted in partners.items():
        scores = directions @ directions[places.index(query)]
        ranked = [places[i] for i in np.argsort(-scores, kind="stable") if places[i][0] != query[0]]
        for k in top_k:
            recalls[k].append(len(wanted & set(ranked[:k])) / len(wanted))
            chances[k].append(min(k, len(ranked)) / len(ranked))
    objects = tuple(f"{tables[t].name}.{tables[t].header[j]}" for t, j in partners)
    measures = {
        f"recall_{k}": Measure(bootstrap_interval(recalls[k], seed=seed), np.array(recalls[k]), objects) for k in top_k
    }
    details = {f"chance_{k}": float(np.mean(chances[k])) for k in top_k} | {"queries": float(len(partners))}
    return PropertyResult("join_discovery", encoder.name, "column", measures, details, skipped)


def overlap_pairs(
    tables: Sequence[Table], *, num_values: int = 12, num_repeats: int = 6, max_sources: int = 12, seed: int = 0
) -> list[OverlapPair]:
    """Make pairs of columns that share a known number of values, from 0 to all of them.

    Both columns of a pair hold ``num_values`` distinct values of one text column, some of them two or three times, in
    random order and under that column's header.

    Args:
        tables: Where the values come from: text columns with at least twice as many distinct values.
        num_values: Distinct values per column, at least 2.
        num_repeats: Pairs per source and number of shared values, at least 1.
        max_sources: Source columns, drawn at random from more.
        seed: Decides everything.

    Returns:
        The pairs; none if no column has enough values.

    Raises:
        InputError: an option has a value that is not allowed.
    """
    if num_values < 2 or num_repeats < 1 or max_sources < 1:
        raise InputError(
            f"num_values={num_values} must be at least 2, num_repeats={num_repeats} and max_sources={max_sources} "
            "at least 1"
        )
    rng = np.random.default_rng(seed)
    sources = []
    for table in tables:
        for j, column in enumerate(table.columns):
            values = sorted({cell for cell in column if cell})
            if len(values) >= 2 * num_values and table.is_text(j):
                sources.append((f"{table.name}.{table.header[j]}#{j}", table.header[j], values))
    if len(sources) > max_sources:
        sources = [sources[i] for i in np.sort(rng.choice(len(sources), size=max_sources, replace=False))]
    pairs = []
    for name, title, values in sources:
        for shared in range(num_values + 1):
            for _ in range(num_repeats):
                drawn = rng.choice(len(values), size=2 * num_values - shared, replace=False)
                sides = []
                for own in (drawn[:num_values], drawn[num_values - shared :]):
                    cells = np.repeat(own, rng.integers(1, 4, size=num_values))
                    sides.append(Table(name, (title,), (tuple(values[i] for i in rng.permutation(cells)),)))
                pairs.append(OverlapPair(name, *sides))
    return pairs


def column_embeddings(
    encoder: TableEmbedder, tables: Sequence[Table], *, max_chunks: int = 4
) -> tuple[dict[tuple[int, int], Floats], dict[str, str]]:
    """Embed long columns: each with its neighbours, in parts of a few rows, averaged over the parts.

    A part has L / (20 x columns) rows, at least one, where L is the encoder's limit in tokens.

    Args:
        encoder: The encoder.
        tables: The tables.
        max_chunks: Parts per column, spread evenly over it, at least 1.

    Returns:
        (table, column) positions -> embedding (D,), and the tables that do not fit, each with the reason.

    Raises:
        InputError: ``max_chunks`` is below 1.
    """
    if max_chunks < 1:
        raise InputError(f"max_chunks={max_chunks} must be at least 1")
    limit = getattr(encoder, "max_length", None) or 512
    found: dict[tuple[int, int], Floats] = {}
    skipped: dict[str, str] = {}
    parts: list[Table] = []
    owners: list[tuple[int, int, int]] = []  # table, column, its place in the part
    for t, table in enumerate(tables):
        try:
            for j in range(table.num_columns):
                around = range(max(0, j - 1), min(table.num_columns, j + 2))
                piece = table.take_columns(around)
                size = max(1, limit // (20 * len(around)))
                starts = range(0, table.num_rows, size)
                for start in [starts[i] for i in _spread(len(starts), max_chunks)]:
                    part = piece.take_rows(range(start, min(start + size, table.num_rows)))
                    parts.append(part.head(max(1, encoder.num_rows_that_fit([part], level="column"))))
                    owners.append((t, j, j - around.start))
        except InputError as error:
            skipped[table.name] = str(error)
            keep = [place for place, (owner, _, _) in enumerate(owners) if owner != t]
            parts, owners = [parts[i] for i in keep], [owners[i] for i in keep]
    sums: dict[tuple[int, int], list[Floats]] = defaultdict(list)
    for (t, j, place), columns in zip(owners, encoder.embed(parts, level="column"), strict=True):
        if np.isfinite(columns[place]).all():
            sums[t, j].append(columns[place])
    found = {place: np.mean(own, axis=0) for place, own in sums.items()}
    return {place: vector for place, vector in found.items() if vector.any()}, skipped


def _correlations(
    prefix: str,
    near: Floats,
    overlaps: dict[str, list[float]],
    names: Sequence[str],
    clusters: Sequence[str],
    seed: int,
) -> dict[str, Measure]:
    """Spearman of cosine and each overlap, with intervals over clusters of pairs; constant ones are left out."""
    kept = np.flatnonzero(np.isfinite(near)).tolist()
    measures = {}
    for name, values in overlaps.items():
        gold = np.array(values)[kept]
        if len(kept) > 1 and np.ptp(gold) > 0 and np.ptp(near[kept]) > 0:
            groups = [clusters[i] for i in kept]
            interval = bootstrap_interval(near[kept], statistic=Spearman(gold), groups=groups, seed=seed)
            labels = tuple(f"{names[i]} ({values[i]:.3f})" for i in kept)
            measures[prefix + name] = Measure(interval, near[kept], _numbered(labels))
    return measures


def _numbered(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{label} #{place}" for place, label in enumerate(labels))


def _named(tables: Sequence[Table], join: Join) -> str:
    (t, j), (u, k) = join.query, join.candidate
    return f"{tables[t].name}.{tables[t].header[j]} ~ {tables[u].name}.{tables[u].header[k]}"


def _spread(count: int, wanted: int) -> list[int]:
    """Places of at most so many things, spread evenly."""
    return list(range(count)) if count <= wanted else sorted({round(x) for x in np.linspace(0, count - 1, wanted)})
