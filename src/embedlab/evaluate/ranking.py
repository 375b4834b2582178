"""Ranking that no order of documents can help: equal similarities are drawn, and what is returned has no ties left."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_GRID = 1e9  # similarities that agree to nine decimals are equal: float64 sums differ by their order from the 16th on
_BLOCK = 1 << 22  # similarities held at once per block of queries: 32 MB


def similarities(queries: NDArray[np.floating], documents: NDArray[np.floating]) -> Floats:
    """Return dot products in double precision, so that equal vectors have equal products wherever they stand.

    Shape:
        queries (Q, D), documents (N, D) -> (Q, N) float64
    """
    found = np.empty((len(queries), len(documents)))
    left = queries.astype(np.float64)
    for start in range(0, len(documents), 1 << 16):
        found[:, start : start + (1 << 16)] = left @ documents[start : start + (1 << 16)].astype(np.float64).T
    return found


def fair_keys(values: Floats, *, lot: tuple[int, int]) -> Floats:
    """Return numbers that order like the values, where equal values are ordered by lot.

    Args:
        values: Similarities of one query.
        lot: Decides the draw: a seed, and a number of the query's own, so that queries draw independently.

    Shape:
        values (N,) -> (N,) float64
    """
    return np.rint(values * _GRID) + np.random.default_rng(lot).random(len(values))


def best_first(values: Floats, *, top_k: int, lot: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the places of the largest values, ties drawn, and the values made strictly decreasing.

    Scorers sort anew, and break ties by id: lowering a tied value by the least possible step keeps the draw.

    Args:
        values: Similarities of one query.
        top_k: How many, at most.
        lot: Decides the draw; see ``fair_keys``.

    Shape:
        values (N,) -> (K,) intp, (K,) float32

    Returns:
        Places and values, best first.

    Example:
        >>> places, scores = best_first(np.array([0.5, 0.9, 0.5]), top_k=3, lot=(0, 0))
        >>> int(places[0]), bool(scores[1] > scores[2]), round(float(scores[2]), 5)
        (1, True, 0.5)
    """
    keys = fair_keys(values, lot=lot)
    top = np.argpartition(-keys, top_k)[:top_k] if top_k < len(keys) else np.arange(len(keys))
    top = top[np.argsort(-keys[top])]
    return top, _strictly_decreasing(values[top].astype(np.float32))


def ranked(
    queries: NDArray[np.floating],
    documents: NDArray[np.floating],
    ids: Sequence[str],
    *,
    asked: Sequence[str],
    top_k: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Rank all documents for every query.

    Args:
        queries: Query vectors.
        documents: Document vectors.
        ids: Ids of the documents.
        asked: Ids of the queries.
        top_k: How many to keep.
        seed: Decides ties.

    Shape:
        queries (Q, D), documents (N, D)

    Returns:
        For each query id the scores of its best documents by id.
    """
    step = max(1, _BLOCK // max(1, len(documents)))
    found = {}
    for start in range(0, len(queries), step):
        rows = similarities(queries[start : start + step], documents)
        for query, row in zip(asked[start : start + step], rows, strict=True):
            found[query] = scores_by_id(row, ids, query=query, top_k=top_k, seed=seed)
    return found


def scores_by_id(values: Floats, ids: Sequence[str], *, query: str, top_k: int, seed: int) -> dict[str, float]:
    """Return the best ids of one query with scores that have no ties; see ``best_first``."""
    lot = (seed, zlib.crc32(query.encode("utf-8", "surrogatepass")))
    places, scores = best_first(values, top_k=top_k, lot=lot)
    return {ids[place]: score for place, score in zip(places.tolist(), scores.tolist(), strict=True)}


def _strictly_decreasing(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower each value to below the one before it: integers that order like floats make it a running minimum."""
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)  # adding 0 turns -0 into 0
    ordered = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    steps = np.arange(len(ordered))
    lowered = np.minimum.accumulate(ordered + steps) - steps
    back = np.where(lowered < 0, -lowered | 0x80000000, lowered)
    return back.astype(np.uint32).view(np.float32)
