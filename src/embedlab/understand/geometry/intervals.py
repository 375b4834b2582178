"""Intervals of numbers that are no mean: from a standard error, or by leaving out a part of the rows in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from embedlab._core.errors import InputError
from embedlab.ops.significance import Interval


def interval(
    estimate: float,
    error: float,
    *,
    confidence: float,
    freedom: float = math.inf,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Put an interval around an estimate.

    Args:
        estimate: The estimate.
        error: Its standard error; NaN where there is none.
        confidence: Level, in (0, 1).
        freedom: Degrees of freedom of the error; Student's quantile takes the place of the normal one.
        bounds: Smallest and largest value that the number can take.

    Returns:
        The interval, cut at the bounds; unbounded if there is no error.

    Raises:
        InputError: ``confidence`` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} must be in (0, 1)")
    if math.isnan(error):
        return Interval(float(estimate), -math.inf, math.inf, confidence)
    reach = _student((1 + confidence) / 2, freedom) * error
    low, high = np.clip((estimate - reach, estimate + reach), *bounds)
    return Interval(float(estimate), float(low), float(high), confidence)


def jackknife_error(without: ArrayLike) -> float:
    """Return the standard error of an estimate from its values without each of G equal parts of the rows.

    Args:
        without: The estimates (G,).

    Returns:
        sqrt((G - 1) / G sum_g (t_g - mean t)^2); NaN for fewer than 2.

    Example:
        >>> rows = np.arange(5.0)  # of a mean it is the usual standard error
        >>> error = jackknife_error([(rows.sum() - row) / 4 for row in rows])
        >>> bool(np.isclose(error, rows.std(ddof=1) / math.sqrt(5)))
        True
    """
    values = np.asarray(without, dtype=np.float64)
    return math.sqrt((len(values) - 1) * values.var()) if len(values) > 1 else math.nan


def inverted(means: Interval) -> Interval:
    """Return the interval of 1/x from that of a positive x."""
    return Interval(1 / means.estimate, 1 / means.high, 1 / means.low if means.low > 0 else math.inf, means.confidence)


def text_of(number: Interval, *, digits: int = 3) -> str:
    """Write an estimate with its interval.

    Example:
        >>> text_of(Interval(0.5, 0.25, 0.75, 0.95), digits=2)
        '0.50 [0.25, 0.75]'
    """
    if not (math.isfinite(number.low) and math.isfinite(number.high)):
        return f"{number.estimate:.{digits}f}"
    return f"{number.estimate:.{digits}f} [{number.low:.{digits}f}, {number.high:.{digits}f}]"


def columns_error(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return ``jackknife_error`` of each column of G estimates of several numbers."""
    return [jackknife_error(column) for column in zip(*rows, strict=True)]


def _student(level: float, freedom: float) -> float:
    """Student's quantile by the expansion around the normal one; within 0.5 % from 9 degrees of freedom on."""
    z = NormalDist().inv_cdf(level)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
