"""Callbacks of the host's trainer: one keeps and logs a modulator's state, one schedules the host's own hardness."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from embedlab._core.errors import InputError
from embedlab.text.progressive.loss import ProgressiveContrastiveLoss
from embedlab.text.progressive.modulators import between


class KeepProgress(TrainerCallback, ExportableState):
    """Log how far the modulator is, and take it up again where a resumed run stopped.

    The trainer saves the model with a checkpoint, not the loss. This puts the modulator's few numbers into the
    ``trainer_state.json`` of each checkpoint, reads them from there on resuming, and adds ``loss.measures()`` to the
    logs.

    Args:
        loss: The loss that is trained with.

    Raises:
        InputError: ``loss`` is of another kind.
    """

    def __init__(self, loss: ProgressiveContrastiveLoss) -> None:
        if not isinstance(loss, ProgressiveContrastiveLoss):
            raise InputError(f"loss is a {type(loss).__name__}: expected a ProgressiveContrastiveLoss")
        self.loss = loss

    def state(self) -> dict[str, Any]:
        # the host asks for it whenever it writes a checkpoint
        return {"args": {}, "attributes": {k: v.item() for k, v in self.loss.modulator.named_buffers()}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        saved: Any = state.stateful_callbacks
        kept = saved.get(type(self).__name__) if state.global_step and saved else None
        if kept is not None:
            with torch.no_grad():
                for name, buffer in self.loss.modulator.named_buffers():
                    buffer.fill_(kept["attributes"][name])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or "loss" not in logs:  # of an evaluation, or the summary at the end
            return
        measured = self.loss.measures()
        logs.update(measured)
        state.log_history[-1].update(measured)  # made of the logs before this was called


class HardnessSchedule(TrainerCallback):
    """Raise the host's ``hardness_strength`` during training, linearly, following the trainer's step.

    For ``MultipleNegativesRankingLoss`` and its cached form, with a ``hardness_mode``. A resumed run goes on with the
    schedule by itself. ``ScheduledHardness`` is the same as a modulator of ``ProgressiveContrastiveLoss``.

    Args:
        loss: A loss with ``hardness_strength`` and a ``hardness_mode``.
        start: First strength, from 0.
        end: Last strength, from 0. Published for losses of the host: 5 to 9.
        steps: Optimiser steps from the first to the last, at least 1.

    Raises:
        InputError: an argument is out of range, or the loss has no hardness to schedule.
    """

    def __init__(self, loss: nn.Module, *, start: float = 0.0, end: float = 5.0, steps: int = 1000) -> None:
        if getattr(loss, "hardness_mode", None) is None:
            raise InputError(f"loss is a {type(loss).__name__} without hardness: give it a hardness_mode of the host")
        for name, value in (("start", start), ("end", end)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name}={value}: the host takes a strength from 0; ScheduledHardness takes any")
        if steps < 1:
            raise InputError(f"steps={steps}: must be at least 1")
        self.loss, self.start, self.end, self.steps = loss, start, end, steps

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.loss.hardness_strength = between(self.start, self.end, self.steps, state.global_step)  # type: ignore[assignment]
