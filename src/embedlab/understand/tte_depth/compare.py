"""What two samples of depths say about two corpora: Q, its interval, and the rank-sum test. No vectors here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name

Alternative: TypeAlias = Literal["greater", "less", "two-sided"]


@dataclass(frozen=True, slots=True)
class DepthTest:
    """The comparison of a corpus with its reference.

    Attributes:
        q: Chance that a text of the other corpus is at least as central as one of the reference, in [0, 1]; 1/2 under
            equality.
        q_low: Lower end of the interval of Q.
        q_high: Upper end of the interval of Q.
        statistic: Rank-sum statistic, standard normal under equality, positive if the reference is deeper. (paper: W)
        pvalue: Chance of a statistic at least as extreme under equality.
        n: Rows in the reference.
        m: Rows in the other corpus.
        alternative: What was suspected.
        method: How the p-value was found.
    """

    q: float
    q_low: float
    q_high: float
    statistic: float
    pvalue: float
    n: int
    m: int
    alternative: str
    method: str


def q_score(reference_depths: ArrayLike, other_depths: ArrayLike, *, pooled: bool = False) -> float:
    """Estimate from depths the chance that a text of another corpus is at least as central as one of the reference.

    The mean over all pairs (x, y) of 1[D(x) <= D(y)], where a tie counts one half; sorting makes it O((N + M) log N).

    Args:
        reference_depths: Depths of the reference's own texts.
        other_depths: Depths of the other corpus in the same reference.
        pooled: Give the official code's figure, the mean share of the pooled depths below each y. It stops at
            M / 2(N + M), not at 0, when the corpora are fully apart.

    Shape:
        reference_depths (N,), other_depths (M,) -> float

    Returns:
        Q in [0, 1].

    Raises:
        InputError: an argument is empty, not one-dimensional or not finite.

    Example:
        >>> q_score([1.0, 2.0], [1.0, 3.0])
        0.625
    """
    inner, outer = _sample("reference_depths", reference_depths), _sample("other_depths", other_depths)
    if pooled:
        everything = np.sort(np.concatenate([inner, outer]))
        return float(np.mean(np.searchsorted(everything, outer, side="left")) / len(everything))
    return float(np.mean(_share_below(inner, outer)))


def compare_depths(
    reference_depths: ArrayLike,
    other_depths: ArrayLike,
    *,
    alternative: Alternative = "greater",
    confidence: float = 0.95,
    split_qs: NDArray[np.float64] | None = None,
) -> DepthTest:
    """Test whether two samples of depths come from one distribution.

    The rank-sum statistic is Q itself, moved to 0 and brought to unit variance under equality.

    Args:
        reference_depths: Depths of the reference's own texts.
        other_depths: Depths of the other corpus in the same reference.
        alternative: What is suspected: ``"greater"`` that the reference is deeper, ``"less"`` the reverse,
            ``"two-sided"`` either.
        confidence: Level of the interval around Q, in (0, 1).
        split_qs: Q of random splits of the pooled rows, (R,); given them, the p-value is the permutation test's.

    Shape:
        reference_depths (N,), other_depths (M,) -> DepthTest

    Returns:
        Q with its interval, the statistic, the p-value and both sizes.

    Raises:
        InputError: a sample is empty or not finite, or an option has a value that is not allowed.

    Example:
        >>> result = compare_depths([1.8, 1.9, 1.7, 1.6], [1.5, 1.75, 1.2, 1.1])
        >>> result.q, round(result.pvalue, 3)
        (0.125, 0.042)
    """
    if alternative not in get_args(Alternative):
        raise unknown_name("alternative", alternative, get_args(Alternative))
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} must be in (0, 1)")
    inner, outer = _sample("reference_depths", reference_depths), _sample("other_depths", other_depths)
    n, m, q = len(inner), len(outer), q_score(inner, outer)
    statistic = (0.5 - q) * math.sqrt(12 * n * m / (n + m + 1))
    low, high = _interval(inner, outer, q, confidence)
    return DepthTest(
        q=q,
        q_low=low,
        q_high=high,
        statistic=statistic,
        pvalue=_normal_tail(statistic, alternative) if split_qs is None else _split_tail(split_qs, q, alternative),
        n=n,
        m=m,
        alternative=alternative,
        method="asymptotic" if split_qs is None else "permutation",
    )


def _share_below(sample: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the sample below each point, equals counting half: a point's placement."""
    ranked = np.sort(sample)
    below, up_to = np.searchsorted(ranked, points, side="left"), np.searchsorted(ranked, points, side="right")
    return (below + up_to) / (2 * len(sample))  # (points,)


def _interval(inner: NDArray[np.float64], outer: NDArray[np.float64], q: float, level: float) -> tuple[float, float]:
    """DeLong's interval: Q is the mean placement from either side, so its variance is the sum of both means'."""
    if min(len(inner), len(outer)) < 2:
        return 0.0, 1.0  # one text tells nothing about the spread
    sides = (_share_below(inner, outer), _share_below(outer, inner))
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(sum(side.var(ddof=1) / len(side) for side in sides))
    return max(0.0, q - reach), min(1.0, q + reach)


def _normal_tail(statistic: float, alternative: Alternative) -> float:
    # erfc, not 1 - cdf: it still tells 1e-100 from 0
    if alternative == "two-sided":
        return math.erfc(abs(statistic) / math.sqrt(2))
    return math.erfc((statistic if alternative == "greater" else -statistic) / math.sqrt(2)) / 2


def _split_tail(split_qs: NDArray[np.float64], q: float, alternative: Alternative) -> float:
    """Share of splits at least as extreme; the split that was seen is one of the possible ones, hence the + 1."""
    null, seen = 0.5 - split_qs, 0.5 - q
    if alternative == "two-sided":
        null, seen = np.abs(null), abs(seen)
    elif alternative == "less":
        null, seen = -null, -seen
    return float((1 + np.sum(null >= seen - 1e-12)) / (1 + len(null)))


def _sample(name: str, values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise InputError(f"{name} must be a list of finite numbers that is not empty, got shape {sample.shape}")
    return sample
