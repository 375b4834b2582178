"""The trained baseline: a linear map from one space to another, fitted on pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.understand.relative.rows import matrix

Method: TypeAlias = Literal["procrustes", "least_squares"]

_RIDGES = tuple(10.0**power for power in range(-6, 3))  # as shares of the mean squared singular value


@dataclass(frozen=True, slots=True)
class Alignment:
    """A fitted map: ``(x - source_mean) @ weights + target_mean``.

    Attributes:
        method: How it was fitted.
        weights: The map, (D_source, D_target).
        source_mean: Mean of the source pairs, (D_source,).
        target_mean: Mean of the target pairs, (D_target,).
        ridge: Penalty chosen for least squares; 0 for Procrustes.
    """

    method: Method
    weights: NDArray[np.float64]
    source_mean: NDArray[np.float64]
    target_mean: NDArray[np.float64]
    ridge: float

    def transform(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Bring vectors of the source space into the target space.

        Args:
            vectors: Rows of the source space.

        Shape:
            vectors (N, D_source) -> (N, D_target)

        Returns:
            Rows of the target space.

        Raises:
            InputError: ``vectors`` are no finite matrix of the source's width.
        """
        rows = matrix("vectors", vectors, dim=len(self.source_mean))
        return np.asarray((rows - self.source_mean) @ self.weights + self.target_mean, dtype=np.float64)


def align(source: ArrayLike, target: ArrayLike, *, method: Method = "procrustes") -> Alignment:
    """Fit a linear map from one space to another on vectors of the same items.

    This is what relative coordinates do without: they need the pairs as anchors only, and no fitting. Where a map can
    be fitted, compare with it.

    Args:
        source: Vectors of the pairs in the one space.
        target: Vectors of the same items in the other, row by row.
        method: ``"procrustes"`` for the best rotation (or reflection) with one scale, between spaces of different
            widths the best partial one; ``"least_squares"`` for any matrix, with the ridge penalty that has the least
            leave-one-out error among nine.

    Shape:
        source (N, D_source), target (N, D_target) -> Alignment

    Returns:
        The map.

    Raises:
        InputError: ``method`` is unknown, or the matrices are not finite or of different length or below 2 rows.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(30, 4))
        >>> turned = 2.5 * rows @ np.linalg.qr(rows[:4])[0] + 1
        >>> bool(np.allclose(align(rows, turned).transform(rows), turned))
        True

    References:
        Schönemann (1966), A generalized solution of the orthogonal Procrustes problem, doi:10.1007/BF02289451.
    """
    if method not in get_args(Method):
        raise unknown_name("method", method, get_args(Method))
    x, y = matrix("source", source, at_least=2).astype(np.float64), matrix("target", target, at_least=2).astype(float)
    if len(x) != len(y):
        raise InputError(f"source has {len(x)} rows and target {len(y)}: row i of both must be the same item")
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    weights, ridge = (_rotation(x, y), 0.0) if method == "procrustes" else _ridge(x, y)
    return Alignment(method, weights, x_mean, y_mean, ridge)


def _rotation(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    left, strengths, right = np.linalg.svd(x.T @ y, full_matrices=False)
    size = (x * x).sum()
    scale = strengths.sum() / size if size > 0 else 1.0
    return np.asarray(scale * left @ right)


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Ridge regression; the leave-one-out error of each penalty follows from one decomposition."""
    left, values, right = np.linalg.svd(x, full_matrices=False)  # (N, R), (R,), (R, D)
    inside, squares = left.T @ y, values**2
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for share in _RIDGES:
        penalty = share * max(float(squares.mean()), np.finfo(np.float64).tiny)
        kept = squares / (squares + penalty)  # (R,)
        leverage = ((left * left) @ kept + 1 / len(x)).clip(max=1 - 1e-9)  # the means were fitted too
        error = float(np.mean(((y - left @ (kept[:, None] * inside)) / (1 - leverage)[:, None]) ** 2))
        if best is None or error < best[0]:
            best = error, penalty, right.T @ ((values / (squares + penalty))[:, None] * inside)
    if best is None:
        raise InputError("source and target give no finite error")
    return best[2], best[1]
