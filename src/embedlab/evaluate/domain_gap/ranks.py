"""Does a model's rank on general data tell its rank on the domain? Spearman, exact where models are few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.evaluate.domain_gap.finding import Finding, interval_text, shown_number
from embedlab.evaluate.domain_gap.gaps import MEAN
from embedlab.evaluate.domain_gap.table import ScoreTable

_MOST_EXACT = 9  # 362,880 orders are all looked at


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's correlation with what it is worth.

    Attributes:
        rho: The correlation, in [-1, 1].
        pvalue: Two-sided; chance of one at least as far from 0 if the orders had nothing to do with each other.
        low: Lower end of the interval.
        high: Upper end.
        n: How many were ranked.
        exact: Whether the p-value comes from all orders.
    """

    rho: float
    pvalue: float
    low: float
    high: float
    n: int
    exact: bool


def spearman(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> RankCorrelation:
    """Correlate ranks, with an interval and the exact permutation p-value for fewer than ten values.

    The interval is Fisher's z with the error of Bonett and Wright. A perfect order counts as a quarter of the smallest
    step below 1, where z is finite: no sample excludes that other models would be ordered otherwise.

    Args:
        a: Values.
        b: Values of the same items.
        confidence: Level of the interval, in (0, 1).

    Shape:
        a (N,), b (N,) -> RankCorrelation

    Returns:
        The correlation; with fewer than four values the interval is [-1, 1].

    Raises:
        InputError: sizes differ, there are fewer than two values, one is not finite, or all are equal.

    Example:
        >>> found = spearman([1, 2, 3, 4, 5], [1, 2, 3, 5, 4])
        >>> round(found.rho, 2), round(found.pvalue, 3), round(found.low, 2)
        (0.9, 0.083, -0.17)
    """
    from scipy.stats import rankdata, spearmanr

    first, second = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise InputError(f"a and b must hold the same items, two at least, got shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("a and b must be finite")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise InputError("a or b is constant: ranks that are all tied correlate with nothing")
    n = len(first)
    ranks = [rank - rank.mean() for rank in (rankdata(first), rankdata(second))]
    norm = math.sqrt(float(ranks[0] @ ranks[0]) * float(ranks[1] @ ranks[1]))
    rho = float(np.clip(ranks[0] @ ranks[1] / norm, -1, 1))
    if n <= _MOST_EXACT:
        every = ranks[0][_orders(n)] @ ranks[1] / norm
        pvalue = float(np.mean(np.abs(every) >= abs(rho) - 1e-9))
    else:
        pvalue = float(spearmanr(first, second).pvalue)
    low, high = _interval(rho, n, confidence)
    return RankCorrelation(rho, pvalue, low, high, n, n <= _MOST_EXACT)


def rank_relation(table: ScoreTable, *, confidence: float = 0.95) -> Finding:
    """Correlate the models' mean scores on general data with those on the domain, per type.

    Args:
        table: The scores.
        confidence: Level of the intervals.

    Returns:
        Per type, and for the mean of types: rho with its interval, p and the number of models.
    """
    from pandas import DataFrame

    kinds = [kind for kind in table.kinds if 0 < table.inside[table.of_type(kind)].sum() < table.of_type(kind).sum()]
    means = {
        kind: tuple(table.values[table.of_type(kind) & (table.inside == side)].mean(axis=0) for side in (False, True))
        for kind in kinds
    }
    if len(kinds) > 1:
        means[MEAN] = tuple(np.mean([means[kind][side] for kind in kinds], axis=0) for side in (0, 1))
    rows, unclear = [], []
    for kind, (general, inside) in means.items():
        if len(general) < 2 or np.ptp(general) == 0 or np.ptp(inside) == 0:
            unclear.append(kind)
            rows.append({"type": kind, "rho": math.nan, "low": math.nan, "high": math.nan, "p": math.nan})
            continue
        found = spearman(general, inside, confidence=confidence)
        rows.append({"type": kind, "rho": found.rho, "low": found.low, "high": found.high, "p": found.pvalue})
    frame = DataFrame(rows).set_index("type")
    frame["n models"] = len(table.models)
    return Finding("Do ranks carry over?", frame, _verdict(frame, unclear, len(table.models), confidence))


def _verdict(frame: object, unclear: list[str], n: int, confidence: float) -> str:
    from pandas import DataFrame

    if not isinstance(frame, DataFrame) or frame["rho"].isna().all():
        return f"Not identifiable: {n} model(s), or models that all score alike, have no order."
    last = frame[frame["rho"].notna()].iloc[-1]
    rho = interval_text(float(last["rho"]), float(last["low"]), float(last["high"]))
    level = 1 - confidence
    words = f"Spearman's rho of {n} models ({last.name}): {rho}, p = {shown_number(float(last['p']))}."
    if last["p"] > level:
        words += " Not significant, which is not the same as unrelated: see the width of the interval."
    if n <= _MOST_EXACT and 2 / math.factorial(n) > level:
        words += f" With {n} models no order at all can reach p = {level:.2f}."
    return words + (f" Not identifiable: {', '.join(unclear)}." if unclear else "")


def _interval(rho: float, n: int, confidence: float) -> tuple[float, float]:
    if n < 4:
        return -1.0, 1.0
    step = 3 / (n * (n * n - 1))  # a quarter of the smallest change of rho
    bounded = math.copysign(min(abs(rho), 1 - step), rho)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((1 + bounded**2 / 2) / (n - 3))
    low, high = math.tanh(math.atanh(bounded) - reach), math.tanh(math.atanh(bounded) + reach)
    return (low, 1.0) if rho >= 1 - 1e-12 else (-1.0, high) if rho <= -1 + 1e-12 else (low, high)


@cache
def _orders(n: int) -> NDArray[np.uint8]:
    return np.array(list(permutations(range(n))), dtype=np.uint8)  # (n!, n)
