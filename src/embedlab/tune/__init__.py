"""Trying methods on a collection and keeping what is significantly better."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedlab.tune.applying import apply, undo
    from embedlab.tune.knob import Knob, knobs
    from embedlab.tune.study import Limits, TuningReport, tune

__all__ = ["Knob", "Limits", "TuningReport", "apply", "knobs", "tune", "undo"]

_HOMES = {"apply": "applying", "undo": "applying", "Knob": "knob", "knobs": "knob"}


def __getattr__(name: str) -> Any:
    """Import the parts on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"embedlab.tune.{_HOMES.get(name, 'study')}"), name)
