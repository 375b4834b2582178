"""Pseudo-relevance feedback: the query's vector moves towards the passages that a first search found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def towards(query: Floats, found: Floats, *, weight: float) -> Floats:
    """Move a query's vector towards the mean of what was found, and bring it back to unit length.

    Args:
        query: The query's unit vector (D,).
        found: Vectors of the passages a first search found (K, D); none leaves the query as it is.
        weight: How far, at least 0; 0 not at all, 1 as much weight to the mean as to the query.

    Returns:
        A unit vector (D,).

    Example:
        >>> towards(np.float32([1, 0]), np.float32([[0, 1]]), weight=1.0).round(3).tolist()
        [0.7070000171661377, 0.7070000171661377]

    References:
        Rocchio (1971), Relevance feedback in information retrieval, with positive examples only; Li et al. (2021),
        arXiv:2108.11044v2, for dense vectors.
    """
    if not len(found):
        return query
    moved = query + np.float32(weight) * found.mean(axis=0, dtype=np.float32)
    length = float(np.linalg.norm(moved))
    return (moved / length).astype(np.float32) if length > 0 else query
