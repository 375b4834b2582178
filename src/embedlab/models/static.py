"""The static model: a text's vector is the normalised sum of its tokens' rows. Needs numpy and the tokenizer only."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_folder
from embedlab.models.encoder import checked_texts, unit_rows
from embedlab.models.words import BLOCK_CHARS, WordTable

FORMAT = "embedlab-static"
_VERSION = 1
_FILES = ("model.safetensors", "tokenizer.json", "config.json")


class StaticModel:
    r"""Encode texts as the normalised sum of one vector per token.

    With the row :math:`e_t` of token t, its weight included, a text with tokens :math:`t_1 .. t_T` has the vector
    :math:`\sum_i e_{t_i} / \|\sum_i e_{t_i}\|`. Encoding is a look-up per word, so it runs at millions of tokens a
    second on one core and needs neither torch nor a GPU.

    Args:
        table: One row per token id. 8-bit rows need ``scales``; uint8 holds two 4-bit numbers, see ``quantise_rows``.
        tokenizer_json: The tokenizer in the format of the tokenizers library.
        scales: Factor of each row; None for one.
        name: What this model is called.

    Shape:
        table (V, D) int8, float16 or float32, or (V, D / 2) uint8; scales (V,) float16 or float32

    Raises:
        InputError: shapes, types or values that cannot be a table, or a tokenizer with ids beyond the table.

    Example:
        >>> from embedlab.models import load_model
        >>> model = load_model("default")
        >>> near, far = model.encode(["a small dog", "a puppy", "tax law"])[0] @ model.encode(["a puppy", "tax law"]).T
        >>> bool(near > far)
        True
    """

    roles_alike = True  #: documents and queries are encoded alike

    def __init__(
        self,
        table: NDArray[np.generic],
        tokenizer_json: str,
        *,
        scales: NDArray[np.generic] | None = None,
        name: str = "static",
    ) -> None:
        _check(table, scales)
        self.name = name
        self.dim = int(table.shape[1]) * (2 if table.dtype == np.uint8 else 1)
        self.tokenizer_json = tokenizer_json
        self._table = table
        self._scales = scales
        self._words = self._word_table()
        self._ones = np.ones(BLOCK_CHARS, dtype=np.float32)

    @property
    def rows(self) -> NDArray[np.float32]:
        """The table as float32 (V, D), scales applied; a new array."""
        return self._decode(slice(None))

    @cached_property
    def fingerprint(self) -> str:
        """``"static:<16 hex>"`` over the table, the scales and the tokenizer."""
        digest = hashlib.sha256(f"{FORMAT} {_VERSION} {self._table.dtype} {self._table.shape}".encode())
        digest.update(self._table.tobytes())
        if self._scales is not None:
            digest.update(self._scales.tobytes())
        digest.update(self.tokenizer_json.encode())
        return f"static:{digest.hexdigest()[:16]}"

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 1024, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Encode texts, which is the same for documents and queries.

        Args:
            texts: The texts, of any length; memory stays bounded for very long ones.
            batch_size: After how many texts ``on_progress`` is called; has no effect on the vectors.
            on_progress: Called with the number of texts just finished.

        Shape:
            texts N -> (N, D) float32

        Returns:
            Unit rows; the zero row for a text without any known token.

        Raises:
            InputError: something in ``texts`` is not a string.
        """
        checked = checked_texts(texts)
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        sums = np.zeros((len(checked), self.dim), dtype=np.float32)
        for start in range(0, len(checked), batch_size):
            batch = checked[start : start + batch_size]
            self._add_sums(batch, sums[start : start + batch_size])
            if on_progress is not None:
                on_progress(len(batch))
        return unit_rows(sums)

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 1024, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Encode documents; see ``encode``."""
        return self.encode(texts, batch_size=batch_size, on_progress=on_progress)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; see ``encode``."""
        return self.encode(texts)

    def save(self, folder: str | os.PathLike[str], *, extra_config: dict[str, object] | None = None) -> None:
        """Write the model as ``model.safetensors``, ``tokenizer.json`` and ``config.json``; all or nothing.

        Args:
            folder: The folder to write; an existing one is replaced.
            extra_config: More entries for ``config.json``, for people to read.
        """
        from safetensors.numpy import save

        arrays = {"table": np.ascontiguousarray(self._table)}
        if self._scales is not None:
            arrays["scales"] = np.ascontiguousarray(self._scales)
        config = {"format": FORMAT, "version": _VERSION, "dim": self.dim, **(extra_config or {})}
        with atomic_folder(folder) as fresh:
            (fresh / "model.safetensors").write_bytes(save(arrays, metadata={"format": FORMAT}))
            (fresh / "tokenizer.json").write_text(self.tokenizer_json, encoding="utf-8")
            (fresh / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, name: str | None = None) -> StaticModel:
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
        for file in _FILES:
            if not (home / file).is_file():
                raise InputError(
                    f"folder={str(folder)!r} holds no {file}: expected a folder written by StaticModel.save"
                )
        config = _config(home)
        if config.get("format") != FORMAT or config.get("version") != _VERSION:
            raise InputError(
                f"{home / 'config.json'} says format {config.get('format')!r} version {config.get('version')!r}: "
                f"this release reads {FORMAT!r} version {_VERSION}"
            )
        try:
            arrays = load_file(home / "model.safetensors")
        except (SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{home / 'model.safetensors'} cannot be read, copy the model again: {error}") from error
        if "table" not in arrays or not arrays.keys() <= {"table", "scales"}:
            raise InputError(
                f"{home / 'model.safetensors'} holds {sorted(arrays)}: expected 'table' and perhaps 'scales'"
            )
        try:
            tokenizer_json = (home / "tokenizer.json").read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{home / 'tokenizer.json'} is not UTF-8: {error}") from error
        return cls(arrays["table"], tokenizer_json, scales=arrays.get("scales"), name=name or str(folder))

    @staticmethod
    def is_saved_at(folder: str | os.PathLike[str]) -> bool:
        """Tell whether a folder holds a model of this kind.

        Args:
            folder: Any path; it need not exist.

        Returns:
            True if its ``config.json`` says so.
        """
        home = Path(folder)
        try:
            return _config(home).get("format") == FORMAT
        except (InputError, OSError):
            return False

    def _word_table(self) -> WordTable:
        return WordTable(self._decode, len(self._table), self.dim, self.tokenizer_json)

    def _decode(self, places: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """Return some rows as float32, scales applied."""
        stored: NDArray[Any] = self._table[places]
        if stored.dtype == np.uint8:
            rows = np.empty((len(stored), self.dim), dtype=np.float32)
            rows[:, ::2] = stored & 15
            rows[:, 1::2] = stored >> 4
            rows -= 8
        else:
            rows = stored.astype(np.float32)
        if self._scales is not None:
            rows *= self._scales[places].astype(np.float32)[:, None]
        return rows

    def _add_sums(self, texts: list[str], sums: NDArray[np.float32]) -> None:
        """Add every text's rows to its row of ``sums`` (N, D)."""
        for places, pieces in _blocks(texts):
            words = self._words
            found = words.look_up(pieces)
            if found is None:  # full of words of earlier texts: start afresh; threads with the old table go on with it
                words = self._words = self._word_table()
                found = words.look_up(pieces)
                if found is None:
                    raise InputError("a block of text has more new words than the cache takes: please report the text")
            rows, ends = found
            start = 0
            for place, end in zip(places, ends, strict=True):
                if end > start:
                    count = end - start
                    ones = self._ones[:count] if count <= len(self._ones) else np.ones(count, dtype=np.float32)
                    sums[place] += ones @ words.rows.take(rows[start:end], axis=0)
                start = end


def quantise_rows(
    rows: NDArray[np.float32], *, bits: int = 8
) -> tuple[NDArray[np.int8] | NDArray[np.uint8], NDArray[np.float16]]:
    """Round every row to 8 or 4 bits with a factor of its own.

    Args:
        rows: The table.
        bits: 8, or 4 for two numbers in a byte: the first in its low half, each 8 more than what is meant.

    Shape:
        rows (V, D) float32 -> (V, D) int8 or (V, D / 2) uint8, (V,) float16

    Returns:
        The rounded table and the factors of its rows.

    Raises:
        InputError: another number of bits, or 4 bits and an odd number of columns.

    Example:
        >>> table, scales = quantise_rows(np.array([[1.0, -0.5], [0, 0]], dtype=np.float32))
        >>> table.tolist()
        [[127, -64], [0, 0]]
    """
    if bits not in (4, 8) or (bits == 4 and rows.shape[1] % 2):
        raise InputError(f"bits={bits} for {rows.shape[1]} columns: use 8, or 4 with an even number of columns")
    largest = 2 ** (bits - 1) - 1
    peaks = np.abs(rows).max(axis=1, initial=0)
    best = np.zeros(len(rows), dtype=np.float16)
    least = np.full(len(rows), np.inf)
    # With few levels it pays to clip the peaks of a row, so that all others are rounded finer.
    for share in (1.0,) if bits == 8 else np.linspace(0.6, 1.0, 9):
        scales = (peaks * share / largest).astype(np.float16)
        error = np.square(_rounded(rows, scales, largest) * scales.astype(np.float32)[:, None] - rows).sum(axis=1)
        better = error < least
        best[better], least[better] = scales[better], error[better]
    table = _rounded(rows, best, largest).astype(np.int8)
    if bits == 8:
        return table, best
    packed = (table + 8).astype(np.uint8)
    return packed[:, ::2] | (packed[:, 1::2] << 4), best


def _rounded(rows: NDArray[np.float32], scales: NDArray[np.float16], largest: int) -> NDArray[np.float32]:
    factors = np.where(scales > 0, scales, 1).astype(np.float32)
    rounded: NDArray[np.float32] = np.clip(np.rint(rows / factors[:, None]), -largest, largest)
    return rounded


def _blocks(texts: list[str]) -> Iterator[tuple[list[int], list[str]]]:
    """Yield blocks of at most ``BLOCK_CHARS`` characters: where each piece belongs, and the pieces."""
    places: list[int] = []
    pieces: list[str] = []
    room = BLOCK_CHARS
    for place, text in enumerate(texts):
        for piece in (text,) if len(text) <= BLOCK_CHARS else _cut(text):
            if len(piece) > room:
                yield places, pieces
                places, pieces, room = [], [], BLOCK_CHARS
            places.append(place)
            pieces.append(piece)
            room -= len(piece)
    if pieces:
        yield places, pieces


def _cut(text: str) -> Iterator[str]:
    """Cut a long text at blanks, so that no word is halved; only text without any blank is cut anywhere."""
    start = 0
    while start < len(text):
        end = start + BLOCK_CHARS
        if end < len(text):
            blank = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            end = blank + 1 if blank >= start else end
        yield text[start:end]
        start = end


def _config(home: Path) -> dict[str, object]:
    try:
        config = json.loads((home / "config.json").read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{home / 'config.json'} is not JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _check(table: NDArray[np.generic], scales: NDArray[np.generic] | None) -> None:
    if table.ndim != 2 or 0 in table.shape or table.dtype not in (np.int8, np.uint8, np.float16, np.float32):
        raise InputError(
            f"table has shape {table.shape} and type {table.dtype}: "
            "expected (V, D) of int8, float16 or float32, or (V, D / 2) of uint8"
        )
    if table.dtype in (np.int8, np.uint8) and scales is None:
        raise InputError(f"table is {table.dtype} but scales is None: give the factor of each row")
    if scales is not None and (scales.shape != table.shape[:1] or scales.dtype not in (np.float16, np.float32)):
        raise InputError(
            f"scales has shape {scales.shape} and type {scales.dtype}: expected {table.shape[:1]} float16 or float32"
        )
    for name, values in (("table", table), ("scales", scales)):
        if values is not None and values.dtype in (np.float16, np.float32) and not np.isfinite(values).all():
            raise InputError(f"{name} holds NaN or infinite values: every value must be finite")
