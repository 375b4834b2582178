"""Vectors on disk by model and text, so that no text is embedded twice: not in a run, across tasks, or the next day."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import EmbedlabError, InputError
from embedlab._core.files import atomic_write
from embedlab.models.encoder import Encoder, checked_texts

_log = logging.getLogger(__name__)

Role = Literal["document", "query", "text"]
ROLES: tuple[Role, ...] = ("document", "query", "text")
_CHUNK = 1024  # texts between two writes: what an interruption can cost
_MANY_SHARDS = 32  # then the small ones become one
_FINGERPRINT = re.compile(r"[\w.-]+:[0-9a-f]{8,64}", re.ASCII)


def cache_home() -> Path:
    """Return the folder that holds what this user can lose without loss: vectors and results of evaluations.

    Returns:
        ``$EMBEDLAB_CACHE`` if set, otherwise the platform's cache folder for embedlab; not necessarily existing.
    """
    chosen = os.environ.get("EMBEDLAB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("embedlab", appauthor=False)


class VectorCache:
    """Encode texts through a store on disk; what is there is read, what is missing is encoded once and kept.

    The key of a vector is the model's fingerprint, the role and the hash of the text. Vectors lie in *shards*: files
    of records (hash, vector) that are written whole, never changed, memory-mapped, and named by the hash of their
    content. So processes need no lock (each writes shards of its own), and a damaged shard is seen and thrown away: its
    texts are encoded again. When the store grows beyond ``max_bytes`` the shards unused for longest go.

    Args:
        folder: Where the vectors lie; None for ``vectors`` in ``cache_home()``.
        max_bytes: Largest size of the folder, at least 1. A single run that needs more than this embeds what was
            evicted again.

    Attributes:
        found: Number of texts that needed no encoding so far, repeats within a call included.
        encoded: Number of texts encoded so far.

    Raises:
        InputError: ``max_bytes`` is below 1.

    Example:
        >>> import tempfile
        >>> from embedlab.models import load_model
        >>> model = load_model()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = VectorCache(folder)
        ...     vectors = cache.encode(model, ["a cat", "a dog", "a cat"])
        ...     again = VectorCache(folder).encode(model, ["a dog"])
        >>> vectors.shape == (3, model.dim), cache.encoded, bool((again == vectors[1]).all())
        (True, 2, True)
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, max_bytes: int = 8 << 30) -> None:
        if max_bytes < 1:
            raise InputError(f"max_bytes={max_bytes}: must be at least 1")
        self.folder = Path(folder) if folder is not None else cache_home() / "vectors"
        self.max_bytes = max_bytes
        self.found = 0
        self.encoded = 0
        self._drawers: dict[Path, _Drawer] = {}

    def encode(
        self,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        role: Role = "document",
        on_progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Return one row per text, encoding only texts that were never encoded.

        Args:
            encoder: The model; its ``fingerprint`` must change whenever its vectors could.
            texts: The texts, repeats allowed. They reach the encoder sorted by length.
            role: ``"document"``, ``"query"``, or ``"text"`` for texts that are neither (two sentences to compare, a
                text to classify): the model's ``encode`` if it has one, otherwise as documents. A model that says
                ``roles_alike`` shares one entry between the three.
            on_progress: Called with the number of texts just finished.

        Shape:
            texts N -> (N, D) float32

        Returns:
            The rows as the encoder gave them.

        Raises:
            InputError: an unknown role, a text that is not a string, or a fingerprint that is none.
            EmbedlabError: the encoder gave NaN, infinite numbers or an array of another shape.
        """
        checked = checked_texts(texts)
        if role not in ROLES:
            raise InputError(f"role={role!r}: expected one of {', '.join(ROLES)}")
        if not isinstance(encoder.fingerprint, str) or not _FINGERPRINT.fullmatch(encoder.fingerprint):
            raise InputError(f"the fingerprint of {encoder.name!r} is {encoder.fingerprint!r}: expected 'family:<hex>'")
        if getattr(encoder, "roles_alike", False):
            role = "text"
        drawer = self._drawer(self.folder / encoder.fingerprint.replace(":", "-") / role, encoder.dim)
        keys = [text_key(text) for text in checked]
        rows = np.empty((len(checked), encoder.dim), dtype=np.float32)
        missing = drawer.fill(keys, rows)
        if missing:
            drawer.look_again()  # another process may have written them meanwhile
            missing = drawer.fill(keys, rows, missing)
        self.found += len(checked) - len(missing)
        if on_progress is not None and len(missing) < len(checked):
            on_progress(len(checked) - len(missing))
        self._encode_missing(encoder, role, checked, keys, missing, rows, drawer, on_progress)
        return rows

    def size_bytes(self) -> int:
        """Return the size of everything that is stored."""
        return sum(size for _, size, _ in _shards_under(self.folder))

    def _drawer(self, folder: Path, dim: int) -> _Drawer:
        drawer = self._drawers.get(folder)
        if drawer is None:
            drawer = self._drawers[folder] = _Drawer(folder, dim)
            drawer.look_again()
        return drawer

    def _encode_missing(
        self,
        encoder: Encoder,
        role: Role,
        texts: list[str],
        keys: list[bytes],
        missing: list[int],
        rows: NDArray[np.float32],
        drawer: _Drawer,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        """Encode every missing text once, in order of length, and keep each chunk as soon as it is done."""
        places: dict[bytes, list[int]] = {}
        for place in missing:
            places.setdefault(keys[place], []).append(place)
        todo = sorted(places, key=lambda key: len(texts[places[key][0]]))
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            fresh = _encoded(encoder, [texts[places[key][0]] for key in chunk], role, on_progress)
            rows[[places[key][0] for key in chunk]] = fresh
            drawer.add(chunk, fresh)
            self.encoded += len(chunk)
        for first, *others in places.values():
            if others:
                rows[others] = rows[first]
        repeats = len(missing) - len(todo)
        self.found += repeats
        if on_progress is not None and repeats:
            on_progress(repeats)
        if todo:
            drawer.tidy()
            self._evict()

    def _evict(self) -> None:
        shards = sorted(_shards_under(self.folder), key=lambda shard: shard[2])
        excess = sum(size for _, size, _ in shards) - self.max_bytes
        for path, size, _ in shards:
            if excess <= 0:
                return
            _remove(path)
            excess -= size


def text_key(text: str) -> bytes:
    """Return the 16 bytes that stand for a text; lone surrogates are allowed, as any ``str`` is.

    Example:
        >>> len(text_key("a text"))
        16
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(slots=True)
class _Drawer:
    """The shards of one model and role."""

    folder: Path
    dim: int
    shards: dict[str, NDArray[Any]] = field(default_factory=dict)  # file name -> records, memory-mapped
    index: dict[bytes, tuple[str, int]] = field(default_factory=dict)  # text key -> shard, row

    @property
    def record(self) -> np.dtype[Any]:
        return np.dtype([("key", "V16"), ("vector", "<f4", (self.dim,))])

    def look_again(self) -> None:
        """Open the shards that appeared since; throw away damaged ones."""
        for path in sorted(self.folder.glob("*.npy")):
            if path.name not in self.shards:
                records = _read(path, self.record)
                if records is not None:
                    self._take_in(path.name, records)

    def fill(self, keys: list[bytes], rows: NDArray[np.float32], places: Sequence[int] | None = None) -> list[int]:
        """Copy known vectors into their rows; return the places that remain."""
        missing: list[int] = []
        found: dict[str, tuple[list[int], list[int]]] = {}
        for place in range(len(keys)) if places is None else places:
            known = self.index.get(keys[place])
            if known is None:
                missing.append(place)
            else:
                targets, sources = found.setdefault(known[0], ([], []))
                targets.append(place)
                sources.append(known[1])
        for name, (targets, sources) in found.items():
            rows[targets] = self.shards[name]["vector"][sources]
            _touch(self.folder / name)
        return missing

    def add(self, keys: list[bytes], vectors: NDArray[np.float32]) -> None:
        """Write one shard."""
        records = np.empty(len(keys), dtype=self.record)
        records["key"] = np.frombuffer(b"".join(keys), dtype="V16")
        records["vector"] = vectors
        self._write(records)

    def tidy(self) -> None:
        """Make one shard of the small ones when there are many of them."""
        small = [name for name, records in self.shards.items() if len(records) < _CHUNK]
        if len(small) < _MANY_SHARDS:
            return
        kept = self._write(np.concatenate([np.asarray(self.shards[name]) for name in small]))
        for name in small:
            if name != kept:
                del self.shards[name]
                _remove(self.folder / name)

    def _write(self, records: NDArray[Any]) -> str:
        file = io.BytesIO()
        np.save(file, records, allow_pickle=False)
        content = file.getvalue()
        path = self.folder / f"{_digest(content)}.npy"
        try:
            if not path.exists():
                atomic_write(path, content)
            mapped = _read(path, self.record)
        except OSError as error:  # a full or read-only disk: what was encoded serves this run all the same
            _log.warning("cannot keep vectors in %s: %s", self.folder, error)
            mapped = None
        self._take_in(path.name, records if mapped is None else mapped)
        return path.name

    def _take_in(self, name: str, records: NDArray[Any]) -> None:
        self.shards[name] = records
        self.index.update({bytes(key): (name, row) for row, key in enumerate(records["key"].tolist())})


def _encoded(
    encoder: Encoder, texts: list[str], role: Role, on_progress: Callable[[int], None] | None
) -> NDArray[np.float32]:
    """Encode in a role and check what comes back."""
    if role == "query":
        rows = encoder.encode_query(texts)
        if on_progress is not None:
            on_progress(len(texts))
    else:
        encode = encoder.encode_document if role == "document" else getattr(encoder, "encode", encoder.encode_document)
        rows = encode(texts, on_progress=on_progress)
    rows = np.asarray(rows, dtype=np.float32)
    if rows.shape != (len(texts), encoder.dim):
        raise EmbedlabError(
            f"the model {encoder.name!r} gave an array of shape {rows.shape} for {len(texts)} texts: "
            f"expected {(len(texts), encoder.dim)}"
        )
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise EmbedlabError(
            f"the model {encoder.name!r} gave NaN or infinite numbers for {len(bad)} of {len(texts)} texts, the first "
            f"{texts[bad[0]]!r:.80}: vectors must be finite; check the model's weights and number format"
        )
    return rows


def _read(path: Path, record: np.dtype[Any]) -> NDArray[Any] | None:
    """Map a shard, or None if it is gone, or damaged: then it is removed too, for its texts to be encoded again."""
    try:
        if _digest(path.read_bytes()) == path.stem:
            records = np.load(path, mmap_mode="r", allow_pickle=False)
            if records.dtype == record:
                return np.asarray(records)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        _log.debug("unreadable shard %s", path, exc_info=True)
    _log.warning("the cached vectors in %s are damaged: they are thrown away and encoded again", path)
    _remove(path)
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _shards_under(folder: Path) -> Iterator[tuple[Path, int, float]]:
    for path in folder.glob("*/*/*.npy"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # another process evicted it
        yield path, stat.st_size, stat.st_mtime


def _touch(path: Path) -> None:
    """Mark as used just now, which eviction goes by."""
    try:
        os.utime(path)
    except OSError:
        _log.debug(
            "cannot mark %s as used", path
        )  # evicted, or on a read-only disk: the vectors are mapped all the same


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        _log.debug("cannot remove %s", path)  # mapped by another process on a system that does not allow it
