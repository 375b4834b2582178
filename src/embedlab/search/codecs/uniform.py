"""Uniform codes: every coordinate as one of ``L = 2**bits`` equal steps, stored as bit planes, compared as integers.

A code ``c`` in ``{0, .., L-1}`` stands for the odd number ``2c - (L-1)``; its bits, most significant first, are the
signs of a sum of halving steps, ``2c - (L-1) = sum_i 2**(bits-1-i) * sign_i``. So products of codes are small whole
numbers, and a code of fewer bits is the beginning of one with more.

A stored row is the bit planes, each padded to whole bytes and the most significant first, then the inverse norm of the
whole numbers in 16 bits: ``round(65535 * sqrt(m) / norm)``, and 0 for a vector that was zero.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.search.codecs.codec import Codes, Floats

Levels: TypeAlias = NDArray[np.uint8]
Inverse: TypeAlias = NDArray[np.uint16]

MOST_BITS = 4
NORM_BYTES = 2
_ONE = 65535.0  # the inverse norm of a code whose numbers are all +-1: no code has a smaller norm
# the step, in standard deviations, with which uniform codes of normal numbers have the least squared error
STEPS = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.335}


def row_bytes(m: int, bits: int) -> int:
    """Count the bytes of a stored row.

    Args:
        m: Number of coordinates, at least 1.
        bits: Bits per coordinate, 1 to 4.

    Returns:
        Bytes of the planes and of the inverse norm.

    Raises:
        InputError: ``m`` or ``bits`` is not allowed.

    Example:
        >>> row_bytes(256, 2)
        66
    """
    if bits not in STEPS:
        raise InputError(f"bits={bits!r} must be 1, 2, 3 or 4 per coordinate")
    if not isinstance(m, int | np.integer) or m < 1:
        raise InputError(f"m={m!r} coordinates: a whole number from 1 on is needed")
    return int(bits) * plane_bytes(m) + NORM_BYTES


def plane_bytes(m: int) -> int:
    """Count the bytes of one bit plane.

    Args:
        m: Number of coordinates.

    Returns:
        ``m / 8``, rounded up.
    """
    return -(-m // 8)


def quantise(values: Floats, bits: int, *, step: float | Floats = 1.0) -> Levels:
    """Round numbers to uniform codes.

    Args:
        values: Numbers (N, m).
        bits: Bits per coordinate.
        step: Width of one step, for all or for each row (N, 1).

    Returns:
        Codes (N, m) in 0 .. 2**bits - 1; zero and above give the upper half.

    Example:
        >>> quantise(np.array([[-9.0, -0.5, 0.0, 9.0]], np.float32), 2)
        array([[0, 1, 2, 3]], dtype=uint8)
    """
    half = 1 << (bits - 1)
    steps = np.floor(values / step)
    return np.asarray(np.clip(steps, -half, half - 1) + half, np.uint8)


def dequantise(levels: Levels, bits: int) -> Floats:
    """Return the whole numbers that codes stand for.

    Args:
        levels: Codes (N, m).
        bits: Bits per coordinate.

    Returns:
        ``2c - (2**bits - 1)`` as float32 (N, m), exact.
    """
    return levels * np.float32(2) - np.float32((1 << bits) - 1)


def inverse_norms(levels: Levels, bits: int) -> Inverse:
    """Return the inverse norms of codes as they are stored.

    Args:
        levels: Codes (N, m).
        bits: Bits per coordinate.

    Returns:
        ``round(65535 * sqrt(m) / norm)`` (N,).
    """
    numbers = dequantise(levels, bits).astype(np.float64)
    inverse: Inverse = np.rint(_ONE * np.sqrt(levels.shape[1] / np.vecdot(numbers, numbers))).astype(np.uint16)
    return inverse


def pack(levels: Levels, bits: int, *, zero: NDArray[np.bool_] | None = None) -> Codes:
    """Store codes as rows of bytes.

    Args:
        levels: Codes (N, m), each below 2**bits.
        bits: Bits per coordinate.
        zero: Rows of vectors that were zero (N,); their inverse norm becomes 0, and so all their scores.

    Returns:
        Rows (N, ``row_bytes(m, bits)``).

    Raises:
        InputError: a code is out of range.

    Example:
        >>> pack(np.array([[3, 0, 2, 1]], np.uint8), 2)[0, :2]
        array([160, 144], dtype=uint8)
    """
    levels = np.asarray(levels)
    total = row_bytes(levels.shape[1], bits)
    if levels.size and int(levels.max()) >> bits:
        raise InputError(f"codes go up to {levels.max()}: with bits={bits} they must be below {1 << bits}")
    planes = [np.packbits((levels >> (bits - 1 - plane)) & 1, axis=1) for plane in range(bits)]
    inverse = inverse_norms(levels, bits)
    if zero is not None:
        inverse[zero] = 0
    rows = np.concatenate([*planes, inverse.astype("<u2")[:, None].view(np.uint8)], axis=1)
    return np.ascontiguousarray(rows.reshape(len(levels), total))


def unpack(rows: Codes, m: int, bits: int) -> tuple[Levels, Inverse]:
    """Read codes and inverse norms back.

    Args:
        rows: Stored rows (N, B).
        m: Number of coordinates.
        bits: Bits per coordinate.

    Returns:
        Codes (N, m) and inverse norms (N,).
    """
    width = plane_bytes(m)
    levels = np.zeros((len(rows), m), np.uint8)
    for plane in range(bits):
        levels <<= 1
        levels |= np.unpackbits(rows[:, plane * width : (plane + 1) * width], axis=1, count=m)
    return levels, stored_inverse(rows)


def stored_inverse(rows: Codes) -> Inverse:
    """Read the inverse norms of stored rows.

    Args:
        rows: Stored rows (N, B).

    Returns:
        Inverse norms (N,).
    """
    return np.ascontiguousarray(rows[:, -NORM_BYTES:]).view("<u2")[:, 0].astype(np.uint16)


def unit_scale(m: int) -> np.float32:
    """Return what turns ``number * stored inverse norm`` into ``number / norm``.

    Args:
        m: Number of coordinates.

    Returns:
        ``1 / (65535 * sqrt(m))``.
    """
    return np.float32(1.0 / (_ONE * np.sqrt(m)))
