"""The numbers that the properties are stated in; arrays and collections in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.ops.weighted import Spearman

Floats = NDArray[np.float64]


def mcv(vectors: ArrayLike) -> float:
    r"""Measure how much variants of one embedding spread: the multivariate coefficient of variation.

    The standard deviation of the variants along their mean, relative to the length of the mean, so that models whose
    vectors differ in length or width can be compared::

        MCV = sqrt(mu' S mu / (mu' mu)^2) = sd(X mu) / (mu' mu)

    with the mean mu and the unbiased covariance S. The second form needs no D x D matrix. Where mu is near 0, as with
    centred embeddings, the number explodes; at 0 it is infinite. Two rows of one length always give 0, since they lie
    the same way from their mean: take three or more, and look at the cosine as well.

    Args:
        vectors: One row per variant, at least 2. (paper: e_0 .. e_m)

    Shape:
        vectors (N, D) -> float

    Returns:
        The coefficient, at least 0, without an upper bound; 0 when all rows are the same.

    Raises:
        InputError: there are fewer than 2 rows, or a number is not finite.

    Example:
        >>> round(mcv([[1] * 5, [2] * 5, [6] * 5]), 4)  # sqrt(7) / 3, whatever the width
        0.8819
        >>> mcv([[3.0, 4.0], [3.0, 4.0]])
        0.0

    References:
        Albert and Zhang (2010), A novel definition of the multivariate coefficient of variation,
        doi:10.1002/bimj.201000030; Cong et al. (2023), Observatory: Characterizing Embeddings of Relational Tables,
        arXiv:2310.07736v1, section 3.1. Official code superctj/observatory (read, not copied).
    """
    rows = _matrix("vectors", vectors, at_least=2)
    moved = rows - rows[0]  # equal rows become exact zeros, so their spread is 0 and not a rounding error
    centre = rows[0] + moved.mean(axis=0)
    spread = float(np.std(moved @ centre, ddof=1))  # (N, D) @ (D,)
    square = float(centre @ centre)
    if square == 0.0:
        return float("inf") if moved.any() else 0.0
    return spread / square


def cosines(vector: ArrayLike, others: ArrayLike) -> Floats:
    """Return the cosine of one vector with each of several; exactly 1 for equal ones.

    Args:
        vector: One vector.
        others: One row per vector to compare it with.

    Shape:
        vector (D,), others (M, D) -> (M,)

    Returns:
        Cosines in [-1, 1]; NaN where a vector is zero.

    Raises:
        InputError: shapes do not fit, or a number is not finite.

    Example:
        >>> cosines([1.0, 0.0], [[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]).tolist()
        [1.0, 0.0, -1.0]
    """
    rows = _matrix("others", others)
    first = _matrix("vector", np.asarray(vector)[None])
    if first.shape[1] != rows.shape[1]:
        raise InputError(f"vector has {first.shape[1]} numbers, others have {rows.shape[1]}: they must agree")
    gaps = units(first) - units(rows)
    return np.asarray(np.clip(1 - np.einsum("md,md->m", gaps, gaps) / 2, -1, 1))  # no gap, no rounding


def units(rows: Floats) -> Floats:
    """Return rows at length one; NaN for rows that are zero.

    Args:
        rows: A matrix.

    Shape:
        rows (N, D) -> (N, D)

    Returns:
        The directions.
    """
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.full(rows.shape, np.nan), where=lengths > 0))


def containment(query: Iterable[str], candidate: Iterable[str]) -> float:
    """Return the share of the query column's distinct values that the candidate has too.

    Args:
        query: Values of the column that looks for a partner; missing ones (empty) do not count.
        candidate: Values of the other column.

    Returns:
        A share in [0, 1]; 0 when there is no value.

    Example:
        >>> containment(["a", "b"], ["b", "c", "d"])
        0.5
    """
    first, second = _values(query).keys(), _values(candidate).keys()
    return len(first & second) / len(first) if first else 0.0


def jaccard(query: Iterable[str], candidate: Iterable[str]) -> float:
    """Return the share of shared distinct values among all of both.

    Args:
        query: Values of one column; missing ones (empty) do not count.
        candidate: Values of the other column.

    Returns:
        A share in [0, 1]; 0 when there is no value.

    Example:
        >>> jaccard(["a", "b"], ["b", "c", "d"])
        0.25
    """
    first, second = _values(query).keys(), _values(candidate).keys()
    return len(first & second) / len(first | second) if first or second else 0.0


def multiset_jaccard(query: Iterable[str], candidate: Iterable[str]) -> float:
    """Return the overlap of two columns where repeated values count as often as they occur.

    Args:
        query: Values of one column; missing ones (empty) do not count.
        candidate: Values of the other column.

    Returns:
        The sum of the smaller counts over the sum of both sizes, in [0, 1/2]; 1/2 for equal multisets.

    Example:
        >>> multiset_jaccard(["a", "a", "b"], ["a", "a", "c"])
        0.3333333333333333
    """
    first, second = _values(query), _values(candidate)
    total = first.total() + second.total()
    return (first & second).total() / total if total else 0.0


def purity(clusters: Sequence[int], types: Sequence[str]) -> float:
    """Return how much of a clustering is explained by types: items whose type is the commonest of their cluster.

    Args:
        clusters: Cluster of each item.
        types: True type of each item.

    Returns:
        A share in (0, 1].

    Raises:
        InputError: there is no item, or sizes differ.

    Example:
        >>> purity([0, 0, 1, 1], ["a", "a", "a", "b"])
        0.75
    """
    return float(np.mean(majority(clusters, types)))


def majority(clusters: Sequence[int], types: Sequence[str]) -> Floats:
    """Tell for each item whether its type is the commonest of its cluster; of equally common ones, the first by name.

    Args:
        clusters: Cluster of each item.
        types: True type of each item.

    Returns:
        1 or 0 per item; their mean is the purity.

    Raises:
        InputError: there is no item, or sizes differ.
    """
    if len(clusters) != len(types) or not len(clusters):
        raise InputError(f"clusters and types must name the same items, got {len(clusters)} and {len(types)}")
    counts: dict[int, Counter[str]] = {}
    for cluster, kind in zip(clusters, types, strict=True):
        counts.setdefault(cluster, Counter())[kind] += 1
    commonest = {cluster: min(count, key=lambda kind: (-count[kind], kind)) for cluster, count in counts.items()}
    return np.array([float(commonest[c] == kind) for c, kind in zip(clusters, types, strict=True)])


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Return the rank correlation of two lists of numbers, ties sharing their mean rank.

    Args:
        first: Numbers.
        second: As many.

    Returns:
        A correlation in [-1, 1]; NaN where one list is constant.

    Raises:
        InputError: sizes differ, or a number is not finite.

    Example:
        >>> round(spearman([1, 2, 3, 4], [1, 3, 2, 4]), 9)
        0.8
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1:
        raise InputError(f"first and second must be lists of one length, got shapes {one.shape} and {two.shape}")
    if one.size == 0 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return float("nan")
    return float(np.clip(Spearman(two)(one[None], np.ones((1, len(one))))[0], -1, 1))


def nearest(vectors: ArrayLike, queries: Sequence[int], top_k: int) -> NDArray[np.intp]:
    """Find the nearest rows to some of the rows, by cosine, each row's own place left out.

    Args:
        vectors: All rows.
        queries: Places of the rows to start from.
        top_k: How many to find, at most one less than there are rows. (paper: K)

    Shape:
        vectors (N, D), queries (Q,) -> (Q, top_k)

    Returns:
        Places of the nearest rows, nearest first; of equally near ones, the first in order.

    Raises:
        InputError: ``top_k`` is out of range, or a number is not finite.

    Example:
        >>> nearest([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], [0], 1).tolist()
        [[1]]
    """
    rows = _matrix("vectors", vectors)
    if not 1 <= top_k < len(rows):
        raise InputError(f"top_k={top_k} must be from 1 to {len(rows) - 1}, one less than there are rows")
    directions = np.nan_to_num(units(rows))
    found = []
    for start in range(0, len(queries), 256):
        places = np.asarray(queries[start : start + 256], dtype=np.intp)
        scores = directions[places] @ directions.T  # (256, N)
        scores[np.arange(len(places)), places] = -np.inf
        found.append(np.argsort(-np.round(scores, 12), axis=1, kind="stable")[:, :top_k])
    return np.concatenate(found) if found else np.zeros((0, top_k), dtype=np.intp)


def _values(column: Iterable[str]) -> Counter[str]:
    return Counter(cell for cell in column if cell != "")


def _matrix(name: str, value: ArrayLike, *, at_least: int = 1) -> Floats:
    rows = np.asarray(value)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or rows.shape[1] == 0:
        raise InputError(f"{name} must be a matrix of real numbers (N, dim), got {rows.dtype} of shape {rows.shape}")
    if len(rows) < at_least:
        raise InputError(f"{name} must have at least {at_least} rows, got {len(rows)}")
    rows = rows.astype(np.float64)
    if not np.isfinite(rows).all():
        raise InputError(
            f"{name} must be finite, got NaN or infinity in row {int(np.argmin(np.isfinite(rows).all(1)))}"
        )
    return rows
