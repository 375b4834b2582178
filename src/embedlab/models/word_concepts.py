"""A model with named dimensions: what the words of a text say about the concepts of a list. Needs numpy only."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_folder
from embedlab.models.encoder import checked_texts, unit_rows

Floats = NDArray[np.float32]

FORMAT = "embedlab-word-concepts"
_VERSION = 1
_WORD = re.compile(r"\b\w\w+\b")
_ARRAYS = {"idf": np.float32, "starts": np.int64, "concepts": np.int32, "weights": np.float32}


def counted_words(text: str) -> Counter[str]:
    """Count the words of a text: lower case, two characters or more.

    Args:
        text: The text.

    Returns:
        Word -> how often.

    Example:
        >>> sorted(counted_words("A red, RED car").items())
        [('car', 1), ('red', 2)]
    """
    return Counter(_WORD.findall(text.lower()))


class WordConcepts:
    r"""Encode texts in dimensions that have names, by what each of their words says about each concept.

    With the count :math:`n_w` of word w in a text, its inverse document frequency :math:`i_w` and its weight
    :math:`T_{wk}` for concept k, the text has :math:`a_k = \sum_w (1 + \ln n_w) i_w T_{wk}`; all but the ``top_k``
    largest are 0. Nothing is negative, so the cosine of two texts is a sum of what each shared concept contributes.
    ``embedlab.text.sesa.ESA`` makes such models.

    Args:
        dimensions: Names of the concepts, one for each dimension.
        words: The words that say something.
        idf: Inverse document frequency of each word.
        starts: Where the entries of each word begin, and behind the last one where they end.
        concepts: Place of the concept of each entry.
        weights: Weight of each entry, at least 0.
        top_k: How many concepts a text keeps.
        name: What this model is called.

    Shape:
        idf (V,), starts (V + 1,), concepts and weights (E,)

    Raises:
        InputError: the arrays do not fit each other.

    Example:
        >>> model = WordConcepts(("fruit", "cars"), ("apple", "road"), [1, 1], [0, 1, 2], [0, 1], [1, 1])
        >>> model.encode_query(["An apple!", "apple road", "unseen"]).round(2).tolist()
        [[1.0, 0.0], [0.7099999785423279, 0.7099999785423279], [0.0, 0.0]]
    """

    roles_alike = True  #: documents and queries are encoded alike

    def __init__(
        self,
        dimensions: Sequence[str],
        words: Sequence[str],
        idf: ArrayLike,
        starts: ArrayLike,
        concepts: ArrayLike,
        weights: ArrayLike,
        *,
        top_k: int = 100,
        name: str = "word-concepts",
    ) -> None:
        self.name, self.top_k = name, top_k
        self.dimensions, self.words = tuple(dimensions), tuple(words)
        self.dim = len(self.dimensions)
        given: dict[str, ArrayLike] = {"idf": idf, "starts": starts, "concepts": concepts, "weights": weights}
        self._arrays = {key: np.ascontiguousarray(given[key], kind) for key, kind in _ARRAYS.items()}
        self._check()
        self._places = {word: place for place, word in enumerate(self.words)}

    @cached_property
    def fingerprint(self) -> str:
        """``"word-concepts:<16 hex>"`` over words, concepts and weights."""
        digest = hashlib.sha256(json.dumps([_VERSION, self.top_k, self.dimensions, self.words]).encode())
        for key in _ARRAYS:
            digest.update(self._arrays[key].tobytes())
        return f"word-concepts:{digest.hexdigest()[:16]}"

    def activations(self, texts: Sequence[str]) -> Floats:
        """Return what each text says about each concept, before it is brought to length one.

        Args:
            texts: The texts.

        Shape:
            texts N -> (N, D) float32

        Returns:
            Rows of numbers of at least 0; the zero row for a text without any known word.

        Raises:
            InputError: something in ``texts`` is not a string.
        """
        checked = checked_texts(texts)
        rows = np.zeros((len(checked), self.dim), np.float32)
        for row, text in zip(rows, checked, strict=True):
            row[:] = self._one(text)
        return rows

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 1024, on_progress: Callable[[int], None] | None = None
    ) -> Floats:
        """Encode texts, which is the same for documents and queries.

        Args:
            texts: The texts.
            batch_size: After how many texts ``on_progress`` is called; has no effect on the rows.
            on_progress: Called with the number of texts just finished.

        Shape:
            texts N -> (N, D) float32

        Returns:
            Unit rows; the zero row for a text without any known word.

        Raises:
            InputError: something in ``texts`` is not a string, or ``batch_size`` is below 1.
        """
        checked = checked_texts(texts)
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        rows = np.zeros((len(checked), self.dim), np.float32)
        for start in range(0, len(checked), batch_size):
            batch = checked[start : start + batch_size]
            rows[start : start + len(batch)] = self.activations(batch)
            if on_progress is not None:
                on_progress(len(batch))
        return unit_rows(rows)

    def encode_query(self, texts: Sequence[str]) -> Floats:
        """Encode queries; see ``encode_document``."""
        return self.encode_document(texts)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as ``model.safetensors`` and ``config.json``; all or nothing.

        Args:
            folder: The folder to write; an existing one is replaced.
        """
        from safetensors.numpy import save

        config = {"format": FORMAT, "version": _VERSION, "dim": self.dim, "top_k": self.top_k}
        config |= {"fingerprint": self.fingerprint, "dimensions": self.dimensions, "words": self.words}
        with atomic_folder(folder) as fresh:
            (fresh / "model.safetensors").write_bytes(save(self._arrays, metadata={"format": FORMAT}))
            (fresh / "config.json").write_text(json.dumps(config, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, name: str | None = None) -> Self:
        """Read a model that ``save`` wrote.

        Args:
            folder: The folder.
            name: What to call the model; None takes the folder as given.

        Returns:
            The model.

        Raises:
            InputError: a file is missing, damaged or holds something else.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        home = Path(folder)
        config = _config(home)
        if config.get("format") != FORMAT or config.get("version") != _VERSION:
            raise InputError(f"folder={str(folder)!r} holds no model of named dimensions that this release can read")
        try:
            arrays = load_file(home / "model.safetensors")
            made = cls(
                config["dimensions"],  # type: ignore[arg-type]
                config["words"],  # type: ignore[arg-type]
                *(arrays[key] for key in _ARRAYS),
                top_k=int(config["top_k"]),  # type: ignore[call-overload]
                name=name or str(folder),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{home} cannot be read, copy or make the model again: {error}") from error
        if made.fingerprint != config.get("fingerprint"):
            raise InputError(f"{home} is damaged, its files do not belong together: copy or make the model again")
        return made

    @staticmethod
    def is_saved_at(folder: str | os.PathLike[str]) -> bool:
        """Tell whether a folder holds a model of this kind.

        Args:
            folder: Any path; it need not exist.

        Returns:
            True if its ``config.json`` says so.
        """
        try:
            return _config(Path(folder)).get("format") == FORMAT
        except InputError:
            return False

    def _one(self, text: str) -> Floats:
        counts = [(self._places[word], count) for word, count in counted_words(text).items() if word in self._places]
        if not counts:
            return np.zeros(self.dim, np.float32)
        places, times = (np.array(each) for each in zip(*sorted(counts), strict=True))  # sorted: one sum, one order
        starts, ends = self._arrays["starts"][places], self._arrays["starts"][places + 1]
        lengths = ends - starts
        entries = np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        said = np.repeat((1 + np.log(times)) * self._arrays["idf"][places], lengths) * self._arrays["weights"][entries]
        row = np.bincount(self._arrays["concepts"][entries], said, self.dim)
        if self.top_k < np.count_nonzero(row):
            row[np.argsort(-row, kind="stable")[self.top_k :]] = 0
        return row.astype(np.float32)

    def _check(self) -> None:
        idf, starts, concepts, weights = self._arrays.values()
        if not self.dimensions or len(set(self.dimensions)) != self.dim or self.top_k < 1:
            raise InputError(f"dimensions={self.dim}, top_k={self.top_k}: names must differ, and there must be some")
        if len(set(self.words)) != len(self.words) or idf.shape != (len(self.words),):
            raise InputError(f"idf has shape {idf.shape} for {len(self.words)} words: one for each, no word twice")
        ordered = starts.shape == (len(self.words) + 1,) and starts[0] == 0 and (np.diff(starts) >= 0).all()
        if not ordered or concepts.shape != (starts[-1],) or weights.shape != concepts.shape:
            raise InputError("starts, concepts, weights: entries of each word behind each other, one weight for each")
        if len(concepts) and not (concepts.min() >= 0 and concepts.max() < self.dim):
            raise InputError(f"concepts: places must lie in 0 to {self.dim - 1}")
        if not (np.isfinite(idf).all() and np.isfinite(weights).all() and (weights >= 0).all() and (idf >= 0).all()):
            raise InputError("idf, weights: numbers must be finite and at least 0")


def _config(home: Path) -> dict[str, object]:
    try:
        found = json.loads((home / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{home / 'config.json'} cannot be read as JSON: {error}") from error
    return found if isinstance(found, dict) else {}
