"""Files that are either the old version or the new one, never half of each."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def embedlab_home() -> Path:
    """Return the folder that holds this user's collections.

    Returns:
        ``$EMBEDLAB_HOME`` if set, otherwise the platform's user data folder for embedlab; not necessarily existing.
    """
    chosen = os.environ.get("EMBEDLAB_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("embedlab", appauthor=False)


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replace a file in one step: readers see the old content or the new, also after a crash or a full disk.

    Args:
        path: The file to replace; its folder is made if missing.
        content: The new content; text is written as UTF-8.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    fresh = _beside(target)
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder aside and put it in place when it is whole; an existing folder at ``path`` is replaced.

    Args:
        path: Where the folder shall be when the block ends without an error.

    Yields:
        An empty folder beside ``path`` to write into; it is removed if the block raises.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(target)
    old = _beside(target)
    fresh.mkdir()
    try:
        yield fresh
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # a folder cannot be opened for fsync elsewhere
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
