"""Optional imports: heavy packages are loaded where they are used, and their absence names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from embedlab._core.errors import MissingExtraError


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
