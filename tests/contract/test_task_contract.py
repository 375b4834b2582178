"""The task contract accepts a nearest-neighbour task, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import task as kind
from embedlab.testing.contract import Make
from embedlab.testing.task import CONTRACT, Encode, TaskExample

Check = Callable[[Make[TaskExample]], None]

LABELS = np.arange(120) % 4
TEXTS = [f"text {number} of class {label}" for number, label in enumerate(LABELS)]


def nearest_agrees(encode: Encode, top_k: int = 1) -> float:
    """Fraction of texts whose nearest other text is of the same class."""
    if top_k < 1:
        raise InputError(f"top_k={top_k} must be at least 1")
    rows = encode(TEXTS)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -2)
    return float((LABELS[cosines.argmax(axis=1)] == LABELS).mean())


def oracle(texts: Sequence[str]) -> NDArray[Any]:
    return np.eye(4)[[int(text[-1]) for text in texts]]


def good(seed: int) -> TaskExample:
    return TaskExample(
        evaluate=nearest_agrees,
        oracle=oracle,
        texts=TEXTS,
        chance=29 / 119,
        tolerance=0.08,
        top=1.0,
        refuses=(Refusal(lambda: nearest_agrees(oracle, top_k=0), says="top_k"),),
    )


def instead(evaluate: Callable[[Encode], float]) -> Make[TaskExample]:
    return lambda seed: replace(good(seed), evaluate=evaluate)


calls = iter(range(1000))
BROKEN = [
    (kind.check_random_at_chance, instead(lambda encode: nearest_agrees(encode) / 2)),
    (kind.check_oracle_at_top, instead(lambda encode: nearest_agrees(encode) * 0.9)),
    (kind.check_oracle_at_top, lambda seed: replace(good(seed), top=0.3)),
    (kind.check_bounds, instead(lambda encode: 100 * nearest_agrees(encode))),
    (kind.check_deterministic, instead(lambda encode: nearest_agrees(encode) + 1e-9 * next(calls))),
    (kind.check_scale, instead(lambda encode: nearest_agrees(encode) + 0.01 * float(np.abs(encode(TEXTS)).max()))),
    (kind.check_refuses, lambda seed: replace(good(seed), refuses=())),
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
