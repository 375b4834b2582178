"""A table of scores, models by tasks, complete and checked: what selection and ranking start from."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

Scores: TypeAlias = "ScoreTable | ArrayLike"
_SUMMARIES = {"overall", "average", "mean", "rank", "borda"}  # columns of published tables that are no tasks


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of models on tasks, without holes.

    Args:
        models: Names, one per row, each once.
        tasks: Names, one per column, each once.
        values: The scores; larger is better. (paper: S)

    Shape:
        values (N, T)

    Raises:
        InputError: sizes do not fit, a name occurs twice, or a score is missing; the message names the holes.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.models), len(self.tasks)) or not self.values.size:
            raise InputError(
                f"scores have shape {self.values.shape}: expected a row for each of {len(self.models)} models and a "
                f"column for each of {len(self.tasks)} tasks, at least one of both"
            )
        for what, names in (("model", self.models), ("task", self.tasks)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InputError(f"scores name the {what} {twice[0]!r} twice: give each {what} once")
        holes = np.argwhere(~np.isfinite(self.values))
        if len(holes):
            named = ", ".join(f"{self.models[i]} on {self.tasks[j]}" for i, j in holes[:5])
            raise InputError(
                f"scores have {len(holes)} hole{'s' * (len(holes) > 1)} ({named}{', ...' * (len(holes) > 5)}): run "
                "these, or drop the model or the task; holes would punish models for what was never measured"
            )

    def without(self, *, models: Sequence[str] = (), tasks: Sequence[str] = ()) -> ScoreTable:
        """Return the table without some models and tasks."""
        rows = [i for i, name in enumerate(self.models) if name not in models]
        columns = [j for j, name in enumerate(self.tasks) if name not in tasks]
        return ScoreTable(
            tuple(self.models[i] for i in rows),
            tuple(self.tasks[j] for j in columns),
            self.values[np.ix_(rows, columns)],
        )

    def copies(self, *, tolerance: float = 0.01) -> dict[str, str]:
        """Find models that score like an earlier one on every task: one model under two names.

        Args:
            tolerance: Largest difference, in standard deviations of the task's scores; above 0, so that rounded scores
                are found as well.

        Returns:
            Name of the copy -> name of the first.
        """
        allowed = tolerance * self.values.std(axis=0) + 1e-12
        found: dict[str, str] = {}
        for i, name in enumerate(self.models):
            if name not in found:
                like = (np.abs(self.values[i + 1 :] - self.values[i]) <= allowed).all(axis=1)
                found |= {self.models[i + 1 + j]: name for j in np.flatnonzero(like)}
        return found


def as_table(scores: Scores) -> ScoreTable:
    """Take a table of ours, a pandas data frame (models in the index), or a bare matrix of models by tasks.

    Args:
        scores: The scores.

    Returns:
        The table; a bare matrix gets ``model 0``, ``task 0`` and so on as names.

    Raises:
        InputError: it is no matrix of numbers, or has holes.
    """
    if isinstance(scores, ScoreTable):
        return scores
    frame: Any = scores
    if hasattr(frame, "columns") and hasattr(frame, "index"):
        names = tuple(map(str, frame.index)), tuple(map(str, frame.columns))
        return ScoreTable(*names, np.asarray(frame.to_numpy(), dtype=np.float64))
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"scores must be a matrix of models by tasks, got shape {values.shape}")
    rows, columns = values.shape
    return ScoreTable(tuple(f"model {i}" for i in range(rows)), tuple(f"task {j}" for j in range(columns)), values)


def read_scores(path: str | os.PathLike[str], *, drop_incomplete: bool = False) -> ScoreTable:
    """Read a CSV file of scores: the first column names the model, every other column is a task.

    Columns called overall, average, mean, rank or borda are left out: they summarise the others.

    Args:
        path: The file.
        drop_incomplete: Leave out models with holes; without it holes are an error.

    Returns:
        The table.

    Raises:
        InputError: the file cannot be read, a cell is no number, or there are holes.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as lines:
            head, *rows = csv.reader(lines)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a CSV file of scores: {error}") from error
    columns = [j for j, name in enumerate(head) if j and name.strip().lower() not in _SUMMARIES]
    values = np.empty((len(rows), len(columns)))
    for i, row in enumerate(rows):
        if len(row) != len(head):
            raise InputError(f"{path}, line {i + 2}: {len(row)} cells, the head has {len(head)}")
        values[i] = [_number(row[j], f"{path}, line {i + 2}, {head[j]}") for j in columns]
    if drop_incomplete:
        whole = np.isfinite(values).all(axis=1)
        rows, values = [rows[i] for i in np.flatnonzero(whole)], values[whole]
    return ScoreTable(tuple(row[0] for row in rows), tuple(head[j] for j in columns), values)


def per_task(name: str, given: Sequence[Any] | Mapping[str, Any], tasks: Sequence[str]) -> list[Any]:
    """Return one value per task, from a list in the order of tasks or a dict by name.

    Args:
        name: The argument's name, for messages.
        given: The values.
        tasks: The tasks.

    Returns:
        The values in the order of tasks.

    Raises:
        InputError: a task has none.
    """
    if isinstance(given, Mapping):
        missing = [task for task in tasks if task not in given]
        if missing:
            raise InputError(f"{name} lacks {missing[0]!r}: give one for every task")
        return [given[task] for task in tasks]
    if isinstance(given, str) or len(given) != len(tasks):
        raise InputError(f"{name} must have one entry per task, {len(tasks)}, got {given!r:.80}")
    return list(given)


def _number(cell: str, where: str) -> float:
    if not cell.strip():
        return float("nan")
    try:
        return float(cell)
    except ValueError as error:
        raise InputError(f"{where}: {cell!r} is no number") from error
