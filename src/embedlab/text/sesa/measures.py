"""How well pairs are told apart, and whether axis k means concept k."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AxisFidelity:
    """Whether axes rank texts by the concepts they are named after.

    Attributes:
        macro_auc: Mean over concepts of the AUC with which axis k ranks texts by whether they hold concept k; 0.5 is
            chance.
        precision_at_5: Share of the five strongest axes of a text that it holds, over concepts that few texts hold.
        prior_at_5: The same for the five most common of these concepts, whatever the text says.
        constant_at_5: The same over all concepts: what naming the most common ones always reaches.
        concepts: Number of concepts that were measured: some texts hold them and some do not.
    """

    macro_auc: float
    precision_at_5: float
    prior_at_5: float
    constant_at_5: float
    concepts: int


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of (relevant, other) pairs in which the relevant one scores higher; ties count half.

    Args:
        scores: One number for each, larger is nearer.
        labels: Above 0 for the relevant ones.

    Shape:
        scores (N,), labels (N,)

    Returns:
        In [0, 1]; NaN if there are only relevant ones, or none.

    Raises:
        InputError: they are not as many.

    Example:
        >>> auc([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
        0.875
    """
    values, good = np.asarray(scores, np.float64), np.asarray(labels) > 0
    if values.shape != good.shape or values.ndim != 1:
        raise InputError(f"scores of shape {values.shape}, labels of shape {good.shape}: expected two of one length")
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the middle rank of equals, from 1
    positives, others = int(good.sum()), int((~good).sum())
    if not positives or not others:
        return float("nan")
    return float((ranks[places][good].sum() - positives * (positives + 1) / 2) / (positives * others))


def axis_fidelity(activations: ArrayLike, held: ArrayLike, shares: ArrayLike, *, common: float = 0.2) -> AxisFidelity:
    """Measure whether axis k is about concept k.

    Args:
        activations: Explicit vectors of texts that were not trained on.
        held: Above 0 where a text truly holds a concept.
        shares: Share of the training items that hold each concept; concepts that none of them holds are left out.
        common: Concepts held by more than this share are left out of the precision: naming them is right anyway.

    Shape:
        activations (N, m), held (N, m), shares (m,)

    Returns:
        The figures, NaN where nothing can be measured.

    Raises:
        InputError: the shapes differ.
    """
    rows, truth, share = np.asarray(activations, np.float64), np.asarray(held) > 0, np.asarray(shares, np.float64)
    if rows.shape != truth.shape or share.shape != rows.shape[1:]:
        raise InputError(f"activations {rows.shape}, held {truth.shape}, shares {share.shape}: (N, m), (N, m), (m,)")
    known = (share > 0) & truth.any(axis=0) & ~truth.all(axis=0)
    each = [auc(rows[:, k], truth[:, k]) for k in np.flatnonzero(known)]
    rare = np.flatnonzero((share > 0) & (share <= common))
    some = truth[:, rare].any(axis=1)  # a text without a rare concept has nothing to find
    usual, rarest = np.argsort(-share, kind="stable")[:5], rare[np.argsort(-share[rare], kind="stable")[:5]]
    strongest = rare[np.argsort(-rows[:, rare], axis=1, kind="stable")[:, :5]]
    hits = np.take_along_axis(truth, strongest, axis=1) & (np.take_along_axis(rows, strongest, axis=1) > 0)
    return AxisFidelity(
        float(np.mean(each)) if each else float("nan"),
        float(hits[some].mean()) if some.any() and len(rare) else float("nan"),
        float(truth[some][:, rarest].mean()) if some.any() and len(rare) else float("nan"),
        float(truth[:, usual].mean()),
        len(each),
    )


def match_axes(activations: ArrayLike, held: ArrayLike) -> NDArray[np.int64]:
    """Find for each concept the axis that goes with it best, each axis once: the benefit of the doubt for latent axes.

    Args:
        activations: Vectors of training texts, whose axes have no names.
        held: 1 where a text holds a concept.

    Shape:
        activations (N, m), held (N, m) -> (m,)

    Returns:
        The axis of each concept, by the assignment with the largest sum of correlations.

    Raises:
        InputError: the shapes differ.
    """
    rows, truth = np.asarray(activations, np.float64), np.asarray(held, np.float64)
    if rows.shape != truth.shape:
        raise InputError(f"activations {rows.shape}, held {truth.shape}: expected the same (N, m)")
    left, right = (side - side.mean(axis=0) for side in (truth, rows))
    lengths = np.outer(np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=0))
    correlation = left.T @ right / np.where(lengths > 0, lengths, 1)
    _, axes = require("scipy.optimize", extra="evaluate").linear_sum_assignment(-correlation)
    return np.asarray(axes, np.int64)
