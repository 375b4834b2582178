"""Modality gap: how far apart two sets lie that should share a space, such as images and captions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.ops.significance import Interval
from embedlab.understand.geometry.intervals import interval, jackknife_error
from embedlab.understand.tte_depth.rows import chunks, matrix, sum_of_units, units

_FOLDS = 5
_MAX_TRAINED = 5_000  # rows of each set for the classifier


@dataclass(frozen=True, slots=True)
class ModalityGap:
    """How far two sets of unit vectors are apart.

    Attributes:
        distance: Euclidean distance of the two centroids, in [0, 2].
        chance: What it would be between random halves of one set of these sizes, from the spread within.
        relative: Mean cosine distance across, as a share of across and within, in [0, 1]; 1/2 without a gap, near 1
            with a wide one. Of corresponding rows if these are paired.
        separability: Balanced accuracy of a linear classifier on rows held out; 1/2 without a gap, 1 if a plane parts
            the sets.
        paired: Whether row i of one set corresponds to row i of the other.
        first: Rows in the first set.
        second: Rows in the second set.
    """

    distance: Interval
    chance: float
    relative: Interval
    separability: Interval
    paired: bool
    first: int
    second: int

    @property
    def reading(self) -> str:
        """What the numbers say, in a sentence or two."""
        accuracy = self.separability
        if accuracy.low <= 0.5 and self.distance.low <= 1.5 * self.chance:
            words = "No gap to be seen: a plane parts the two sets no better than chance."
        elif accuracy.estimate < 0.9:
            words = f"The sets overlap: a plane tells them apart in {accuracy.estimate:.0%} of cases."
        else:
            words = f"The sets lie apart: a plane tells them apart in {accuracy.estimate:.0%} of cases."
        return f"{words} Their centroids are {self.distance.estimate:.2f} apart (chance: {self.chance:.2f})."


def modality_gap(
    first: ArrayLike, second: ArrayLike, *, paired: bool = False, seed: int = 0, confidence: float = 0.95
) -> ModalityGap:
    """Measure the gap between two sets of vectors, after bringing them to unit length.

    ``distance`` is |mean x - mean y|. ``relative`` divides the mean cosine distance across the sets by itself plus the
    mean distance of different rows within them, all exact from the sums of the unit rows. ``separability`` is the
    accuracy of a regularised least-squares classifier, trained on four fifths of the rows and judged on the rest, each
    fifth in turn. Intervals as if rows (or pairs) were independent.

    Args:
        first: Vectors of one modality or corpus, at least 5.
        second: Vectors of the other, from the same model, at least 5.
        paired: Row i of both belong together (an image and its caption): then only these count as across, and fall
            into the same fifth.
        seed: Decides the fifths, and the rows for the classifier where there are over 5,000.
        confidence: Level of the intervals, in (0, 1).

    Shape:
        first (N, D), second (M, D) -> ModalityGap

    Returns:
        Distance, relative gap and separability with their intervals.

    Raises:
        InputError: a set is not a finite matrix of 5 rows or more without zero rows, widths differ, or sizes differ
            though ``paired``.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(400, 8))
        >>> found = modality_gap(rows[:200] + 3, rows[200:] - 3)
        >>> round(found.separability.estimate, 2), found.relative.estimate > 0.8
        (1.0, True)

    References:
        Liang et al. (2022), Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation
        Learning, arXiv:2203.02053 (distance of centroids).
        Schrodi et al. (2024), Two Effects, One Trigger: On the Modality Gap, Object Bias, and Information Imbalance in
        Contrastive Vision-Language Models, arXiv:2404.07983 (relative gap of pairs).
    """
    left, right = matrix("first", first, at_least=_FOLDS), matrix("second", second, at_least=_FOLDS)
    if left.shape[1] != right.shape[1]:
        raise InputError(
            f"first has {left.shape[1]} columns and second {right.shape[1]}: a gap needs one space, so one model"
        )
    if paired and len(left) != len(right):
        raise InputError(f"paired=True needs as many rows in both, got {len(left)} and {len(right)}")
    sums = sum_of_units("first", left), sum_of_units("second", right)
    distance, chance = _centroid_distance(left, right, sums, confidence)
    return ModalityGap(
        distance=distance,
        chance=chance,
        relative=_relative(left, right, sums, paired, confidence),
        separability=_separability(left, right, paired, seed, confidence),
        paired=paired,
        first=len(left),
        second=len(right),
    )


def _along(rows: NDArray[Any], direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dot product of each unit row with a vector, (N,)."""
    return np.concatenate([block @ direction / lengths for block, lengths in chunks("vectors", rows)])


def _centroid_distance(
    left: NDArray[Any], right: NDArray[Any], sums: tuple[NDArray[np.float64], ...], confidence: float
) -> tuple[Interval, float]:
    """Distance of the centroids, its interval, and its size by chance."""
    means = [total / len(side) for total, side in zip(sums, (left, right), strict=True)]
    apart = means[0] - means[1]
    size = float(np.linalg.norm(apart))
    # a unit row's variance around the mean is 1 - |mean|^2
    chance = math.sqrt(sum((1 - mean @ mean) / len(side) for mean, side in zip(means, (left, right), strict=True)))
    if size == 0:
        return interval(0.0, math.nan, confidence=confidence), chance
    error = math.sqrt(sum(_along(side, apart / size).var(ddof=1) / len(side) for side in (left, right)))
    return interval(size, error, confidence=confidence, bounds=(0.0, 2.0)), chance


def _relative(
    left: NDArray[Any],
    right: NDArray[Any],
    sums: tuple[NDArray[np.float64], ...],
    paired: bool,
    confidence: float,
) -> Interval:
    """Distance across / (across + within), and its error from leaving out each row, or pair, in turn."""
    n, m = len(left), len(right)
    x, y = sums
    xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
    if paired:
        own = np.concatenate(
            [
                np.einsum("nd,nd->n", a, b) / (p * q)
                for (a, p), (b, q) in zip(chunks("first", left), chunks("second", right), strict=True)
            ]
        )
        whole = _share(1 - own.mean(), (xx - n) / (n * (n - 1)), (yy - n) / (n * (n - 1)))
        k = n - 1
        inner = [
            (square - 2 * _along(side, total) + 1 - k) / (k * (k - 1))
            for side, total, square in ((left, x, xx), (right, y, yy))
        ]
        without = _share(1 - (own.sum() - own) / k, inner[0], inner[1])
        return interval(float(whole), jackknife_error(without), confidence=confidence, bounds=(0.0, 1.0))
    within = (xx - n) / (n * (n - 1)), (yy - m) / (m * (m - 1))
    whole = _share(1 - xy / (n * m), *within)
    fewer_x = (xx - 2 * _along(left, x) + 1 - (n - 1)) / ((n - 1) * (n - 2))
    fewer_y = (yy - 2 * _along(right, y) + 1 - (m - 1)) / ((m - 1) * (m - 2))
    without_x = _share(1 - (xy - _along(left, y)) / ((n - 1) * m), fewer_x, within[1])
    without_y = _share(1 - (xy - _along(right, x)) / (n * (m - 1)), within[0], fewer_y)
    error = math.hypot(jackknife_error(without_x), jackknife_error(without_y))
    return interval(float(whole), error, confidence=confidence, bounds=(0.0, 1.0))


def _share(across: Any, first: Any, second: Any) -> Any:
    """Distance across as a share of itself and the mean distance within; 1/2 where all rows are equal."""
    within = 1 - (first + second) / 2
    both = across + within
    return np.where(both > 1e-12, across / np.where(both > 1e-12, both, 1.0), 0.5)


def _separability(left: NDArray[Any], right: NDArray[Any], paired: bool, seed: int, confidence: float) -> Interval:
    """Balanced accuracy of a ridge classifier on each fifth of the rows, trained on the others."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(left))[:_MAX_TRAINED]]
    orders.append(orders[0] if paired else rng.permutation(len(right))[:_MAX_TRAINED])
    rows = [units("vectors", side[order]) for side, order in zip((left, right), orders, strict=True)]
    right_ones: list[list[NDArray[np.float64]]] = [[], []]
    for fold in range(_FOLDS):
        training = [np.delete(side, np.s_[fold::_FOLDS], axis=0) for side in rows]
        centre, plane = _plane(*training)
        for place, sign in ((0, 1.0), (1, -1.0)):
            side = sign * ((rows[place][fold::_FOLDS] - centre) @ plane)
            right_ones[place].append(np.where(np.abs(side) < 1e-12, 0.5, (side > 0).astype(np.float64)))
    hits = [np.concatenate(parts) for parts in right_ones]
    return _balanced(hits[0], hits[1], confidence)


def _balanced(first: NDArray[np.float64], second: NDArray[np.float64], confidence: float) -> Interval:
    """Mean of the two shares of hits; one hit and one miss more on each side keep the error above 0."""
    variance = 0.0
    for hits in (first, second):
        share = (hits.sum() + 1) / (len(hits) + 2)
        variance += share * (1 - share) / (len(hits) + 2)
    estimate = (first.mean() + second.mean()) / 2
    return interval(estimate, math.sqrt(variance) / 2, confidence=confidence, bounds=(0.0, 1.0))


def _plane(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle of two sets, and the direction that parts them best: the shrunken covariance into the gap of the means."""
    means = first.mean(axis=0), second.mean(axis=0)
    spread = (first - means[0]).T @ (first - means[0]) / len(first)
    spread += (second - means[1]).T @ (second - means[1]) / len(second)
    dim = len(spread)
    spread += np.eye(dim) * (0.1 * np.trace(spread) / dim + 1e-9)
    return (means[0] + means[1]) / 2, np.linalg.solve(spread, means[0] - means[1])
