"""Matrices of vectors: checked on the way in, fingerprinted row by row, and brought to unit length."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

Floats = NDArray[np.floating[Any]]

BLOCK = 8192  # rows worked on at once: temporary copies stay small however long the matrix is


def matrix(name: str, value: ArrayLike, *, at_least: int = 1, dim: int | None = None) -> Floats:
    """Check that a value is a finite matrix of real numbers, and bring it to single or double precision.

    Args:
        name: The argument's name, for the message.
        value: The value received.
        at_least: Fewest rows allowed.
        dim: Number of columns it must have; None for any.

    Returns:
        Rows (N, D): float32 stays float32, half precision becomes float32, everything else float64.

    Raises:
        InputError: it is not such a matrix.
    """
    rows = np.asanyarray(value)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or rows.shape[1] == 0:
        raise InputError(f"{name} must be a matrix of real numbers (items, dim), got {rows.dtype} of {rows.shape}")
    if len(rows) < at_least:
        raise InputError(f"{name} must have at least {at_least} row{'s' * (at_least > 1)}, got {len(rows)}")
    if dim is not None and rows.shape[1] != dim:
        raise InputError(f"{name} has {rows.shape[1]} columns, expected {dim}: use vectors of one encoder")
    rows = rows.astype(np.float32 if rows.dtype in (np.float16, np.float32) else np.float64, copy=False)
    for part in blocks(len(rows)):
        finite = np.isfinite(rows[part]).all(axis=1)
        if not finite.all():
            raise InputError(f"{name}: row {part.start + int(finite.argmin())} is not finite: leave that item out")
    return rows


def blocks(count: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield slices that cover ``range(count)`` in order.

    Args:
        count: Number of rows.
        size: Rows in a slice; the last one may be shorter.
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def unit(rows: Floats) -> Floats:
    """Return the rows at unit length; zero rows stay zero.

    Args:
        rows: A matrix (N, D).

    Returns:
        A new matrix (N, D).
    """
    lengths = np.sqrt(np.einsum("...d,...d->...", rows, rows))[..., None]
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))


def keys(rows: Floats, seed: int = 0) -> NDArray[np.bytes_]:
    """Fingerprint each row: equal rows have equal keys, whatever their place and in either precision.

    Sorting by key puts rows in an order that looks random, is decided by the seed, and does not depend on the order
    in which they came.

    Args:
        rows: A matrix (N, D).
        seed: Decides the order of the keys.

    Returns:
        Keys (N,) of 16 bytes.
    """
    salt = seed.to_bytes(8, "little", signed=True)
    single = np.ascontiguousarray(rows, dtype=np.float32) + np.float32(0)  # -0 and 0 are one number
    return np.array([blake2b(row.tobytes(), digest_size=16, salt=salt).hexdigest() for row in single], dtype="S32")


def text_keys(texts: tuple[str, ...], seed: int = 0) -> NDArray[np.bytes_]:
    """Fingerprint texts the way ``keys`` does rows.

    Args:
        texts: The texts.
        seed: Decides the order of the keys.

    Returns:
        Keys (N,).
    """
    salt = seed.to_bytes(8, "little", signed=True)
    found = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, salt=salt).hexdigest() for text in texts]
    return np.array(found, dtype="S32")


def list_hash(keys: NDArray[np.bytes_]) -> str:
    """Fingerprint a list of keys, order included.

    Args:
        keys: Keys (N,).

    Returns:
        ``"anchors:<16 hex>"``.
    """
    return f"anchors:{blake2b(keys.tobytes(), digest_size=8).hexdigest()}"
