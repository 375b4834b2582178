"""Optional imports: heavy packages are loaded where they are used, and their absence names the extra to install."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType

from embedlab._core.errors import MissingExtraError

_TELLTALES = {  # a module that only the extra brings
    "train": "sentence_transformers",
    "evaluate": "mteb",
    "codecs": "faiss",
    "words": "gensim",
    "graphs": "torch_geometric",
    "concepts": "diffusers",
    "vision": "skimage",
    "distributed": "accelerate",
}


def installed(extra: str) -> bool:
    """Tell whether an extra is installed, without importing anything of it.

    Args:
        extra: Name of the extra.

    Returns:
        Whether the module that tells it is there.

    Raises:
        KeyError: there is no such extra.
    """
    return find_spec(_TELLTALES[extra]) is not None


def require(module: str, *, extra: str) -> ModuleType:
    """Import a module that belongs to an extra.

    Args:
        module: Dotted module name.
        extra: The extra of this package that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the module is not installed.

    Example:
        >>> require("json", extra="train").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise  # the module is there but one of its own imports is broken: that is the story to tell
        raise MissingExtraError(
            f"{module.split('.')[0]} is not installed: install it with `pip install 'embedlab[{extra}]'`"
        ) from error
