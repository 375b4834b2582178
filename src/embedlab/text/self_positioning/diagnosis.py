"""Why joint training is not the best of all tasks: conflicting gradients, and vectors that data size decides."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.text.self_positioning.probe import as_probe, batches, loss_of, losses_for
from embedlab.text.self_positioning.vectors import TaskVector, angles, gram_matrix
from embedlab.text.self_positioning.weights import open_model

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from embedlab.text.self_positioning.probe import Losses
    from embedlab.text.self_positioning.weights import Model


@dataclass(frozen=True, slots=True)
class TaskConflict:
    """How much the tasks of a training hinder each other.

    Attributes:
        tasks: Names of the tasks, T of them.
        cosines: Cosine between the tasks' gradients at the common point, (T, T); below 0 they pull apart.
        norms: Length of each task's gradient, (T,).
        transfer: Model -> task -> its score less the score of the model trained on that task alone; below 0 is negative
            transfer. Empty without scores.
    """

    tasks: tuple[str, ...]
    cosines: NDArray[np.float64]
    norms: NDArray[np.float64]
    transfer: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return {
            "tasks": list(self.tasks),
            "cosines": self.cosines.tolist(),
            "norms": self.norms.tolist(),
            "transfer": self.transfer,
        }

    def to_table(self) -> str:
        """Return the gradients' cosines, and the transfer if known, as tables in Markdown."""
        rows = {
            name: dict(zip(self.tasks, line, strict=True)) for name, line in zip(self.tasks, self.cosines, strict=True)
        }
        tables = [_markdown("cosine of gradients", self.tasks, rows)]
        if self.transfer:
            tables.append(_markdown("score less single-task score", self.tasks, self.transfer))
        return "\n".join(tables)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Where the vector of a training on two data sets points.

    Attributes:
        name: Name of its vector.
        parts: Names of the vectors of the two data sets alone.
        ratio: Size of the first over that of the second (paper: N_i / N_j).
        angles: Angle to each of the two, in radians.
    """

    name: str
    parts: tuple[str, str]
    ratio: float
    angles: tuple[float, float]


@dataclass(frozen=True, slots=True)
class TaskVectorReport:
    """How long task vectors are, where they point, and what the amount of data has to do with it.

    Attributes:
        names: Names of the vectors, N of them.
        sizes: Amount of data behind each, (N,).
        norms: Length of each, (N,).
        angles: Angle between each two, in radians, (N, N).
        slope: Of the line ``norm = intercept + slope * size``, by least squares.
        intercept: Of that line.
        r_squared: Share of the norms' variance that the line explains, in [0, 1]; NaN if all norms or sizes are equal.
        mixtures: One for each joint training that was named.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.float64]
    norms: NDArray[np.float64]
    angles: NDArray[np.float64]
    slope: float
    intercept: float
    r_squared: float
    mixtures: tuple[Mixture, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in fields.items()}
        mixtures = [{name: getattr(each, name) for name in each.__dataclass_fields__} for each in self.mixtures]
        return {**plain, "names": list(self.names), "mixtures": mixtures}

    def to_table(self) -> str:
        """Return sizes, norms and angles in degrees as a table in Markdown."""
        rows = {
            name: {"size": size, "norm": norm, **dict(zip(self.names, np.degrees(line), strict=True))}
            for name, size, norm, line in zip(self.names, self.sizes, self.norms, self.angles, strict=True)
        }
        return _markdown("task vector", ("size", "norm", *self.names), rows)


def task_conflict_report(
    model: Model,
    data: Mapping[str, Dataset],
    loss: Losses | None = None,
    *,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    batch_size: int = 32,
    max_batches: int = 8,
    seed: int = 0,
) -> TaskConflict:
    """Measure whether tasks pull a model in different directions, and what joint training costs each of them.

    At one common point, each task's gradient is averaged over some batches, with dropout off; the cosines between these
    say whether a step for one task is a step against another. Scores of models trained on one task and jointly give the
    matrix of transfer. Cost: a forward and backward pass a batch; memory of the model and one gradient per task.

    Args:
        model: The common point, such as the start of training; it stays as it is.
        data: Task -> rows, at least two tasks.
        loss: As in ``SelfPositioning``.
        scores: Trained on -> task -> score; the names of tasks stand for their single-task models, any other name, such
            as ``"joint"``, for another model. None leaves the transfer out.
        batch_size: Rows of a batch.
        max_batches: At most so many batches of each task.
        seed: Decides the batches.

    Returns:
        Cosines, norms and transfer.

    Raises:
        InputError: fewer than two tasks, an empty one, a task without its loss, or scores that lack a task.

    References:
        Li et al. (2024), arXiv:2410.15035v1, section 3.
    """
    rows = as_probe(data)
    if len(rows) < 2:
        raise InputError(f"data: got {len(rows)} task, a conflict needs at least two")
    for trained, row in (scores or {}).items():
        if set(rows) - set(row) or set(rows) - set(scores or {}):
            raise InputError(f"scores: {trained!r} or the single-task models lack one of {', '.join(rows)}")
    working = copy.deepcopy(open_model(model)).float().eval()
    losses = losses_for(loss, working, list(rows))
    gradients = []
    for name, each in rows.items():
        working.zero_grad(set_to_none=True)
        cut = batches(each, batch_size=batch_size, seed=seed)[:max_batches]
        for places in cut:
            value = loss_of(losses[name], working, each, places) / len(cut)
            value.backward()  # type: ignore[no-untyped-call]
        gradients.append({key: p.grad.clone() for key, p in working.named_parameters() if p.grad is not None})
    gram = np.array([[_inner(one, other) for other in gradients] for one in gradients])
    norms = np.sqrt(gram.diagonal())
    return TaskConflict(
        tasks=tuple(rows),
        cosines=gram / np.outer(norms, norms),
        norms=norms,
        transfer={
            trained: {task: row[task] - scores[task][task] for task in rows} for trained, row in (scores or {}).items()
        }
        if scores
        else {},
    )


def task_vector_report(
    vectors: Mapping[str, TaskVector],
    sizes: Mapping[str, float],
    *,
    mixtures: Mapping[str, tuple[str, str]] | None = None,
) -> TaskVectorReport:
    """Relate the length and the direction of task vectors to the amount of data behind them.

    ``alpha(U, W) = arccos(<U, W> / (|U| |W|))`` over all parameters. Cost: one pass over the vectors, see
    ``gram_matrix``.

    Args:
        vectors: Name -> vector, of one base; at least two.
        sizes: Name -> amount of data (rows or steps) of that training.
        mixtures: Name of a joint training's vector -> names of the vectors of its two data sets alone.

    Returns:
        Norms with their regression on the sizes, angles, and the mixtures' angles against the ratio of their sizes.

    Raises:
        InputError: fewer than two vectors, a size missing or not above 0, or a mixture with an unknown name.

    References:
        Li et al. (2024), arXiv:2410.15035v1, section 3.
    """
    names = tuple(vectors)
    if len(names) < 2:
        raise InputError(f"vectors: got {len(names)}, at least two are needed to compare")
    bad = [name for name in names if not sizes.get(name, 0) > 0]
    if bad:
        raise InputError(f"sizes: {bad[0]!r} has none above 0; every vector needs the amount of its data")
    for mixture, parts in (mixtures or {}).items():
        unknown = [name for name in (mixture, *parts) if name not in vectors]
        if unknown or len(parts) != 2:
            raise InputError(f"mixtures: {mixture!r} names {unknown or list(parts)}; expected two vectors' names")
    gram = gram_matrix(list(vectors.values()))
    between = angles(gram).numpy()
    norms, amounts = gram.diagonal().sqrt().numpy(), np.array([float(sizes[name]) for name in names])
    slope, intercept, explained = _line(amounts, norms)
    place = {name: number for number, name in enumerate(names)}
    return TaskVectorReport(
        names=names,
        sizes=amounts,
        norms=norms,
        angles=between,
        slope=slope,
        intercept=intercept,
        r_squared=explained,
        mixtures=tuple(
            Mixture(
                name=mixture,
                parts=(one, other),
                ratio=float(sizes[one] / sizes[other]),
                angles=(float(between[place[mixture], place[one]]), float(between[place[mixture], place[other]])),
            )
            for mixture, (one, other) in (mixtures or {}).items()
        ),
    )


def _inner(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    shared = one.keys() & other.keys()
    return math.fsum(float((one[name] * other[name]).sum(dtype=torch.float64)) for name in shared)


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Least squares line, and the share of variance it explains."""
    across, up = x - x.mean(), y - y.mean()
    if not (across @ across > 0 and up @ up > 0):
        return 0.0, float(y.mean()), float("nan")
    slope = float(across @ up / (across @ across))
    return slope, float(y.mean() - slope * x.mean()), float((across @ up) ** 2 / ((across @ across) * (up @ up)))


def _markdown(corner: str, columns: tuple[str, ...], rows: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"| {corner} | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(f'{row[column]:.4g}' for column in columns)} |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"
