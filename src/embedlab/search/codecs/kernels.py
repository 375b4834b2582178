"""The kernels of symmetric distance calculation: each holds the rows in its own layout and finds the best of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.search.codecs.bit_counts import BLOCK, Planes, has_compiler, is_compiled, query_words, scan
from embedlab.search.codecs.codec import Codes, Floats, Mask, Rows, blocks
from embedlab.search.codecs.scanning import among, best_of
from embedlab.search.codecs.threads import Found, faiss_threads, in_threads, reduce_found
from embedlab.search.codecs.uniform import Inverse, Levels, dequantise, row_bytes, unpack

_MOST_GROUPS = 512  # beyond, tables get so coarse that candidates are lost, and beyond 1024 their sums overflow
_COMPILING_S = 2.0  # to import numba and to compile one loop
_SEGMENT = 1 << 18  # rows of one faiss index: one query can then use several threads


@dataclass(frozen=True, slots=True)
class Query:
    """Queries in both forms.

    Attributes:
        values: The numbers to multiply with (Q, m): those of the codes, or any.
        levels: Their codes (Q, m), to multiply as whole numbers.
        bits: Bits of those codes.
    """

    values: Floats
    levels: Levels
    bits: int

    def numbers(self) -> Floats:
        """Return the whole numbers of the codes.

        Returns:
            Numbers (Q, m).
        """
        return dequantise(self.levels, self.bits)


class Kernel(ABC):
    """Rows in memory, and a way to find those with the largest ``product * inverse norm``.

    Args:
        m: Number of coordinates.
        bits: Bits per coordinate.
    """

    exact: ClassVar[bool] = True  # whether products of codes come out exactly, so that none is computed again
    fetch: ClassVar[tuple[int, int]] = (8, 64)  # candidates to compute again: for each row wanted, and at least

    def __init__(self, m: int, bits: int) -> None:
        self.m, self.bits = m, bits

    @abstractmethod
    def add(self, rows: Codes) -> None:
        """Append stored rows (N, B)."""

    @abstractmethod
    def search(self, query: Query, top_k: int, mask: Mask | None, threads: int) -> Found:
        """Find the best of the rows in the mask: scores of any scale in falling order, -inf and -1 where fewer."""

    @abstractmethod
    def numbers(self, rows: Rows) -> tuple[Floats, Inverse]:
        """Return the whole numbers (n, m) and inverse norms (n,) of some rows."""


class PopcountKernel(Kernel):
    """Weighted counts of differing bits, with the norm and the best rows in the same pass.

    A process that searches once shall not wait for a compiler: the plain loop runs until it has taken as long as
    compiling would, which never costs more than twice the best that could be done.
    """

    def __init__(self, m: int, bits: int) -> None:
        super().__init__(m, bits)
        self.planes = Planes(m, bits)
        self.compiled = has_compiler()
        self.patience_s = _COMPILING_S

    def add(self, rows: Codes) -> None:
        self.planes.add(rows)

    def search(self, query: Query, top_k: int, mask: Mask | None, threads: int) -> Found:
        words = query_words(query.levels, query.bits)
        compiled = self.compiled and (self.patience_s <= 0 or is_compiled(query.bits))

        def part(first: int, last: int) -> Found:
            return scan(self.planes, words, top_k, mask=mask, first=first, last=last, compiled=compiled)

        start = perf_counter()
        found = in_threads(part, -(-self.planes.count // BLOCK), threads)
        self.patience_s -= 0.0 if compiled else perf_counter() - start
        return found

    def numbers(self, rows: Rows) -> tuple[Floats, Inverse]:
        levels, inverse = unpack(self.planes.rows(rows), self.m, self.bits)
        return dequantise(levels, self.bits), inverse


class NumpyKernel(Kernel):
    """Products of float32 matrices, block by block: whole numbers below 2**24 stay exact."""

    def __init__(self, m: int, bits: int) -> None:
        super().__init__(m, bits)
        self.rows: Codes = np.zeros((0, row_bytes(m, bits)), np.uint8)

    def add(self, rows: Codes) -> None:
        self.rows = np.concatenate([self.rows, rows]) if len(self.rows) else rows

    def search(self, query: Query, top_k: int, mask: Mask | None, threads: int) -> Found:
        queries = query.numbers()

        def part(first: int, last: int) -> Found:
            scored = self._scored(queries, blocks(last - first, 8 * self.m), first, mask)
            return best_of(scored, len(queries), top_k)

        return in_threads(part, len(self.rows), threads)

    def numbers(self, rows: Rows) -> tuple[Floats, Inverse]:
        levels, inverse = unpack(self.rows[rows], self.m, self.bits)
        return dequantise(levels, self.bits), inverse

    def _scored(
        self, queries: Floats, parts: list[slice], first: int, mask: Mask | None
    ) -> Iterator[tuple[Rows, Floats]]:
        for part in parts:
            rows = np.arange(first + part.start, first + part.stop)
            rows = rows if mask is None else rows[mask[rows]]
            numbers, inverse = self.numbers(rows)
            yield rows, (queries @ numbers.T) * inverse.astype(np.float32)


class Int8Kernel(Kernel):
    """Products of 8-bit matrices with 32-bit sums; takes a byte per coordinate in memory."""

    def __init__(self, m: int, bits: int) -> None:
        super().__init__(m, bits)
        require("torch", extra="train")
        self.held: NDArray[np.int8] = np.zeros((0, m), np.int8)
        self.inverse: Inverse = np.zeros(0, np.uint16)

    def add(self, rows: Codes) -> None:
        levels, inverse = unpack(rows, self.m, self.bits)
        self.held = np.concatenate([self.held, dequantise(levels, self.bits).astype(np.int8)])
        self.inverse = np.concatenate([self.inverse, inverse])

    def search(self, query: Query, top_k: int, mask: Mask | None, threads: int) -> Found:
        torch = require("torch", extra="train")
        queries = torch.from_numpy(query.numbers().astype(np.int8))

        def scored(first: int, last: int) -> Iterator[tuple[Rows, Floats]]:
            for part in blocks(last - first, 4 * len(queries), budget_bytes=1 << 22):
                rows = np.arange(first + part.start, first + part.stop)
                rows = rows if mask is None else rows[mask[rows]]
                held = self.held[rows[0] : rows[-1] + 1] if mask is None else self.held[rows]
                products = torch._int_mm(queries, torch.from_numpy(held).T).numpy()
                yield rows, products.astype(np.float32) * self.inverse[rows].astype(np.float32)

        return in_threads(lambda a, b: best_of(scored(a, b), len(queries), top_k), len(self.held), threads)

    def numbers(self, rows: Rows) -> tuple[Floats, Inverse]:
        return self.held[rows].astype(np.float32), self.inverse[rows]


class FastScanKernel(Kernel):
    """Table look-ups of 4 bits in registers (faiss), whose tables hold 8-bit roundings of partial products.

    A group of 4 bits is a group of 4, 2 or 1 coordinates, and its 16 entries are all their values: faiss then stores
    exactly the codes. Its scores are off by the rounding and lack the norm, so they only propose.
    """

    exact = False
    fetch = (16, 160)

    def __init__(self, m: int, bits: int) -> None:
        super().__init__(m, bits)
        require("faiss", extra="codecs")
        self.group = 4 // bits
        self.padded = -(-m // self.group) * self.group
        if self.padded // self.group > _MOST_GROUPS:
            raise InputError(
                f"m={m} with bits={bits} are {self.padded // self.group} groups: kernel='pqfs' sums 8-bit entries of "
                f"at most {_MOST_GROUPS} in 16 bits; use kernel='popcount'"
            )
        self.segments: list[Any] = []
        self.inverse: Inverse = np.zeros(0, np.uint16)

    def add(self, rows: Codes) -> None:
        for part in blocks(len(rows), 4 * self.padded):
            levels, inverse = unpack(rows[part], self.m, self.bits)
            numbers = self._pad(dequantise(levels, self.bits))
            while len(numbers):
                if not self.segments or self.segments[-1].ntotal == _SEGMENT:
                    self.segments.append(self._empty())
                room = _SEGMENT - self.segments[-1].ntotal
                self.segments[-1].add(numbers[:room])
                numbers = numbers[room:]
            self.inverse = np.concatenate([self.inverse, inverse])

    def search(self, query: Query, top_k: int, mask: Mask | None, threads: int) -> Found:
        queries = self._pad(query.values)
        return among(lambda count: self._propose(queries, count, threads), len(queries), top_k, len(self.inverse), mask)

    def numbers(self, rows: Rows) -> tuple[Floats, Inverse]:
        found = np.empty((len(rows), self.padded), np.float32)
        for number, segment in enumerate(self.segments):
            here = np.flatnonzero(rows // _SEGMENT == number)
            if len(here):
                found[here] = segment.reconstruct_batch(rows[here] % _SEGMENT)
        return found[:, : self.m], self.inverse[rows]

    def _propose(self, queries: Floats, top_k: int, threads: int) -> Found:
        def ask(segment: Any, number: int, its_threads: int) -> Found:
            with faiss_threads(its_threads):
                scores, rows = segment.search(queries, min(top_k, segment.ntotal))
            return scores, np.where(rows < 0, -1, rows + number * _SEGMENT)

        if len(queries) < 2 * threads and len(self.segments) > 1:  # faiss itself shares out queries only
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(lambda item: ask(item[1], item[0], 1), enumerate(self.segments)))
        else:
            found = [ask(segment, number, threads) for number, segment in enumerate(self.segments)]
        return reduce_found(found, len(queries), top_k)

    def _pad(self, numbers: Floats) -> Floats:
        if self.padded == self.m:
            return np.ascontiguousarray(numbers, np.float32)
        return np.pad(numbers, ((0, 0), (0, self.padded - self.m))).astype(np.float32)

    def _empty(self) -> Any:
        faiss = require("faiss", extra="codecs")
        groups = self.padded // self.group
        index = faiss.IndexPQFastScan(self.padded, groups, 4, faiss.METRIC_INNER_PRODUCT, 32)
        steps = dequantise(np.arange(1 << self.bits, dtype=np.uint8), self.bits)
        values = np.stack(np.meshgrid(*[steps] * self.group, indexing="ij"), axis=-1).reshape(-1, self.group)
        table = np.resize(values, (16, self.group))  # 3 bits: the upper half is never the first of equals
        faiss.copy_array_to_vector(np.tile(table, (groups, 1)).ravel(), index.pq.centroids)
        index.is_trained = True
        index.implem = 15  # a reservoir, one query after the other: the fastest for the candidates wanted here
        return index


KERNELS: dict[str, type[Kernel]] = {
    "popcount": PopcountKernel,
    "pqfs": FastScanKernel,
    "int8": Int8Kernel,
    "numpy": NumpyKernel,
}
