"""Codecs of uniform steps: one bit per dimension as it is, or any number of bits after a random rotation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.search.codecs.codec import Codec, Codes, Floats, Mask, Parameters, Scanner
from embedlab.search.codecs.sdc import KernelName, SDCIndex
from embedlab.search.codecs.threads import Found
from embedlab.search.codecs.uniform import (
    NORM_BYTES,
    STEPS,
    Levels,
    dequantise,
    pack,
    plane_bytes,
    quantise,
    row_bytes,
    unit_scale,
    unpack,
)


class BinaryCodec(Codec):
    """Stores the sign of every number, and compares by the share of equal signs.

    Args:
        dim: Width of the vectors.
        symmetric: Whether queries are reduced to their signs as well; otherwise they are multiplied as they are with
            the documents' signs.
        seed: Not used.
    """

    name: ClassVar[str] = "binary"

    def __init__(self, dim: int, *, symmetric: bool = True, seed: int = 0) -> None:
        super().__init__(dim, bytes_per_vector=plane_bytes(dim), seed=seed, symmetric=symmetric)
        self.symmetric = symmetric

    def scanner(self, codes: Codes, *, kernel: KernelName = "auto") -> Scanner:
        """Make the scan; see ``Codec.scanner``.

        Args:
            codes: Codes (N, B).
            kernel: See ``SDCIndex``.

        Returns:
            The scanner.
        """
        return UniformScanner(
            self, self.checked_codes(codes), SDCIndex(self.dim, 1, kernel=kernel), self._rows, self._queries
        )

    def _rows(self, codes: Codes) -> Codes:
        """Complete codes to rows of uniform codes: all signs have the same norm."""
        return np.concatenate([codes, np.full((len(codes), NORM_BYTES), 255, np.uint8)], axis=1)

    def _queries(self, queries: Floats) -> Floats | Codes:
        return self._rows(self._encode(queries)) if self.symmetric else queries

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        return {}

    def _score(self, queries: Floats, codes: Codes) -> Floats:
        asked = self._decode(self._encode(queries)) if self.symmetric else queries
        return asked @ self._decode(codes).T

    def _encode(self, vectors: Floats) -> Codes:
        return np.packbits(vectors >= 0, axis=1)

    def _decode(self, codes: Codes) -> Floats:
        levels = np.unpackbits(codes, axis=1, count=self.dim)
        return dequantise(levels, 1) / np.float32(np.sqrt(self.dim))


class RotationCodec(Codec):
    """Rotates unit vectors at random and stores every coordinate in uniform steps of a few bits.

    After a random rotation all coordinates of any vector are spread alike, nearly normally, so that one step width is
    right for all of them and nothing needs to be learned. With its inverse norm a code is a unit vector again.

    Args:
        dim: Width D of the vectors, which are compared by cosine: their lengths are not stored.
        bits: Bits per coordinate, 1 to 4.
        code_dim: Number m of coordinates; D by default. Fewer keep a random subspace, more add redundancy.
        symmetric: Whether queries are coded as well, and products of codes are whole numbers; otherwise they are
            multiplied as they are with the documents' codes, which finds more.
        seed: Decides the rotation.

    Raises:
        InputError: ``bits`` or ``code_dim`` is not allowed.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(100, 32))
        >>> codec = RotationCodec(32, bits=4).fit(vectors)
        >>> codec.bytes_per_vector, codec.score(vectors[:3], codec.encode(vectors)).argmax(axis=1).tolist()
        (18, [0, 1, 2])

    References:
        Gan et al. (2023), Binary Embedding-based Retrieval at Tencent, arXiv:2302.08714v1: the codes and their scan,
        here before anything is learned.
    """

    name: ClassVar[str] = "rotation"

    def __init__(
        self, dim: int, *, bits: int = 2, code_dim: int | None = None, symmetric: bool = False, seed: int = 0
    ) -> None:
        if code_dim is not None and code_dim < 1:
            raise InputError(f"code_dim={code_dim} must be at least 1, or None for as many as the vectors have")
        self.code_dim = dim if code_dim is None else code_dim
        settings = {"bits": bits, "code_dim": code_dim, "symmetric": symmetric}
        super().__init__(dim, bytes_per_vector=row_bytes(self.code_dim, bits), seed=seed, **settings)
        self.bits, self.symmetric = int(bits), symmetric
        self._turn: NDArray[np.float64] = np.zeros((0, 0))

    def scanner(self, codes: Codes, *, kernel: KernelName = "auto") -> Scanner:
        """Make the scan; see ``Codec.scanner``.

        Args:
            codes: Codes (N, B).
            kernel: See ``SDCIndex``.

        Returns:
            The scanner.
        """
        index = SDCIndex(self.code_dim, self.bits, kernel=kernel)
        return UniformScanner(self, self.checked_codes(codes), index, lambda rows: rows, self._queries)

    def _queries(self, queries: Floats) -> Floats | Codes:
        return self._encode(queries) if self.symmetric else self._turned(queries)

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        size = max(self.dim, self.code_dim)
        square = np.random.default_rng(self.seed).standard_normal((size, size))
        turn, triangle = np.linalg.qr(square)
        turn *= np.sign(np.diag(triangle))  # so that every rotation is as likely as any other
        return {"rotation": turn[: self.dim, : self.code_dim].astype(np.float32)}

    def _prepare(self) -> None:
        self._turn = self.parameters["rotation"].astype(np.float64)  # so that a row is coded alike in any company

    def _encode(self, vectors: Floats) -> Codes:
        return pack(self._levels(vectors), self.bits, zero=np.logical_not(vectors.any(axis=1)))

    def _levels(self, vectors: Floats) -> Levels:
        lengths = np.sqrt(np.vecdot(vectors, vectors, dtype=np.float64))[:, None]
        turned = (vectors / np.maximum(lengths, 1e-30)) @ self._turn
        deviation = 1 / np.sqrt(max(self.dim, self.code_dim))
        return quantise(turned, self.bits, step=STEPS[self.bits] * deviation)

    def _turned(self, vectors: Floats) -> Floats:
        return (vectors @ self._turn).astype(np.float32)

    def _score(self, queries: Floats, codes: Codes) -> Floats:
        if not self.symmetric:
            return self._turned(queries) @ self._units(codes).T
        asked, scale = unpack(self._encode(queries), self.code_dim, self.bits)
        levels, inverse = unpack(codes, self.code_dim, self.bits)
        products = (dequantise(asked, self.bits) @ dequantise(levels, self.bits).T) * inverse.astype(np.float32)
        both: Floats = scale[:, None] * unit_scale(self.code_dim) * unit_scale(self.code_dim)
        return products * both  # in the order of the scan, so that the last bit is the same

    def _units(self, codes: Codes) -> Floats:
        levels, inverse = unpack(codes, self.code_dim, self.bits)
        units: Floats = dequantise(levels, self.bits) * (inverse * unit_scale(self.code_dim))[:, None]
        return units

    def _decode(self, codes: Codes) -> Floats:
        return (self._units(codes) @ self._turn.T).astype(np.float32)


class UniformScanner:
    """The scan of a codec whose codes are uniform.

    Args:
        codec: The codec.
        codes: Codes to start with (N, B).
        index: Where the codes are searched.
        rows: Turns codes into rows of the index.
        queries: Turns vectors (Q, D) into queries of the index.
    """

    def __init__(
        self,
        codec: Codec,
        codes: Codes,
        index: SDCIndex,
        rows: Callable[[Codes], Codes],
        queries: Callable[[Floats], Floats | Codes],
    ) -> None:
        self.codec, self.index = codec, index
        self._rows, self._queries = rows, queries
        self.index.add(rows(codes))

    def __len__(self) -> int:
        return len(self.index)

    def add(self, codes: Codes) -> None:
        """Append rows; see ``Scanner``.

        Args:
            codes: Codes (N, B).
        """
        self.index.add(self._rows(self.codec.checked_codes(codes)))

    def search(
        self, queries: ArrayLike, top_k: int, *, allowed: Mask | None = None, threads: int | None = None
    ) -> Found:
        """Find the nearest rows; see ``Scanner``.

        Args:
            queries: Vectors (Q, D).
            top_k: Number of rows.
            allowed: Which rows may be returned.
            threads: Most threads.

        Returns:
            Scores and rows, (Q, top_k) each.
        """
        asked = self._queries(self.codec.checked_queries(queries))
        return self.index.search(asked, top_k, allowed=allowed, threads=threads)
