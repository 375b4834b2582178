"""Pairs to learn from: the relevant ones, and others that are not, half of them hard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

Ids = NDArray[np.int64]


def negative_pairs(
    relevant: Sequence[Sequence[int]],
    declared: ArrayLike,
    held: ArrayLike,
    *,
    per_positive: int = 4,
    hard: float = 0.5,
    positives: int | None = 1,
    seed: int = 0,
) -> tuple[Ids, Ids, Ids]:
    """Give each text a relevant item and some that are not: some drawn evenly, some that share its concepts.

    Args:
        relevant: For each text the places of the items that are relevant to it.
        declared: Declared concepts of the items.
        held: Concepts of the texts; a hard negative shares one of them at least.
        per_positive: Negatives for each relevant pair.
        hard: Share of them that are hard, in [0, 1].
        positives: At most so many of the relevant items of a text, drawn evenly; None for all.
        seed: Decides what is drawn.

    Shape:
        declared (I, m), held (T, m) -> text (P,), item (P,), label (P,)

    Returns:
        Text, item and label of each pair; a text without relevant items has none.

    Raises:
        InputError: a number is out of range, or the shapes do not fit.

    Example:
        >>> found = negative_pairs([[0], [1]], [[1, 0], [0, 1], [1, 1]], [[1, 0], [0, 1]], per_positive=2)
        >>> sorted(zip(*(each.tolist() for each in found)))
        [(0, 0, 1), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 1), (1, 2, 0)]
    """
    sets, truths = np.asarray(declared, np.float64), np.asarray(held, np.float64)
    if sets.ndim != 2 or truths.shape != (len(relevant), sets.shape[1]):
        raise InputError(f"declared {sets.shape}, held {truths.shape} for {len(relevant)} texts: (I, m) and (T, m)")
    if per_positive < 1 or not 0 <= hard <= 1 or (positives is not None and positives < 1):
        raise InputError(
            f"per_positive={per_positive}, hard={hard}, positives={positives}: at least 1, a share from 0 to 1, and "
            "at least 1 or None"
        )
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, int]] = []
    for text, own in enumerate(relevant):
        free = np.ones(len(sets), np.bool_)
        free[list(own)] = False
        others = np.flatnonzero(free)
        drawn = own if positives is None or len(own) <= positives else rng.choice(list(own), positives, replace=False)
        for item in drawn:
            count = min(per_positive, len(others))
            sharing = others[sets[others] @ truths[text] > 0]
            near = rng.choice(sharing, min(round(hard * count), len(sharing)), replace=False)
            rest = rng.choice(np.setdiff1d(others, near), count - len(near), replace=False)
            rows += [(text, int(item), 1), *((text, int(other), 0) for other in (*near, *rest))]
    found = np.array(rows, np.int64).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2]
