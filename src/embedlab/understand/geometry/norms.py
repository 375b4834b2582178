"""What the length of a text has to do with its vector: with the vector's own length, and with its place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.ops.significance import Interval
from embedlab.understand.geometry.intervals import interval
from embedlab.understand.tte_depth.rows import chunks, matrix, sum_of_units

_UNIT = 1e-3  # half floats in storage leave a unit row this far from 1


@dataclass(frozen=True, slots=True)
class NormRelations:
    """Lengths of vectors, and what goes with the length of texts.

    Attributes:
        quantiles: Smallest norm, quartiles and largest norm, (5,).
        unit: Whether every row has length 1, so that norms tell nothing.
        norm_with_length: Spearman correlation of norm and text length; None for unit rows or without lengths.
        centrality_with_length: Spearman correlation of the cosine to the centre of all texts with text length; None
            without lengths.
        rows: Rows looked at, all of them.
    """

    quantiles: NDArray[np.float64]
    unit: bool
    norm_with_length: Interval | None
    centrality_with_length: Interval | None
    rows: int

    @property
    def reading(self) -> str:
        """What the numbers say, in a sentence or two."""
        low, middle, high = self.quantiles[[0, 2, 4]]
        words = (
            "All vectors have length 1: the encoder takes the norm away, and it can tell nothing."
            if self.unit
            else f"Norms run from {low:.3g} to {high:.3g}, half of them below {middle:.3g}."
        )
        if self.norm_with_length is not None:
            words += f" {_relation(self.norm_with_length, 'Longer texts', 'longer vectors', 'shorter vectors')}"
        if self.centrality_with_length is not None:
            words += f" {_relation(self.centrality_with_length, 'Longer texts', 'more central places', 'outer places')}"
        return words


def norm_relations(vectors: ArrayLike, *, lengths: ArrayLike | None = None, confidence: float = 0.95) -> NormRelations:
    """Describe the norms of vectors, and correlate norm and centrality with the length of the texts.

    Spearman's correlation, with ties at their mean rank; intervals by Fisher's transform with the variance of Bonett
    and Wright, (1 + r^2 / 2) / (N - 3), as if rows were independent.

    Args:
        vectors: One vector per text.
        lengths: Length of each text, in any unit.
        confidence: Level of the intervals, in (0, 1).

    Shape:
        vectors (N, D), lengths (N,) -> NormRelations

    Returns:
        Quantiles of the norms and the correlations; one with a constant is None, since it says nothing.

    Raises:
        InputError: ``vectors`` are not a finite matrix without zero rows, or ``lengths`` do not match them.

    Example:
        >>> found = norm_relations([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, 5.0]], lengths=[5, 9, 20, 30])
        >>> found.norm_with_length.estimate, found.unit
        (1.0, False)

    References:
        Bonett and Wright (2000), Sample size requirements for estimating Pearson, Kendall and Spearman correlations,
        doi:10.1007/BF02294183.
    """
    rows = matrix("vectors", vectors)
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} must be in (0, 1)")
    centre = sum_of_units("vectors", rows)
    norms = np.concatenate([sizes for _, sizes in chunks("vectors", rows)])  # (N,)
    unit = bool(np.abs(norms - 1).max() < _UNIT)
    norm_with = centrality_with = None
    if lengths is not None:
        sizes = np.asarray(lengths, dtype=np.float64)
        if sizes.shape != norms.shape or not np.isfinite(sizes).all():
            raise InputError(f"lengths must be {len(norms)} finite numbers, one per row, got shape {sizes.shape}")
        along = np.concatenate([block @ centre / norm for block, norm in chunks("vectors", rows)])  # (N,)
        norm_with = None if unit else _spearman(norms, sizes, confidence)
        centrality_with = _spearman(along.round(9), sizes, confidence)
    return NormRelations(np.quantile(norms, [0, 0.25, 0.5, 0.75, 1]), unit, norm_with, centrality_with, len(norms))


def _spearman(values: NDArray[np.float64], others: NDArray[np.float64], confidence: float) -> Interval | None:
    if len(values) < 2 or not (np.ptp(values) > 0 and np.ptp(others) > 0):
        return None
    rho = float(np.clip(np.corrcoef(_ranks(values), _ranks(others))[0, 1], -1, 1))
    if len(values) < 4 or abs(rho) == 1:
        return Interval(rho, -1.0, 1.0, confidence) if len(values) < 4 else Interval(rho, rho, rho, confidence)
    reach = interval(math.atanh(rho), math.sqrt((1 + rho**2 / 2) / (len(values) - 3)), confidence=confidence)
    return Interval(rho, math.tanh(reach.low), math.tanh(reach.high), confidence)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equals at the mean of theirs."""
    ranked = np.sort(values)
    return (np.searchsorted(ranked, values, side="left") + np.searchsorted(ranked, values, side="right") - 1) / 2


def _relation(found: Interval, who: str, more: str, less: str) -> str:
    if found.low <= 0 <= found.high or abs(found.estimate) < 0.05:
        return f"{who} have neither {more} nor {less} (Spearman {found.estimate:+.2f})."
    strength = "somewhat " if abs(found.estimate) < 0.3 else ""
    what = more if found.estimate > 0 else less
    return f"{who} have {strength}{what} (Spearman {found.estimate:+.2f})."
