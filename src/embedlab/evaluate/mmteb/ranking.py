"""Which model is best over many tasks, and how firm is its place? Borda, means, and intervals over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.evaluate.mmteb.scores import Scores, ScoreTable, as_table, per_task
from embedlab.ops.significance import resamples
from embedlab.ops.weighted import midranks

Method: TypeAlias = Literal["borda", "mean", "mean_type"]
Types: TypeAlias = Sequence[str] | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Models in order.

    Attributes:
        models: Names, in the order of the table.
        method: How points were given.
        points: Borda points, or the mean score.
        ranks: 1 for the best; models with equal points share the mean of their places.
    """

    models: tuple[str, ...]
    method: str
    points: NDArray[np.float64]
    ranks: NDArray[np.float64]

    def order(self) -> list[str]:
        """Return the names from the best to the worst; equal ones as they came."""
        return [self.models[i] for i in np.argsort(self.ranks, kind="stable")]


@dataclass(frozen=True, slots=True)
class RankIntervals:
    """The places that a model could have had, had the tasks been drawn anew.

    Attributes:
        ranking: The order on the tasks as they are.
        low: Best place in the interval, one per model; never worse than the place it has.
        high: Worst place.
        separated: Whether the interval of the difference in points of two models leaves out zero, (N, N).
        confidence: Level of all intervals.
    """

    ranking: Ranking
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    separated: NDArray[np.bool_]
    confidence: float

    def share_separated(self) -> float:
        """Return the share of all pairs of models that are told apart; 1 for a single model."""
        pairs = self.separated[np.triu_indices(len(self.low), k=1)]
        return float(pairs.mean()) if pairs.size else 1.0

    def neighbours_separated(self) -> int:
        """Return how many of the N - 1 pairs of neighbours in the order are told apart."""
        order = np.argsort(self.ranking.ranks, kind="stable")
        return int(self.separated[order[:-1], order[1:]].sum())


def rank(scores: Scores, *, method: Method = "borda", types: Types | None = None) -> Ranking:
    """Order models by their scores on many tasks.

    Borda: every task is a voter who ranks the n models, and a model gets n - rank points from each, where equal scores
    share the mean of their ranks::

        points_i = sum_t (n - rank_it)

    It asks how many models are beaten, on how many tasks, not by how much; so it depends on which models are in the
    table. ``"mean"`` is the mean score, ``"mean_type"`` the mean over task types of the mean within the type.

    Args:
        scores: Models by tasks, without holes: a ``ScoreTable``, a data frame or a matrix. (paper: S)
        method: ``"borda"``, ``"mean"`` or ``"mean_type"``.
        types: Type of each task, for ``"mean_type"``: in the order of tasks, or by name.

    Shape:
        scores (N, T) -> points (N,), ranks (N,)

    Returns:
        Points and ranks of the models.

    Raises:
        InputError: scores have holes or are no matrix, the method is unknown, or types are missing.

    Example:
        >>> ranking = rank([[0.9, 0.5], [0.8, 0.7], [0.1, 0.7]])
        >>> ranking.points.tolist(), ranking.ranks.tolist()
        ([2.0, 2.5, 1.5], [2.0, 1.0, 3.0])

    References:
        Enevoldsen et al. (2025), MMTEB: Massive Multilingual Text Embedding Benchmark, arXiv:2502.13595v1, section 3;
        Colombo et al. (2022), What are the best systems?, arXiv:2202.03799v3; official code
        embeddings-benchmark/mteb (read, not copied).
    """
    table = as_table(scores)
    votes = _votes(table, method)
    weights = np.ones((1, len(table.tasks)))
    points = _points(votes, weights, _type_ids(table, method, types))[0]
    return _ranking(table, method, points)


def rank_intervals(
    scores: Scores,
    *,
    method: Method = "borda",
    types: Types | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> RankIntervals:
    """Say how firm an order of models is, by drawing the tasks anew (paired bootstrap over tasks).

    Args:
        scores: Models by tasks, as for ``rank``.
        method: As for ``rank``; with ``"mean_type"`` tasks are drawn within their type.
        types: Type of each task, for ``"mean_type"``.
        confidence: Level of the intervals, in (0, 1).
        num_resamples: Number of draws.
        seed: Decides the draws.

    Shape:
        scores (N, T) -> low (N,), high (N,), separated (N, N)

    Returns:
        The order, an interval of places for each model, and which pairs are told apart.

    Raises:
        InputError: as for ``rank``; or confidence is outside (0, 1).

    Example:
        >>> firm = rank_intervals([[0.9, 0.8, 0.7, 0.9], [0.1, 0.2, 0.3, 0.1]])
        >>> firm.low.tolist(), firm.high.tolist(), bool(firm.separated[0, 1])
        ([1.0, 2.0], [1.0, 2.0], True)
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} must be in (0, 1)")
    table = as_table(scores)
    votes, kinds = _votes(table, method), _type_ids(table, method, types)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    drawn = np.concatenate([_points(votes, weights, kinds) for weights in _task_draws(kinds, num_resamples, seed)])
    ranking = _ranking(table, method, _points(votes, np.ones((1, len(table.tasks))), kinds)[0])
    places = midranks(-_rounded(drawn))  # (R, N)
    low = np.minimum(np.quantile(places, tails[0], axis=0, method="lower"), ranking.ranks)
    high = np.maximum(np.quantile(places, tails[1], axis=0, method="higher"), ranking.ranks)
    separated = np.zeros((len(low), len(low)), dtype=bool)
    for i in range(len(low) - 1):
        below, above = np.quantile(drawn[:, i : i + 1] - drawn[:, i + 1 :], tails, axis=0)
        separated[i, i + 1 :] = separated[i + 1 :, i] = (below > 0) | (above < 0)
    return RankIntervals(ranking, low, high, separated, confidence)


def _votes(table: ScoreTable, method: Method) -> NDArray[np.float64]:
    """What each task gives a model, (N, T)."""
    if method not in get_args(Method):
        raise unknown_name("method", method, get_args(Method))
    return len(table.models) - midranks(-table.values.T).T if method == "borda" else table.values


def _type_ids(table: ScoreTable, method: Method, types: Types | None) -> NDArray[np.intp]:
    if method != "mean_type":
        return np.zeros(len(table.tasks), dtype=np.intp)
    if types is None:
        raise InputError("types=None: method='mean_type' needs the type of every task")
    return np.unique(per_task("types", types, table.tasks), return_inverse=True)[1].astype(np.intp)


def _points(votes: NDArray[np.float64], weights: NDArray[np.float64], kinds: NDArray[np.intp]) -> NDArray[np.float64]:
    """Points of every model under every weighting of the tasks, (R, N): Borda's sum needs no division, but bears it."""
    member = kinds[None] == np.arange(kinds.max() + 1)[:, None]  # (types, T)
    means = [(weights[:, own] @ votes[:, own].T) / weights[:, own].sum(axis=1, keepdims=True) for own in member]
    return np.asarray(np.mean(means, axis=0))


def _task_draws(kinds: NDArray[np.intp], num_resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """Draws of tasks, within their type."""
    weights = np.empty((num_resamples, len(kinds)))
    for kind in range(kinds.max() + 1):
        own = np.flatnonzero(kinds == kind)
        draws = resamples(len(own), num_resamples=num_resamples, seed=seed + kind)
        weights[:, own] = np.concatenate(list(draws))
    return [weights]


def _ranking(table: ScoreTable, method: Method, points: NDArray[np.float64]) -> Ranking:
    if method == "borda":
        points = np.round(points * len(table.tasks) * 2) / 2  # sums of half points: exact again
    return Ranking(table.models, method, points, midranks(-_rounded(points)[None])[0])


def _rounded(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(points, 10)  # equal sums must tie, whatever the order of their terms
