"""Errors that tell the caller which argument, which value, what is allowed and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class EmbedlabError(Exception):
    """Base of every error this library raises on purpose; its text is meant to be shown to a person as it is."""


class InputError(EmbedlabError, ValueError):
    """An argument has a value, type, shape or size that is not allowed."""


class MissingExtraError(EmbedlabError, ImportError):
    """A feature needs packages of an extra that is not installed."""


class MissingDataError(EmbedlabError, FileNotFoundError):
    """A data set is neither in the ``EMBEDLAB_DATA`` folder nor allowed to be fetched."""


class CollectionError(EmbedlabError):
    """A collection is missing, damaged, in use by another writer, or was made with another model."""


class EndpointError(EmbedlabError):
    """A remote embedding endpoint did not give usable vectors."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not among the known ones, suggesting the nearest.

    Args:
        what: What the name stands for, e.g. ``"method"``.
        name: The name received.
        known: The names that are allowed.

    Returns:
        The error, ready to be raised.

    Example:
        >>> str(unknown_name("method", "gits", ["gist", "tte_depth"]))
        "unknown method 'gits': did you mean 'gist'? known: gist, tte_depth"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return InputError(f"unknown {what} {name!r}: {hint}known: {', '.join(names) or 'none'}")
