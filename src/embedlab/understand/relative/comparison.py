"""How alike two spaces of the same items are: by relative coordinates, by neighbourhoods, and by classical measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.understand.relative.anchors import AnchorSet
from embedlab.understand.relative.coordinates import Similarity, relative_coordinates
from embedlab.understand.relative.rows import Floats, blocks, matrix, unit

_MOST_ROWS, _MOST_SIMILARITIES = 256, 2**23  # of a block (Q, N)
_MAX_QUERIES = 5000
_STRIPES = 32
_KEPT_VARIANCE = 0.99  # of each space, for SVCCA


@dataclass(frozen=True, slots=True)
class SpaceComparison:
    """How alike two spaces are. Read ``jaccard`` and ``mrr`` first: the mean cosine flatters anisotropic spaces.

    Attributes:
        jaccard: Overlap, intersection over union, of the k nearest of x in its own relative space and those of the same
            relative vector among the other space's, mean over items; in [0, 1].
        mrr: Mean reciprocal rank of the item itself among the other space's relative vectors; in [0, 1].
        cosine: Mean cosine of an item's two relative vectors; in [-1, 1].
        mse: Mean squared difference of their coordinates.
        overlap: Overlap of the k nearest others by cosine within either space, without anchors; in [0, 1].
        cka: Linear centred kernel alignment of the spaces themselves; in [0, 1].
        svcca: Mean canonical correlation of the directions that hold 99 % of each space's variance; in [0, 1]. Needs
            many more items than such directions, otherwise it is near 1 for any two spaces.
        num_items: Items compared.
        num_queries: Items whose neighbourhoods were looked at.
        num_anchors: Anchors.
        k: Size of a neighbourhood.
    """

    jaccard: float
    mrr: float
    cosine: float
    mse: float
    overlap: float
    cka: float
    svcca: float
    num_items: int
    num_queries: int
    num_anchors: int
    k: int

    def to_dict(self) -> dict[str, float | int]:
        """Return the numbers by name."""
        return asdict(self)


def compare_spaces(
    x: ArrayLike,
    y: ArrayLike,
    anchors: AnchorSet | int | tuple[ArrayLike, ArrayLike] = 300,
    *,
    k: int = 10,
    similarity: Similarity = "cosine",
    center: bool = False,
    max_queries: int = _MAX_QUERIES,
    seed: int = 0,
) -> SpaceComparison:
    """Compare the vectors that two encoders give the same items.

    Both spaces become relative to the same anchors; then an item's two relative vectors r_x, r_y can be compared
    directly, and the one can be looked up among the others. Nothing of size N x N is ever held: neighbourhoods come
    from blocks of queries, CKA and SVCCA from sums of size D x D.

    Args:
        x: Vectors by one encoder.
        y: Vectors by the other, row by row of the same items; the widths may differ.
        anchors: Anchors chosen among these items, how many to choose, or the anchors' vectors in both spaces.
        k: Size of a neighbourhood, from 1 to N - 1. (paper: 10 for words)
        similarity: Of the relative coordinates, as in ``relative_coordinates``.
        center: Subtract each space's mean first.
        max_queries: Neighbourhoods are looked at for this many items at most, drawn at random if there are more.
        seed: Decides the anchors and queries that are drawn.

    Shape:
        x (N, D_x), y (N, D_y) -> SpaceComparison

    Returns:
        The figures; all but ``mse`` are 1 for spaces that differ by rotation, reflection and scale.

    Raises:
        InputError: the matrices are not finite, of different length or below 2 rows; ``k`` or the number of anchors is
            out of range; anchors are zero or repeated; or all rows of a space are equal.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 16))
        >>> turned = 3 * rows @ np.linalg.qr(rows[:16])[0]
        >>> found = compare_spaces(rows, turned, 20)
        >>> round(found.jaccard, 6), round(found.mrr, 6), round(found.cka, 6), round(found.svcca, 6)
        (1.0, 1.0, 1.0, 1.0)
        >>> unlike = compare_spaces(rows, np.random.default_rng(1).normal(size=(200, 16)), 20)
        >>> unlike.mrr < 0.1
        True

    References:
        Moschella et al. (2023), Relative Representations Enable Zero-Shot Latent Space Communication,
        arXiv:2209.15430v4, section 4. Kornblith et al. (2019), arXiv:1905.00414v4, for CKA; Raghu et al. (2017),
        arXiv:1706.05806v2, for SVCCA.
    """
    first, second = matrix("x", x, at_least=2), matrix("y", y, at_least=2)
    if len(first) != len(second):
        raise InputError(f"x has {len(first)} rows and y {len(second)}: row i of both must be the same item")
    if not 1 <= k < len(first):
        raise InputError(f"k={k} must be from 1 to one less than the number of items, {len(first) - 1}")
    if max_queries < 1:
        raise InputError(f"max_queries={max_queries} must be at least 1")
    ours, theirs = _both_anchors(first, second, anchors, seed)
    r_x = relative_coordinates(first, ours, similarity=similarity, mean=_mean(first) if center else None)
    r_y = relative_coordinates(second, theirs, similarity=similarity, mean=_mean(second) if center else None)
    queries = np.arange(len(first))
    if len(first) > max_queries:
        queries = np.sort(np.random.default_rng(seed).choice(len(first), max_queries, replace=False))
    jaccard, mrr = _across(r_x, r_y, queries, k)
    cka, svcca = _alignments(first, second)
    difference = sum(float(((r_x[part] - r_y[part]).astype(np.float64) ** 2).sum()) for part in blocks(len(r_x)))
    return SpaceComparison(
        jaccard=jaccard,
        mrr=mrr,
        cosine=_mean_cosine(r_x, r_y),
        mse=difference / r_x.size,
        overlap=_overlap(unit(first), unit(second), queries, k),
        cka=cka,
        svcca=svcca,
        num_items=len(first),
        num_queries=len(queries),
        num_anchors=len(ours),
        k=k,
    )


def linear_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Measure how alike the similarity structures of two spaces are, by linear centred kernel alignment.

    Args:
        x: Vectors by one encoder.
        y: Vectors by the other, row by row of the same items.

    Shape:
        x (N, D_x), y (N, D_y) -> float

    Returns:
        CKA in [0, 1]; 1 for spaces that differ by rotation, reflection, scale and translation.

    Raises:
        InputError: the matrices are not finite or of different length, or all rows of one are equal.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(linear_cka(rows, 3 * rows[:, ::-1] + 1), 6)
        1.0
    """
    first, second = matrix("x", x, at_least=2), matrix("y", y, at_least=2)
    if len(first) != len(second):
        raise InputError(f"x has {len(first)} rows and y {len(second)}: row i of both must be the same item")
    return _alignments(first, second)[0]


def _both_anchors(x: Floats, y: Floats, anchors: Any, seed: int) -> tuple[Floats, Floats]:
    if isinstance(anchors, tuple):
        ours, theirs = matrix("anchors", anchors[0]), matrix("anchors", anchors[1])
        if len(anchors) != 2 or len(ours) != len(theirs):
            raise InputError(f"anchors must be two matrices of equal length, got {len(ours)} and {len(theirs)} rows")
        return ours, theirs
    if isinstance(anchors, int | np.integer):
        anchors = AnchorSet.select(x, int(anchors), seed=seed)
    if not isinstance(anchors, AnchorSet):
        raise InputError(
            f"anchors={anchors!r:.60} must be an AnchorSet, a number, or the anchors' vectors in both spaces"
        )
    return anchors.take(x), anchors.take(y)


def _mean(rows: Floats) -> Floats:
    return np.asarray(rows.mean(axis=0, dtype=np.float64), dtype=rows.dtype)


def _across(x: Floats, y: Floats, queries: NDArray[np.intp], k: int) -> tuple[float, float]:
    """Jaccard and MRR of queries of space x in space y, by cosine; rows that tie with the k-th belong to the k."""
    x, y = unit(x), unit(y)
    jaccard, mrr = 0.0, 0.0
    for part in blocks(len(queries), _rows_at_once(len(x))):
        rows = queries[part]
        home, abroad = x[rows] @ x.T, x[rows] @ y.T  # (Q, N)
        jaccard += _shared(home, abroad, k)
        own = abroad[np.arange(len(rows)), rows][:, None]
        slack = _slack(abroad)
        above = np.count_nonzero(abroad > own + slack, axis=1)
        equal = np.count_nonzero(abroad >= own - slack, axis=1) - above
        mrr += float((1 / (above + (equal + 1) / 2)).sum())  # among equals the middle rank, itself included
    return jaccard / len(queries), mrr / len(queries)


def _overlap(x: Floats, y: Floats, queries: NDArray[np.intp], k: int) -> float:
    total = 0.0
    for part in blocks(len(queries), _rows_at_once(len(x))):
        rows = queries[part]
        first, second = x[rows] @ x.T, y[rows] @ y.T
        for found in (first, second):
            found[np.arange(len(rows)), rows] = -np.inf
        total += _shared(first, second, k)
    return total / len(queries)


def _rows_at_once(num_items: int) -> int:
    return max(1, min(_MOST_ROWS, _MOST_SIMILARITIES // num_items))


def _shared(first: Floats, second: Floats, k: int) -> float:
    """Sum over rows of |A and B| / |A or B| of the k largest entries, all that tie with the k-th included."""
    a, b = _largest(first, k), _largest(second, k)
    both = np.count_nonzero(a & b, axis=1)
    return float((both / np.count_nonzero(a | b, axis=1)).sum())


def _largest(scores: Floats, k: int) -> NDArray[np.bool_]:
    return np.asarray(scores >= _kth_largest(scores, k)[:, None] - _slack(scores))


def _kth_largest(scores: Floats, k: int) -> Floats:
    """The k-th largest entry of each row (Q, N) -> (Q,)."""
    num = scores.shape[1]
    if num < _STRIPES * 4 * k:
        return np.asarray(np.partition(scores, num - k, axis=1)[:, num - k])
    # the k-th largest of the maxima of many parts is no larger than that of all entries: few reach it, and those are
    # sorted; partitioning whole rows would take most of the time
    whole = num - num % _STRIPES
    maxima = scores[:, :whole].reshape(len(scores), _STRIPES, -1).max(axis=1)
    floor = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, maxima.shape[1] - k]
    rows, columns = np.nonzero(scores >= floor[:, None])
    values = scores[rows, columns]
    order = np.lexsort((-values, rows))
    return np.asarray(values[order][np.searchsorted(rows, np.arange(len(scores))) + k - 1])


def _slack(scores: Floats) -> float:
    """Two cosines this close are one cosine, rounded."""
    return 1e-6 if scores.dtype == np.float32 else 1e-12


def _mean_cosine(x: Floats, y: Floats) -> float:
    total = sum(float(np.einsum("nk,nk->", unit(x[p]), unit(y[p]), dtype=np.float64)) for p in blocks(len(x)))
    return total / len(x)


def _alignments(x: Floats, y: Floats) -> tuple[float, float]:
    """CKA and SVCCA from the three covariance matrices, summed block by block."""
    x_mean, y_mean = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    xx, yy = np.zeros((x.shape[1],) * 2), np.zeros((y.shape[1],) * 2)
    xy = np.zeros((x.shape[1], y.shape[1]))
    for part in blocks(len(x)):
        a, b = x[part] - x_mean, y[part] - y_mean
        xx, yy, xy = xx + a.T @ a, yy + b.T @ b, xy + a.T @ b
    for name, own, mean in (("x", xx, x_mean), ("y", yy, y_mean)):
        if np.trace(own) <= 1e-12 * len(x) * max(float(mean @ mean), np.finfo(np.float64).tiny):
            raise InputError(f"all rows of {name} are equal: there is no structure to compare")
    cka = float((xy**2).sum() / np.sqrt((xx**2).sum() * (yy**2).sum()))
    correlations = np.linalg.svd(_whitening(xx).T @ xy @ _whitening(yy), compute_uv=False)
    return min(cka, 1.0), float(correlations.clip(0, 1).mean())


def _whitening(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions (D, R) that hold most of the variance, each divided by its standard deviation."""
    values, directions = np.linalg.eigh(covariance)
    values, directions = values[::-1].clip(min=0), directions[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(values) / values.sum(), _KEPT_VARIANCE - 1e-12)) + 1
    return np.asarray(directions[:, :kept] / np.sqrt(values[:kept]))
