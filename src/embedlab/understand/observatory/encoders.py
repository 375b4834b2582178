"""What embeds tables: text encoders object by object, a control that cannot see any order, and opening them by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.data.tables import Frame, Table, as_table
from embedlab.models import Encoder, load_model
from embedlab.understand.observatory.levels import serialise

Floats = NDArray[np.float64]


@runtime_checkable
class TableEmbedder(Protocol):
    """Whatever embeds the objects of tables; the properties ask for no more than this.

    Attributes:
        name: What reports call it.
    """

    name: str

    def embed(self, tables: Sequence[Table], *, level: str) -> list[Floats]:
        """Return for each table one row per object of the level (objects, D); NaN for an object without embedding."""
        ...

    def num_rows_that_fit(self, tables: Sequence[Table], *, level: str) -> int:
        """Return how many leading rows of every one of these tables can be embedded without cutting any text off."""
        ...


class ByLevel:
    """The four usual levels by name, for whatever has ``embed``; frames are taken as well as tables."""

    def embed(self, tables: Sequence[Table], *, level: str) -> list[Floats]:
        """Return for each table one row per object of the level (objects, D)."""
        raise TypeError(f"{type(self).__name__} does not define embed")

    def columns(self, data: Frame) -> Floats:
        """Return one row per column (C, D); NaN where there is nothing to embed."""
        return self.embed([as_table(data)], level="column")[0]

    def rows(self, data: Frame) -> Floats:
        """Return one row per row of the table (R, D)."""
        return self.embed([as_table(data)], level="row")[0]

    def table(self, data: Frame) -> Floats:
        """Return the one embedding of the whole table (D,)."""
        return np.asarray(self.embed([as_table(data)], level="table")[0][0])

    def cells(self, data: Frame) -> Floats:
        """Return one embedding per cell (R + 1, C, D), headers in row 0; NaN for missing values."""
        table = as_table(data)
        flat = self.embed([table], level="cell")[0]
        return flat.reshape(table.num_rows + 1, table.num_columns, -1)


class SentenceColumnEncoder(ByLevel):
    """Embed each column, row or cell of a table as a text of its own: the baseline without any context.

    Args:
        encoder: Any text encoder of this library, such as ``load_model()``.
        max_length: Longest text in tokens, if the encoder truncates; by default what the encoder says of itself.
        name: What reports call it; the encoder's name by default.

    Raises:
        InputError: ``max_length`` is below 1.

    Example:
        >>> encoder = SentenceColumnEncoder(load_model())
        >>> encoder.columns(Table("t", ("city", "people"), (("Oslo", "Rome"), ("7", "9")))).shape
        (2, 256)
    """

    def __init__(self, encoder: Encoder, *, max_length: int | None = None, name: str | None = None) -> None:
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length={max_length} must be at least 1, or None")
        host = getattr(encoder, "host", None)  # of a sentence-transformers model
        self.encoder = encoder
        self.name = name or encoder.name
        self.max_length = max_length or getattr(host, "max_seq_length", None)
        self._tokenizer: Any = getattr(host, "tokenizer", None)
        self._sizes: dict[str, int] = {}

    def embed(self, tables: Sequence[Table], *, level: str) -> list[Floats]:
        """Return one row per object of each table; no text is encoded twice."""
        texts = [serialise(table, level=level).texts() for table in tables]
        known = {text: place for place, text in enumerate(dict.fromkeys(t for own in texts for t in own if t.strip()))}
        if not known:
            return [np.full((len(own), self.encoder.dim), np.nan) for own in texts]
        rows = self.encoder.encode_document(list(known)).astype(np.float64)
        rows[~rows.any(axis=1)] = np.nan  # the encoder knows no word of it
        rows = np.concatenate([rows, np.full((1, rows.shape[1]), np.nan)])
        return [rows[[known.get(text, -1) for text in own]].reshape(len(own), rows.shape[1]) for own in texts]

    def num_rows_that_fit(self, tables: Sequence[Table], *, level: str) -> int:
        """Return the largest common prefix none of whose objects is longer than the encoder's limit."""
        most = min((table.num_rows for table in tables), default=0)
        if self.max_length is None or self._tokenizer is None:
            return most
        return largest(most, lambda rows: all(self._fits(table.head(rows), level) for table in tables))

    def _fits(self, table: Table, level: str) -> bool:
        return all(self._size(text) <= (self.max_length or 0) for text in serialise(table, level=level).texts())

    def _size(self, text: str) -> int:
        if text not in self._sizes:
            self._sizes[text] = len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])
        return self._sizes[text]


class CellMeanEncoder(ByLevel):
    """Embed each object as the mean of its independently encoded cells: the control that cannot see any order.

    It must come out at cosine 1 and MCV 0, exactly, when rows or columns are reordered.

    Args:
        encoder: Any text encoder of this library.
        name: What reports call it.

    Example:
        >>> table = Table("t", ("a", "b"), (("one", "two"), ("three", "four")))
        >>> encoder = CellMeanEncoder(load_model())
        >>> turned, straight = encoder.columns(table.take_rows([1, 0])), encoder.columns(table)
        >>> bool((turned == straight).all())
        True
    """

    def __init__(self, encoder: Encoder, *, name: str = "mean of cells") -> None:
        self.encoder = encoder
        self.name = name

    def embed(self, tables: Sequence[Table], *, level: str) -> list[Floats]:
        """Return one row per object of each table."""
        written = [serialise(table, level=level) for table in tables]
        known = {text: i for i, text in enumerate(sorted({t for each in written for t, _ in each.pieces if t}))}
        cells = self.encoder.encode_document(list(known)).astype(np.float64) if known else np.zeros((0, 1))
        results = []
        for each in written:
            bags: list[Counter[str]] = [Counter() for _ in range(each.num_objects)]
            for text, owner in each.pieces:
                if text and owner >= 0:
                    bags[owner][text] += 1
            results.append(np.array([_mean(bag, known, cells) for bag in bags]).reshape(len(bags), cells.shape[1]))
        return results

    def num_rows_that_fit(self, tables: Sequence[Table], *, level: str) -> int:
        """Return the rows of the shortest table: single cells are never too long."""
        return min((table.num_rows for table in tables), default=0)


def load_table_encoder(
    name: str = "default",
    *,
    readout: Literal["mark", "mean", "alone"] | None = None,
    max_length: int | None = None,
    device: str | None = None,
) -> TableEmbedder:
    """Open an encoder of tables by the name of a model.

    Args:
        name: As for ``load_model``; also the folder or hub name of any model of the transformers library.
        readout: Of a transformer that reads the whole table: an object is read at its ``"mark"`` or as the ``"mean"``
            of its tokens (by default the mark, where there is one), or each object's text is encoded ``"alone"``.
        max_length: Longest text in tokens; the model's own limit by default.
        device: Where torch runs.

    Returns:
        A ``TableEncoder`` for a transformer, otherwise a ``SentenceColumnEncoder``.

    Raises:
        InputError: there is no such model, or it is no transformer and ``readout`` asks for one.
        MissingExtraError: the model needs the extra ``train``.
    """
    from embedlab.understand.observatory.transformer import TableEncoder

    encoder = load_model(name, device=device)
    host = getattr(encoder, "host", None)
    body = getattr(host[0], "auto_model", None) if host is not None else None
    tokenizer = getattr(host, "tokenizer", None)
    if readout not in ("mark", "mean", "alone", None):
        raise unknown_name("readout", str(readout), ("mark", "mean", "alone"))
    if readout == "alone" or body is None or tokenizer is None:
        if readout in ("mark", "mean"):
            raise InputError(f"readout={readout!r}: {name!r} is no transformer and reads each text alone; leave it out")
        return SentenceColumnEncoder(encoder, max_length=max_length)
    limit = max_length or getattr(host, "max_seq_length", None) or 512
    return TableEncoder(body, tokenizer, limit, pooling=readout, name=name)


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """Find the largest number, up to some most, for which a monotone condition still holds: double, then bisect.

    Args:
        most: Upper end.
        fits: Function of a number; once false it stays false.

    Returns:
        The number; 0 also when not even 0 fits.

    Example:
        >>> largest(100, lambda rows: rows * rows < 50)
        7
    """
    low, high = 0, min(1, most)
    while high < most and fits(high):  # what lies far beyond the answer is never looked at
        low, high = high, min(2 * high, most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _mean(bag: Counter[str], known: dict[str, int], cells: Floats) -> Floats:
    """Mean over a bag of cells, added up in one order whatever order they came in."""
    if not bag:
        return np.full(cells.shape[1], np.nan)
    texts: Iterable[str] = sorted(bag)
    counts = np.array([bag[text] for text in texts], dtype=np.float64)
    return np.asarray(counts @ cells[[known[text] for text in texts]] / counts.sum())
