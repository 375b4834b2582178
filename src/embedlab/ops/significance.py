"""How sure is a number, and is one model better than another on the same items? Bootstrap, randomisation, Holm.

Every resample is a row of weights: how often each item was drawn. A statistic is a function of values and weights, so
that means are one matrix product, and ranks need one sort for all resamples. Work goes in chunks of rows; memory does
not grow with the number of resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.ops.resampling import (
    CHUNK_VALUES,
    all_assignments,
    assignments,
    clusters_of,
    draw,
    num_clusters,
    resamples,
)
from embedlab.ops.weighted import Statistic, mean, midranks

__all__ = ["Interval", "PairedTest", "Test", "bootstrap_interval", "holm", "paired_test", "paired_tests", "resamples"]

Test: TypeAlias = Literal["randomisation", "wilcoxon", "repeats"]
Floats: TypeAlias = NDArray[np.float64]

_EXACT_UNITS = 12  # 4096 assignments are all looked at; beyond, they are drawn
_ENOUGH_EXTREME = 200  # assignments as extreme as the one seen, after which no more are drawn where each is costly


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the values that the data do not speak against.

    Attributes:
        estimate: The statistic on the data as they are.
        low: Lower end; minus infinity where the data tell nothing (a single item).
        high: Upper end.
        confidence: How often such intervals hold the true value, in (0, 1).
    """

    estimate: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two models on the same items.

    Attributes:
        difference: The first model's statistic less the second's, with its interval.
        pvalue: Chance of a difference at least as large, either way, if the models were interchangeable.
        test: ``"randomisation"``, ``"wilcoxon"`` or ``"repeats"``.
        n: Units that were compared: items, clusters of items or repeats.
        distinguishable: Whether the p-value is at most 1 - confidence. Nothing is corrected for other tests here.
        exact: Whether every assignment was looked at, not a random sample of them.
    """

    difference: Interval
    pvalue: float
    test: str
    n: int
    distinguishable: bool
    exact: bool = False


def bootstrap_interval(
    values: ArrayLike,
    *,
    statistic: Statistic | None = None,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Estimate a statistic with its bootstrap interval: items, or whole clusters of items, are drawn anew.

    The interval is the percentile interval, widened so that it is right for the mean of few items as well: the level
    a / 2 becomes Phi(t sqrt(n / (n - 1))) with t the a / 2 quantile of Student's distribution on n - 1 degrees.

    Args:
        values: One number per item.
        statistic: Function of values and weights; the mean by default. See ``embedlab.ops.weighted``.
        groups: Cluster of each item, when items of one cluster are not independent (queries about one document).
        confidence: Level of the interval, in (0, 1).
        num_resamples: Number of resamples, at least 100.
        seed: Decides the resamples.

    Shape:
        values (N,), groups (N,) -> Interval

    Returns:
        Estimate and interval, in the statistic's unit.

    Raises:
        InputError: values are empty or not finite, or an option has a value that is not allowed.

    Example:
        >>> interval = bootstrap_interval([0.2, 0.5, 0.4, 0.9, 0.6, 0.7])
        >>> round(interval.estimate, 2), round(interval.low, 2), round(interval.high, 2)
        (0.55, 0.31, 0.8)

    References:
        Hesterberg (2015), What teachers should know about the bootstrap, arXiv:1411.5279v1, section 5.2.
    """
    sample, compute = _sample("values", values), statistic or mean
    _check_options(confidence, num_resamples)
    clusters = clusters_of(groups, len(sample))
    estimate = float(compute(sample[None], np.ones((1, len(sample))))[0])
    drawn = [compute(sample[None], weights) for weights in draw(clusters, num_resamples, seed)]
    return _interval(estimate, np.concatenate(drawn), num_clusters(clusters), confidence)


def paired_test(
    a: ArrayLike,
    b: ArrayLike,
    *,
    statistic: Statistic | None = None,
    test: Test = "randomisation",
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> PairedTest:
    """Compare two models on the same items: paired bootstrap interval of the difference, and a test of no difference.

    ``"randomisation"`` exchanges the two models' values item by item, which under no difference changes nothing, and
    counts how often the difference is as large as the one seen; for a sum over items that is flipping signs. Statistics
    of ranks alone (Spearman, average precision) are exchanged as ranks, so that models with other scales can be
    compared; Spearman is a sum over items of standardised ranks, which are exchanged as they are.
    ``"wilcoxon"`` flips the signs of ranked differences: for means of values with outliers, when differences are
    symmetric. ``"repeats"`` is for tasks that give nothing but repeated scores, each on its own draw of the data
    (bootstraps of a clustering, samples of training texts). Repeats share their data, so their spread counts as the
    uncertainty of one of them, not of their mean: Student's t on deviation * sqrt(1 + 1/n).

    Args:
        a: The first model's values.
        b: The second model's values, in the same order of items.
        statistic: As in ``bootstrap_interval``; the mean by default, which the other two tests need.
        test: The test.
        groups: Cluster of each item; clusters are drawn and exchanged as a whole.
        confidence: Level of the interval, in (0, 1); 1 - confidence is the level of the test.
        num_resamples: Number of resamples, and of random assignments where there are too many to look at all. For
            average precision and statistics of your own, no more are drawn once 200 were as extreme as the one seen.
        seed: Decides both.

    Shape:
        a (N,), b (N,), groups (N,) -> PairedTest

    Returns:
        The difference with its interval, and the p-value.

    Raises:
        InputError: sizes differ, a value is not finite, or an option has a value that is not allowed.

    Example:
        >>> result = paired_test([0.9, 0.8, 0.7, 0.9, 0.8, 0.9], [0.5, 0.6, 0.6, 0.4, 0.7, 0.7])
        >>> round(result.difference.estimate, 2), result.pvalue, result.distinguishable
        (0.25, 0.03125, True)

    References:
        Smucker, Allan and Carterette (2007), A comparison of statistical significance tests for information retrieval
        evaluation, doi:10.1145/1321440.1321528; Besag and Clifford (1991), Sequential Monte Carlo p-values,
        doi:10.1093/biomet/78.2.301, for stopping early.
    """
    first, second = _sample("a", a), _sample("b", b)
    if len(first) != len(second):
        raise InputError(f"a and b must hold the same items, got {len(first)} and {len(second)} values")
    found = paired_tests(
        np.stack([first, second]),
        statistic=statistic,
        test=test,
        groups=groups,
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
    )
    return found[0, 1]


def paired_tests(
    values: ArrayLike,
    *,
    statistic: Statistic | None = None,
    test: Test = "randomisation",
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[tuple[int, int], PairedTest]:
    """Compare every pair of several models on the same items, drawing the resamples once for all.

    Args:
        values: One row per model, at least two. (M rows)
        statistic: As in ``paired_test``.
        test: As in ``paired_test``.
        groups: Cluster of each item.
        confidence: Level of the intervals, in (0, 1).
        num_resamples: Number of resamples and of random assignments.
        seed: Decides both.

    Shape:
        values (M, N), groups (N,) -> M (M - 1) / 2 tests

    Returns:
        Pair of rows (first below second) -> the first less the second. Nothing is corrected for their number.

    Raises:
        InputError: there are fewer than two rows, a value is not finite, or an option is not allowed.
    """
    if test not in get_args(Test):
        raise unknown_name("test", test, get_args(Test))
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] == 0 or not np.isfinite(rows).all():
        raise InputError(f"values must be finite, a row for each of at least two models, got shape {rows.shape}")
    _check_options(confidence, num_resamples)
    if test != "randomisation" and not (statistic is None and groups is None):
        raise InputError(f"test={test!r} compares means of single items: use test='randomisation' with these options")
    pairs = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows))]
    if test == "repeats":
        return {(i, j): _repeats(rows[i] - rows[j], confidence) for i, j in pairs}
    clusters, compute = clusters_of(groups, rows.shape[1]), statistic or mean
    count = num_clusters(clusters)
    whole = _of_each(rows, compute, np.ones((1, rows.shape[1])))[:, 0]
    drawn = [_of_each(rows, compute, weights) for weights in draw(clusters, num_resamples, seed)]
    under = np.concatenate(drawn, axis=1)  # (M, R)
    if statistic is not None and not hasattr(statistic, "contributions"):
        shares = [_swap(rows[i], rows[j], statistic, clusters, num_resamples, seed) for i, j in pairs]
    else:
        parts = rows if statistic is None else np.stack([statistic.contributions(row) for row in rows])
        steps = np.stack([parts[i] - parts[j] for i, j in pairs])  # (pairs, N)
        if test == "wilcoxon":
            steps = np.sign(steps) * midranks(np.abs(steps))
        shares = _flip_signs(steps, clusters, num_resamples, seed)
    return {
        (i, j): PairedTest(
            _interval(float(whole[i] - whole[j]), under[i] - under[j], count, confidence),
            pvalue,
            test,
            count,
            pvalue <= 1 - confidence,
            exact,
        )
        for (i, j), (pvalue, exact) in zip(pairs, shares, strict=True)
    }


def holm(pvalues: ArrayLike) -> Floats:
    """Adjust p-values so that the chance of any false alarm in the family stays at the level (Holm's step-down).

    Args:
        pvalues: The family's p-values, in [0, 1].

    Shape:
        pvalues (M,) -> (M,)

    Returns:
        Adjusted p-values, in the same order: below 0.05 means significant at 5 % within the whole family.

    Raises:
        InputError: a value is outside [0, 1].

    Example:
        >>> [round(float(p), 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]

    References:
        Holm (1979), A simple sequentially rejective multiple test procedure, doi:10.2307/4615733.
    """
    given = np.asarray(pvalues, dtype=np.float64)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise InputError(f"pvalues must be a list of numbers in [0, 1], got {pvalues!r}")
    order = np.argsort(given, kind="stable")
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)))
    return adjusted


def _of_each(rows: Floats, statistic: Statistic, weights: Floats) -> Floats:
    return np.stack([statistic(row[None], weights) for row in rows])  # (M, R)


def _interval(estimate: float, drawn: Floats, units: int, confidence: float) -> Interval:
    if math.isnan(estimate):
        raise InputError("the statistic is undefined on these values: constant values, or only one label?")
    drawn = drawn[~np.isnan(drawn)]  # resamples that lack a label or are constant say nothing
    if units < 2 or drawn.size == 0:
        return Interval(estimate, -math.inf, math.inf, confidence)
    tail = NormalDist().cdf(_student_quantile((1 - confidence) / 2, units - 1) * math.sqrt(units / (units - 1)))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), confidence)


def _student_quantile(level: float, degrees: int) -> float:
    """Fisher's expansion around the normal quantile: within 0.2 % from three degrees on, exact for one and two."""
    if degrees == 1:
        return math.tan(math.pi * (level - 0.5))
    if degrees == 2:
        return (2 * level - 1) / math.sqrt(2 * level * (1 - level))
    z = NormalDist().inv_cdf(level)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / float(degrees) ** power for power, term in enumerate(terms))


def _flip_signs(
    steps: Floats, clusters: NDArray[np.intp], num_resamples: int, seed: int
) -> list[tuple[float, bool]]:  # p-value, exact
    """For each row of differences, the share of sign assignments whose sum is at least as far from 0 as that seen."""
    sums = np.stack([np.bincount(clusters, weights=row) for row in steps])  # (pairs, units)
    seen, slack = np.abs(sums.sum(axis=1)), 1e-10 * np.abs(sums).sum(axis=1)
    shares: list[tuple[float, bool]] = [(1.0, True)] * len(sums)
    many = []
    for place, row in enumerate(sums):
        units = row[row != 0]  # flipping a zero changes nothing
        if units.size > _EXACT_UNITS:
            many.append(place)
        else:
            every = np.abs(units.sum() - 2 * (all_assignments(units.size) @ units))
            shares[place] = float(np.mean(every >= seen[place] - slack[place])), True
    if many:
        kept = sums[many]
        extreme = np.zeros(len(many), dtype=np.intp)
        for flips in assignments(sums.shape[1], num_resamples, sums.shape[1], seed):
            every = np.abs(kept.sum(axis=1) - 2 * (flips @ kept.T))  # (rows, pairs)
            extreme += np.sum(every >= seen[many] - slack[many], axis=0)
        for place, found in zip(many, extreme, strict=True):
            shares[place] = _share(int(found), num_resamples), False
    return shares


def _swap(
    a: Floats, b: Floats, statistic: Statistic, clusters: NDArray[np.intp], num_resamples: int, seed: int
) -> tuple[float, bool]:
    """The same for any statistic, computed anew after exchanging the models' values in random clusters."""
    if getattr(statistic, "by_rank", False):
        a, b = _compact(midranks(a[None])[0]), _compact(midranks(b[None])[0])
    differing, position = np.unique(clusters[a != b], return_inverse=True)
    if differing.size == 0:
        return 1.0, True
    where = np.zeros(len(a), dtype=np.intp)
    where[a != b] = position
    ones = np.ones((1, len(a)))
    seen = abs(float((statistic(a[None], ones) - statistic(b[None], ones))[0]))

    def count(flips: Floats) -> int:
        turned = flips[:, where] > 0  # (rows, N)
        gaps = statistic(np.where(turned, b, a), ones) - statistic(np.where(turned, a, b), ones)
        return int(np.sum(~(np.abs(gaps) < seen - 1e-12)))  # an undefined one counts against us

    if differing.size <= _EXACT_UNITS:
        every = all_assignments(differing.size)
        parts = np.array_split(every, max(1, len(every) * len(a) // CHUNK_VALUES))
        return sum(count(part) for part in parts) / float(len(every)), True
    extreme = drawn = 0
    for flips in assignments(differing.size, num_resamples, len(a), seed):
        extreme, drawn = extreme + count(flips), drawn + len(flips)
        if extreme >= _ENOUGH_EXTREME:
            break  # the share is known well enough: chance it is
    return _share(extreme, drawn), False


def _compact(ranks: Floats) -> NDArray[Any]:
    """Ranks as small whole numbers where they fit, which are sorted many times faster."""
    return (2 * ranks).astype(np.int16) if len(ranks) < 2**14 else ranks


def _share(extreme: int, num_resamples: int) -> float:
    return (1 + extreme) / (1 + num_resamples)  # what was seen is one of the possible assignments


def _repeats(steps: Floats, confidence: float) -> PairedTest:
    from scipy.stats import t as student

    count, estimate = len(steps), float(steps.mean())
    deviation = float(steps.std(ddof=1)) if count > 1 else 0.0
    if deviation <= 1e-12 * max(1.0, abs(estimate)):  # repeats that do not vary say nothing about other data
        return PairedTest(Interval(estimate, -math.inf, math.inf, confidence), 1.0, "repeats", count, False)
    error = deviation * math.sqrt(1 + 1 / count)
    reach = float(student.ppf((1 + confidence) / 2, count - 1)) * error
    pvalue = float(2 * student.sf(abs(estimate) / error, count - 1))
    interval = Interval(estimate, estimate - reach, estimate + reach, confidence)
    return PairedTest(interval, pvalue, "repeats", count, pvalue <= 1 - confidence)


def _sample(name: str, values: ArrayLike) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise InputError(f"{name} must be a list of finite numbers that is not empty, got shape {sample.shape}")
    return sample


def _check_options(confidence: float, num_resamples: int) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} must be in (0, 1)")
    if num_resamples < 100:
        raise InputError(f"num_resamples={num_resamples} must be at least 100: fewer give no stable interval")
