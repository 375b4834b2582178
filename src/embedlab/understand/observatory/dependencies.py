"""Functional dependencies: finding them exactly, and whether embeddings reflect them as a translation (property 4)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.data.tables import Frame, Table, as_table, read_tables
from embedlab.understand.observatory.encoders import TableEmbedder
from embedlab.understand.observatory.results import (
    PropertyResult,
    measure_over_tables,
    nothing_measured,
    register_property,
)

Floats = NDArray[np.float64]

# measure: whether of dependencies or of other pairs, and whether rows are grouped by both values or by the first
_GROUPINGS = {
    "fd_variance": (True, True),
    "non_fd_variance": (False, False),
    "same_values_variance": (False, True),
}


@dataclass(frozen=True, slots=True)
class Dependency:
    """A functional dependency between two columns: rows that agree in the first agree in the second.

    Attributes:
        determinant: Position of the deciding column. (paper: X)
        dependent: Position of the decided column. (paper: Y)
        support: Values of the deciding column that occur more than once; only they put it to the test.
    """

    determinant: int
    dependent: int
    support: int


def find_fds(data: Frame, *, min_rows: int = 10) -> list[Dependency]:
    """Find every functional dependency between two columns, exactly.

    X -> Y holds if there are no more distinct pairs (x, y) than distinct x. Keys decide everything and constant columns
    are decided by everything; both are left out, since they say nothing. A missing value is a value like any other.

    Args:
        data: A table or frame.
        min_rows: Smallest table in which a dependency is more than an accident. Published 10.

    Returns:
        The dependencies, by position.

    Raises:
        InputError: ``min_rows`` is below 2.

    Example:
        >>> cities = {"city": ["Bern", "Basel", "Bern", "Rome"], "country": ["CH", "CH", "CH", "IT"]}
        >>> find_fds(cities, min_rows=4)
        [Dependency(determinant=0, dependent=1, support=1)]
    """
    if min_rows < 2:
        raise InputError(f"min_rows={min_rows} must be at least 2: one row agrees with itself only")
    table = as_table(data)
    return [pair for pair, holds in _column_pairs(table) if holds] if table.num_rows >= min_rows else []


@register_property("functional_dependencies")
def functional_dependencies(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    min_rows: int = 10,
    window: int = 2,
    max_rows: int = 200,
    num_shuffles: int = 5000,
    seed: int = 0,
) -> PropertyResult:
    """Measure whether embeddings reflect functional dependencies as a constant step from cell to cell (property 4).

    For X -> Y, rows are grouped by (x, y). Each occurrence is embedded in the rows around it, and the distance
    n = ||E(x) - E(y)|| taken; if Y follows from X by a translation, n hardly varies within a group. Groups of one are
    left out, since they have no variance. Pairs that are no dependency are grouped by x, as in the paper, and their y
    varies within a group; grouped by (x, y) as well, they show what is left when equal values alone are compared.

    Args:
        encoder: The encoder under test.
        tables: Tables; those with fewer than ``min_rows`` rows or without a dependency do not count.
        min_rows: As in ``find_fds``.
        window: Rows on either side of an occurrence; fewer where the text would get too long. Published 2.
        max_rows: Rows of a table that are embedded, drawn at random from larger ones.
        num_shuffles: Random assignments of the label "dependency" to pairs, for the p-value.
        seed: Decides rows, shuffles and resamples.

    Returns:
        The variance of n by pair of columns: ``fd_variance``, ``non_fd_variance`` and ``same_values_variance`` (pairs
        that are no dependency, grouped by both values). In ``details`` the ``pvalue`` and ``same_values_pvalue`` of
        dependencies varying less than either (one-sided permutation test), and the numbers of pairs.

    Raises:
        InputError: no table can be measured, or an option has a value that is not allowed.
    """
    tables = read_tables(tables)
    if window < 0 or max_rows < 2:
        raise InputError(f"window={window} must be at least 0 and max_rows={max_rows} at least 2")
    found: dict[str, list[tuple[float, str, str]]] = {name: [] for name in _GROUPINGS}  # variance, pair, table
    skipped: dict[str, str] = {}
    for place, table in enumerate(tables):
        if table.num_rows < min_rows or not find_fds(table, min_rows=min_rows):
            skipped[table.name] = "no functional dependency in it can be put to the test"
            continue
        rng = np.random.default_rng([seed, place])
        rows = np.sort(rng.choice(table.num_rows, size=min(max_rows, table.num_rows), replace=False))
        try:
            cells = _cells_in_window(encoder, table, rows, window)
        except InputError as error:
            skipped[table.name] = str(error)
            continue
        for pair, holds in _column_pairs(table):
            label = f"{table.name}.{table.header[pair.determinant]} -> {table.header[pair.dependent]}"
            for name, (of_dependencies, by_both) in _GROUPINGS.items():
                if of_dependencies == holds:
                    spread = _distance_variance(table, rows, cells, pair, by_both=by_both)
                    found[name] += [] if spread is None else [(spread, label, table.name)]
    if not found["fd_variance"] or not found["non_fd_variance"]:
        why = "no value occurs twice among the rows that were drawn"
        raise nothing_measured("functional_dependencies", encoder.name, "cell", skipped, why=why)
    measures = {
        name: measure_over_tables([v for v, _, _ in own], [o for _, o, _ in own], [t for _, _, t in own], seed=seed)
        for name, own in found.items()
        if own
    }
    fds = measures["fd_variance"].values
    details = {"fds": float(len(fds)), "non_fds": float(len(found["non_fd_variance"]))}
    for name, key in (("non_fd_variance", "pvalue"), ("same_values_variance", "same_values_pvalue")):
        if name in measures:
            details[key] = _pvalue(fds, measures[name].values, num_shuffles, seed)
    notes = () if fds.max() > 1e-12 else ("equal cells have equal embeddings here: no step can vary",)
    return PropertyResult("functional_dependencies", encoder.name, "cell", measures, details, skipped, notes)


def _column_pairs(table: Table) -> list[tuple[Dependency, bool]]:
    """All pairs that can be put to the test, and whether the first column decides the second."""
    codes = [np.unique(np.array(column), return_inverse=True)[1] for column in table.columns]
    counts = [np.bincount(code) for code in codes]
    pairs = []
    for x, first in enumerate(codes):
        support = int(np.sum(counts[x] > 1))
        for y, second in enumerate(codes):
            if x != y and support and len(counts[y]) > 1:
                together = len(np.unique(first.astype(np.int64) * len(counts[y]) + second))
                pairs.append((Dependency(x, y, support), together == len(counts[x])))
    return pairs


def _cells_in_window(encoder: TableEmbedder, table: Table, rows: NDArray[np.intp], window: int) -> Floats:
    """Embed the cells of some rows, each row within its own window, (rows, C, D)."""
    pieces, places = [], []
    for row in map(int, rows):
        for reach in range(window, -1, -1):
            around = range(max(0, row - reach), min(table.num_rows, row + reach + 1))
            piece = table.take_rows(around)
            if encoder.num_rows_that_fit([piece], level="cell") == piece.num_rows:
                break
        else:
            raise InputError(f"row {row} of {table.name!r} alone is too long for {encoder.name!r}")
        pieces.append(piece)
        places.append(row - around.start + 1)  # below the header
    embedded = encoder.embed(pieces, level="cell")
    width = table.num_columns
    return np.stack([cells[at * width : (at + 1) * width] for cells, at in zip(embedded, places, strict=True)])


def _distance_variance(
    table: Table, rows: NDArray[np.intp], cells: Floats, pair: Dependency, *, by_both: bool
) -> float | None:
    """Mean over groups of the variance of ||E(x) - E(y)||; None where no group has two occurrences."""
    distances = np.linalg.norm(cells[:, pair.determinant] - cells[:, pair.dependent], axis=1)  # (rows,)
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row, distance in zip(map(int, rows), distances.tolist(), strict=True):
        if np.isfinite(distance):
            x, y = table.columns[pair.determinant][row], table.columns[pair.dependent][row]
            groups[x, y if by_both else ""].append(distance)
    spreads = [float(np.var(group, ddof=1)) for group in groups.values() if len(group) > 1]
    return float(np.mean(spreads)) if spreads else None


def _pvalue(fds: Floats, others: Floats, num_shuffles: int, seed: int) -> float:
    """Chance that as many pairs, picked blindly, vary as little on average as the dependencies do."""
    rng = np.random.default_rng(seed)
    everything = np.concatenate([fds, others])
    seen = fds.sum()
    lower = sum(rng.permutation(everything)[: len(fds)].sum() <= seen + 1e-12 for _ in range(num_shuffles))
    return float((1 + lower) / (1 + num_shuffles))
