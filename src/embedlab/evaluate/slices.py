"""Scores of parts of a task: by length of text and by language."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedlab.evaluate.scores import TaskScore
from embedlab.ops.weighted import AveragePrecision, Spearman, Statistic, mean

_LEAST = 20  # items: a slice of fewer says nothing


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of a task.

    Attributes:
        model: The model.
        task: The task.
        by: ``"length"`` or ``"language"``.
        name: Which part, e.g. ``"up to 54 characters"`` or ``"deu-Latn"``.
        count: Number of items.
        score: The statistic of the items' values; NaN where it is undefined.
    """

    model: str
    task: str
    by: str
    name: str
    count: int
    score: float


def slices_of(model: str, score: TaskScore) -> list[Slice]:
    """Return the scores by language, and by length in three parts of about equal size.

    Args:
        model: Name of the model.
        score: Its score.

    Returns:
        The slices with at least 20 items; none for repeats, and none where there would be a single one.
    """
    return [
        Slice(model, score.task, by, name, int(inside.sum()), _statistic_of(score, inside))
        for by, parts in (("language", _by_language(score)), ("length", _by_length(score)))
        for name, inside in parts
        if len(parts) > 1
    ]


def _by_language(score: TaskScore) -> list[tuple[str, NDArray[np.bool_]]]:
    if score.languages is None:
        return []
    spoken = np.array(score.languages)
    parts = [(str(language), spoken == language) for language in sorted(set(score.languages))]
    return [part for part in parts if part[1].sum() >= _LEAST]


def _by_length(score: TaskScore) -> list[tuple[str, NDArray[np.bool_]]]:
    if score.lengths is None:
        return []
    return [part for part in _thirds(score.lengths) if part[1].sum() >= _LEAST]


def _thirds(lengths: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    low, high = (int(end) for end in np.quantile(lengths, [1 / 3, 2 / 3], method="lower"))
    yield f"up to {low} characters", lengths <= low
    if high > low:
        yield f"{low + 1} to {high} characters", (lengths > low) & (lengths <= high)
    yield f"over {high} characters", lengths > high


def _statistic_of(score: TaskScore, inside: NDArray[np.bool_]) -> float:
    values = score.values[inside]
    statistic: Statistic = mean
    if score.gold is not None:
        gold = score.gold[inside]
        if np.ptp(gold) == 0:
            return float("nan")
        statistic = Spearman(gold) if "spearman" in score.metric else AveragePrecision(gold)
    return float(statistic(values[None], np.ones((1, len(values))))[0])
