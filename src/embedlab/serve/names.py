"""Names of uploaded files: a name either stays inside the upload folder on every system or is refused."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

_MOST_CHARS = 512
_MOST_PART_BYTES = 200
_MOST_DEPTH = 16
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
_FORBIDDEN = frozenset('\\:*?"<>|')


class BadName(ValueError):
    """A file name that is refused, and why."""


def safe_name(name: str) -> PurePosixPath:
    """Check the name of an uploaded file.

    Args:
        name: As the client sent it; may hold folders, parted by ``/``.

    Returns:
        The same name (in Unicode NFC), relative, without a way out of its folder.

    Raises:
        BadName: The name is empty, too long or too deep, absolute, hidden, reserved, or holds ``..``, a control
            character or one that some systems do not allow.

    Example:
        >>> safe_name("guide/start.md").as_posix()
        'guide/start.md'
        >>> safe_name("../secret.md")
        Traceback (most recent call last):
        ...
        embedlab.serve.names.BadName: file name '../secret.md': '..' is not allowed; send a plain relative name
    """
    name = unicodedata.normalize("NFC", name)
    problem = _problem(name)
    if problem:
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise BadName(f"file name {shown!r}: {problem}; send a plain relative name")
    return PurePosixPath(name)


def _problem(name: str) -> str | None:
    if not name.strip():
        return "it is empty"
    if len(name) > _MOST_CHARS:
        return f"it has {len(name)} characters, allowed are {_MOST_CHARS}"
    if name.startswith("/"):
        return "it is absolute"
    parts = name.split("/")
    if len(parts) > _MOST_DEPTH:
        return f"it has {len(parts)} parts, allowed are {_MOST_DEPTH}"
    return next((problem for part in parts if (problem := _part_problem(part))), None)


def _part_problem(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"{part!r} is not allowed"
    if part.startswith("."):
        return "hidden files and folders are not allowed"
    bad = next((char for char in part if char in _FORBIDDEN or unicodedata.category(char) in ("Cc", "Cf", "Cs")), None)
    if bad is not None:
        return f"the character {bad!r} is not allowed"
    if part != part.strip() or part.endswith("."):
        return "a part may not begin or end with a blank or end with a dot"
    if part.split(".")[0].strip().lower() in _RESERVED:
        return f"{part.split('.')[0]!r} is a reserved name on some systems"
    if len(part.encode()) > _MOST_PART_BYTES:
        return f"a part has more than {_MOST_PART_BYTES} bytes"
    return None
