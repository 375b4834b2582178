"""A temperature that falls during training, following the trainer's step."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from embedlab._core.errors import InputError
from embedlab.text.gist.loss import CachedGuidedContrastiveLoss, GuidedContrastiveLoss


class TemperatureSchedule(TrainerCallback):
    """Lower a guided loss' temperature, from where it stands to a floor.

    ``tau(step) = min(max(lowest, decay ** step), tau_0)`` for ``tau_0`` the loss' own temperature: nothing happens
    until ``decay ** step`` has come down to it (at step 46,050 for the published 0.9999 and 0.01). The step is that of
    the trainer, so that a resumed run goes on where it stopped.

    Args:
        loss: The loss; inside a wrapper such as the host's ``MatryoshkaLoss``, the inner one.
        lowest: The floor, above 0 and at most the loss' temperature. (paper: tau_min.)
        decay: Factor per step, in (0, 1). Published 0.9999.

    Raises:
        InputError: an argument is out of range, or ``loss`` is of another kind.
    """

    def __init__(
        self, loss: GuidedContrastiveLoss | CachedGuidedContrastiveLoss, *, lowest: float, decay: float = 0.9999
    ) -> None:
        if not isinstance(loss, GuidedContrastiveLoss | CachedGuidedContrastiveLoss):
            raise InputError(f"loss is a {type(loss).__name__}: expected a guided contrastive loss")
        if not 0 < lowest <= loss.temperature:
            raise InputError(f"lowest={lowest}: must be above 0 and at most the loss' temperature {loss.temperature}")
        if not 0 < decay < 1:
            raise InputError(f"decay={decay}: must be above 0 and below 1")
        self.loss, self.highest, self.lowest, self.decay = loss, float(loss.temperature), lowest, decay

    def temperature(self, step: int) -> float:
        """Give the temperature at a step of the trainer.

        Args:
            step: Optimiser steps done, from 0.

        Returns:
            The temperature.
        """
        return min(max(self.lowest, self.decay**step), self.highest)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.loss.temperature = self.temperature(state.global_step)
