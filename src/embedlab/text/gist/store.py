"""What a frozen guide says of every text, computed once and looked up ever after."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.models.encoder import Encoder, checked_texts, unit_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_ABOUT = "guide.json"


class GuideStore:
    """Look up a guide's embeddings by text.

    A frozen guide gives the same text the same vector at every step of every run, so it needs to run only once per
    distinct text. On disk a store is a folder of memory-mapped ``.npy`` shards (128-bit hash of the text, unit vector)
    beside ``guide.json``, which names the guide. A shard is written whole or not at all and never changed: a build that
    is cut off leaves a smaller store, and the next one goes on from there. Make one with ``build`` or ``open``.

    Example:
        >>> guide = lambda texts: [[len(text), text.count("a")] for text in texts]
        >>> store = GuideStore.build(guide, ["a cat", "a dog", "a cat"], fingerprint="letters:1")
        >>> len(store), store.dim
        (2, 2)
        >>> store.vectors(["a dog"]).round(2).tolist()
        [[0.9800000190734863, 0.20000000298023224]]
        >>> store.vectors(["a cow"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        embedlab._core.errors.InputError: no guide embedding for 'a cow': the store of letters:1 holds 2 texts; ...
    """

    def __init__(self, shards: Sequence[NDArray[Any]], *, fingerprint: str, path: Path | None = None) -> None:
        self.fingerprint = fingerprint
        self.path = path
        self._shards = list(shards)
        if len({shard["vector"].shape[1] for shard in self._shards}) > 1:
            raise InputError(f"guide: the vectors of {fingerprint!r} are not all of one length")
        self._starts = np.cumsum([0, *map(len, self._shards)])  # row at which each shard begins
        keys = np.concatenate([shard["key"] for shard in self._shards]) if self._shards else np.empty(0, "S16")
        self._keys, self._rows = np.unique(keys, return_index=True)  # sorted, for binary search

    @classmethod
    def build(
        cls,
        guide: Encoder | SentenceTransformer | Callable[[list[str]], ArrayLike],
        texts: Iterable[str],
        path: str | os.PathLike[str] | None = None,
        *,
        fingerprint: str | None = None,
        dtype: Literal["float32", "float16"] = "float32",
        commit_every: int = 4096,
        on_progress: Callable[[int], None] | None = None,
    ) -> GuideStore:
        """Embed the texts that the store lacks, and return the store.

        Args:
            guide: An encoder of this package (``load_model``), a sentence-transformers model, or any function from
                texts to rows of numbers.
            texts: All texts that training will meet: anchors, positives and negatives, without the student's prompts.
            path: Folder of the store; it may exist already and then grows. None keeps the vectors in memory.
            fingerprint: Name that changes whenever the guide's vectors could; None takes that of an encoder
                of this package.
            dtype: Number format on disk. ``"float16"`` halves the store and moves cosines by up to 1e-3.
            commit_every: Texts per shard, and so the most that is lost when the build is cut off; at least 1.
            on_progress: Told how many texts were just finished, those of earlier builds included.

        Returns:
            A store that holds every text given, besides what it held before.

        Raises:
            InputError: ``path`` holds vectors of another guide; ``fingerprint`` is missing and the guide has none; the
                guide gives a wrong number of rows, or values that are not finite; a text is not a string.
        """
        name = fingerprint or getattr(guide, "fingerprint", None)
        if not isinstance(name, str):
            raise InputError(f"fingerprint={fingerprint!r}: this guide has none of its own, so give it a name")
        if dtype not in ("float32", "float16"):
            raise InputError(f"dtype={dtype!r}: expected 'float32' or 'float16'")
        if commit_every < 1:
            raise InputError(f"commit_every={commit_every}: expected at least 1")
        wanted = list(dict.fromkeys(checked_texts(texts)))
        folder = None if path is None else Path(path)
        if folder and not (folder / _ABOUT).exists():
            atomic_write(folder / _ABOUT, json.dumps({"format": 1, "fingerprint": name}))
        known = cls.open(folder, fingerprint=name) if folder else cls([], fingerprint=name)
        missing = [text for text, row in zip(wanted, known._find(wanted), strict=True) if row < 0]
        report = on_progress or (lambda done: None)
        report(len(wanted) - len(missing))
        encode: Any = getattr(guide, "encode_document", guide)
        kept = []
        for start in range(0, len(missing), commit_every):
            chunk = missing[start : start + commit_every]
            shard = _shard(encode, chunk, dtype)
            if folder:
                # named by content: two builds at once may do the same work, but never undo each other's
                atomic_write(folder / f"{_key(chr(0).join(chunk)).hex()}.npy", _npy(shard))
            else:
                kept.append(shard)
            report(len(chunk))
        return cls.open(folder) if folder else cls(kept, fingerprint=name)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, fingerprint: str | None = None) -> GuideStore:
        """Map an existing store into memory; nothing is read before it is looked up but the keys.

        Args:
            path: Folder that ``build`` has written.
            fingerprint: The guide it must be of; None accepts any.

        Returns:
            The store.

        Raises:
            InputError: there is no store at ``path``, it is damaged, or it is of another guide.
        """
        folder = Path(path)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            shards = [np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(folder.glob("*.npy"))]
            store = cls(shards, fingerprint=about["fingerprint"], path=folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"path={str(folder)!r}: no usable guide store there ({error}); make it with build"
            ) from error
        if fingerprint not in (None, store.fingerprint):
            raise InputError(
                f"path={str(folder)!r}: its vectors are stale, of the guide {store.fingerprint!r} and not of "
                f"{fingerprint!r}: build into another folder, or remove this one"
            )
        return store

    @property
    def dim(self) -> int:
        """Length of the guide's vectors; 0 while the store is empty."""
        return int(self._shards[0]["vector"].shape[1]) if self._shards else 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, text: str) -> bool:
        return bool(self._find([text])[0] >= 0)

    def __reduce__(self) -> tuple[Any, ...]:
        # a worker process maps the same files instead of receiving a copy of the vectors
        if self.path:
            return GuideStore.open, (self.path,)
        return partial(GuideStore, fingerprint=self.fingerprint), (self._shards,)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Look up the guide's embeddings.

        Args:
            texts: Texts exactly as they were given to ``build``.

        Shape:
            N texts -> (N, D) float32

        Returns:
            One unit row per text (the zero row where the guide knows no word of it).

        Raises:
            InputError: the store lacks a text; the message names it.
        """
        rows = self._find(checked_texts(texts))
        lacking = [text for text, row in zip(texts, rows, strict=True) if row < 0]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise InputError(
                f"no guide embedding for {lacking[0][:200]!r}{more}: the store of {self.fingerprint} holds {len(self)} "
                f"texts; add it with GuideStore.build(guide, texts, {str(self.path) if self.path else None!r})"
            )
        found = np.empty((len(rows), self.dim), np.float32)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard_of):
            mine = shard_of == number
            found[mine] = self._shards[number]["vector"][rows[mine] - self._starts[number]]
        return found

    def _find(self, texts: Sequence[str]) -> NDArray[np.intp]:
        """Row of each text, or -1."""
        if not len(self):
            return np.full(len(texts), -1)
        wanted = np.array([_key(text) for text in texts], "S16")
        place = np.searchsorted(self._keys, wanted).clip(max=len(self) - 1)
        return np.where(self._keys[place] == wanted, self._rows[place], -1)


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _shard(encode: Callable[[list[str]], ArrayLike], texts: list[str], dtype: str) -> NDArray[Any]:
    vectors = np.array(encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise InputError(f"guide: {len(texts)} texts gave an array of shape {vectors.shape}, expected (N, D)")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise InputError(f"guide: its vector of {texts[int(finite.argmin())][:200]!r} is not finite")
    records = np.empty(len(texts), [("key", "S16"), ("vector", dtype, (vectors.shape[1],))])
    records["key"] = [_key(text) for text in texts]
    records["vector"] = unit_rows(vectors)
    return records


def _npy(records: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, records, allow_pickle=False)
    return buffer.getvalue()
