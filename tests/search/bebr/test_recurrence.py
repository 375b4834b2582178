"""The recurrence against the paper's equations, its integer form, and the start that needs no training."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.search.bebr import BebrCodec, BinaryCodes, RecurrentBinarizer, Training, compare
from embedlab.search.bebr.recurrence import Recurrence, rotation_start, unit, values
from embedlab.search.codecs.uniform import STEPS, quantise

START = Training(steps=0)


def cloud(num: int = 300, dim: int = 16, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(num, dim))).astype(np.float32)


@pytest.mark.parametrize("rounds", range(4))
def test_codes_are_the_sums_of_the_recurrence(rounds: int) -> None:
    rows = cloud(30).astype(np.float64)
    learned = RecurrentBinarizer(16, code_dim=12, rounds=rounds).fit(rows, training=START).recurrence
    assert learned is not None
    for f, found in zip(rows, values(learned.codes(rows), rounds + 1), strict=True):
        b = np.array([1.0 if x >= 0 else -1.0 for x in f @ learned.first.direct])
        for i in range(rounds):
            back = b @ learned.back[i].direct
            missed = (f - learned.gains[i] * back / np.sqrt(np.sum(back**2))) @ learned.residual[i].direct
            b = b + np.array([1.0 if x >= 0 else -1.0 for x in missed]) / 2 ** (i + 1)
        assert np.array_equal(found, b)


@pytest.mark.parametrize("bits", range(1, 5))
def test_scores_are_weighted_counts_of_equal_signs(bits: int) -> None:
    codes = RecurrentBinarizer(16, rounds=bits - 1).fit(cloud(), training=START).encode(cloud(20, seed=1))
    planes = [(codes.codes >> (bits - 1 - i)) & 1 for i in range(bits)]
    products = np.zeros((20, 20))
    for i, mine in enumerate(planes):
        for j, theirs in enumerate(planes):
            unequal = (mine[:, None, :] ^ theirs[None, :, :]).sum(axis=2)
            products += 2.0 ** -(i + j) * (16 - 2.0 * unequal)
    lengths = np.sqrt(np.diag(products))
    np.testing.assert_allclose(codes.score(codes), products / np.outer(lengths, lengths), atol=1e-6)
    np.testing.assert_allclose(codes.inv_norm, 1 / lengths, rtol=1e-6)


@pytest.mark.parametrize("bits", range(1, 5))
def test_packing_is_undone_by_unpacking(bits: int) -> None:
    codes = BinaryCodes(np.random.default_rng(0).integers(0, 2**bits, (9, 13)).astype(np.uint8), bits)
    assert codes.pack().shape == (9, 2 * bits + 2)
    assert np.array_equal(BinaryCodes.unpack(codes.pack(), 13, bits).codes, codes.codes)


@pytest.mark.parametrize("bits", range(2, 5))
def test_the_start_is_the_best_uniform_quantiser(bits: int) -> None:
    """With as many dimensions as the vectors have, codes are those of equal steps of the rotated coordinates."""
    rows = cloud(400, 64)
    start = rotation_start(rows, 64, bits - 1)
    turned = rows @ start.first.direct  # standard deviation 1
    same = start.codes(rows) == quantise(turned, bits, step=STEPS[bits])
    assert same.mean() > 0.92  # lengths of codes vary a little from row to row, and thresholds with them


@pytest.mark.parametrize(("bits", "error"), [(1, 0.61), (2, 0.36), (3, 0.22), (4, 0.13)])
def test_the_start_decodes_as_well_as_a_uniform_quantiser_can(bits: int, error: float) -> None:
    rows = cloud(1000, 32)
    codec = BebrCodec(32, bits=bits, steps=0).fit(rows)
    assert np.linalg.norm(codec.decode(codec.encode(rows)) - rows, axis=1).mean() < error


def test_fewer_dimensions_keep_the_principal_directions() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng.normal(size=(300, 4)) @ rng.normal(size=(4, 24)) + 0.02 * rng.normal(size=(300, 24)))
    codec = BebrCodec(24, bits=4, code_dim=4, steps=0).fit(rows)
    assert np.linalg.norm(codec.decode(codec.encode(rows)) - rows, axis=1).mean() < 0.25


def test_more_dimensions_than_the_vectors_have_help() -> None:
    rows = cloud(600, 16)
    narrow, wide = (BebrCodec(16, bits=1, code_dim=m, steps=0).fit(rows) for m in (16, 64))
    errors = [np.linalg.norm(codec.decode(codec.encode(rows)) - rows) for codec in (narrow, wide)]
    assert errors[1] < 0.7 * errors[0]


def test_zero_counts_as_positive() -> None:
    assert Recurrence.blank(3, 4, 0, 0).codes(np.zeros((1, 3), np.float32)).tolist() == [[1, 1, 1, 1]]


def test_parameters_hold_all_there_is() -> None:
    learned = rotation_start(cloud(), 8, 2)
    again = Recurrence.of(learned.parameters())
    assert np.array_equal(again.codes(cloud(seed=1)), learned.codes(cloud(seed=1)))


def test_a_row_has_one_code_in_any_company() -> None:
    codec = BebrCodec(16, bits=4, steps=0).fit(cloud())
    rows = cloud(500, seed=3)
    parts = [codec.encode(part) for part in np.array_split(rows, 37)]
    assert np.array_equal(np.concatenate(parts), codec.encode(rows))


def test_queries_of_more_dimensions_search_codes_of_fewer_and_not_the_reverse() -> None:
    wide, narrow = (RecurrentBinarizer(16, code_dim=m).fit(cloud(), training=START) for m in (12, 8))
    assert wide.encode(cloud(3)).score(narrow.encode(cloud(5))).shape == (3, 5)
    assert compare(wide.floats(cloud(3)), narrow.encode(cloud(5))).shape == (3, 5)
    with pytest.raises(InputError, match="encode them anew"):
        narrow.encode(cloud(3)).score(wide.encode(cloud(5)))


def test_codes_of_another_shape_are_refused() -> None:
    binarizer = RecurrentBinarizer(16, code_dim=8).fit(cloud(), training=START)
    with pytest.raises(InputError, match="not of this binariser"):
        binarizer.decode(BinaryCodes(np.zeros((2, 9), np.uint8), 2))
    with pytest.raises(InputError, match="not fitted"):
        RecurrentBinarizer(16).encode(cloud())
