"""A flat map of many vectors: the two axes along which they differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_FITTED = 20_000  # rows the axes are worked out from; more would not move them


@dataclass(frozen=True, slots=True)
class Axes:
    """Two directions and what is needed to place a vector on them.

    Args:
        mean: Centre of the vectors. (D,)
        directions: Unit rows, the one with the larger variance first. (2, D)
        scale: Largest absolute coordinate of the fitted vectors.
        explained: Share of the variance that lies along each direction.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    scale: float
    explained: tuple[float, float]

    def place(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the coordinates of vectors.

        Args:
            vectors: Any number of them.

        Shape:
            vectors (N, D) float32 -> (N, 2) float32

        Returns:
            Coordinates, within [-1, 1] for vectors that the axes were fitted on.
        """
        return np.clip((vectors - self.mean) @ self.directions.T / self.scale, -1.0, 1.0).astype(np.float32)


def fit_axes(vectors: NDArray[np.float32]) -> Axes:
    """Find the two principal axes.

    Works on the D x D covariance, so the cost is O(N D^2 + D^3) with D the width of the model. The sign of an axis,
    which is free, is fixed so that its largest entry is positive: equal vectors always give the same map.

    Args:
        vectors: One row per passage, at least one.

    Shape:
        vectors (N, D) float32

    Returns:
        The axes; with fewer than three different vectors one or both carry no variance.

    Example:
        >>> line = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 0.1]], dtype=np.float32)
        >>> axes = fit_axes(line)
        >>> bool(axes.explained[0] > 0.99), axes.place(line)[:3, 1].shape
        (True, (3,))

    References:
        Pearson (1901), On lines and planes of closest fit to systems of points in space.
    """
    rows = vectors[:: max(1, -(-len(vectors) // _MOST_FITTED))].astype(np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    covariance = centred.T @ centred / len(rows)  # (D, D)
    values, columns = np.linalg.eigh(covariance)
    directions = np.zeros((2, vectors.shape[1]))
    found = columns[:, ::-1][:, :2].T  # eigh sorts upwards
    directions[: len(found)] = found
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.where(np.take_along_axis(directions, largest[:, None], axis=1) < 0, -1.0, 1.0)
    top = np.zeros(2)
    top[: len(found)] = np.maximum(values[::-1][:2], 0.0)
    total = float(np.trace(covariance))
    scale = float(np.abs((vectors.astype(np.float64) - mean) @ directions.T).max(initial=0.0))
    return Axes(
        mean.astype(np.float32),
        directions.astype(np.float32),
        scale if scale > 0 else 1.0,
        (float(top[0] / total), float(top[1] / total)) if total > 1e-12 else (0.0, 0.0),
    )


def even_sample(count: int, wanted: int) -> NDArray[np.int64]:
    """Choose places spread evenly over a list.

    Args:
        count: Length of the list.
        wanted: Most places to choose.

    Returns:
        Ascending places, all of them if there are no more than wanted; the same for the same arguments.

    Example:
        >>> even_sample(10, 4).tolist()
        [0, 2, 5, 7]
    """
    if count <= wanted:
        return np.arange(count, dtype=np.int64)
    return np.arange(wanted, dtype=np.int64) * count // wanted
