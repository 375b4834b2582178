"""Statistics of weighted items, many weightings at once: what a bootstrap draws are weights.

A statistic takes values (A, N) and weights (B, N), where A and B are the number of resamples R, or 1 when all resamples
share the row, and gives (R,). Weights count how often an item was drawn. A statistic that depends on the order of the
values alone says so with ``by_rank = True``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

Floats = NDArray[np.float64]


class Statistic(Protocol):
    """Values (A, N) and weights (B, N) -> (R,)."""

    def __call__(self, values: Floats, weights: Floats, /) -> Floats: ...


def mean(values: Floats, weights: Floats) -> Floats:
    """Return the mean of the items drawn.

    Args:
        values: (A, N).
        weights: (B, N).

    Returns:
        One mean per resample, (R,).
    """
    if len(values) == 1:
        return np.asarray((weights @ values[0]) / weights.sum(axis=1))
    return np.asarray(np.sum(values * weights, axis=1) / weights.sum(axis=1))


class Spearman:
    """Rank correlation of an item's value with a given number: the STS statistic.

    Args:
        gold: What the values should be ordered like, one number per item.
        undefined: What constant values give, which have no correlation.

    Raises:
        InputError: gold is not a list of finite numbers, or constant.
    """

    by_rank = True

    def __init__(self, gold: ArrayLike, *, undefined: float = math.nan) -> None:
        self.undefined = undefined
        self._last: tuple[Floats, Floats] | None = None
        self.gold = np.asarray(gold, dtype=np.float64)
        if self.gold.ndim != 1 or not np.isfinite(self.gold).all() or np.ptp(self.gold) == 0:
            raise InputError("gold must be a list of finite numbers that are not all the same")

    def __call__(self, values: Floats, weights: Floats, /) -> Floats:
        """Return the correlation per resample, (R,)."""
        _check_width(values, self.gold, "gold")
        ours, theirs = midranks(values, weights), self._gold_ranks(weights)
        total = weights.sum(axis=1, keepdims=True)
        ours = ours - (total + 1) / 2  # a midrank's weighted mean is known
        theirs = theirs - (total + 1) / 2
        shared, own, gold = (np.sum(weights * product, axis=1) for product in (ours * theirs, ours**2, theirs**2))
        spread = np.sqrt(own * gold)
        return _divide(shared, spread, self.undefined)

    def _gold_ranks(self, weights: Floats) -> Floats:
        if self._last is None or self._last[0] is not weights:  # models are computed in turn on the same resamples
            self._last = weights, midranks(self.gold[None], weights)
        return self._last[1]

    def contributions(self, values: Floats) -> Floats:
        """Return what each item adds to the correlation, (N,): products of standardised ranks."""
        _check_width(values[None], self.gold, "gold")
        ours, theirs = (midranks(row[None])[0] - (len(row) + 1) / 2 for row in (values, self.gold))
        size = float(np.sqrt((ours @ ours) * (theirs @ theirs)))
        return np.asarray(ours * theirs / size if size > 0 else np.zeros_like(ours))


class AveragePrecision:
    """Mean precision at the positives when items are ordered by value, ties as one step: the pair statistic.

    Args:
        labels: Whether an item is positive; both kinds are needed.

    Raises:
        InputError: labels are of one kind only.
    """

    by_rank = True

    def __init__(self, labels: ArrayLike) -> None:
        self.labels = np.asarray(labels).astype(bool)
        if self.labels.ndim != 1 or self.labels.all() or not self.labels.any():
            raise InputError("labels must be a list that holds both positive and negative items")

    def __call__(self, values: Floats, weights: Floats, /) -> Floats:
        """Return the average precision per resample, (R,); NaN where no positive item was drawn."""
        _check_width(values, self.labels, "labels")
        order = np.argsort(-values, axis=1, kind="stable")  # (A, N)
        last = _steps(values, order)
        weights, positive = _along(weights, order), _along(weights * self.labels, order)
        seen, found = np.cumsum(weights, axis=1), np.cumsum(positive, axis=1)
        found_then = np.where(last, found, 0)  # at the end of each step of equal values
        before = np.maximum.accumulate(found_then, axis=1)
        before = np.concatenate([np.zeros((len(before), 1)), before[:, :-1]], axis=1)
        precision = _divide(found, seen, 0.0)
        total = found[:, -1]
        gained = np.sum(np.where(last, precision * (found - before), 0), axis=1)
        return _divide(gained, total, np.nan)


def of_sample(function: Callable[[Floats, NDArray[np.intp]], float]) -> Statistic:
    """Make a statistic from any function of the items drawn; it is called once per resample.

    Args:
        function: Takes the values drawn (M,) and the places of their items (M,), gives a number.

    Returns:
        The statistic.

    Example:
        >>> median = of_sample(lambda values, places: float(np.median(values)))
        >>> median(np.array([[3.0, 1.0, 2.0]]), np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]])).tolist()
        [2.0, 3.0]
    """

    def statistic(values: Floats, weights: Floats, /) -> Floats:
        rows = max(len(values), len(weights))
        values, weights = (np.broadcast_to(part, (rows, part.shape[1])) for part in (values, weights))
        found = []
        for row, counts in zip(values, weights, strict=True):
            places = np.repeat(np.arange(len(row)), counts.astype(np.intp))
            found.append(function(row[places], places))
        return np.array(found, dtype=np.float64)

    return statistic


def midranks(values: Floats, weights: Floats | None = None) -> Floats:
    """Rank values from 1 upward, equal ones sharing the mean of their ranks, each counted as often as it was drawn.

    Args:
        values: (A, N).
        weights: (B, N); once each by default.

    Returns:
        Ranks of the items, (R, N).
    """
    weights = np.ones((1, values.shape[1])) if weights is None else weights
    order = np.argsort(values, axis=1, kind="stable")  # (A, N)
    last = _steps(values, order)
    size = values.shape[1]
    ends = np.cumsum(_along(weights, order), axis=1)  # (R, N) items drawn up to here
    end = np.minimum.accumulate(np.where(last, np.arange(size), size)[:, ::-1], axis=1)[:, ::-1]  # of one's own step
    start = np.where(np.roll(last, 1, axis=1), np.arange(size), 0)
    start[:, 0] = 0
    start = np.maximum.accumulate(start, axis=1)
    before = np.concatenate([np.zeros((len(ends), 1)), ends[:, :-1]], axis=1)
    middles = (_along(before, start) + _along(ends, end) + 1) / 2
    ranks = np.empty_like(middles)
    if len(order) == 1:
        ranks[:, order[0]] = middles
    else:
        np.put_along_axis(ranks, order, middles, axis=1)
    return ranks


def _steps(values: NDArray[Any], order: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Where in the order a run of equal values ends, (A, N)."""
    arranged = np.take_along_axis(values, order, axis=1)
    last = np.ones(values.shape, dtype=bool)
    last[:, :-1] = arranged[:, :-1] != arranged[:, 1:]
    return last


def _along(columns: Floats, places: NDArray[np.intp]) -> Floats:
    """Columns (B, N) at the places (A, N): (R, N), where either may have one row for all resamples."""
    if len(places) == 1:
        return np.asarray(np.take(columns, places[0], axis=1))
    if len(columns) == 1:
        return np.asarray(columns[0][places])
    return np.asarray(np.take_along_axis(columns, places, axis=1))


def _divide(above: Floats, below: Floats, otherwise: float) -> Floats:
    result = np.full(np.broadcast(above, below).shape, otherwise)
    np.divide(above, below, out=result, where=below > 0)
    return result


def _check_width(values: Floats, given: NDArray[np.float64] | NDArray[np.bool_], name: str) -> None:
    if values.shape[1] != len(given):
        raise InputError(f"{name} has {len(given)} items, the values have {values.shape[1]}")
