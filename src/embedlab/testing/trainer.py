"""Kind ``trainer``: data and a model in, a trained model out.

Promise: seeded; resumable; it learns; beside it a baseline arm that gets the same budget.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedlab.testing.contract import (
    Contract,
    Make,
    Refusal,
    check_refuses,
    demand,
    frozen_copy,
    random_state_kept,
    same_bits,
)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run left behind.

    Attributes:
        weights: Name -> values of everything that was trained.
        steps: Optimiser steps made since the very beginning.
        samples: Training samples seen since the very beginning.
        losses: Training loss, step by step, of the part that this call ran.
    """

    weights: Mapping[str, NDArray[Any]]
    steps: int
    samples: int
    losses: tuple[float, ...]


class Train(Protocol):
    """Trains up to ``max_steps`` steps in all, going on from what ``folder`` holds, if anything."""

    def __call__(self, folder: Path, *, seed: int, max_steps: int) -> Trained: ...


@dataclass(frozen=True, slots=True)
class TrainerExample:
    """A training method with data small enough for ten steps in a second.

    Attributes:
        train: The method. Called on a folder where an earlier call stopped, it goes on from there.
        baseline: The arm it is compared with, on the same data.
        steps: Steps that a full run takes, even and at least 8.
        data: The data, to see that it is left alone.
        refuses: Bad values and what they must raise.
    """

    train: Train
    baseline: Train
    steps: int
    data: Any
    refuses: tuple[Refusal, ...]


def check_learns(make: Make[TrainerExample]) -> None:
    """The loss is finite all along and lower in the second half than in the first."""
    example = make(0)
    losses = np.array(_run(example.train, example.steps).losses)
    demand(len(losses) == example.steps, f"{len(losses)} losses for {example.steps} steps")
    demand(np.isfinite(losses).all(), "the loss is not finite")
    first, second = np.split(losses, 2)
    demand(second.mean() < first.mean(), f"the loss did not fall: {first.mean():.4g} -> {second.mean():.4g}")


def check_seeded(make: Make[TrainerExample]) -> None:
    """One seed gives one result to the last bit, and another seed another."""
    example = make(0)
    first, again, other = (_run(make(0).train, example.steps, seed=seed) for seed in (0, 0, 1))
    demand(same_bits(dict(first.weights), dict(again.weights)), "two runs with one seed give different weights")
    demand(not same_bits(dict(first.weights), dict(other.weights)), "the seed has no effect")


def check_resumable(make: Make[TrainerExample]) -> None:
    """Stopped half-way and taken up again, it ends where an uninterrupted run ends."""
    example = make(0)
    whole = _run(example.train, example.steps)
    with tempfile.TemporaryDirectory() as folder:
        half = make(0).train(Path(folder), seed=0, max_steps=example.steps // 2)
        demand(half.steps == example.steps // 2, f"asked for {example.steps // 2} steps, made {half.steps}")
        rest = make(0).train(Path(folder), seed=0, max_steps=example.steps)
    demand(rest.steps == example.steps, f"after resuming, {rest.steps} steps are reported, not {example.steps}")
    demand(len(rest.losses) == example.steps - half.steps, "resuming ran steps again that were done")
    demand(same_bits(dict(whole.weights), dict(rest.weights)), "a resumed run ends at other weights")


def check_equal_budget(make: Make[TrainerExample]) -> None:
    """The baseline makes as many steps on as many samples."""
    example = make(0)
    ours, theirs = _run(example.train, example.steps), _run(make(0).baseline, example.steps)
    demand(ours.steps == theirs.steps == example.steps, f"steps: {ours.steps} against {theirs.steps} of the baseline")
    demand(ours.samples == theirs.samples, f"samples: {ours.samples} against {theirs.samples} of the baseline")


def check_inputs_untouched(make: Make[TrainerExample]) -> None:
    """The data and the global random states are left as they were."""
    example = make(0)
    before = frozen_copy(example.data)
    with random_state_kept("training"):
        _run(example.train, example.steps)
    demand(same_bits(before, frozen_copy(example.data)), "training changed its data")


def _run(train: Train, steps: int, *, seed: int = 0) -> Trained:
    with tempfile.TemporaryDirectory() as folder:
        return train(Path(folder), seed=seed, max_steps=steps)


CONTRACT = Contract(
    "trainer",
    TrainerExample,
    (check_learns, check_seeded, check_resumable, check_equal_budget, check_inputs_untouched, check_refuses),
)
