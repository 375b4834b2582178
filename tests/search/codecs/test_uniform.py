"""Uniform codes against the recurrence they come from and against counts of bits, written another way."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.search.codecs.uniform import dequantise, pack, quantise, row_bytes, stored_inverse, unit_scale, unpack

BITS = (1, 2, 3, 4)


def levels_of(count: int, m: int, bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, size=(count, m)).astype(np.uint8)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("m", [1, 7, 8, 64, 100])
def test_packing_can_be_undone(m: int, bits: int) -> None:
    levels = levels_of(30, m, bits)
    rows = pack(levels, bits)
    again, inverse = unpack(rows, m, bits)
    assert rows.shape == (30, row_bytes(m, bits))
    assert rows.nbytes == 30 * (bits * ((m + 7) // 8) + 2)
    assert np.array_equal(again, levels)
    assert np.array_equal(pack(again, bits), rows)
    norms = [sum((2 * int(c) - (2**bits - 1)) ** 2 for c in row) ** 0.5 for row in levels]
    assert np.allclose(inverse * unit_scale(m) * norms, 1, atol=1.5e-4)
    assert np.array_equal(inverse, stored_inverse(rows))


@pytest.mark.parametrize("bits", BITS)
def test_codes_are_sums_of_halving_signs(bits: int) -> None:
    rounds = bits - 1
    values = np.random.default_rng(1).normal(size=(20, 12)).astype(np.float32)
    step = 0.5
    expected = np.zeros(values.shape)
    for index, value in np.ndenumerate(values):  # b = sign(x); then b += 2**-i * sign of what is left, i = 1 .. u
        total, scale = 0.0, step / 2 * 2**rounds
        for i in range(bits):
            total += 2.0**-i * (1 if value - scale * total >= 0 else -1)
        expected[index] = total
    levels = quantise(values, bits, step=step)
    assert np.array_equal(dequantise(levels, bits) / 2**rounds, expected)


def test_zero_is_positive() -> None:
    assert quantise(np.zeros((1, 3), np.float32), 1).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("bits", BITS)
def test_fewer_bits_are_the_beginning_of_more(bits: int) -> None:
    levels = levels_of(10, 64, bits)
    sign_plane = pack(levels, bits)[:, :8]
    assert np.array_equal(sign_plane, pack(levels >> (bits - 1), 1)[:, :8])


def test_the_norm_of_nothing_is_nothing() -> None:
    rows = pack(levels_of(3, 8, 2), 2, zero=np.array([False, True, False]))
    assert (stored_inverse(rows) == 0).tolist() == [False, True, False]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="bits=5"):
        row_bytes(8, 5)
    with pytest.raises(InputError, match="m=0"):
        row_bytes(0, 1)
    with pytest.raises(InputError, match="below 4"):
        pack(np.array([[4]], np.uint8), 2)
