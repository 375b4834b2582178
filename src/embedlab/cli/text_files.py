"""Text files that a verb is given."""

from __future__ import annotations

from pathlib import Path

from embedlab._core.errors import InputError


def read_utf8(path: Path) -> str:
    """Read a text file.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as a UTF-8 text file: {error}") from error
