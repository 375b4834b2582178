"""All kernels of symmetric distance calculation against loops over bits and numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError, MissingExtraError
from embedlab.search.codecs.codec import CodecError
from embedlab.search.codecs.kernels import Int8Kernel, PopcountKernel
from embedlab.search.codecs.sdc import SDCIndex
from embedlab.search.codecs.threads import threads_of
from embedlab.search.codecs.uniform import pack, quantise, stored_inverse, unit_scale

KERNELS = ("popcount", "plain popcount", "numpy", "int8", "pqfs")
Array = NDArray[np.uint8]


def index_of(kernel: str, m: int, bits: int) -> SDCIndex:
    try:
        made = SDCIndex(m, bits, kernel=kernel.removeprefix("plain "))  # type: ignore[arg-type]
    except MissingExtraError as error:
        pytest.skip(str(error))
    if isinstance(made._kernel, PopcountKernel):
        if kernel == "popcount" and not made._kernel.compiled:
            pytest.skip("numba is not installed")
        made._kernel.compiled, made._kernel.patience_s = kernel == "popcount", 0.0
    return made


def levels_of(count: int, m: int, bits: int, *, seed: int) -> Array:
    centres = np.random.default_rng(m).normal(size=(20, m))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(20, size=count)] + 0.7 * rng.normal(size=(count, m))
    return quantise(rows.astype(np.float32), bits, step=2.4 / 2**bits)


def by_counting_bits(query: Array, document: Array, bits: int) -> int:
    """``sum_ij 2**(places) (m - 2 popcount(q_i ^ d_j))``, with Python's own numbers as bit strings."""
    planes = [
        [int("".join(str(int(c) >> (bits - 1 - i) & 1) for c in row), 2) for i in range(bits)]
        for row in (query, document)
    ]
    return sum(
        (len(query) - 2 * (planes[0][i] ^ planes[1][j]).bit_count()) << (2 * bits - 2 - i - j)
        for i in range(bits)
        for j in range(bits)
    )


def by_numbers(query: Array, document: Array, bits: int) -> int:
    top = 2**bits - 1
    return sum((2 * int(q) - top) * (2 * int(d) - top) for q, d in zip(query, document, strict=True))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("m", [24, 70])
def test_scores_are_the_whole_numbers_of_both_oracles(m: int, bits: int) -> None:
    documents, queries = levels_of(40, m, bits, seed=1), levels_of(3, m, bits, seed=2)
    numbers = np.array([[by_numbers(q, d, bits) for d in documents] for q in queries])
    assert numbers.tolist() == [[by_counting_bits(q, d, bits) for d in documents] for q in queries]
    rows, asked = pack(documents, bits), pack(queries, bits)
    expected = numbers.astype(np.float32) * stored_inverse(rows).astype(np.float32)
    expected *= (stored_inverse(asked) * unit_scale(m) * unit_scale(m))[:, None]
    for kernel in KERNELS:
        if kernel == "int8" and bits == 3:
            continue  # as the others; spares importing torch twice
        index = index_of(kernel, m, bits)
        index.add(rows)
        scores, found = index.search(asked, 40, threads=1)
        assert np.array_equal(scores, np.take_along_axis(expected, found, 1)), kernel


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("m", "bits"), [(64, 1), (50, 2), (64, 4)])
@pytest.mark.parametrize("symmetric", [True, False], ids=["codes", "vectors"])
def test_kernels_find_the_same_rows(kernel: str, m: int, bits: int, symmetric: bool) -> None:
    documents = levels_of(1_500, m, bits, seed=1)
    rows, index = pack(documents, bits), index_of(kernel, m, bits)
    for part in (rows[:3], rows[3:600], rows[600:]):
        index.add(part)
    numbers = (2.0 * documents - (2**bits - 1)).astype(np.float32)
    if symmetric:
        levels = levels_of(8, m, bits, seed=2)
        asked, values = pack(levels, bits), (2.0 * levels - (2**bits - 1)).astype(np.float32)
    else:
        asked = values = np.random.default_rng(3).normal(size=(8, m)).astype(np.float32)
    exact = (values @ numbers.T) * stored_inverse(rows).astype(np.float32)
    allowed = np.random.default_rng(4).random(len(rows)) < 0.2
    for mask in (None, allowed):
        among = exact if mask is None else np.where(mask, exact, -np.inf)
        best = -np.sort(-among, axis=1)[:, :10]
        for threads in (1, 3):
            found = index.search(asked, 10, allowed=mask, threads=threads)[1]
            assert (found >= 0).all()
            agree = np.isclose(np.take_along_axis(among, found, 1), best, rtol=1e-5)
            assert agree.mean() >= (0.97 if kernel == "pqfs" else 1.0)  # its candidates come without their norms


@pytest.mark.parametrize("kernel", ["popcount", "plain popcount", "numpy", "int8"])
def test_wide_codes_overflow_nowhere(kernel: str) -> None:
    m, bits = 4_096, 4
    same = np.full((2, m), 15, np.uint8)
    same[1] = 0
    index = index_of(kernel, m, bits)
    index.add(pack(same, bits))
    scores, rows = index.search(pack(same[:1], bits), 2)  # products of 225 * 4096 and its negative: beyond 16 bits
    assert rows.tolist() == [[0, 1]]
    assert np.allclose(scores, [[1, -1]], atol=1e-3)
    mixed = levels_of(300, m, bits, seed=1)
    fresh = index_of(kernel, m, bits)
    fresh.add(pack(mixed, bits))
    assert fresh.search(pack(mixed[:20], bits), 1)[1][:, 0].tolist() == list(range(20))


def test_look_ups_refuse_what_they_would_get_wrong() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(InputError, match="pqfs"):
        SDCIndex(4_096, 4, kernel="pqfs")


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_come_in_the_order_of_rows(kernel: str) -> None:
    index = index_of(kernel, 16, 1)
    rows = pack(np.tile(levels_of(2, 16, 1, seed=1), (50, 1)), 1)
    index.add(rows)
    found = index.search(rows[:1], 5)[1]
    assert found.tolist() == [[0, 2, 4, 6, 8]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_fewer_rows_than_asked_for(kernel: str) -> None:
    index = index_of(kernel, 16, 2)
    rows = pack(levels_of(5, 16, 2, seed=1), 2)
    assert index.search(rows[:2], 3)[1].tolist() == [[-1] * 3] * 2
    index.add(rows)
    none = np.zeros(5, bool)
    for allowed, there in ((None, 5), (np.arange(5) < 2, 2), (none, 0)):
        scores, found = index.search(rows[:2], 7, allowed=allowed)
        assert (found >= 0).sum(axis=1).tolist() == [there, there]
        assert np.isneginf(scores[found < 0]).all()
    assert index.search(rows[:0], 3)[0].shape == (0, 3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_codes_of_other_shapes_are_refused(kernel: str) -> None:
    index = index_of(kernel, 16, 2)
    rows = pack(levels_of(5, 16, 2, seed=1), 2)
    for wrong in (rows[:, :-1], rows.astype(np.int32), pack(levels_of(5, 16, 4, seed=1), 4), rows[0]):
        with pytest.raises(CodecError, match="16 coordinates of 2 bits"):
            index.add(wrong)
    index.add(rows)
    calls: list[Callable[[], object]] = [
        lambda: index.search(np.zeros((1, 15), np.float32), 1),
        lambda: index.search(np.full((1, 16), np.nan, np.float32), 1),
        lambda: index.search(rows, 0),
        lambda: index.search(rows, 1, allowed=np.ones(4, bool)),
        lambda: index.search(rows, 1, threads=0),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()
    with pytest.raises(CodecError):
        index.search(rows[:, :-1], 1)


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'popcount'"):
        SDCIndex(8, 1, kernel="popcnt")  # type: ignore[arg-type]


def test_nothing_scores_nothing() -> None:
    levels = levels_of(4, 16, 2, seed=1)
    rows = pack(levels, 2, zero=np.array([True, False, False, False]))
    index = SDCIndex(16, 2)
    index.add(rows)
    scores, found = index.search(rows[:2], 4)
    assert (scores[0] == 0).all()
    assert scores[1][found[1] == 0].tolist() == [0.0]


def test_the_compiler_is_called_when_waiting_has_cost_as_much() -> None:
    kernel = PopcountKernel(64, 1)
    if not kernel.compiled:
        pytest.skip("numba is not installed")
    index = SDCIndex(64, 1, kernel="popcount")
    index.add(pack(levels_of(700, 64, 1, seed=1), 1))
    before = index._kernel.patience_s  # type: ignore[attr-defined]
    first = index.search(pack(levels_of(2, 64, 1, seed=2), 1), 3)
    index._kernel.patience_s = 0.0  # type: ignore[attr-defined]
    second = index.search(pack(levels_of(2, 64, 1, seed=2), 1), 3)
    assert before > 1
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_the_byte_kernel_needs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match="train"):
        Int8Kernel(8, 1)


def test_threads_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of(None) == 3
    assert threads_of(2) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_of(None) >= 1
