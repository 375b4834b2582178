"""Five rules for choosing anchors among candidates in an order of chance, which does not depend on that of the data."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.understand.relative.rows import Floats, blocks, unit

Strategy: TypeAlias = Literal["uniform", "stratified", "fps", "kmeans", "top"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

_LLOYD_STEPS = 20


def choose(
    strategy: Strategy,
    order: NDArray[np.intp],
    k: int,
    *,
    rows: Floats | None,
    labels: Sequence[Hashable] | None,
    counts: ArrayLike | None,
    num_frequent: int | None,
    seed: int,
) -> NDArray[np.intp]:
    """Choose k of the candidates; arguments as for ``AnchorSet.select``.

    Args:
        strategy: The rule.
        order: Candidate rows in their order of chance.
        k: How many to choose, at most as many as there are candidates.
        rows: Vectors of all items, or None.
        labels: Classes of all items, or None.
        counts: Frequencies of all items, or None.
        num_frequent: Size of the pool of ``"top"``.
        seed: Decides the centroids that k-means begins with.

    Returns:
        Chosen rows (k,), all different.

    Raises:
        InputError: the rule lacks what it needs.
    """
    if strategy == "uniform":
        return order[:k]
    if strategy == "stratified":
        if labels is None:
            raise InputError("labels are needed for strategy='stratified': give one class per item")
        return _in_turns(order, labels)[:k]
    if strategy == "top":
        return _frequent(order, counts, k if num_frequent is None else num_frequent, k)
    if rows is None:
        raise InputError(f"vectors are needed for strategy={strategy!r} when data are texts: give one row per item")
    return order[farthest_points(rows[order], k) if strategy == "fps" else _near_centroids(rows[order], k, seed)]


def farthest_points(rows: Floats, k: int) -> NDArray[np.intp]:
    """Take the first row, then again and again the row whose nearest taken one is farthest, by cosine.

    Args:
        rows: Vectors, none of them zero.
        k: How many to take, from 1 to the number of rows.

    Shape:
        rows (N, D) -> (k,)

    Returns:
        Indices in the order taken, in O(N k D) time and O(N) memory beyond the rows.
    """
    units = unit(rows)
    nearest = np.full(len(units), -np.inf, dtype=units.dtype)  # largest cosine to a row taken
    taken = [0]
    while len(taken) < k:
        np.maximum(nearest, units @ units[taken[-1]], out=nearest)
        nearest[taken[-1]] = np.inf
        taken.append(int(nearest.argmin()))
    return np.array(taken, dtype=np.intp)


def _in_turns(order: NDArray[np.intp], labels: Sequence[Hashable]) -> NDArray[np.intp]:
    """One candidate of each class, then the second of each, and so on; classes in the order of their first."""
    classes: dict[Hashable, list[int]] = {}
    for row in order:
        classes.setdefault(labels[row], []).append(int(row))
    longest = max(map(len, classes.values()))
    return np.array([members[i] for i in range(longest) for members in classes.values() if i < len(members)], np.intp)


def _frequent(order: NDArray[np.intp], counts: ArrayLike | None, pool: int, k: int) -> NDArray[np.intp]:
    if counts is None:
        raise InputError("counts are needed for strategy='top': give the frequency of each item")
    if not k <= pool <= len(order):
        raise InputError(f"num_frequent={pool} must be from k={k} to the number of different items, {len(order)}")
    frequency = np.asarray(counts, dtype=np.float64)
    if not np.isfinite(frequency).all():
        raise InputError("counts must be finite")
    ranked = np.argsort(-frequency[order], kind="stable")[:pool]  # equals in their order of chance
    return order[np.sort(ranked)[:k]]


def _near_centroids(rows: Floats, k: int, seed: int) -> NDArray[np.intp]:
    """The row nearest to each centroid of spherical k-means, no row twice; the largest clusters first."""
    units = unit(rows)
    centroids = units[_spread_start(units, k, np.random.default_rng(seed))]
    for _ in range(_LLOYD_STEPS):
        owner = np.concatenate([(units[part] @ centroids.T).argmax(axis=1) for part in blocks(len(units))])
        sums = np.zeros_like(centroids)
        np.add.at(sums, owner, units)
        moved = np.where(sums.any(axis=1, keepdims=True), unit(sums), centroids)  # an empty cluster stays where it is
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    free = np.ones(len(units), dtype=bool)
    taken = []
    for cluster in np.argsort(-np.bincount(owner, minlength=k), kind="stable"):
        nearness = np.where(free, units @ centroids[cluster], -np.inf)
        taken.append(int(nearness.argmax()))
        free[taken[-1]] = False
    return np.array(taken, dtype=np.intp)


def _spread_start(units: Floats, k: int, rng: np.random.Generator) -> list[int]:
    """k-means++: each next centroid is drawn by its squared distance to those drawn before."""
    drawn = [int(rng.integers(len(units)))]
    nearest = np.full(len(units), np.inf)
    while len(drawn) < k:
        np.minimum(nearest, np.maximum(2 - 2 * (units @ units[drawn[-1]]).astype(np.float64), 0), out=nearest)
        nearest[drawn] = 0
        total = nearest.sum()
        share = (
            nearest / total
            if total > 0
            else np.isin(np.arange(len(units)), drawn, invert=True) / (len(units) - len(drawn))
        )
        drawn.append(int(rng.choice(len(units), p=share)))
    return drawn
