"""Matrices of embeddings: checked on the way in, and read in float64 a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

_CHUNK = 4096  # rows held in float64 at once; a corpus in float32, or on disk as a memory map, is never copied whole


def matrix(name: str, value: ArrayLike, *, at_least: int = 1) -> NDArray[Any]:
    """Check that a value is a matrix of real numbers with enough rows, without copying it.

    Args:
        name: The argument's name, for the message.
        value: The value received.
        at_least: Fewest rows allowed.

    Returns:
        The value as an array (N, D); whether it is finite shows when it is read.

    Raises:
        InputError: it is not such a matrix.
    """
    rows = np.asanyarray(value)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or rows.shape[1] == 0:
        raise InputError(
            f"{name} must be a matrix of real numbers (texts, dim), got {rows.dtype} of shape {rows.shape}"
        )
    if len(rows) < at_least:
        raise InputError(f"{name} must have at least {at_least} row{'s' * (at_least > 1)}, got {len(rows)}")
    return rows


def chunks(name: str, rows: NDArray[Any]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield consecutive rows in float64 together with their lengths.

    Args:
        name: The argument's name, for the message.
        rows: A matrix (N, D).

    Yields:
        Rows (C, D) and their Euclidean lengths (C,), all finite and above 0.

    Raises:
        InputError: a row is zero, so it has no direction, or is not finite.
    """
    for start in range(0, len(rows), _CHUNK):
        block = np.asarray(rows[start : start + _CHUNK], dtype=np.float64)
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong = ~((lengths > 0) & np.isfinite(lengths))
        if wrong.any():
            at = int(wrong.argmax())
            what = "zero and has no direction" if lengths[at] == 0 else "not finite"
            raise InputError(f"{name}: row {start + at} is {what}: leave that text out or embed it anew")
        yield block, lengths


def units(name: str, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return all rows at unit length.

    Args:
        name: The argument's name, for the message.
        rows: A matrix (N, D).

    Returns:
        The same directions in float64, (N, D).

    Raises:
        InputError: a row is zero or not finite.
    """
    return np.concatenate([block / lengths[:, None] for block, lengths in chunks(name, rows)])


def sum_of_units(name: str, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of all rows at unit length, in one pass and constant memory.

    Args:
        name: The argument's name, for the message.
        rows: A matrix (N, D).

    Returns:
        A vector in float64, (D,).

    Raises:
        InputError: a row is zero or not finite.
    """
    return sum(((1 / lengths) @ block for block, lengths in chunks(name, rows)), start=np.zeros(rows.shape[1]))
