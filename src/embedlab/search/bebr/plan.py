"""How a binariser is trained, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedlab._core.errors import InputError


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of a training run; the defaults are the published ones.

    Attributes:
        epochs: Times that every pair is seen, at least 1.
        batch_size: Pairs in a step, at least 2; fewer where there are not as many.
        steps: Steps to take instead of ``epochs``, or None; 0 keeps the start.
        learning_rate: Of stochastic gradient descent with Nesterov momentum; a tenth after ``decay_at``.
        momentum: In [0, 1).
        weight_decay: On matrices alone.
        decay_at: Share of the run after which the learning rate falls, in [0, 1].
        clip: Largest norm of the gradient.
        temperature: Above 0. (paper: tau)
        negatives: Hard negatives per anchor, at least 1.
        distillation: Weight of keeping the neighbourhoods of the vectors, from 0 on; without pairs it is all there is.
        queue: Earlier vectors that are negatives too, encoded by a slow copy of the binariser; 0 for none.
        slowness: How little of each step the slow copy takes over, in [0, 1).
        signs: False trains the floats that the first signs are taken of, the reference without binarisation.
        budget_s: Longest time in seconds; results then depend on the machine. None for no limit.
    """

    epochs: int = 10
    batch_size: int = 4096
    steps: int | None = None
    learning_rate: float = 0.08
    momentum: float = 0.9
    weight_decay: float = 1e-3
    decay_at: float = 0.6
    clip: float = 5.0
    temperature: float = 0.05
    negatives: int = 5
    distillation: float = 0.0
    queue: int = 0
    slowness: float = 0.99
    signs: bool = True
    budget_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        least = {"epochs": 1, "batch_size": 2, "negatives": 1, "queue": 0, "distillation": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"{name}={getattr(self, name)!r} must be at least {low}")
        for name in ("learning_rate", "temperature", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name}={getattr(self, name)!r} must be a finite number above 0")
        for name in ("momentum", "slowness", "decay_at"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)!r} must be in [0, 1]")
        if self.steps is not None and self.steps < 0:
            raise InputError(f"steps={self.steps} must be at least 0, or None to go by epochs")
        if self.budget_s is not None and not self.budget_s > 0:
            raise InputError(f"budget_s={self.budget_s} must be above 0 seconds, or None for no limit")

    def num_steps(self, num_rows: int) -> int:
        """Return the number of steps for so many rows.

        Args:
            num_rows: Rows to train on.

        Returns:
            The number.
        """
        return self.epochs * max(1, num_rows // self.batch_size) if self.steps is None else self.steps


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What training did, by development data; task and old are NaN where there was nothing to judge them by.

    Attributes:
        kept: Whether a trained state is better than the start; otherwise the start is what is used.
        steps: Steps taken; 0 where there was too little data to train and to judge.
        seconds: Time taken.
        fidelity_start: Share of the ten nearest vectors that the start finds.
        fidelity: The same for what is used.
        task_start: Mean reciprocal rank of the own document at the start.
        task: The same for what is used.
        old_start: Mean reciprocal rank of the own document among old codes at the start.
        old: The same for what is used.
        losses: Loss of every step.
    """

    kept: bool
    steps: int
    seconds: float
    fidelity_start: float
    fidelity: float
    task_start: float
    task: float
    old_start: float
    old: float
    losses: tuple[float, ...]
