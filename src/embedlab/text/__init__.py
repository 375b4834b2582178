"""Making, adapting and repairing encoders of texts, one file or folder per method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedlab.text.training.run import train

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    """Give what trains models, imported on first use: ``from embedlab.text import train``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from embedlab.text.training.run import train

    return train
