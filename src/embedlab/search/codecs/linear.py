"""Codecs whose codes are numbers, each on its own: a scan is a product of matrices, blocked or in the kernels of faiss.

Measured on 100,000 vectors of width 384: with many queries a block turned into float32 and multiplied by BLAS is 2 to 5
times as fast as the loops of faiss, which turn every number anew for every query; with few queries faiss is 2 to 20
times as fast. So the scan does both, on one copy of the codes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from embedlab._core.errors import MissingExtraError
from embedlab._core.extras import require
from embedlab.search.codecs.codec import Codec, Codes, Floats, Mask, Parameters, Rows, Scanner, blocks
from embedlab.search.codecs.scanning import best_of, checked_mask, demand_top_k
from embedlab.search.codecs.threads import Found, faiss_threads, in_threads, threads_of

_MANY = 4  # queries from which on the blocked product is faster


class LinearCodec(Codec):
    """A codec whose scores are ``(q * scale) @ numbers + q @ offset``."""

    def scanner(self, codes: Codes) -> Scanner:
        """Make the scan; see ``Codec.scanner``.

        Args:
            codes: Codes (N, B), also memory-mapped.

        Returns:
            The scanner.
        """
        return LinearScanner(self, self.checked_codes(codes))

    @abstractmethod
    def numbers(self, codes: Codes) -> Floats:
        """Return what is multiplied with queries (n, D)."""

    def line(self) -> tuple[Floats, Floats]:
        """Return scale and offset of every dimension, (D,) each."""
        return np.ones(self.dim, np.float32), np.zeros(self.dim, np.float32)

    @abstractmethod
    def faiss_index(self) -> Any:
        """Return an empty index of faiss that stores the same bytes."""

    def _decode(self, codes: Codes) -> Floats:
        scale, offset = self.line()
        return self.numbers(codes) * scale + offset


class LinearScanner:
    """The scan over codes of a ``LinearCodec``.

    Args:
        codec: The codec.
        codes: Codes to start with (N, B); without faiss they are used where they are.
    """

    def __init__(self, codec: LinearCodec, codes: Codes) -> None:
        self.codec, self.codes = codec, codes
        try:
            require("faiss", extra="codecs")
            self.index: Any = codec.faiss_index()
        except MissingExtraError:
            self.index = None
        if self.index is not None:
            self._hand_over(codes)

    def __len__(self) -> int:
        return len(self.codes)

    def add(self, codes: Codes) -> None:
        """Append rows; see ``Scanner``.

        Args:
            codes: Codes (N, B).
        """
        codes = self.codec.checked_codes(codes)
        if self.index is None:
            self.codes = np.concatenate([self.codes, codes])
        else:
            self._hand_over(codes)

    def search(
        self, queries: ArrayLike, top_k: int, *, allowed: Mask | None = None, threads: int | None = None
    ) -> Found:
        """Find the nearest rows; see ``Scanner``.

        Args:
            queries: Vectors (Q, D).
            top_k: Number of rows.
            allowed: Which rows may be returned.
            threads: Most threads; matrix products may take as many as the environment says.

        Returns:
            Scores and rows, (Q, top_k) each.
        """
        demand_top_k(top_k)
        mask, threads = checked_mask(allowed, len(self)), threads_of(threads)
        rows = self.codec.checked_queries(queries)
        if self.index is not None and 0 < len(rows) < _MANY and len(self):
            return self._by_faiss(rows, top_k, mask, threads)
        scale, offset = self.codec.line()
        scaled, shift = rows * scale, rows @ offset

        def part(first: int, last: int) -> Found:
            return best_of(self._scored(scaled, shift, first, last, mask), len(rows), top_k)

        return in_threads(part, len(self), threads)

    def _scored(
        self, scaled: Floats, shift: Floats, first: int, last: int, mask: Mask | None
    ) -> Iterator[tuple[Rows, Floats]]:
        for block in blocks(last - first, 4 * (self.codec.dim + len(scaled)), budget_bytes=1 << 23):
            rows = np.arange(first + block.start, first + block.stop)
            rows = rows if mask is None else rows[mask[rows]]
            codes = self.codes[first + block.start : first + block.stop] if mask is None else self.codes[rows]
            numbers = self.codec.numbers(codes)
            products = numbers @ scaled[0] if len(scaled) == 1 else scaled @ numbers.T
            yield rows, products.reshape(len(scaled), -1) + shift[:, None]

    def _by_faiss(self, queries: Floats, top_k: int, mask: Mask | None, threads: int) -> Found:
        faiss = require("faiss", extra="codecs")
        chosen = None
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        with faiss_threads(threads):
            scores, rows = self.index.search(queries, min(top_k, len(self)), params=chosen)
        missing = top_k - rows.shape[1]
        scores = np.pad(np.where(rows < 0, -np.inf, scores), ((0, 0), (0, missing)), constant_values=-np.inf)
        return scores.astype(np.float32), np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)

    def _hand_over(self, codes: Codes) -> None:
        """Let faiss hold the codes, and look at them there."""
        faiss = require("faiss", extra="codecs")
        for block in blocks(len(codes), self.codec.bytes_per_vector):
            self.index.add_sa_codes(np.ascontiguousarray(codes[block]))
        if self.index.ntotal:
            held = faiss.rev_swig_ptr(self.index.codes.data(), self.index.ntotal * self.codec.bytes_per_vector)
            self.codes = held.reshape(self.index.ntotal, -1)


class Float32Codec(LinearCodec):
    """Stores vectors as they are.

    Args:
        dim: Width of the vectors.
        seed: Not used.
    """

    name: ClassVar[str] = "float32"

    def __init__(self, dim: int, *, seed: int = 0) -> None:
        super().__init__(dim, bytes_per_vector=4 * dim, seed=seed)

    def numbers(self, codes: Codes) -> Floats:
        """Return the vectors themselves.

        Args:
            codes: Codes (n, 4 D).

        Returns:
            Vectors (n, D), which may share memory with the codes.
        """
        return np.ascontiguousarray(codes).view("<f4").astype(np.float32, copy=False)

    def faiss_index(self) -> Any:
        """Return a flat index."""
        return require("faiss", extra="codecs").IndexFlatIP(self.dim)

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        return {}

    def _encode(self, vectors: Floats) -> Codes:
        return np.ascontiguousarray(vectors, "<f4").view(np.uint8)

    def _decode(self, codes: Codes) -> Floats:
        return self.numbers(codes).copy()


class Float16Codec(LinearCodec):
    """Stores half-precision numbers: an error of one in 2,000, and half the bytes.

    Args:
        dim: Width of the vectors.
        seed: Not used.
    """

    name: ClassVar[str] = "float16"

    def __init__(self, dim: int, *, seed: int = 0) -> None:
        super().__init__(dim, bytes_per_vector=2 * dim, seed=seed)

    def numbers(self, codes: Codes) -> Floats:
        """Return the vectors.

        Args:
            codes: Codes (n, 2 D).

        Returns:
            Vectors (n, D).
        """
        return np.ascontiguousarray(codes).view("<f2").astype(np.float32)

    def faiss_index(self) -> Any:
        """Return a scalar quantiser of half-precision numbers."""
        return _scalar_index(self.dim, "QT_fp16")

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        return {}

    def _encode(self, vectors: Floats) -> Codes:
        largest = float(np.finfo(np.float16).max)
        return np.clip(vectors, -largest, largest).astype("<f2").view(np.uint8)


class Int8Codec(LinearCodec):
    """Stores every number as one of 256 equal steps between the smallest and the largest that its dimension had.

    Args:
        dim: Width of the vectors.
        seed: Not used.
    """

    name: ClassVar[str] = "int8"

    def __init__(self, dim: int, *, seed: int = 0) -> None:
        super().__init__(dim, bytes_per_vector=dim, seed=seed)

    def numbers(self, codes: Codes) -> Floats:
        """Return the steps as numbers.

        Args:
            codes: Codes (n, D).

        Returns:
            Numbers 0 to 255 (n, D).
        """
        return codes.astype(np.float32)

    def line(self) -> tuple[Floats, Floats]:
        """Return the width of a step and the middle of the first, (D,) each."""
        low, step = (np.asarray(self.parameters[key], np.float32) for key in ("low", "range"))
        step = step / np.float32(255)
        return step, low + step / np.float32(2)

    def faiss_index(self) -> Any:
        """Return a scalar quantiser with the same steps."""
        index = _scalar_index(self.dim, "QT_8bit")
        trained = np.concatenate([self.parameters["low"], self.parameters["range"]])
        require("faiss", extra="codecs").copy_array_to_vector(trained, index.sq.trained)
        return index

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        low, high = vectors.min(axis=0), vectors.max(axis=0)
        return {"low": low, "range": np.maximum(high - low, np.float32(1e-12))}

    def _encode(self, vectors: Floats) -> Codes:
        shares = (vectors - self.parameters["low"]) / self.parameters["range"]
        return np.clip(np.floor(shares * np.float32(255)), 0, 255).astype(np.uint8)


def _scalar_index(dim: int, kind: str) -> Any:
    faiss = require("faiss", extra="codecs")
    index = faiss.IndexScalarQuantizer(dim, getattr(faiss.ScalarQuantizer, kind), faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    return index
