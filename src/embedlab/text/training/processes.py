"""The processes of a run: one, or as many as torchrun or accelerate started."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState


def processes() -> Any:
    """Return accelerate's view of the processes, joining them first if they were started together.

    Without an accelerator the processes talk through gloo, which accelerate does only if it is told to stay on the CPU.
    """
    return PartialState(cpu=not has_accelerator())


def has_accelerator() -> bool:
    """Return whether torch has a device beside the CPU."""
    return bool(getattr(torch, "accelerator", torch.cuda).is_available())  # torch.accelerator is there from 2.6 on
