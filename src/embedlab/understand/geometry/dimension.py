"""How many dimensions vectors really fill: two estimates from the distances to the nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.ops.significance import Interval, bootstrap_interval
from embedlab.understand.geometry.intervals import inverted
from embedlab.understand.geometry.neighbours import MAX_ROWS, Metric, Neighbours, nearest


@dataclass(frozen=True, slots=True)
class IntrinsicDimension:
    """Two estimates of the number of dimensions that the vectors fill locally.

    Attributes:
        two_nn: From the first two neighbours: the finest scale, where noise counts most.
        likelihood: From the first ``k`` neighbours: a coarser scale.
        k: Neighbours used by ``likelihood``.
        dim: Width of the vectors.
        rows: Rows looked at.
        basis: Which these are, in words.
    """

    two_nn: Interval
    likelihood: Interval
    k: int
    dim: int
    rows: int
    basis: str

    @property
    def reading(self) -> str:
        """What the numbers say, in a sentence or two."""
        low, high = sorted((self.two_nn.estimate, self.likelihood.estimate))
        both = f"about {low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
        words = f"Near each text, the vectors vary in {both} dimensions of {self.dim}."
        if high > 15:
            words += " Above about 15 both estimates are too small unless rows are plenty: read it as a lower bound."
        return words


def intrinsic_dimension(
    vectors: ArrayLike | Neighbours,
    *,
    k: int = 20,
    metric: Metric = "cosine",
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    confidence: float = 0.95,
) -> IntrinsicDimension:
    """Estimate how many dimensions vectors fill, from how distances to neighbours grow.

    If rows lie evenly in d dimensions, the number within distance r grows as r^d, so with T_j the distance to the j-th
    neighbour the mean of log(T_k / T_j) over j < k is 1/d. TwoNN takes k = 2; the maximum likelihood estimate takes a
    larger k and averages 1/d over rows before inverting. Intervals are bootstrapped over rows, as if these were
    independent.

    Args:
        vectors: One vector per text, or neighbours found already (of which ``k`` at least).
        k: Neighbours for the likelihood, at least 2.
        metric: ``"cosine"`` compares directions, ``"euclidean"`` the rows as they are.
        max_rows: Beyond this many rows a random sample of that size is looked at.
        seed: Decides the sample and the bootstrap.
        confidence: Level of the intervals, in (0, 1).

    Shape:
        vectors (N, D) -> IntrinsicDimension

    Returns:
        Both estimates, above 0; infinite if all neighbours are equally far.

    Raises:
        InputError: ``vectors`` do not suit ``nearest``, have no more than ``k`` different rows, or ``k`` is below 2.

    Example:
        >>> angles = np.random.default_rng(0).uniform(0, 2 * np.pi, size=500)
        >>> circle = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
        >>> round(intrinsic_dimension(circle).likelihood.estimate, 1)
        1.0

    References:
        Facco et al. (2017), Estimating the intrinsic dimension of datasets by a minimal neighborhood information,
        arXiv:1803.06992; the estimate here is the likelihood's (Denti et al., 2022, arXiv:2104.13832), not the line
        through nine tenths of the ratios.
        Levina and Bickel (2004), Maximum Likelihood Estimation of Intrinsic Dimension, NeurIPS; averaged as in MacKay
        and Ghahramani (2005).
    """
    if k < 2:
        raise InputError(f"k={k!r} must be at least 2")
    found = vectors
    if not isinstance(found, Neighbours):
        found = nearest(found, k, metric=metric, max_rows=max_rows, seed=seed)
    if found.k < k:
        raise InputError(f"k={k!r} but the neighbours at hand are {found.k}: find more, or lower k")
    logs = np.log(found.distances[found.distances[:, 0] > 0, :k])  # (M, k)
    two, more = (
        _inverse_of_mean(logs[:, last] - logs[:, :last].mean(axis=1), seed=seed, confidence=confidence)
        for last in (1, k - 1)
    )
    return IntrinsicDimension(two, more, k, found.dim, len(logs), found.basis)


def _inverse_of_mean(ratios: NDArray[np.float64], *, seed: int, confidence: float) -> Interval:
    """1 / mean of the logarithms (M,), with its interval; equal distances fill no dimension that could be told."""
    if not (ratios > 0).any():
        return Interval(math.inf, -math.inf, math.inf, confidence)
    return inverted(bootstrap_interval(ratios, confidence=confidence, num_resamples=1000, seed=seed))
