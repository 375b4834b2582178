"""Reading documents and loading data sets: files in, documents and passages out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedlab.data.loaders import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Give what the loaders export, read on first use: ``from embedlab.data import load_scifact``."""
    loaders = import_module("embedlab.data.loaders")
    if name not in loaders.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(loaders, name)
