"""Hubness: texts that are among the nearest neighbours of too many others, and texts that are among nobody's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.ops.significance import Interval, bootstrap_interval
from embedlab.understand.geometry.neighbours import MAX_ROWS, Metric, Neighbours, nearest


@dataclass(frozen=True, slots=True)
class Hubness:
    """How unevenly rows are other rows' neighbours.

    Attributes:
        skewness: Skewness of the occurrences; near ``chance`` when all are alike, above 1 when hubs rule.
        orphan_share: Share of rows that are among nobody's k nearest, in [0, 1].
        hub_share: Share of rows that occur more than 2 standard deviations above the mean.
        hub_places: Share of all places among nearest neighbours that hubs hold.
        robin_hood: Share of all places that would have to change hands for all rows to occur k times, in [0, 1].
        chance: Skewness if neighbours were drawn at random.
        occurrences: How often each row looked at is among the k nearest of another, (M,).
        rows: Numbers of these rows, (M,).
        k: Neighbours of each row.
        basis: Which rows were looked at, in words.
    """

    skewness: Interval
    orphan_share: Interval
    hub_share: float
    hub_places: float
    robin_hood: float
    chance: float
    occurrences: NDArray[np.intp]
    rows: NDArray[np.intp]
    k: int
    basis: str

    def hubs(self, count: int) -> NDArray[np.intp]:
        """Return the numbers of the rows that occur most often, at most ``count``; equals as they came."""
        return np.asarray(self.rows[np.argsort(-self.occurrences, kind="stable")[:count]])

    def orphans(self, count: int) -> NDArray[np.intp]:
        """Return the numbers of the first rows that are among nobody's neighbours, at most ``count``."""
        return np.asarray(self.rows[self.occurrences == 0][:count])

    @property
    def reading(self) -> str:
        """What the numbers say, in a sentence or two."""
        skew, orphans = self.skewness.estimate, self.orphan_share.estimate
        degree = "Hardly any hubs" if skew < 1 else "Some hubs" if skew < 2.5 else "Strong hubs"
        words = f"{degree}: {self.hub_share:.1%} of the texts hold {self.hub_places:.0%} of all places among the "
        words += f"{self.k} nearest, and {orphans:.1%} are in no other text's list"
        return words + (": search by similarity will hardly ever show them." if orphans > 0.05 else ".")


def hubness(
    vectors: ArrayLike | Neighbours,
    *,
    k: int = 10,
    metric: Metric = "cosine",
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    confidence: float = 0.95,
) -> Hubness:
    """Count how often each row is among the k nearest neighbours of another, and how uneven the counts are.

    With N_k(x) the count of row x, whose mean is k, hubness is the skewness E[(N_k - k)^3] / sd(N_k)^3. Intervals are
    bootstrapped over rows, as if their counts were independent.

    Args:
        vectors: One vector per text, or neighbours found already (of which ``k`` at least).
        k: Neighbours of each row. (paper: k = 10)
        metric: ``"cosine"`` compares directions, ``"euclidean"`` the rows as they are.
        max_rows: Beyond this many rows a random sample of that size is looked at, and counts hold within it.
        seed: Decides the sample and the bootstrap.
        confidence: Level of the intervals, in (0, 1).

    Shape:
        vectors (N, D) -> Hubness

    Returns:
        Counts and what they amount to; skewness is 0 if all counts are alike.

    Raises:
        InputError: ``vectors`` do not suit ``nearest``, or have no more than ``k`` different rows.

    Example:
        >>> around = np.vstack([np.zeros((1, 4)), np.eye(4), -np.eye(4)])
        >>> found = hubness(around, k=1, metric="euclidean")
        >>> found.hubs(1).tolist(), int(found.occurrences.max()), round(found.orphan_share.estimate, 2)
        ([0], 8, 0.78)

    References:
        Radovanovic, Nanopoulos and Ivanovic (2010), Hubs in Space: Popular Nearest Neighbors in High-Dimensional Data,
        JMLR 11. Feldbauer and Flexer (2019), A comprehensive empirical comparison of hubness reduction in
        high-dimensional spaces, doi:10.1007/s10115-018-1205-y (Robin Hood index).
    """
    if k < 1:
        raise InputError(f"k={k!r} must be at least 1")
    found = vectors
    if not isinstance(found, Neighbours):
        found = nearest(found, k, metric=metric, max_rows=max_rows, seed=seed)
    if found.k < k:
        raise InputError(f"k={k!r} but the neighbours at hand are {found.k}: find more, or lower k")
    count = len(found.rows)
    occurrences = np.bincount(found.nearest[:, :k].ravel(), minlength=count)
    spread = float(occurrences.std())
    hubs = occurrences > k + 2 * spread if spread > 0 else np.zeros(count, dtype=bool)
    drawing = k / (count - 1)  # chance of being in one list; N_k is then binomial
    numbers = occurrences.astype(np.float64)
    return Hubness(
        skewness=bootstrap_interval(numbers, statistic=_skewness, confidence=confidence, num_resamples=1000, seed=seed),
        orphan_share=bootstrap_interval(
            (occurrences == 0).astype(np.float64), confidence=confidence, num_resamples=1000, seed=seed
        ),
        hub_share=float(hubs.mean()),
        hub_places=float(occurrences[hubs].sum() / (count * k)),
        robin_hood=float(np.abs(occurrences - k).sum() / (2 * k * max(count - 1, 1))),
        chance=(1 - 2 * drawing) / math.sqrt((count - 1) * drawing * (1 - drawing)) if drawing < 1 else 0.0,
        occurrences=occurrences,
        rows=found.rows,
        k=k,
        basis=found.basis,
    )


def _skewness(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Skewness of the one row of values (1, N) under each row of weights (R, N): (R,); 0 where they are constant."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    centre = shares @ values[0]
    second, third = shares @ values[0] ** 2, shares @ values[0] ** 3
    variance = second - centre**2
    cubed = third - 3 * centre * second + 2 * centre**3
    safe = variance > 1e-12
    return np.where(safe, cubed / np.where(safe, variance, 1.0) ** 1.5, 0.0)
