"""Make, adapt, compress, search, evaluate and understand embeddings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedlab.models import load_model as load_model
    from embedlab.search import Collection as Collection

__version__ = "0.1.0"
__all__ = ["Collection", "__version__", "load_model"]

_HOMES = {"Collection": "embedlab.search", "load_model": "embedlab.models"}


def __getattr__(name: str) -> Any:
    """Load the main names on first use, so that importing the package stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
