"""Uploaded files on their way from the socket to the collection's folder, never whole in memory."""

from __future__ import annotations

import errno
import secrets
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from embedlab.serve.errors import ApiError
from embedlab.serve.names import BadName, safe_name
from embedlab.serve.pool import Pool
from embedlab.serve.settings import Limits

FIELD = "files"


@dataclass(slots=True)
class Received:
    """What came of an upload.

    Args:
        accepted: Names that are now in the upload folder.
        refused: Names that are not, and why.
    """

    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


async def receive_files(
    request: Request, folder: Path, suffixes: Collection[str], limits: Limits, pool: Pool
) -> Received:
    """Take the files of a multipart request into a folder, all or nothing as far as limits go.

    Args:
        request: The request, its body unread.
        folder: Where the files shall be, made if missing in its parent; a file of the same name is replaced.
        suffixes: Endings of names that have a reader, such as ``".md"``.
        limits: Bounds on number and size.
        pool: Threads for the disk.

    Returns:
        Which files were accepted and which refused.

    Raises:
        ApiError: 400 (not multipart, wrong field, no file), 413 (too many or too large) or 507 (disk full).
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if not request.headers.get("content-type", "").startswith("multipart/form-data") or not boundary:
        raise ApiError(400, f"send multipart/form-data with one part {FIELD!r} for each file", field="Content-Type")
    staging = folder.parent / f"{_staging_prefix(folder)}{secrets.token_hex(6)}"
    await pool.run(_sweep, folder, 2 * limits.upload_timeout_s)
    try:
        parts = await pool.run(_Parts, staging, boundary, suffixes, limits)
        try:
            async for chunk in request.stream():
                await pool.run(parts.feed, chunk)
            return await pool.run(parts.finish, folder)
        finally:
            parts.close()
    except FormParserError as error:
        raise ApiError(400, f"the multipart body can't be read: {error}", field="body") from None
    except FileNotFoundError:
        raise ApiError(409, "the collection was deleted meanwhile: nothing was kept", field="name") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApiError(
                507, "the disk is full: nothing of this upload was kept; make room and send it again"
            ) from None
        raise
    finally:
        await pool.run(shutil.rmtree, staging, ignore_errors=True)


def _staging_prefix(folder: Path) -> str:
    return f".{folder.name}-"


def _sweep(folder: Path, older_than_s: float) -> None:
    """Remove what uploads left behind whose process was killed."""
    for left in folder.parent.glob(f"{_staging_prefix(folder)}*"):
        if time.time() - left.stat().st_mtime > older_than_s:
            shutil.rmtree(left, ignore_errors=True)


class _Parts:
    """Cuts a body into files. Every method runs in a worker thread."""

    def __init__(self, staging: Path, boundary: bytes, suffixes: Collection[str], limits: Limits) -> None:
        staging.mkdir()
        self._staging = staging
        self._suffixes = suffixes
        self._limits = limits
        self._received = Received()
        self._names: list[str] = []
        self._file: BinaryIO | None = None
        self._size = 0
        self._count = 0
        self._ended = False
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self.close,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        if chunk:
            self._parser.write(chunk)

    def finish(self, folder: Path) -> Received:
        """Move the whole files into their places."""
        if not self._ended:
            raise ApiError(400, "the multipart body breaks off: send it whole", field="body")
        if not self._count:
            raise ApiError(400, f"there is no file: send one part {FIELD!r} for each", field=FIELD)
        folder.mkdir(exist_ok=True)
        for number, name in enumerate(self._names):
            target = folder / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                (self._staging / str(number)).replace(target)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                self._refuse(name, f"file name {name!r}: a file and a folder can't have the same name")
            else:
                self._received.accepted.append(name)
        if not self._received.accepted:
            raise ApiError(400, self._received.refused[0][1], field=FIELD)
        self._received.accepted = list(dict.fromkeys(self._received.accepted))
        return self._received

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _refuse(self, name: str, reason: str) -> None:
        self._received.refused.append((name[:200], reason))

    def _on_begin(self) -> None:
        self._disposition = b""
        self._size = 0

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        part = options.get(b"name", b"").decode("utf-8", "replace")
        if part != FIELD or b"filename" not in options:
            raise ApiError(
                400, f"part {part[:80]!r} is not known: send each file as a part {FIELD!r}", field=part[:80] or None
            )
        self._count += 1
        if self._count > self._limits.upload_files:
            raise ApiError(
                413, f"there are more than {self._limits.upload_files} files: send fewer at once", field=FIELD
            )
        # what is not UTF-8 becomes a character that safe_name refuses
        name = options[b"filename"].decode("utf-8", "surrogateescape")
        try:
            path = safe_name(name)
        except BadName as error:
            self._refuse(name.encode("utf-8", "replace").decode(), str(error))
            return
        if path.suffix.lower() not in self._suffixes:
            known = ", ".join(sorted(self._suffixes))
            self._refuse(
                str(path), f"file name {str(path)!r}: no reader for {path.suffix or 'no ending'!r}; known: {known}"
            )
            return
        self._file = (self._staging / str(len(self._names))).open("xb")
        self._names.append(str(path))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._limits.file_bytes:
            name = self._names[-1] if self._file is not None else "file"
            raise ApiError(413, f"{name!r} is larger than {self._limits.file_bytes} bytes: split it", field=FIELD)
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self._ended = True
