"""What the service may do and how much of it: every limit in one place, checked when it is set."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from embedlab._core.errors import InputError

MIB = 1024 * 1024
MIN_KEY_CHARS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one call and one client may ask for.

    Args:
        body_bytes: Largest body of a call that is not an upload.
        upload_bytes: Largest upload, all its files together.
        file_bytes: Largest file of an upload.
        upload_files: Most files in one upload.
        batch_texts: Most texts in one embeddings call.
        text_chars: Longest text to embed.
        batch_chars: Longest sum of the texts of one embeddings call.
        query_chars: Longest search query or filter.
        top_k: Most hits of one search.
        map_points: Most points of one map.
        requests_per_s: Calls a client may make for long; 0 turns the limit off.
        burst: Calls a client may make at once.
        timeout_s: Longest time for one call.
        upload_timeout_s: Longest time for one upload.
        idle_s: Longest pause while a client sends its headers or body.
        waiting_calls: Most calls that may wait for a free worker.
        connections: Most connections and calls in flight at once.
        queued_jobs: Most unfinished jobs.

    Raises:
        InputError: A limit is negative, or zero where zero would refuse everything.
    """

    body_bytes: int = 8 * MIB
    upload_bytes: int = 256 * MIB
    file_bytes: int = 64 * MIB
    upload_files: int = 1000
    batch_texts: int = 2048
    text_chars: int = 100_000
    batch_chars: int = 4_000_000
    query_chars: int = 4000
    top_k: int = 100
    map_points: int = 5000
    requests_per_s: float = 100.0
    burst: int = 200
    timeout_s: float = 30.0
    upload_timeout_s: float = 600.0
    idle_s: float = 15.0
    waiting_calls: int = 256
    connections: int = 400  # each takes a file handle, of which a process often has 1024
    queued_jobs: int = 64

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = 0 if item.name == "requests_per_s" else 1e-3 if isinstance(value, float) else 1
            if not value >= least:
                raise InputError(f"{item.name}={value!r}: allowed is {least} or more; leave it out for the default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the service listens, what it shows and whom it lets in.

    Args:
        host: Address to listen on. Anything but loopback needs ``api_key``.
        port: Port to listen on; 0 takes a free one.
        api_key: Key that callers must send, at least 16 characters; ``None`` asks for none.
        collections: Names or paths of the collections to serve; empty serves all of this user and lets callers make
            new ones.
        models: Models that ``/v1/embeddings`` and new collections may use. Callers never choose a path or address
            of their own: it would let them read files and reach hosts through this machine.
        allowed_hosts: Names accepted in the ``Host`` header besides loopback's own.
        workers: Threads for searching and embedding.
        limits: Bounds on calls.
        web_folder: Folder of the page; ``None`` takes the one of this package.

    Raises:
        InputError: The host needs a key and has none, the key is too short, or a number is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = field(default=None, repr=False)
    collections: tuple[str, ...] = ()
    models: tuple[str, ...] = ("default",)
    allowed_hosts: tuple[str, ...] = ()
    workers: int = max(2, min(8, os.cpu_count() or 2))
    limits: Limits = field(default_factory=Limits)
    web_folder: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port={self.port!r}: allowed is 0 (any free port) to 65535")
        if self.workers < 1:
            raise InputError(f"workers={self.workers!r}: allowed is 1 or more")
        if not self.models:
            raise InputError("models=(): name at least one model, for example 'default'")
        if self.api_key is not None and (len(self.api_key) < MIN_KEY_CHARS or not self.api_key.isprintable()):
            raise InputError(
                f"api_key has {len(self.api_key)} characters: allowed is {MIN_KEY_CHARS} or more printable ones; "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if self.api_key is None and not self.is_loopback:
            raise InputError(
                f"host={self.host!r} can be reached from other machines: set EMBEDLAB_API_KEY to a secret of "
                f"{MIN_KEY_CHARS} characters or more, or keep to host 127.0.0.1"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the host."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # any other name may resolve to anything
