"""The trainer contract accepts a resumable gradient descent, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import trainer as kind
from embedlab.testing.contract import Make
from embedlab.testing.trainer import CONTRACT, Train, Trained, TrainerExample

Check = Callable[[Make[TrainerExample]], None]
Array = NDArray[Any]

STEPS = 10


def descend(data: Array, folder: Path, *, seed: int, max_steps: int, rate: float = 0.2, batch: int = 4) -> Trained:
    """Fit the mean of the data by stochastic gradient descent, keeping its place in the folder."""
    if rate <= 0:
        raise InputError(f"rate={rate} must be above 0")
    kept, done = folder / "weights.npy", 0
    weights = np.random.default_rng(seed).normal(size=data.shape[1]) + 5
    if kept.exists():
        done, *values = np.load(kept)
        weights = np.array(values)
    losses = []
    for step in range(int(done), max_steps):
        rows = data[np.random.default_rng((seed, step)).integers(len(data), size=batch)]
        losses.append(float(((weights - rows) ** 2).mean()))
        weights = weights - rate * (weights - rows.mean(axis=0))
    np.save(kept, np.array([max_steps, *weights]))
    return Trained({"weights": weights}, max_steps, max_steps * batch, tuple(losses))


def good(seed: int) -> TrainerExample:
    data = np.random.default_rng(seed).normal(size=(20, 3))
    return TrainerExample(
        train=partial(descend, data),
        baseline=partial(descend, data, rate=0.1),
        steps=STEPS,
        data=data,
        refuses=(Refusal(lambda: descend(data, Path(), seed=0, max_steps=1, rate=0), says="rate"),),
    )


def instead(change: Callable[..., Trained]) -> Make[TrainerExample]:
    """Make examples whose training is ``change(usual training, folder, seed, max_steps)``."""

    def make(seed: int) -> TrainerExample:
        made = good(seed)
        usual: Train = made.train
        return replace(made, train=lambda folder, *, seed, max_steps: change(usual, folder, seed, max_steps))

    return make


def climbing(train: Train, folder: Path, seed: int, max_steps: int) -> Trained:
    done = train(folder, seed=seed, max_steps=max_steps)
    return replace(done, losses=done.losses[::-1])


def seedless(train: Train, folder: Path, seed: int, max_steps: int) -> Trained:
    return train(folder, seed=0, max_steps=max_steps)


def restless(train: Train, folder: Path, seed: int, max_steps: int) -> Trained:
    return train(folder, seed=seed + next(calls), max_steps=max_steps)


def forgetful(train: Train, folder: Path, seed: int, max_steps: int) -> Trained:
    (folder / "weights.npy").unlink(missing_ok=True)
    return train(folder, seed=seed, max_steps=max_steps)


def drawing(train: Train, folder: Path, seed: int, max_steps: int) -> Trained:
    np.random.random()  # noqa: NPY002 - what must not be done
    return train(folder, seed=seed, max_steps=max_steps)


def hungry(seed: int) -> TrainerExample:
    made = good(seed)
    return replace(made, baseline=partial(descend, made.data, batch=2))


def spoiling(seed: int) -> TrainerExample:
    made = good(seed)

    def train(folder: Path, *, seed: int, max_steps: int) -> Trained:
        np.multiply(made.data, 2, out=made.data)
        return made.train(folder, seed=seed, max_steps=max_steps)

    return replace(made, train=train)


calls = iter(range(1000))
BROKEN = [
    (kind.check_learns, instead(climbing)),
    (kind.check_seeded, instead(seedless)),
    (kind.check_seeded, instead(restless)),
    (kind.check_resumable, instead(forgetful)),
    (kind.check_equal_budget, hungry),
    (kind.check_inputs_untouched, instead(drawing)),
    (kind.check_inputs_untouched, spoiling),
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
