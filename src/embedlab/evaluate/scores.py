"""What a run gives: scores with a value for every item, what a model costs, and both as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One model on one task.

    Attributes:
        task: Name of the task.
        type: mteb's name of its type.
        metric: Name of the main score.
        score: The main score as mteb gives it, the mean over splits and subsets.
        scores: Other scores of mteb's, as means too.
        unit: What an item is: ``"query"``, ``"pair"``, ``"text"`` or ``"repeat"``.
        items: Names of the items, the same for every model.
        values: One number per item (N,): the query's metric, the pair's cosine, the share of experiments in which the
            text was classified rightly, whether the translation was found, the text's correlation, the repeat's score.
        gold: What ``values`` are compared with (N,), where the score is no mean: gold scores, or labels of pairs.
        lengths: Characters of each item's text (N,); None for repeats.
        languages: Language of each item; None if all share one.
        seconds: How long the task took when it was measured.
        note: What to know about this score, empty as a rule.
    """

    task: str
    type: str
    metric: str
    score: float
    scores: dict[str, float]
    unit: str
    items: tuple[str, ...]
    values: NDArray[np.float64]
    gold: NDArray[np.float64] | None = None
    lengths: NDArray[np.int64] | None = None
    languages: tuple[str, ...] | None = None
    seconds: float = 0.0
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` gave.

        Raises:
            InputError: something is missing, or sizes do not agree.
        """
        try:
            made = cls(
                **{
                    **entry,
                    "items": tuple(entry["items"]),
                    "values": np.asarray(entry["values"], dtype=np.float64),
                    "gold": _array(entry["gold"], np.float64),
                    "lengths": _array(entry["lengths"], np.int64),
                    "languages": None if entry["languages"] is None else tuple(entry["languages"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a score of a task: {error}") from error
        columns = (made.values, made.gold, made.lengths, made.languages)
        if any(column is not None and len(column) != len(made.items) for column in columns):
            raise InputError(
                f"the score of {made.task!r} has columns of other lengths than its {len(made.items)} items"
            )
        return made


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What using a model costs, measured on texts of the first task it applies to.

    Attributes:
        parameters: Number of parameters; None where it cannot be known.
        bytes_per_vector: Size of one float32 vector, or of a sparse row on average.
        texts_per_s: Documents encoded in a second, none of them cached.
        ms_per_query: Milliseconds to encode a query alone, the median.
        peak_mb: Largest memory of the process while the model ran, in 10^6 bytes; None where it cannot be told.
        seconds: How long all its tasks took, as far as they were measured with this model, cached or not.
    """

    parameters: int | None
    bytes_per_vector: int
    texts_per_s: float
    ms_per_query: float
    peak_mb: float | None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelRun:
    """One model on all tasks.

    Attributes:
        model: Name of the model.
        fingerprint: Which vectors it gives; see ``Encoder``.
        tasks: Scores by task; a task to which the model does not apply is missing.
        cost: What it costs; None if it was not measured.
        training_datasets: Names of data sets it was trained on; None for unknown.
        overlaps: For each task the names of training sets that may hold its data.
        loaded_from: What the model was loaded by, where that is not its name here.
    """

    model: str
    fingerprint: str
    tasks: dict[str, TaskScore]
    cost: ModelCost | None
    training_datasets: frozenset[str] | None
    overlaps: dict[str, tuple[str, ...]]
    loaded_from: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "model": self.model,
            "loaded_from": self.loaded_from or self.model,
            "fingerprint": self.fingerprint,
            "cost": None
            if self.cost is None
            else {each.name: getattr(self.cost, each.name) for each in fields(ModelCost)},
            "training_datasets": None if self.training_datasets is None else sorted(self.training_datasets),
            "overlaps": {task: list(names) for task, names in self.overlaps.items()},
            "tasks": {name: score.to_dict() for name, score in self.tasks.items()},
        }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _array(values: Any, kind: type[np.generic]) -> Any:
    return None if values is None else np.asarray(values, dtype=kind)
