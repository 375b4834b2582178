"""How the weight of negatives moves during training: three rules, and the neutral one they all extend."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from embedlab._core.errors import InputError, unknown_name


class Modulator(nn.Module):
    """Decide what a negative, and what a row, counts for at this point of the training. This one: all the same.

    ``logits`` and ``weights`` read the state and ``advance`` alone changes it, once per batch, so that all chunks of a
    batch see the same. The state is in buffers, and so in the loss' ``state_dict``.
    """

    weighs_rows: ClassVar[bool] = False  # whether `weights` needs the losses of all rows beforehand

    def logits(self, cosines: Tensor, negative: Tensor, hard: Tensor, scale: float) -> Tensor:
        """Turn cosines into logits.

        Args:
            cosines: Of each row's query with every candidate.
            negative: Where the candidate is a negative of the row.
            hard: Where it is a hard one: nearer than the row's positive, with a cosine above 0.
            scale: One over the temperature.

        Shape:
            cosines (B, N) float, negative (B, N) bool, hard (B, N) bool -> (B, N) float

        Returns:
            The logits; those of the positives are ``cosines * scale``.
        """
        return cosines * scale

    def weights(self, difficulty: Tensor) -> Tensor:
        """Turn the losses of all rows, of all processes, into what each row counts for.

        Args:
            difficulty: Loss of each row, without gradient.

        Shape:
            difficulty (B,) float -> (B,) float

        Returns:
            The weights, 1 on average unless capped.
        """
        return torch.ones_like(difficulty)

    def advance(self, positive: Tensor) -> None:
        """Go on by one batch.

        Args:
            positive: Mean cosine of the batch's queries with their own positives, over all processes.

        Shape:
            positive () float
        """

    def state(self) -> dict[str, float]:
        """Give the numbers that move, for logs and checkpoints."""
        return {name: buffer.item() for name, buffer in self.named_buffers()}

    def config(self) -> dict[str, float]:
        """Give the settings, for the model card."""
        return {}


class AdaptiveCurriculum(Modulator):
    """Play hard negatives down while positives are poorly aligned, and up when they are aligned.

    The cosine ``c`` of a hard negative becomes ``c * (t + c)``, other negatives keep theirs. ``t`` follows the mean
    cosine of the positives: ``t <- rate * mean_i(c_ii) + (1 - rate) * t``, from 0, within [0, 1], without gradient. A
    hard negative weighs less than under InfoNCE while ``t + c < 1``, and more from then on.

    Args:
        rate: How fast ``t`` follows, in (0, 1]. (CurricularFace: 0.01.)
    """

    t: Tensor

    def __init__(self, *, rate: float = 0.01) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise InputError(f"rate={rate}: must be above 0 and at most 1")
        self.rate = rate
        self.register_buffer("t", torch.zeros(()))

    def logits(self, cosines: Tensor, negative: Tensor, hard: Tensor, scale: float) -> Tensor:
        # below 0 the product would turn a negative's sign around; `hard` leaves those out
        return torch.where(hard, cosines * (self.t + cosines), cosines) * scale

    def advance(self, positive: Tensor) -> None:
        self.t.lerp_(positive.detach().to(self.t), self.rate).clamp_(0, 1)

    def config(self) -> dict[str, float]:
        return {"rate": self.rate}


class _Scheduled(Modulator):
    """A strength that goes from ``start`` to ``end`` in ``steps`` batches, linearly, and then stays."""

    step: Tensor

    def __init__(self, start: float, end: float, steps: int) -> None:
        super().__init__()
        for name, value in (("start", start), ("end", end)):
            if not math.isfinite(value):
                raise InputError(f"{name}={value}: must be a finite number")
        if steps < 1:
            raise InputError(f"steps={steps}: must be at least 1")
        self.start, self.end, self.steps = start, end, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def strength(self) -> float:
        return between(self.start, self.end, self.steps, int(self.step))

    def advance(self, positive: Tensor) -> None:
        self.step.add_(1)

    def state(self) -> dict[str, float]:
        return {**super().state(), "strength": self.strength}

    def config(self) -> dict[str, float]:
        return {"start": self.start, "end": self.end, "steps": self.steps}


class ScheduledWeights(_Scheduled):
    """Weigh rows by how hard they are: easy ones first, hard ones later.

    A row's difficulty ``h_i`` is its own loss, without gradient; it weighs ``w_i = B * softmax_i(g * h_i)``, at most
    ``cap``, with ``g`` rising from ``start`` to ``end``. ``g = 0`` is plain InfoNCE.

    Args:
        start: First ``g``; below 0 prefers easy rows.
        end: Last ``g``; above 0 prefers hard rows.
        steps: Batches from the first to the last, at least 1.
        cap: Largest weight of a row, above 0: a mislabelled pair stays the hardest forever.
    """

    weighs_rows = True

    def __init__(self, *, start: float = -0.5, end: float = 0.5, steps: int = 1000, cap: float = 5.0) -> None:
        super().__init__(start, end, steps)
        if not cap > 0:
            raise InputError(f"cap={cap}: must be above 0")
        self.cap = cap

    def weights(self, difficulty: Tensor) -> Tensor:
        return (len(difficulty) * (self.strength * difficulty).softmax(0)).clamp(max=self.cap)

    def config(self) -> dict[str, float]:
        return {**super().config(), "cap": self.cap}


class ScheduledHardness(_Scheduled):
    """Add to every negative's logit its own cosine, times a strength that rises.

    ``z = c / tau + alpha * stopgrad(c)``: the host's ``hardness_mode="all_negatives"``, with ``alpha`` scheduled.

    Args:
        start: First ``alpha``; below 0 prefers easy negatives.
        end: Last ``alpha``. Published elsewhere: 5 to 9.
        steps: Batches from the first to the last, at least 1.
    """

    def __init__(self, *, start: float = 0.0, end: float = 5.0, steps: int = 1000) -> None:
        super().__init__(start, end, steps)

    def logits(self, cosines: Tensor, negative: Tensor, hard: Tensor, scale: float) -> Tensor:
        return cosines * scale + self.strength * cosines.detach() * negative


MODULATORS: dict[str, type[Modulator]] = {
    "adaptive": AdaptiveCurriculum,
    "sample_weight": ScheduledWeights,
    "hardness": ScheduledHardness,
}


def modulator_of(given: Modulator | str | None) -> Modulator:
    """Give the modulator itself, one of that name with its defaults, or the neutral one.

    Args:
        given: A modulator, a name of ``MODULATORS``, or None.

    Returns:
        The modulator.

    Raises:
        InputError: there is none of this name; the message suggests the nearest.
    """
    if isinstance(given, Modulator):
        return given
    if given is None:
        return Modulator()
    if given not in MODULATORS:
        raise unknown_name("modulator", str(given), MODULATORS)
    return MODULATORS[given]()


def between(start: float, end: float, steps: int, step: int) -> float:
    """Give the value of a linear schedule at a step; before 0 and after ``steps`` it stays.

    Args:
        start: Value at step 0.
        end: Value from step ``steps`` on.
        steps: Steps from the one to the other, at least 1.
        step: The step.

    Returns:
        The value.

    Example:
        >>> [between(1.0, 3.0, 4, step) for step in (0, 1, 4, 9)]
        [1.0, 1.5, 3.0, 3.0]
    """
    return start + (end - start) * min(max(step, 0) / steps, 1.0)
