"""Where collections lie, the small file that describes each, and the lock that admits one writer."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from embedlab._core.errors import CollectionError, InputError, unknown_name
from embedlab._core.files import atomic_write, embedlab_home
from embedlab.search.records import Settings

SCHEMA_VERSION = 2  # 2: vectors may be codes, queries may pass a bridge; collections without both are written as 1
_DESCRIPTION = "collection.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URI = re.compile(r"[a-z][a-z0-9+.-]+://")
_LOCK_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Description:
    """What ``collection.json`` says.

    Args:
        model: Name the model is loaded by.
        fingerprint: Fingerprint of the model that made the vectors.
        dim: Width of the vectors.
        created_at: ISO 8601, UTC.
        settings: The collection's settings.
        schema_version: Version of the layout on disk.
        bridge: Fingerprint of the map that takes the model's vectors to those that are stored; empty for none.
        space: Fingerprint of the model whose vectors are stored; empty if it is ``fingerprint``.
    """

    model: str
    fingerprint: str
    dim: int
    created_at: str
    settings: Settings
    schema_version: int = 1
    bridge: str = ""
    space: str = ""

    @property
    def stored_model(self) -> str:
        """Fingerprint of the model whose vectors are stored."""
        return self.space or self.fingerprint


@dataclass(frozen=True, slots=True)
class Place:
    """A collection's name and address (folder or URI)."""

    name: str
    address: str

    @property
    def folder(self) -> Path | None:
        """The local folder; None on object storage."""
        return None if is_uri(self.address) else Path(self.address)

    def exists(self) -> bool:
        """Tell whether a collection is there."""
        return self._read() is not None

    def read(self) -> Description:
        """Return the description.

        Raises:
            CollectionError: nothing is there, it is damaged, or a newer version of embedlab made it.
        """
        text = self._read()
        if text is None:
            raise missing(self)
        try:
            values: dict[str, Any] = json.loads(text)
            version = int(values["schema_version"])
            if version > SCHEMA_VERSION:
                raise CollectionError(
                    f"collection {self.name!r} has layout {version}, this embedlab knows up to {SCHEMA_VERSION}: "
                    "upgrade with `pip install -U embedlab`"
                )
            settings = Settings.from_dict(values.pop("settings"))
            return Description(**values, settings=settings)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CollectionError(
                f"{_DESCRIPTION} of collection {self.name!r} is damaged ({error}): restore it from a backup, "
                f"or remove the collection and index again"
            ) from error

    def write(self, description: Description) -> None:
        """Replace the description in one step."""
        # what is not used is not written, so that earlier releases can read it
        values = {name: value for name, value in asdict(description).items() if value != ""}
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        if self.folder is not None:
            atomic_write(self.folder / _DESCRIPTION, text)
            return
        files, base = _filesystem(self.address)
        with files.open_output_stream(f"{base}/{_DESCRIPTION}") as stream:
            stream.write(text.encode())

    def remove(self) -> None:
        """Delete everything; the description goes first, so that half a collection is never opened."""
        if self.folder is not None:
            (self.folder / _DESCRIPTION).unlink(missing_ok=True)
            shutil.rmtree(self.folder)
            return
        files, base = _filesystem(self.address)
        files.delete_file(f"{base}/{_DESCRIPTION}")
        files.delete_dir(base)

    def size_bytes(self) -> int | None:
        """Return the bytes of all files; None on object storage."""
        if self.folder is None:
            return None
        total = 0
        for base, _, names in os.walk(self.folder):
            for name in names:
                try:
                    total += os.stat(os.path.join(base, name)).st_size  # noqa: PTH116, PTH118 - thousands of files
                except FileNotFoundError:
                    continue  # a writer replaced it just now
        return total

    def _read(self) -> str | None:
        try:
            if self.folder is not None:
                return (self.folder / _DESCRIPTION).read_text(encoding="utf-8")
            files, base = _filesystem(self.address)
            with files.open_input_stream(f"{base}/{_DESCRIPTION}") as stream:
                return str(stream.read().decode())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CollectionError(f"collection {self.name!r} can't be read at {self.address}: {error}") from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; it falls open by itself when the process ends, however it ends.

        Raises:
            CollectionError: another process is writing.
        """
        from filelock import FileLock, Timeout

        if self.folder is not None:
            lock_file = self.folder / "writer.lock"
        else:  # guards this machine only; between machines Lance itself refuses conflicting commits
            digest = blake2b(self.address.encode(), digest_size=8).hexdigest()
            lock_file = embedlab_home() / "locks" / f"{digest}.lock"
            lock_file.parent.mkdir(parents=True, exist_ok=True)
        owner = lock_file.with_suffix(".pid")
        lock = FileLock(lock_file)
        try:
            lock.acquire(timeout=_LOCK_WAIT_S)
        except Timeout:
            raise CollectionError(
                f"collection {self.name!r} is being written by {_owner(owner)}: wait for it to finish, or stop it"
            ) from None
        except OSError as error:
            raise CollectionError(f"collection {self.name!r} can't be locked for writing: {error}") from error
        try:
            owner.write_text(str(os.getpid()), encoding="ascii")
            yield
        except OSError as error:
            if error.errno == 28:
                raise CollectionError(
                    f"the disk is full while writing collection {self.name!r}: what was committed before is intact; "
                    "free some space and run the same command again"
                ) from error
            raise
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def writer(self) -> str | None:
        """Say which process is writing now; None if none is."""
        if self.folder is None:
            return None
        from filelock import FileLock, Timeout

        lock_file = self.folder / "writer.lock"
        if not lock_file.exists():
            return None
        try:
            with FileLock(lock_file).acquire(timeout=0):
                return None
        except Timeout:
            return _owner(lock_file.with_suffix(".pid"))


def place(name_or_path: str | os.PathLike[str]) -> Place:
    """Return where a collection lies or would lie.

    Args:
        name_or_path: A name (letters, digits, ``.``, ``_``, ``-``; it lies in ``embedlab_home()/collections``), a path
            (anything with a slash, or a ``Path``), or a URI such as ``s3://bucket/folder``.

    Raises:
        InputError: not a name that is allowed.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and is_uri(text):
        return Place(text.rstrip("/").rsplit("/", 1)[-1], text.rstrip("/"))
    if not isinstance(name_or_path, str) or "/" in text or os.sep in text:
        folder = Path(text).expanduser().resolve()
        return Place(folder.name, str(folder))
    if not _NAME.fullmatch(text):
        raise InputError(
            f"collection name {text!r} is not allowed: up to 100 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit (or give a path with a slash)"
        )
    return Place(text, str(home() / text))


def home() -> Path:
    """Return the folder of named collections; not necessarily existing."""
    return embedlab_home() / "collections"


def named_places() -> list[Place]:
    """Return all named collections, sorted by name."""
    if not home().is_dir():
        return []
    found = (Place(folder.name, str(folder)) for folder in home().iterdir() if _NAME.fullmatch(folder.name))
    return sorted((spot for spot in found if spot.exists()), key=lambda spot: spot.name)


def missing(spot: Place) -> CollectionError:
    """Build the error for a collection that is not there."""
    if spot.folder is None or spot.folder.parent != home():
        return CollectionError(f"there is no collection at {spot.address}: `embedlab index PATH --into` makes one")
    known = [other.name for other in named_places()]
    if not known:
        return CollectionError(f"there is no collection {spot.name!r}, nor any other: `embedlab index PATH` makes one")
    return CollectionError(str(unknown_name("collection", spot.name, known)))


def is_uri(text: str) -> bool:
    """Tell an address on object storage (``s3://...``) from a path."""
    return _URI.match(text) is not None


def timestamp() -> str:
    """Return the present time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def copy_folder(source: str, target: str) -> None:
    """Copy a folder from or to object storage.

    Args:
        source: Path or URI of the folder.
        target: Path or URI it shall have.
    """
    from pyarrow import fs

    (from_files, from_base), (to_files, to_base) = (
        _filesystem(each) if is_uri(each) else (fs.LocalFileSystem(), each) for each in (source, target)
    )
    to_files.create_dir(to_base)
    fs.copy_files(from_base, to_base, source_filesystem=from_files, destination_filesystem=to_files)


def _filesystem(address: str) -> tuple[Any, str]:
    from pyarrow import fs

    return fs.FileSystem.from_uri(address)  # type: ignore[no-any-return]


def _owner(pid_file: Path) -> str:
    try:
        return f"process {int(pid_file.read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return "another process"
