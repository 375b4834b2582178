"""Drawing items anew, and all ways to exchange two models: what intervals and tests of significance are made of.

A resample is a row of weights, how often each item was drawn. Everything comes in chunks of rows, so that memory does
not grow with their number, and is decided by the seed whatever the chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

CHUNK_VALUES = 250_000  #: Weights held at once: 2 MB, which stays in the processor's cache.


def resamples(
    num_items: int, *, groups: ArrayLike | None = None, num_resamples: int = 2000, seed: int = 0
) -> Iterator[Floats]:
    """Yield bootstrap resamples as weights, a chunk of rows at a time.

    Args:
        num_items: Number of items, at least 1. (N)
        groups: Cluster of each item; whole clusters are drawn.
        num_resamples: Rows over all chunks.
        seed: Decides the rows, whatever the chunks.

    Yields:
        How often each item was drawn, (rows, N) float64.

    Raises:
        InputError: ``num_items`` or ``groups`` does not fit.
    """
    if num_items < 1:
        raise InputError(f"num_items={num_items} must be at least 1")
    yield from draw(clusters_of(groups, num_items), num_resamples, seed)


def draw(clusters: NDArray[np.intp], num_resamples: int, seed: int) -> Iterator[Floats]:
    """Yield the resamples of items whose clusters are numbered; see ``resamples``."""
    rng, count = np.random.default_rng(seed), num_clusters(clusters)
    for rows in _chunks(num_resamples, len(clusters)):
        drawn = rng.integers(0, count, size=(rows, count))
        counts = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
        yield counts if count == len(clusters) else counts[:, clusters]  # (rows, N)


def all_assignments(units: int) -> Floats:
    """Return every way to exchange two models in some of the units, 1 for exchanged, (2^units, units)."""
    return ((np.arange(2**units)[:, None] >> np.arange(units)) & 1).astype(np.float64)


def assignments(units: int, num_resamples: int, width: int, seed: int) -> Iterator[Floats]:
    """Yield random ways to exchange two models, each unit exchanged (1) or not (0) by a fair coin.

    Args:
        units: Units that can be exchanged.
        num_resamples: Rows over all chunks.
        width: Numbers that the caller will hold per row, which decides the size of chunks.
        seed: Decides the rows; the same seed gives ``resamples`` other numbers.

    Yields:
        Zeros and ones, (rows, units) float64.
    """
    rng = np.random.default_rng([seed, 1])  # not the bootstrap's numbers again
    for rows in _chunks(num_resamples, width):
        bits = np.frombuffer(rng.bytes(rows * (units // 8 + 1)), dtype=np.uint8).reshape(rows, -1)
        yield np.unpackbits(bits, axis=1, count=units).astype(np.float64)


def clusters_of(groups: ArrayLike | None, size: int) -> NDArray[np.intp]:
    """Number the clusters of items from 0; every item is its own without groups.

    Raises:
        InputError: there is not one group per item.
    """
    if groups is None:
        return np.arange(size)
    given = np.asarray(groups)
    if given.shape != (size,):
        raise InputError(f"groups must name one cluster per item, {size}, got shape {given.shape}")
    return np.unique(given, return_inverse=True)[1].astype(np.intp)


def num_clusters(clusters: NDArray[np.intp]) -> int:
    """Return how many clusters there are."""
    return int(clusters.max()) + 1


def _chunks(total: int, width: int) -> Iterator[int]:
    at_once = max(1, CHUNK_VALUES // width)
    for start in range(0, total, at_once):
        yield min(at_once, total - start)
