"""The concept contract accepts an added offset on a toy pipeline, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import concept as kind
from embedlab.testing.concept import CONTRACT, ConceptExample
from embedlab.testing.contract import Make

Check = Callable[[Make[ConceptExample]], None]
Array = NDArray[Any]


class Pipeline:
    """Draws the product of its two parameters, squeezed into [0, 1]."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.weights = {"text.rows": rng.normal(size=(4, 3)), "unet.mix": rng.normal(size=(4, 4))}

    def draw(self) -> Array:
        pixels = self.weights["unet.mix"] @ self.weights["text.rows"]
        return np.asarray(1 / (1 + np.exp(-pixels)))[:, None, :]


@dataclass
class Offset:
    """The rows to put in place, and those that were there."""

    rows: Array
    kept: Array | None = None


def learn(pipeline: Pipeline, strength: float = 1.0) -> Offset:
    if strength <= 0:
        raise InputError(f"strength={strength} must be above 0")
    return Offset(pipeline.weights["text.rows"] + strength)


def enable(pipeline: Pipeline, concept: Offset) -> None:
    concept.kept = pipeline.weights["text.rows"].copy()
    pipeline.weights["text.rows"] = concept.rows.copy()


def disable(pipeline: Pipeline, concept: Offset) -> None:
    if concept.kept is not None:
        pipeline.weights["text.rows"] = concept.kept


def good(seed: int) -> ConceptExample:
    return ConceptExample(
        pipeline=Pipeline(seed),
        parameters=lambda pipeline: pipeline.weights,
        changes=("text.",),
        learn=learn,
        enable=enable,
        disable=disable,
        draw=lambda pipeline: pipeline.draw(),
        save=lambda concept, folder: np.save(folder / "rows.npy", concept.rows),
        load=lambda folder: Offset(np.load(folder / "rows.npy")),
        refuses=(Refusal(lambda: learn(Pipeline(0), strength=0), says="strength"),),
    )


def instead(**changes: Any) -> Make[ConceptExample]:
    return lambda seed: replace(good(seed), **changes)


def learn_in_place(pipeline: Pipeline) -> Offset:
    pipeline.weights["unet.mix"] += 1
    return learn(pipeline)


def enable_too_much(pipeline: Pipeline, concept: Offset) -> None:
    enable(pipeline, concept)
    pipeline.weights["unet.mix"] = pipeline.weights["unet.mix"] * 2


def subtract(pipeline: Pipeline, concept: Offset) -> None:
    pipeline.weights["text.rows"] = concept.rows - 1.0 + 1e-12


def load_other(folder: Path) -> Offset:
    return Offset(np.load(folder / "rows.npy") + 1)


calls = iter(range(1000))
BROKEN = [
    (kind.check_learning_leaves_pipeline, instead(learn=learn_in_place)),
    (kind.check_only_named_change, instead(enable=enable_too_much)),
    (kind.check_only_named_change, instead(enable=lambda pipeline, concept: None)),
    (kind.check_has_effect, instead(enable=lambda pipeline, concept: None)),
    (kind.check_has_effect, instead(draw=lambda pipeline: pipeline.draw() * 255)),
    (kind.check_disable_restores, instead(disable=subtract)),
    (kind.check_reload, instead(load=load_other)),
    (kind.check_seeded, instead(learn=lambda pipeline: learn(pipeline, 1.0 + next(calls)))),
    (kind.check_refuses, instead(refuses=())),
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
