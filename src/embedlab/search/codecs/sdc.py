"""Symmetric distance calculation: an exhaustive scan over uniform codes, exact to the last bit whatever kernel runs it.

The score of a query's code ``b_q`` with a document's is ``<b_q, b_d> / |b_d|``: a whole number, computed exactly, times
the stored inverse norm. Kernels differ in speed alone:

| kernel | how | needs |
| --- | --- | --- |
| ``popcount`` | weighted bit counts of XORed planes; norms and best rows in the same pass | numba, to be fast |
| ``pqfs`` | 4-bit table look-ups in registers find candidates, whose products are computed exactly | faiss |
| ``int8`` | products of 8-bit matrices, for many queries at once | torch |
| ``numpy`` | products of float32 matrices, block by block | nothing |

A query may also be a vector (the asymmetric mode): a kernel then finds candidates with a coarser query, and their
products with the vector itself decide.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from embedlab._core.errors import InputError, MissingExtraError, unknown_name
from embedlab._core.extras import require
from embedlab.search.codecs.bit_counts import has_compiler
from embedlab.search.codecs.codec import CodecError, Codes, Floats, Mask, Rows
from embedlab.search.codecs.kernels import KERNELS, Kernel, Query
from embedlab.search.codecs.scanning import checked_mask, demand_top_k, merge
from embedlab.search.codecs.threads import Found, threads_of
from embedlab.search.codecs.uniform import dequantise, quantise, row_bytes, unit_scale, unpack

KernelName: TypeAlias = Literal["auto", "popcount", "pqfs", "int8", "numpy"]

_QUERY_BITS = 6  # of a query that is no code, while candidates are looked for


class SDCIndex:
    """Searches stored rows of uniform codes exhaustively.

    Args:
        m: Number of coordinates of a code.
        bits: Bits per coordinate, 1 to 4.
        kernel: Name of a kernel; ``"auto"`` takes the fastest that can be had.

    Raises:
        InputError: ``m`` or ``bits`` is not allowed, or there is no such kernel.
        MissingExtraError: the kernel's package is missing.

    Example:
        >>> from embedlab.search.codecs.uniform import pack
        >>> levels = np.random.default_rng(0).integers(0, 4, size=(50, 64)).astype(np.uint8)
        >>> index = SDCIndex(64, 2)
        >>> index.add(pack(levels, 2))
        >>> scores, rows = index.search(pack(levels[7:8], 2), 2)
        >>> rows[0, 0], round(float(scores[0, 0]), 3)
        (np.int64(7), 1.0)
    """

    def __init__(self, m: int, bits: int, *, kernel: KernelName = "auto") -> None:
        self.bytes_per_vector = row_bytes(m, bits)
        self.m, self.bits, self.count = m, bits, 0
        if kernel != "auto" and kernel not in KERNELS:
            raise unknown_name("kernel", kernel, ("auto", *KERNELS))
        self.kernel: str = _fastest() if kernel == "auto" else kernel
        self._kernel: Kernel = KERNELS[self.kernel](m, bits)

    def __len__(self) -> int:
        return self.count

    def add(self, codes: Codes) -> None:
        """Append rows.

        Args:
            codes: Stored rows (N, B), as ``uniform.pack`` makes them.

        Raises:
            CodecError: these are no rows of this many coordinates and bits.
        """
        self._kernel.add(self._checked(codes))
        self.count += len(codes)

    def search(
        self, queries: ArrayLike, top_k: int, *, allowed: Mask | None = None, threads: int | None = None
    ) -> tuple[Floats, Rows]:
        """Find the nearest rows of each query.

        Args:
            queries: Stored rows (Q, B) of uint8, compared as codes; or vectors (Q, m), compared as they are.
            top_k: Number of rows to return.
            allowed: Which rows may be returned (N,); all by default.
            threads: Most threads; as many as the process may by default.

        Returns:
            Cosines of codes with codes, or products of vectors with codes of unit length, (Q, top_k) in falling order,
            and their rows, the lower first where equal; -inf and -1 where fewer rows are allowed.

        Raises:
            InputError: ``top_k``, ``allowed`` or the queries have a value or shape that is not allowed.
            CodecError: the queries are rows of other codes.
        """
        demand_top_k(top_k)
        mask, threads = checked_mask(allowed, self.count), threads_of(threads)
        rows = np.asarray(queries)
        symmetric = rows.dtype == np.uint8
        query, scale = self._from_codes(rows) if symmetric else self._from_vectors(rows)
        if not self.count or not len(rows):
            return np.full((len(rows), top_k), -np.inf, np.float32), np.full((len(rows), top_k), -1, np.int64)
        if symmetric and self._kernel.exact:
            scores, found = self._kernel.search(query, top_k, mask, threads)
        else:
            fetched = min(self.count, max(self._kernel.fetch[0] * top_k, self._kernel.fetch[1]))
            scores, found = self._recomputed(query, self._kernel.search(query, fetched, mask, threads)[1], top_k)
        return (scores * (scale * unit_scale(self.m))[:, None]).astype(np.float32), found

    def _recomputed(self, query: Query, candidates: Rows, top_k: int) -> Found:
        """Multiply the queries with their candidates themselves."""
        numbers, inverse = self._kernel.numbers(np.maximum(candidates, 0).reshape(-1))
        products = np.einsum("qcm,qm->qc", numbers.reshape(*candidates.shape, self.m), query.values)
        scores = np.where(candidates < 0, -np.inf, products * inverse.reshape(candidates.shape).astype(np.float32))
        return merge(scores[:, :0].astype(np.float32), candidates[:, :0], scores.astype(np.float32), candidates, top_k)

    def _from_codes(self, rows: Codes) -> tuple[Query, Floats]:
        levels, inverse = unpack(self._checked(rows), self.m, self.bits)
        return Query(dequantise(levels, self.bits), levels, self.bits), inverse * unit_scale(self.m)

    def _from_vectors(self, rows: ArrayLike) -> tuple[Query, Floats]:
        values = np.ascontiguousarray(rows, np.float32)
        if values.ndim != 2 or values.shape[1] != self.m or not np.isfinite(values).all():
            raise InputError(f"queries of shape {values.shape} must be finite numbers of shape (Q, {self.m})")
        largest = np.abs(values).max(axis=1, keepdims=True, initial=1e-30)
        levels = quantise(values, _QUERY_BITS, step=largest / (1 << (_QUERY_BITS - 1)))
        return Query(values, levels, _QUERY_BITS), np.ones(len(values), np.float32)

    def _checked(self, codes: Codes) -> Codes:
        rows = np.asanyarray(codes)
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self.bytes_per_vector:
            raise CodecError(
                f"codes are {rows.dtype} of shape {rows.shape}: {self.m} coordinates of {self.bits} bits are uint8 of "
                f"shape (N, {self.bytes_per_vector})"
            )
        return rows


def _fastest() -> str:
    """Bit counts with a compiler; look-ups with faiss; bit counts without either."""
    if has_compiler():
        return "popcount"
    try:
        require("faiss", extra="codecs")
    except MissingExtraError:
        return "popcount"
    return "pqfs"
