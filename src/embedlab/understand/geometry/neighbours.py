"""The nearest neighbours of rows: exact, block by block, without a matrix of all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.understand.tte_depth.rows import matrix, units

Metric: TypeAlias = Literal["cosine", "euclidean"]

MAX_ROWS = 5_000  # 25 million pairs: two seconds
_BLOCK = 128
_SPARE = 8  # candidates beyond k: float32 finds them, float64 puts them in order
_SAME = 1e-5  # unit rows nearer than this are copies; others by their root mean square size


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k nearest neighbours of each row among the others.

    Attributes:
        rows: Numbers of the rows looked at, (M,), ascending: a sample if there are many, without copies.
        nearest: Neighbours of each, nearest first, as places in ``rows``, (M, k).
        distances: Euclidean distances to them, (M, k); under ``"cosine"`` those of unit rows, sqrt(2 (1 - cos)).
        total: Rows there were.
        copies: Rows of the sample that were left out, being copies of one before them.
        sampled: Whether rows were left out because there were too many.
        metric: What "near" means.
        dim: Width of the rows.
    """

    rows: NDArray[np.intp]
    nearest: NDArray[np.intp]
    distances: NDArray[np.float64]
    total: int
    copies: int
    sampled: bool
    metric: str
    dim: int

    @property
    def k(self) -> int:
        """Neighbours of each row."""
        return int(self.nearest.shape[1])

    @property
    def basis(self) -> str:
        """What was looked at, in words."""
        sample = f"a random sample of {len(self.rows) + self.copies:,} of {self.total:,} rows"
        whole = sample if self.sampled else f"all {self.total:,} rows"
        return whole + (f", {self.copies:,} copies left out" if self.copies else "")


def nearest(
    vectors: ArrayLike, k: int, *, metric: Metric = "cosine", max_rows: int = MAX_ROWS, seed: int = 0
) -> Neighbours:
    """Find the k nearest neighbours of every row, exactly.

    Copies, rows at the same place up to rounding, are looked at once: a text that is there twice says nothing about the
    space, and its copy would be everybody's neighbour as often as itself.

    Args:
        vectors: One vector per text.
        k: Neighbours of each row, at least 1.
        metric: ``"cosine"`` compares directions, ``"euclidean"`` the rows as they are.
        max_rows: Beyond this many rows a random sample of that size is looked at; the time grows with its square.
        seed: Decides the sample.

    Shape:
        vectors (N, D) -> nearest (M, k), distances (M, k), M at most ``max_rows``

    Returns:
        Neighbours and distances; among equally near rows the one that came first.

    Raises:
        InputError: ``vectors`` are not a finite matrix, hold a zero row under ``"cosine"``, or have no more than ``k``
            different rows; ``k`` or ``max_rows`` is too small.

    Example:
        >>> nearest([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], 1).nearest.ravel().tolist()
        [1, 0, 3, 2]
    """
    if metric not in get_args(Metric):
        raise unknown_name("metric", metric, get_args(Metric))
    if k < 1 or max_rows <= k:
        raise InputError(f"k={k!r} must be at least 1, and max_rows={max_rows!r} above it")
    source = matrix("vectors", vectors)
    total = len(source)
    chosen = np.arange(total, dtype=np.intp)
    if total > max_rows:
        chosen = np.sort(np.random.default_rng(seed).permutation(total)[:max_rows])
    rows = units("vectors", source[chosen]) if metric == "cosine" else _finite(source[chosen])
    centred = rows - rows.mean(axis=0)
    scale = 1.0 if metric == "cosine" else max(_size(centred), 1e-6 * _size(rows))
    different = _different(centred, _SAME * scale)
    if len(different) <= k:
        raise InputError(
            f"vectors have {len(different)} different rows among {len(rows)}: at least {k + 1} are needed for k={k}"
        )
    places, distances = _search(centred[different], k)
    return Neighbours(
        rows=chosen[different],
        nearest=places,
        distances=distances,
        total=total,
        copies=len(rows) - len(different),
        sampled=total > max_rows,
        metric=metric,
        dim=source.shape[1],
    )


def _search(rows: NDArray[np.float64], k: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Neighbours and distances of centred rows (M, D), by the rule |a - b|^2 = |a|^2 - 2 a.b + |b|^2."""
    count = len(rows)
    quick = rows.astype(np.float32)
    halves = np.einsum("nd,nd->n", quick, quick) / 2
    wide = min(k + _SPARE, count - 1)
    places = np.empty((count, k), dtype=np.intp)
    distances = np.empty((count, k))
    for start in range(0, count, _BLOCK):
        block = slice(start, min(start + _BLOCK, count))
        scores = halves - quick[block] @ quick.T  # (B, M), half the squared distance less what the row adds to all
        own = np.arange(block.start, block.stop)
        scores[np.arange(len(own)), own] = np.inf
        found = np.sort(np.argpartition(scores, wide - 1, axis=1)[:, :wide], axis=1)  # (B, wide)
        apart = rows[found]  # (B, wide, D)
        apart -= rows[block, None]
        exact = np.sqrt(np.einsum("bwd,bwd->bw", apart, apart))
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        places[block] = np.take_along_axis(found, order, axis=1)
        distances[block] = np.take_along_axis(exact, order, axis=1)
    return places, distances


def _size(rows: NDArray[np.float64]) -> float:
    """Root mean square length."""
    return float(np.sqrt(np.mean(np.einsum("nd,nd->n", rows, rows))))


def _different(rows: NDArray[np.float64], near: float) -> NDArray[np.intp]:
    """Places of rows that are no nearer than that to an earlier one; copies lie side by side along any direction."""
    direction = np.random.default_rng(0).normal(size=rows.shape[1])
    order = np.argsort(rows @ direction, kind="stable")
    ahead = rows[order[1:]] - rows[order[:-1]]
    same = np.einsum("nd,nd->n", ahead, ahead) <= near**2
    group = np.concatenate([[0], np.cumsum(~same)])  # rows of one group are copies of each other
    firsts = np.full(group[-1] + 1, len(rows), dtype=np.intp)
    np.minimum.at(firsts, group, order)
    return np.sort(firsts)


def _finite(rows: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"vectors: row {int((~np.isfinite(values)).any(axis=1).argmax())} is not finite")
    return values
