"""How evenly vectors point: mean cosine, principal components, IsoScore, effective rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.ops.significance import Interval
from embedlab.understand.geometry.intervals import columns_error, interval, jackknife_error
from embedlab.understand.tte_depth.rows import chunks, matrix, sum_of_units

_PARTS = 10  # parts left out in turn for the intervals of spectral numbers
_NOTHING = 1e-12  # variance of unit rows that is rounding


@dataclass(frozen=True, slots=True)
class Isotropy:
    """How evenly unit vectors use the directions of their space.

    Attributes:
        mean_cosine: Mean cosine of two different rows, in [-1, 1]; about 0 when they point every way.
        top_share: Share of the variance on the first principal component, in [1/D, 1].
        isoscore: IsoScore of the covariance, in [0, 1]; 1 when every direction varies alike, 0 when only one does.
        effective_rank: exp of the entropy of the singular values, in [1, D]: how many directions are used.
        participation_ratio: (sum of variances)^2 / (sum of squared variances), in [1, D]; counts strong ones only.
        components_90: Fewest principal components that hold 90 % of the variance.
        spectrum: Share of the variance on each principal component, (D,), the largest first.
        rows: Rows looked at, all of them.
        dim: Width of the vectors.
    """

    mean_cosine: Interval
    top_share: Interval
    isoscore: Interval
    effective_rank: Interval
    participation_ratio: Interval
    components_90: int
    spectrum: NDArray[np.float64]
    rows: int
    dim: int

    @property
    def reading(self) -> str:
        """What the numbers say, in a sentence or two."""
        cosine = self.mean_cosine.estimate
        if cosine < 0.1:
            first = f"Vectors point every way: two texts have cosine {cosine:.2f} on average."
        elif cosine < 0.4:
            first = f"Vectors share a direction: two texts have cosine {cosine:.2f} on average."
        else:
            first = (
                f"Vectors crowd in a narrow cone: two texts have cosine {cosine:.2f} on average, so a threshold on "
                "cosine means nothing before the mean is taken away."
            )
        used = self.effective_rank.estimate / self.dim
        return (
            f"{first} They use about {self.effective_rank.estimate:.0f} of {self.dim} dimensions ({used:.0%}); "
            f"{self.components_90} hold 90 % of the variance."
        )


def isotropy(vectors: ArrayLike, *, confidence: float = 0.95) -> Isotropy:
    """Measure how evenly vectors point, after bringing them to unit length.

    The mean cosine comes from the sum s of the unit rows, exactly: (|s|^2 - N) / (N (N - 1)). All other numbers come
    from the eigenvalues of the covariance of the unit rows, so the time is O(N D^2) and the memory O(D^2). Intervals:
    each row in turn is left out of the mean cosine, each tenth of the rows of the rest (the jackknife), as if rows
    were independent.

    Args:
        vectors: One vector per text, at least 2 of them not parallel.
        confidence: Level of the intervals, in (0, 1).

    Shape:
        vectors (N, D) -> Isotropy

    Returns:
        The numbers with their intervals; unbounded ones with fewer than 3 rows.

    Raises:
        InputError: ``vectors`` are not a finite matrix of 2 rows or more without zero rows, or all rows are parallel.

    Example:
        >>> found = isotropy(np.vstack([np.eye(3), -np.eye(3)]))
        >>> round(found.mean_cosine.estimate, 3), round(found.isoscore.estimate, 3)
        (-0.2, 1.0)

    References:
        Ethayarajh (2019), How Contextual are Contextualized Word Representations?, arXiv:1909.00512 (mean cosine).
        Rudman et al. (2022), IsoScore: Measuring the Uniformity of Embedding Space Utilization, arXiv:2108.07344.
        Roy and Vetterli (2007), The Effective Rank: A Measure of Effective Dimensionality, EUSIPCO.
    """
    rows = matrix("vectors", vectors, at_least=2)
    count, dim = rows.shape
    cosine = mean_cosine(rows, confidence=confidence)
    total, square = _moments(rows)
    values = _variances(count, total, square)
    if values.sum() < _NOTHING:
        raise InputError(
            f"vectors: all {count} rows are parallel, so there is no space to look at: a constant encoder, or one text"
        )
    parts = min(_PARTS, count) if count > 2 else 0
    without = []
    for number in range(parts):
        held = rows[number::parts]
        part_total, part_square = _moments(held)
        left = _variances(count - len(held), total - part_total, square - part_square)
        without.append(_spectral(left) if left.sum() > _NOTHING else _spectral(values))
    errors = columns_error(without) if parts else [math.nan] * 4
    tops = ((0.0, 1.0), (0.0, 1.0), (1.0, float(dim)), (1.0, float(dim)))
    top, score, rank, ratio = (
        interval(value, error, confidence=confidence, freedom=parts - 1 if parts else math.inf, bounds=bounds)
        for value, error, bounds in zip(_spectral(values), errors, tops, strict=True)
    )
    shares = values / values.sum()
    enough = int(np.searchsorted(np.cumsum(shares), 0.9 - 1e-12)) + 1
    return Isotropy(cosine, top, score, rank, ratio, enough, shares, count, dim)


def mean_cosine(vectors: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Return the mean cosine of two different rows, exactly and in one pass for the sum of the unit rows.

    Args:
        vectors: One vector per text, at least 2.
        confidence: Level of the interval, in (0, 1).

    Returns:
        The mean in [-1, 1], with its interval from leaving out each row in turn.

    Raises:
        InputError: ``vectors`` are not a finite matrix of 2 rows or more without zero rows.

    Example:
        >>> mean_cosine([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]).estimate
        0.3333333333333333
    """
    rows = matrix("vectors", vectors, at_least=2)
    total = sum_of_units("vectors", rows)
    n, square = len(rows), float(total @ total)
    mean = (square - n) / (n * (n - 1))
    error = math.nan
    if n > 2:
        along = np.concatenate([block @ total / lengths for block, lengths in chunks("vectors", rows)])  # (N,)
        error = jackknife_error((square - 2 * along + 1 - (n - 1)) / ((n - 1) * (n - 2)))
    return interval(float(np.clip(mean, -1, 1)), error, confidence=confidence, bounds=(-1.0, 1.0))


def _moments(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of the unit rows (D,), and of their outer products (D, D)."""
    dim = rows.shape[1]
    total, square = np.zeros(dim), np.zeros((dim, dim))
    for block, lengths in chunks("vectors", rows):
        unit = block / lengths[:, None]
        total += unit.sum(axis=0)
        square += unit.T @ unit
    return total, square


def _variances(count: int, total: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eigenvalues of the covariance, the largest first."""
    mean = total / count
    values = np.linalg.eigvalsh(square / count - np.outer(mean, mean))[::-1]
    return np.asarray(np.maximum(values, 0.0))


def _spectral(values: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Top share, IsoScore, effective rank and participation ratio of variances (D,)."""
    shares = values / values.sum()
    widths = np.sqrt(values)
    widths = widths[widths > 0] / widths.sum()
    rank = math.exp(-float(widths @ np.log(widths)))
    return float(shares[0]), _isoscore(values), rank, float(1 / (shares @ shares))


def _isoscore(values: NDArray[np.float64]) -> float:
    """IsoScore: how far the variances are from all being alike, as the share of dimensions used, from 0 to 1."""
    dim = len(values)
    if dim == 1:
        return 1.0
    normed = math.sqrt(dim) * values / np.linalg.norm(values)
    defect = float(np.linalg.norm(normed - 1)) / math.sqrt(2 * (dim - math.sqrt(dim)))
    used = (dim - defect**2 * (dim - math.sqrt(dim))) ** 2 / dim**2  # phi: share of dimensions used
    return float(np.clip((dim * used - 1) / (dim - 1), 0.0, 1.0))
