"""Choosing examples by depth: for a prompt, or for a first look at a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.understand.tte_depth.rows import matrix, units

Strategy: TypeAlias = Literal["deep", "shallow", "random", "deep_diverse"]


def select_exemplars(
    embeddings: ArrayLike,
    k: int,
    *,
    labels: Sequence[object] | None = None,
    strategy: Strategy = "deep",
    seed: int = 0,
) -> NDArray[np.intp]:
    """Choose the texts that stand for a corpus, or for each label of it, by their cosine depth.

    Args:
        embeddings: One vector per candidate text.
        k: How many to choose, for each label if there are labels.
        labels: One per candidate; depth is then measured within each label.
        strategy: ``"deep"`` takes the most central, ``"shallow"`` the least central, ``"random"`` any. Near-duplicates
            make each other deep, so ``"deep_diverse"`` takes one after another the candidate with the highest depth
            less its largest cosine to those already chosen.
        seed: Decides the random strategy.

    Shape:
        embeddings (N, D) -> indices (k,), or (C * k,) for C labels

    Returns:
        Indices of the chosen rows, best first; with labels, label after label in order of first appearance.

    Raises:
        InputError: ``strategy`` is unknown, a label has fewer than ``k`` rows, ``labels`` and ``embeddings`` differ in
            length, or ``embeddings`` are not a finite matrix without zero rows.

    Example:
        >>> rows = [[1.0, 0.3], [1.0, 0.1], [1.0, 0.0], [0.1, 1.0], [0.0, 1.0], [0.2, 1.0]]
        >>> select_exemplars(rows, 1, labels=["a", "a", "a", "b", "b", "b"]).tolist()
        [1, 3]
    """
    if strategy not in get_args(Strategy):
        raise unknown_name("strategy", strategy, get_args(Strategy))
    rows = units("embeddings", matrix("embeddings", embeddings))
    if labels is not None and len(labels) != len(rows):
        raise InputError(f"labels has {len(labels)} entries for {len(rows)} embeddings: give one per row")
    groups: dict[object, list[int]] = {}
    for index in range(len(rows)):
        groups.setdefault(None if labels is None else labels[index], []).append(index)
    rng = np.random.default_rng(seed)
    chosen: list[NDArray[np.intp]] = []
    for label, group in groups.items():
        if not 1 <= k <= len(group):
            whose = "" if labels is None else f" of label {label!r}"
            raise InputError(f"k={k} must be from 1 to the number of rows{whose}, {len(group)}")
        members = np.array(group, dtype=np.intp)
        chosen.append(members[_pick(rows[members], k, strategy, rng)])
    return np.concatenate(chosen)


def _pick(rows: NDArray[np.float64], k: int, strategy: Strategy, rng: np.random.Generator) -> NDArray[np.intp]:
    if strategy == "random":
        return rng.permutation(len(rows))[:k]
    centrality = rows @ rows.mean(axis=0)  # (N,) depth moved and stretched the same way for every row
    if strategy == "deep_diverse":
        return _pick_apart(rows, k, centrality)
    return np.argsort(-centrality if strategy == "deep" else centrality, kind="stable")[:k]


def _pick_apart(rows: NDArray[np.float64], k: int, centrality: NDArray[np.float64]) -> NDArray[np.intp]:
    nearest = np.full(len(rows), -1.0)  # largest cosine to a chosen row
    chosen: list[int] = []
    for _ in range(k):
        worth = centrality - nearest
        worth[chosen] = -np.inf
        chosen.append(int(worth.argmax()))
        nearest = np.maximum(nearest, rows @ rows[chosen[-1]])
    return np.array(chosen, dtype=np.intp)
