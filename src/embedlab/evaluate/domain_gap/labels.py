"""Differences between two groups of data sets: every relabelling looked at, and Welch's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedlab.ops.significance import Interval

Floats: TypeAlias = NDArray[np.float64]
Strata: TypeAlias = Sequence[tuple[Floats, NDArray[np.bool_]]]  # of each type: a value per data set, and its label

_MOST_EXACT = 100_000  # relabellings that are all looked at; beyond, they are drawn
_NUM_DRAWN = 9_999


def difference(strata: Strata, *, confidence: float = 0.95) -> Interval:
    """Estimate the mean over strata of (mean of the labelled - mean of the others), with Welch's interval.

    Args:
        strata: Values and labels, stratum by stratum.
        confidence: Level of the interval.

    Returns:
        Estimate and interval; infinite where a stratum has a single data set on a side, whose spread nobody knows.
    """
    from scipy.stats import t as student

    gaps = [float(values[labels].mean() - values[~labels].mean()) for values, labels in strata]
    sides = [side for values, labels in strata for side in (values[labels], values[~labels])]
    estimate = math.fsum(gaps) / len(gaps)
    if min(len(side) for side in sides) < 2:
        return Interval(estimate, -math.inf, math.inf, confidence)
    errors = [float(side.var(ddof=1)) / len(side) for side in sides]
    total = math.fsum(errors)
    if total <= 1e-24:
        return Interval(estimate, estimate, estimate, confidence)
    # Satterthwaite: degrees of freedom of a sum of variances
    degrees = total**2 / math.fsum(error**2 / (len(side) - 1) for error, side in zip(errors, sides, strict=True))
    reach = float(student.ppf((1 + confidence) / 2, degrees)) * math.sqrt(total) / len(gaps)
    return Interval(estimate, estimate - reach, estimate + reach, confidence)


def permutation_pvalue(strata: Strata, *, seed: int = 0) -> tuple[float, float, bool]:
    """Relabel data sets within their strata, and count how often the mean difference is as large as the one seen.

    The data set is the unit: all scores on it move together, since another model's score on it is no new evidence about
    the domain.

    Args:
        strata: Values and labels, stratum by stratum.
        seed: Decides the relabellings where there are too many to look at all.

    Returns:
        The two-sided p-value, the smallest it could have been, and whether every relabelling was looked at.
    """
    seen = math.fsum(float(values[labels].mean() - values[~labels].mean()) for values, labels in strata)
    ways = math.prod(math.comb(len(labels), int(labels.sum())) for _, labels in strata)
    exact = ways <= _MOST_EXACT
    if exact:
        gaps = np.zeros(1)
        for values, labels in strata:
            gaps = np.add.outer(gaps, _every_gap(values, int(labels.sum()))).ravel()
    else:
        rng = np.random.default_rng(seed)
        gaps = np.array([seen] + [_drawn_gap(strata, rng) for _ in range(_NUM_DRAWN)])
    extreme = np.abs(gaps) >= abs(seen) - 1e-9 * max(1.0, abs(seen))
    # turning all labels around is another relabelling with the same distance, if the sides are of equal size
    least = (2 if all(2 * labels.sum() == len(labels) for _, labels in strata) else 1) / len(gaps)
    return float(extreme.mean()), min(1.0, least), exact


def _every_gap(values: Floats, count: int) -> Floats:
    chosen = np.array(list(combinations(range(len(values)), count)), dtype=np.intp)  # (ways, count)
    sums = values[chosen].sum(axis=1)
    return np.asarray(sums / count - (values.sum() - sums) / (len(values) - count))


def _drawn_gap(strata: Strata, rng: np.random.Generator) -> float:
    total = 0.0
    for values, labels in strata:
        turned = rng.permutation(values)
        count = int(labels.sum())
        total += float(turned[:count].mean() - turned[count:].mean())
    return total
