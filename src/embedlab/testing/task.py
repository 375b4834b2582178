"""Kind ``task``: an evaluation task.

Promise: random vectors score at chance, an oracle near the top; the same model always gets the same score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab.testing.contract import Contract, Make, Refusal, check_refuses, demand, random_state_kept

Encode = Callable[[Sequence[str]], NDArray[Any]]  # texts -> (N, D)


@dataclass(frozen=True, slots=True)
class TaskExample:
    """A task with two encoders whose scores are known beforehand.

    Attributes:
        evaluate: Gives the main score of an encoder, in [0, 1], larger is better.
        oracle: Encodes with knowledge of the answers.
        texts: Every text that the task encodes.
        chance: Score of an encoder that knows nothing.
        tolerance: How far from chance the mean over five random encoders may lie.
        top: Score that the oracle must reach.
        refuses: Bad values and what they must raise.
    """

    evaluate: Callable[[Encode], float]
    oracle: Encode
    texts: Sequence[str]
    chance: float
    tolerance: float
    top: float
    refuses: tuple[Refusal, ...]


def check_random_at_chance(make: Make[TaskExample]) -> None:
    """Random vectors, one per text, score at chance."""
    example = make(0)
    scores = [example.evaluate(_random_encoder(example, seed)) for seed in range(5)]
    gap = abs(float(np.mean(scores)) - example.chance)
    demand(gap <= example.tolerance, f"random vectors score {np.mean(scores):.3f}, chance is {example.chance:.3f}")


def check_oracle_at_top(make: Make[TaskExample]) -> None:
    """An encoder that knows the answers reaches the top."""
    example = make(0)
    score = example.evaluate(example.oracle)
    demand(score >= example.top, f"the oracle scores {score:.3f}, at least {example.top:.3f} is expected")
    demand(example.top > example.chance + example.tolerance, "top is not above chance: the task can tell nothing apart")


def check_bounds(make: Make[TaskExample]) -> None:
    """Scores lie in [0, 1]."""
    example = make(0)
    for encode in (example.oracle, _random_encoder(example, 0)):
        score = example.evaluate(encode)
        demand(0 <= score <= 1, f"the score {score} is outside [0, 1]")


def check_deterministic(make: Make[TaskExample]) -> None:
    """One encoder gets one score, and the global random states are left as they were."""
    example = make(0)
    encode = _random_encoder(example, 0)
    with random_state_kept("evaluating"):
        first = example.evaluate(encode)
    demand(first == make(0).evaluate(encode), "two evaluations of one encoder differ")


def check_scale(make: Make[TaskExample]) -> None:
    """Vectors of twice the length score the same: a task compares directions."""
    example = make(0)
    encode = _random_encoder(example, 0)
    gap = abs(example.evaluate(lambda texts: 2.0 * encode(texts)) - example.evaluate(encode))
    demand(gap < 1e-6, f"doubling all vectors changes the score by {gap:.3g}")


def _random_encoder(example: TaskExample, seed: int) -> Encode:
    rows = np.random.default_rng(seed).normal(size=(len(example.texts), 16)).astype(np.float32)
    table = dict(zip(example.texts, rows, strict=True))
    return lambda texts: np.stack([table[text] for text in texts])


CONTRACT = Contract(
    "task",
    TaskExample,
    (check_random_at_chance, check_oracle_at_top, check_bounds, check_deterministic, check_scale, check_refuses),
)
