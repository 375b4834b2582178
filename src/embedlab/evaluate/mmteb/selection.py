"""Which tasks of a benchmark can go? Those whose scores the other tasks predict, model by model left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.evaluate.mmteb.ranking import Types
from embedlab.evaluate.mmteb.scores import Scores, ScoreTable, as_table, per_task
from embedlab.ops.weighted import midranks

Floats = NDArray[np.float64]
Languages = Sequence[Iterable[str]] | Mapping[str, Iterable[str]]
_WELL_POSED = 1e-7  # smallest over largest singular direction, below which the closed forms lose their digits


@dataclass(frozen=True, slots=True)
class Predictability:
    """How well the scores of tasks follow from those of others, each model's from all other models.

    Attributes:
        tasks: The tasks that were predicted.
        predicted: Predicted scores, models by these tasks. (paper: P)
        spearman: Rank correlation of observed and predicted scores; 0 where the prediction is constant.
        pearson: Correlation; 0 where the prediction is constant.
        nmse: Mean squared error in units of the observed scores' variance.
    """

    tasks: tuple[str, ...]
    predicted: Floats
    spearman: Floats
    pearson: Floats
    nmse: Floats


@dataclass(frozen=True, slots=True)
class Removed:
    """A task that was taken out, and how well the tasks then left predicted it.

    Attributes:
        task: The task.
        spearman: Rank correlation of observed and predicted scores.
        pearson: Correlation.
        nmse: Mean squared error in units of the observed scores' variance.
    """

    task: str
    spearman: float
    pearson: float
    nmse: float


@dataclass(frozen=True, slots=True)
class Selection:
    """A smaller benchmark.

    Attributes:
        kept: Tasks that stay, in the order of the table.
        removed: Tasks that go, in the order in which they were taken.
        protected: Tasks that were predictable enough, and why they stay all the same.
        copies: Models left out because they score like another everywhere -> that other.
    """

    kept: tuple[str, ...]
    removed: tuple[Removed, ...]
    protected: dict[str, str]
    copies: dict[str, str]


def select_tasks(
    scores: Scores,
    *,
    types: Types,
    languages: Languages | None = None,
    rho: float = 0.95,
    nmse: float = 0.2,
    keep: Iterable[str] = (),
    min_tasks: int = 1,
    drop_copies: bool = True,
) -> Selection:
    """Take out tasks one by one that the remaining ones predict, until no further task may go.

    Each task's scores are predicted by least squares with intercept from the scores on all other remaining tasks, for
    each model from all other models. The task with the highest rank correlation of observed and predicted scores goes,
    if that is at least ``rho``, the error at most ``nmse``, and the benchmark stays whole: never the last task of its
    type, never a task in ``keep``, and none whose languages no other remaining task of its type covers. Then all is
    predicted anew. Between equal correlations the earlier task goes.

    Args:
        scores: Models by tasks, without holes, at least 3 models. (paper: S)
        types: Type of each task, in the order of tasks or by name.
        languages: Languages of each task; None when coverage does not matter.
        rho: Least rank correlation, in [-1, 1]. Published: 0.95 for English, 0.8 for multilingual and Indic.
            (paper: tau_rho)
        nmse: Largest normalised error, at least 0. Published: 0.2 for English, 0.5 for the others. (paper: tau_mse)
        keep: Tasks that must stay.
        min_tasks: Stop when so many are left, at least 1.
        drop_copies: Leave out models that score like an earlier one everywhere, as the one would predict the other.

    Shape:
        scores (N, T) -> Selection

    Returns:
        What stays, what goes and with which figures, and what was protected.

    Raises:
        InputError: scores have holes (the message names them), fewer than 3 models, a task on which all models score
            the same, an unknown task in ``keep``, or a setting out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=(2, 30))
        >>> table = ScoreTable(tuple(f"m{i}" for i in range(30)), ("x", "y", "sum"), np.stack([a, b, a + b], axis=1))
        >>> select_tasks(table, types=["retrieval", "retrieval", "retrieval"]).kept
        ('y', 'sum')
        >>> select_tasks(table, types=["retrieval", "sts", "clustering"]).kept
        ('x', 'y', 'sum')

    References:
        Enevoldsen et al. (2025), MMTEB, arXiv:2502.13595v1, section 2.3; official code embeddings-benchmark/mteb,
        mteb/task_selection.py up to version 1 (read, not copied).
    """
    table = as_table(scores)
    if not -1 <= rho <= 1 or not nmse >= 0 or min_tasks < 1:
        raise InputError(
            f"rho={rho}, nmse={nmse}, min_tasks={min_tasks}: expected rho in [-1, 1], nmse >= 0 and min_tasks >= 1"
        )
    for name in (kept := frozenset(keep)):
        if name not in table.tasks:
            raise unknown_name("task in keep", name, table.tasks)
    kinds = dict(zip(table.tasks, per_task("types", types, table.tasks), strict=True))
    spoken = None if languages is None else per_task("languages", languages, table.tasks)
    tongues = None if spoken is None else {t: frozenset(given) for t, given in zip(table.tasks, spoken, strict=True)}
    copies = table.copies() if drop_copies else {}
    table = table.without(models=list(copies))
    _check_usable(table)
    removed: list[Removed] = []
    protected: dict[str, str] = {}
    while len(table.tasks) > max(min_tasks, 1):
        found, protected = predictability(table), {}
        chosen = None
        for j in np.argsort(-found.spearman, kind="stable"):
            name = table.tasks[j]
            if found.spearman[j] < rho or found.nmse[j] > nmse:
                continue
            reason = _objection(name, table.tasks, kinds, tongues, kept)
            if reason is None:
                chosen = int(j)
                break
            protected[name] = reason
        if chosen is None:
            break
        figures = (float(column[chosen]) for column in (found.spearman, found.pearson, found.nmse))
        removed.append(Removed(table.tasks[chosen], *figures))
        table = table.without(tasks=[table.tasks[chosen]])
    return Selection(table.tasks, tuple(removed), protected, copies)


def predictability(
    scores: Scores, *, tasks: Sequence[str] | None = None, given: Sequence[str] | None = None
) -> Predictability:
    """Predict the scores of tasks from those of others, for each model from all other models.

    With more models than tasks all left-out predictions follow from one factorisation: with H the projection on the
    other tasks' scores, a left-out residual is (y - H y) / (1 - diag H). With fewer models the least-squares solution
    of smallest norm fits every model, and its left-out residuals follow from the models' Gram matrix. Where scores are
    too dependent for either, each model is left out in turn.

    Args:
        scores: Models by tasks, without holes, at least 3 models.
        tasks: Tasks to predict, all by default.
        given: Tasks to predict them from: by default all others. A task is never predicted from itself.

    Shape:
        scores (N, T) -> predicted (N, number of ``tasks``)

    Returns:
        Predictions with their correlations and errors.

    Raises:
        InputError: as for ``select_tasks``, or an unknown task.

    Example:
        >>> scores = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [4.0, 8.0]])
        >>> predictability(scores).spearman.tolist()
        [1.0, 1.0]
    """
    table = as_table(scores)
    _check_usable(table)
    place = {name: j for j, name in enumerate(table.tasks)}
    for name in (*(tasks or ()), *(given or ())):
        if name not in place:
            raise unknown_name("task", name, table.tasks)
    wanted = [place[name] for name in (table.tasks if tasks is None else tasks)]
    sources = [place[name] for name in (table.tasks if given is None else given)]
    values = table.values
    observed = values[:, wanted]
    predicted: Floats | None = None
    if given is None and tasks is None and len(wanted) > 1:
        predicted = _predict_each_from_others(values)
    elif not set(wanted) & set(sources):
        predicted = _by_one_projection(values[:, sources], observed)
    if predicted is None:
        columns = [_predict(values[:, [s for s in sources if s != t]], values[:, t]) for t in wanted]
        predicted = np.stack(columns, axis=1)
    return Predictability(
        tuple(table.tasks[t] for t in wanted),
        predicted,
        _correlations(midranks(observed.T).T, midranks(np.round(predicted, 12).T).T),
        _correlations(observed, predicted),
        np.mean(((predicted - observed) / observed.std(axis=0)) ** 2, axis=0),
    )


def _objection(
    name: str,
    tasks: tuple[str, ...],
    kinds: Mapping[str, str],
    languages: Mapping[str, frozenset[str]] | None,
    keep: frozenset[str],
) -> str | None:
    """Why a task may not go, or None."""
    if name in keep:
        return "in the keep-list"
    others = [task for task in tasks if task != name and kinds[task] == kinds[name]]
    if not others:
        return f"the last task of type {kinds[name]}"
    if languages is not None:
        covered = frozenset[str]().union(*(languages[task] for task in others))
        alone = sorted(languages[name] - covered)
        if alone:
            return f"the last task of type {kinds[name]} in {', '.join(alone)}"
    return None


def _check_usable(table: ScoreTable) -> None:
    if len(table.models) < 3:
        raise InputError(f"scores hold {len(table.models)} different models: leaving one out needs at least 3")
    flat = [name for name, spread in zip(table.tasks, np.ptp(table.values, axis=0), strict=True) if spread == 0]
    if flat:
        raise InputError(f"all models score the same on {', '.join(flat)}: such a task tells nothing: leave it out")


def _predict_each_from_others(values: Floats) -> Floats:
    """Left-out predictions of every column from all others, (N, T)."""
    models, tasks = values.shape
    predicted = _by_projection(values) if models > tasks else _by_gram(values)
    if predicted is not None:
        return predicted
    return np.stack([_predict(np.delete(values, t, axis=1), values[:, t]) for t in range(tasks)], axis=1)


def _by_projection(values: Floats) -> Floats | None:
    """More models than tasks. One QR of [1 S] = Q R serves all tasks: the residual of task t given the others is
    r_t = Q R^-T e_t / |R^-T e_t|^2, and their projection is that of all tasks without the direction of r_t.
    """
    design = _standardised(values)  # (N, 1 + T)
    q, r = np.linalg.qr(design)
    diagonal = np.abs(np.diag(r))
    if diagonal.min() <= _WELL_POSED * diagonal.max():
        return None
    inverse = np.linalg.inv(r)[1:]  # row t of R^-1 gives task t
    residuals = q @ inverse.T / np.sum(inverse**2, axis=1)  # (N, T)
    leverage = np.sum(q**2, axis=1, keepdims=True) - residuals**2 / np.sum(residuals**2, axis=0)
    if np.min(1 - leverage) <= _WELL_POSED:
        return None  # a model that no other is like: its prediction is not determined
    return _unstandardised(design[:, 1:] - residuals / (1 - leverage), values)


def _by_one_projection(inputs: Floats, targets: Floats) -> Floats | None:
    """The same tasks predict all targets: one projection serves them."""
    if len(inputs) <= inputs.shape[1] + 1:
        return None
    q, r = np.linalg.qr(_standardised(inputs))
    diagonal = np.abs(np.diag(r))
    slack = 1 - np.sum(q**2, axis=1, keepdims=True)  # (N, 1)
    if diagonal.min() <= _WELL_POSED * diagonal.max() or slack.min() <= _WELL_POSED:
        return None
    return np.asarray(targets - (targets - q @ (q.T @ targets)) / slack)


def _by_gram(values: Floats) -> Floats | None:
    """At least as many tasks as models. The smallest solution fits all models; leaving model i out of
    [K 1; 1 0] [alpha; c] = [y; 0] changes its prediction by alpha_i / (inverse)_ii, K the Gram matrix of the others.
    """
    models, tasks = values.shape
    scaled = values - values.mean(axis=0)
    gram = scaled @ scaled.T
    system = np.zeros((tasks, models + 1, models + 1))
    system[:, :models, :models] = gram - np.einsum("nt,mt->tnm", scaled, scaled)  # without the task itself
    system[:, models, :models] = system[:, :models, models] = size = float(np.trace(gram)) / models
    spectrum = np.abs(np.linalg.eigvalsh(system))
    if not size or np.any(spectrum.min(axis=1) <= _WELL_POSED * spectrum.max(axis=1)):
        return None
    inverse = np.linalg.inv(system)[:, :models, :models]
    diagonal = np.einsum("tnn->nt", inverse)
    if np.abs(diagonal).min() <= _WELL_POSED * np.abs(diagonal).max():
        return None
    return np.asarray(values - np.einsum("tnm,mt->nt", inverse, scaled) / diagonal)


def _predict(inputs: Floats, target: Floats) -> Floats:
    """Left-out predictions of one column, one model at a time: least squares of smallest norm with intercept, (N,)."""
    predicted = np.empty_like(target)
    for i in range(len(target)):
        x, y = np.delete(inputs, i, axis=0), np.delete(target, i)
        centre, level = x.mean(axis=0), y.mean()
        slope = np.linalg.lstsq(x - centre, y - level, rcond=None)[0] if x.shape[1] else np.zeros(0)
        predicted[i] = level + (inputs[i] - centre) @ slope
    return predicted


def _standardised(values: Floats) -> Floats:
    """The design with intercept; with more models than tasks scaling changes no prediction, and keeps digits."""
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    return np.concatenate([np.ones((len(values), 1)), scaled], axis=1)


def _unstandardised(scaled: Floats, values: Floats) -> Floats:
    return np.asarray(scaled * values.std(axis=0) + values.mean(axis=0))


def _correlations(left: Floats, right: Floats) -> Floats:
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    size = np.sqrt(np.sum(left**2, axis=0) * np.sum(right**2, axis=0))
    shared = np.sum(left * right, axis=0)
    result: Floats = np.zeros_like(shared)
    np.divide(shared, size, out=result, where=size > 1e-12 * max(1.0, float(size.max())))
    return result
