"""The probe contract accepts a mean cosine written plainly, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import probe as kind
from embedlab.testing.contract import Make
from embedlab.testing.probe import CONTRACT, KnownValue, ProbeExample

Check = Callable[[Make[ProbeExample]], None]
Array = NDArray[Any]


def mean_cosine(vectors: Array, *, power: int = 1) -> Array:
    """Mean cosine of each row with all rows."""
    if power < 1:
        raise InputError(f"power={power} must be at least 1")
    if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():
        raise InputError(f"vectors of shape {vectors.shape} must be finite, (N, D) with N >= 1")
    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return np.asarray((units @ units.T).mean(axis=1) ** power)


def good(seed: int) -> ProbeExample:
    return ProbeExample(
        compute=mean_cosine,
        inputs=(np.random.default_rng(seed).normal(size=(12, 4)),),
        numbers=lambda result: result,
        bounds=(-1.0, 1.0),
        known=(KnownValue((np.ones((3, 2)),), [1.0, 1.0, 1.0], "equal rows: every cosine is 1"),),
        refuses=(Refusal(lambda: mean_cosine(np.ones((2, 2)), power=0), says="power"),),
        rows="each",
        tie_rule="equal rows have equal means",
    )


def instead(compute: Callable[..., Any], **changes: Any) -> Make[ProbeExample]:
    return lambda seed: replace(good(seed), compute=compute, **changes)


def in_place(vectors: Array) -> Array:
    result = mean_cosine(vectors)
    vectors *= 2
    return result


def seeding(vectors: Array) -> Array:
    np.random.default_rng(0)
    np.random.random()  # noqa: NPY002 - what must not be done
    return mean_cosine(vectors)


counter = iter(range(1000))
BROKEN = [
    (kind.check_known_values, instead(lambda x: mean_cosine(x) / 2)),
    (kind.check_known_values, lambda seed: replace(good(seed), known=())),
    (kind.check_range, instead(lambda x: mean_cosine(x) * 5)),
    (kind.check_range, instead(lambda x: mean_cosine(x) * np.nan)),
    (kind.check_typed, instead(lambda x: mean_cosine(x).tolist())),
    (kind.check_row_order, instead(lambda x: mean_cosine(x) + np.arange(len(x)))),
    (kind.check_row_order, instead(lambda x: mean_cosine(x)[:1], rows="together")),
    (kind.check_deterministic, instead(lambda x: mean_cosine(x) + 1e-12 * next(counter))),
    (kind.check_inputs_untouched, instead(in_place)),
    (kind.check_inputs_untouched, instead(seeding)),
    (kind.check_float32_agrees, instead(lambda x: mean_cosine(x) + (x.dtype == np.float32))),
    (kind.check_bad_vectors_refused, instead(lambda x: mean_cosine(np.nan_to_num(x)))),
    (kind.check_bad_vectors_refused, instead(lambda x: x.mean(axis=1) if np.isnan(x).any() else mean_cosine(x))),
    (kind.check_tie_rule, lambda seed: replace(good(seed), tie_rule=" ")),
    (kind.check_tie_rule, instead(lambda x: mean_cosine(x) + 0.1 * np.arange(len(x)))),
    (kind.check_refuses, lambda seed: replace(good(seed), refuses=())),
    (kind.check_refuses, lambda seed: replace(good(seed), refuses=(Refusal(lambda: None, says="x"),))),
    (kind.check_refuses, lambda seed: replace(good(seed), refuses=(Refusal(lambda: 1 / 0, says="x"),))),
]


@pytest.mark.parametrize("check", CONTRACT.checks, ids=lambda check: check.__name__)
def test_the_reference_passes(check: Check) -> None:
    check(good)


@pytest.mark.parametrize(("check", "broken"), BROKEN, ids=lambda item: getattr(item, "__name__", None))
def test_a_broken_one_is_rejected(check: Check, broken: Make[Any]) -> None:
    with pytest.raises(ContractViolation):
        check(broken)


def test_every_check_can_fail() -> None:
    assert {check for check, _ in BROKEN} == set(CONTRACT.checks)
