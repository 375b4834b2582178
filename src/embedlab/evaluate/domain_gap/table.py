"""The scores behind every question here: data sets by models, each data set of one domain and one task type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from pandas import DataFrame

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Checked scores, sorted by type, domain and name, so that no result depends on the order they came in.

    Attributes:
        values: Scores (N, M), data sets by models.
        datasets: Name of each data set.
        types: Task type of each data set.
        inside: Whether each data set is of the domain; the others are general.
        models: Name of each model.
        domain: What the domain is called.
        order: Place of each row in what was given.
    """

    values: Floats
    datasets: tuple[str, ...]
    types: tuple[str, ...]
    inside: NDArray[np.bool_]
    models: tuple[str, ...]
    domain: str
    order: NDArray[np.intp]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The task types, sorted."""
        return tuple(sorted(set(self.types)))

    def of_type(self, kind: str) -> NDArray[np.bool_]:
        """Tell which data sets are of a task type."""
        return np.array([name == kind for name in self.types])

    def standardised(self) -> Floats:
        """Return scores less the mean of their type, over the type's deviation: metrics of different types compare."""
        scores = np.zeros_like(self.values)
        for kind in self.kinds:
            rows = self.of_type(kind)
            spread = float(self.values[rows].std())
            scores[rows] = (self.values[rows] - self.values[rows].mean()) / (spread if spread > 1e-12 else 1.0)
        return scores

    def long(self, values: Floats | None = None) -> DataFrame:
        """Return one row per data set and model: ``dataset``, ``type``, ``domain`` (0 or 1), ``model``, ``score``."""
        from pandas import DataFrame

        values, count = self.values if values is None else values, len(self.models)
        return DataFrame(
            {
                "dataset": np.repeat(self.datasets, count),
                "type": np.repeat(self.types, count),
                "domain": np.repeat(self.inside.astype(int), count),
                "model": np.tile(self.models, len(self.datasets)),
                "score": values.ravel(),
            }
        )


def score_table(
    scores: ArrayLike | DataFrame,
    *,
    domain: Sequence[str],
    types: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    general: str = "general",
) -> ScoreTable:
    """Check scores and sort them.

    Args:
        scores: Data sets by models, (N, M): an array, or a frame with names.
        domain: Domain of each data set: ``general`` or one other name.
        types: Task type of each data set; None when all are of one.
        models: Names of the models; None takes the frame's columns.
        datasets: Names of the data sets, all different; None takes the frame's index.
        general: The name of the general side.

    Returns:
        The table.

    Raises:
        InputError: a score is missing, a side is empty, there are not two sides, or sizes or names do not fit.
    """
    from pandas import DataFrame

    frame = scores if isinstance(scores, DataFrame) else None
    values = np.array(scores, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"scores must be a matrix, data sets by models, that is not empty, got shape {values.shape}")
    rows, columns = values.shape
    if datasets is None:
        datasets = [f"data set {place:04}" for place in range(rows)] if frame is None else list(frame.index)
    if models is None:
        models = [f"model {place:02}" for place in range(columns)] if frame is None else list(frame.columns)
    types = ["all"] * rows if types is None else types
    for name, given, count in (("domain", domain, rows), ("types", types, rows), ("datasets", datasets, rows)):
        if len(given) != count:
            raise InputError(f"{name} has {len(given)} entries for {count} data sets: give one per row of scores")
    if len(models) != columns:
        raise InputError(f"models has {len(models)} entries for {columns} columns of scores")
    for name, given in (("datasets", datasets), ("models", models)):
        if len(set(map(str, given))) < len(given):
            raise InputError(f"{name} must be different from each other: the same name comes twice")
    _demand_complete(values, [str(name) for name in datasets], [str(name) for name in models])
    sides = {str(name) for name in domain}
    if general not in sides:
        raise unknown_name("general", general, sides)
    if len(sides) != 2:
        raise InputError(f"domain must hold {general!r} and one other name, got {', '.join(sorted(sides))}")
    order = np.array(
        sorted(range(rows), key=lambda row: (str(types[row]), str(domain[row]) != general, str(datasets[row]))),
        dtype=np.intp,
    )
    table = ScoreTable(
        values=values[order],
        datasets=tuple(str(datasets[row]) for row in order),
        types=tuple(str(types[row]) for row in order),
        inside=np.array([str(domain[row]) != general for row in order]),
        models=tuple(str(name) for name in models),
        domain=next(iter(sides - {general})),
        order=order,
    )
    if not any(0 < table.inside[table.of_type(kind)].sum() < table.of_type(kind).sum() for kind in table.kinds):
        raise InputError(
            f"types: no task type has data sets of both sides, so {table.domain} and {general} cannot be compared"
        )
    return table


def _demand_complete(values: Floats, datasets: Sequence[str], models: Sequence[str]) -> None:
    missing = np.argwhere(~np.isfinite(values))
    if len(missing):
        shown = "; ".join(f"{models[column]} on {datasets[row]}" for row, column in missing[:3])
        raise InputError(
            f"scores: {len(missing)} of {values.size} are missing or not finite ({shown}): every model needs a score on"
            " every data set, so measure what is missing or leave that model or data set out"
        )
