"""Do embeddings change when rows or columns are reordered, or rows left out? (properties 1, 2 and 5)"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, islice, permutations

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.data.tables import Frame, Table, read_tables
from embedlab.understand.observatory.encoders import TableEmbedder
from embedlab.understand.observatory.levels import serialise
from embedlab.understand.observatory.measures import cosines, mcv
from embedlab.understand.observatory.results import (
    Measure,
    PropertyResult,
    measure_over_tables,
    nothing_measured,
    register_property,
)

Floats = NDArray[np.float64]
#: A changed table, and for each of its objects the number that the object had in the original.
Variant = tuple[Table, NDArray[np.intp]]


@register_property("row_order")
def row_order(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    level: str = "column",
    num_permutations: int = 1000,
    seed: int = 0,
) -> PropertyResult:
    """Measure how much embeddings depend on the order of rows, which means nothing in a relation (property 1).

    Each table is cut to the rows that fit; these are then permuted, and every object compared with itself.

    Args:
        encoder: The encoder under test.
        tables: Tables; those with fewer than 2 rows that fit are skipped.
        level: ``"column"``, ``"row"``, ``"table"``, ``"cell"`` or a registered name.
        num_permutations: Distinct permutations per table, the original left out; all of them if there are fewer.
            Published 1000.
        seed: Decides the permutations.

    Returns:
        Measures ``cosine`` (average with the original) and ``mcv`` (over original and variants).

    Raises:
        InputError: no table can be measured, or an option has a value that is not allowed.
    """
    tables = read_tables(tables)
    _check_count("num_permutations", num_permutations)

    def variants(table: Table, rng: np.random.Generator) -> list[Variant]:
        orders = distinct_orders(table.num_rows, num_permutations, rng)
        return [(table.take_rows(order), _moved(table, level, order, "rows")) for order in orders]

    return _variation("row_order", encoder, tables, level, variants, seed, few="fewer than 2 rows fit")


@register_property("column_order")
def column_order(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    level: str = "column",
    num_permutations: int = 1000,
    seed: int = 0,
) -> PropertyResult:
    """Measure how much embeddings depend on the order of columns, which means nothing in a relation (property 2).

    Args:
        encoder: The encoder under test.
        tables: Tables; those with one column are skipped.
        level: As in ``row_order``.
        num_permutations: Distinct permutations per table; all of them if there are fewer. Published 1000.
        seed: Decides the permutations.

    Returns:
        Measures ``cosine`` and ``mcv``, as in ``row_order``.

    Raises:
        InputError: no table can be measured, or an option has a value that is not allowed.
    """
    tables = read_tables(tables)
    _check_count("num_permutations", num_permutations)

    def variants(table: Table, rng: np.random.Generator) -> list[Variant]:
        orders = distinct_orders(table.num_columns, num_permutations, rng)
        return [(table.take_columns(order), _moved(table, level, order, "columns")) for order in orders]

    return _variation("column_order", encoder, tables, level, variants, seed, few="it has one column")


@register_property("sample_fidelity")
def sample_fidelity(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    ratios: Sequence[float] = (0.25, 0.5, 0.75),
    num_samples: int = 1000,
    seed: int = 0,
) -> PropertyResult:
    """Measure how well the columns of a sample of rows stand for the columns of the whole (property 5).

    Args:
        encoder: The encoder under test.
        tables: Tables; those with fewer than 4 rows that fit are skipped.
        ratios: Shares of rows, drawn uniformly without replacement, in (0, 1).
        num_samples: Distinct samples per table and ratio; all of them if there are fewer. Published up to 1000.
        seed: Decides the samples.

    Returns:
        Measures ``cosine_<ratio>`` and ``mcv_<ratio>``.

    Raises:
        InputError: no table can be measured, or an option has a value that is not allowed.
    """
    tables = read_tables(tables)
    _check_count("num_samples", num_samples)
    if not ratios or not all(0 < ratio < 1 for ratio in ratios):
        raise InputError(f"ratios={tuple(ratios)!r} must be shares in (0, 1), at least one")
    measures: dict[str, Measure] = {}
    skipped: dict[str, str] = {}
    for ratio in ratios:

        def variants(table: Table, rng: np.random.Generator, ratio: float = ratio) -> list[Variant]:
            if table.num_rows < 4:
                return []
            size = min(max(1, round(ratio * table.num_rows)), table.num_rows - 1)
            samples = _distinct_samples(table.num_rows, size, num_samples, rng)
            return [(table.take_rows(rows), np.arange(table.num_columns)) for rows in samples]

        result = _variation("sample_fidelity", encoder, tables, "column", variants, seed, few="fewer than 4 rows fit")
        measures |= {f"{name}_{ratio:g}": measure for name, measure in result.measures.items()}
        skipped = result.skipped
    return PropertyResult("sample_fidelity", encoder.name, "column", measures, skipped=skipped)


def noise_floor(encoder: TableEmbedder, tables: Frame, *, level: str = "column", seed: int = 0) -> PropertyResult:
    """Measure what batching and precision alone do: the same table alone, among all others, and beside the largest.

    Args:
        encoder: The encoder under test.
        tables: Tables; those that do not fit are skipped.
        level: As in ``row_order``.
        seed: Decides the bootstrap resamples.

    Returns:
        Measures ``cosine`` and ``mcv``; differences of this size mean nothing.

    Raises:
        InputError: no table can be measured.
    """
    tables = read_tables(tables)

    short = []
    skipped: dict[str, str] = {}
    for table in tables:
        try:
            short.append(table.head(encoder.num_rows_that_fit([table], level=level)))
        except InputError as error:
            skipped[table.name] = str(error)
    near: list[float] = []
    spread: list[float] = []
    objects: list[str] = []
    owners: list[str] = []
    together = encoder.embed(short, level=level)
    longest = max(short, key=lambda table: table.num_rows * table.num_columns) if short else Table("", (), ())
    for table, among in zip(short, together, strict=True):
        (alone,) = encoder.embed([table], level=level)
        beside, _ = encoder.embed([table, longest], level=level)
        for number in np.flatnonzero(np.isfinite(alone).all(axis=1) & alone.any(axis=1)):
            own = np.stack([alone[number], among[number], beside[number]])  # of two, MCV sees lengths only
            near.append(float(cosines(own[0], own[1:]).min()))
            spread.append(mcv(own))
            objects.append(_label(table, level, int(number)))
            owners.append(table.name)
    if not near:
        raise nothing_measured("noise_floor", encoder.name, level, skipped)
    measures = {
        "cosine": measure_over_tables(near, objects, owners, seed=seed),
        "mcv": measure_over_tables(spread, objects, owners, seed=seed),
    }
    return PropertyResult("noise_floor", encoder.name, level, measures, skipped=skipped)


def distinct_orders(size: int, count: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Draw distinct permutations other than the original order.

    Args:
        size: Number of things to order.
        count: How many permutations; all ``size! - 1`` if there are no more.
        rng: Source of randomness.

    Returns:
        The permutations, each of length ``size``.

    Example:
        >>> len(distinct_orders(3, 50, np.random.default_rng(0)))
        5
    """
    if size < 2:
        return []
    if size < 13 and math.factorial(size) - 1 <= count:
        return [np.array(order, dtype=np.intp) for order in islice(permutations(range(size)), 1, None)]
    found: dict[bytes, NDArray[np.intp]] = {np.arange(size, dtype=np.intp).tobytes(): np.arange(size, dtype=np.intp)}
    while len(found) <= count:
        order = rng.permutation(size).astype(np.intp)
        found.setdefault(order.tobytes(), order)
    return list(found.values())[1:]


def _distinct_samples(size: int, taken: int, count: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Draw distinct subsets of rows in their order; all of them if there are no more."""
    if math.comb(size, taken) <= count:
        return [np.array(rows, dtype=np.intp) for rows in combinations(range(size), taken)]
    found: dict[bytes, NDArray[np.intp]] = {}
    while len(found) < count:
        rows = np.sort(rng.choice(size, size=taken, replace=False)).astype(np.intp)
        found.setdefault(rows.tobytes(), rows)
    return list(found.values())


def _moved(table: Table, level: str, order: NDArray[np.intp], what: str) -> NDArray[np.intp]:
    """For each object of the reordered table its number in the original one."""
    written = serialise(table, level=level)
    if written.follows == what:
        return order
    places = np.arange(written.num_objects, dtype=np.intp)
    if written.follows != "cells":
        return places
    grid = places.reshape(table.num_rows + 1, table.num_columns)
    return (grid[:, order] if what == "columns" else grid[np.concatenate([[0], order + 1])]).ravel()


def _variation(
    name: str,
    encoder: TableEmbedder,
    tables: Sequence[Table],
    level: str,
    variants: Callable[[Table, np.random.Generator], list[Variant]],
    seed: int,
    *,
    few: str,
) -> PropertyResult:
    """Embed every table with its variants, bring objects back to their numbers, and compare each with itself."""
    near: list[float] = []
    spread: list[float] = []
    objects: list[str] = []
    owners: list[str] = []
    skipped: dict[str, str] = {}
    flat = 0
    for place, table in enumerate(tables):
        rng = np.random.default_rng([seed, place])
        try:
            short = table.head(encoder.num_rows_that_fit([table], level=level))
        except InputError as error:
            skipped[table.name] = str(error)
            continue
        changed = variants(short, rng) if short.num_rows and short.num_columns else []
        if not changed:
            skipped[table.name] = few
            continue
        original, *together = encoder.embed([short, *(variant for variant, _ in changed)], level=level)
        aligned = np.full((len(changed), *original.shape), np.nan)  # (M, objects, D)
        for row, rows, (_, numbers) in zip(aligned, together, changed, strict=True):
            row[numbers] = rows
        for number in np.flatnonzero(np.isfinite(original).all(axis=1) & np.isfinite(aligned).all(axis=(0, 2))):
            own = np.concatenate([original[number][None], aligned[:, number]])
            value = mcv(own)
            flat += not math.isfinite(value)
            if math.isfinite(value):
                near.append(float(np.mean(cosines(own[0], own[1:]))))
                spread.append(value)
                objects.append(_label(short, level, int(number)))
                owners.append(table.name)
    if not near:
        raise nothing_measured(name, encoder.name, level, skipped)
    notes = (f"{flat} objects were left out: their mean is the zero vector",) if flat else ()
    measures = {
        "cosine": measure_over_tables(near, objects, owners, seed=seed),
        "mcv": measure_over_tables(spread, objects, owners, seed=seed),
    }
    return PropertyResult(name, encoder.name, level, measures, skipped=skipped, notes=notes)


def _label(table: Table, level: str, number: int) -> str:
    follows = serialise(table.head(0), level=level).follows
    if follows == "columns":
        return f"{table.name}.{table.header[number] or number}#{number}"
    return f"{table.name}#{number}"


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name}={value} must be at least 1")
