"""Codecs by name: every subclass of ``Codec``, found without a list."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from embedlab._core.errors import MissingExtraError, unknown_name
from embedlab._core.registry import methods
from embedlab.search.codecs.codec import Codec

_log = logging.getLogger(__name__)


def known() -> dict[str, type[Codec]]:
    """Find all codecs: those beside this module, methods of kind ``codec``, and any that the caller has imported.

    Returns:
        Name -> class.
    """
    _import_neighbours()
    for record in methods().values():
        if "codec" in record.kinds:
            try:
                getattr(record.load(), record.kinds["codec"])
            except MissingExtraError as error:
                _log.debug("codec of %s left out: %s", record.name, error)
    return _imported()


def find(name: str) -> type[Codec]:
    """Look one class up.

    Args:
        name: The codec's name.

    Returns:
        Its class.

    Raises:
        InputError: there is no such codec.
    """
    _import_neighbours()
    classes = _imported() if name in _imported() else known()  # methods may be slow to import
    if name not in classes:
        raise unknown_name("codec", name, classes)
    return classes[name]


def build(name: str, dim: int, settings: Mapping[str, Any]) -> Codec:
    """Make a codec from settings that came by name.

    Args:
        name: The codec's name.
        dim: Width of the vectors.
        settings: Keywords of its constructor.

    Returns:
        The codec, not yet fitted.

    Raises:
        InputError: the codec or a setting is unknown, or a value is not allowed.
    """
    cls = find(name)
    allowed = [key for key in inspect.signature(cls).parameters if key != "dim"]
    for key in settings:
        if key not in allowed:
            raise unknown_name(f"setting of codec {name}", key, allowed)
    return cls(dim, **settings)


def _import_neighbours() -> None:
    package = __name__.rpartition(".")[0]
    for module in iter_modules([str(Path(__file__).parent)]):
        import_module(f"{package}.{module.name}")


def _imported() -> dict[str, type[Codec]]:
    found: dict[str, type[Codec]] = {}
    waiting = list(Codec.__subclasses__())
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.name and not inspect.isabstract(cls):
            found[cls.name] = cls
    return found
