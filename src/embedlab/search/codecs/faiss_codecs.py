"""Codecs of faiss under the common contract: product quantisation, with a learned rotation or not, and RaBitQ.

What they learn is kept as arrays, and an index is built from these: no file of faiss is written or read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.search.codecs.codec import Codec, Codes, Floats, Mask, Parameters, Scanner, blocks
from embedlab.search.codecs.scanning import among, checked_mask, demand_top_k
from embedlab.search.codecs.threads import Found, faiss_threads, threads_of


class FaissCodec(Codec):
    """A codec whose codes an index of faiss makes and searches, after a rotation if there is one."""

    @abstractmethod
    def index(self) -> Any:
        """Return an empty index with what was learned."""

    def scanner(self, codes: Codes) -> Scanner:
        """Make the scan; see ``Codec.scanner``.

        Args:
            codes: Codes (N, B).

        Returns:
            The scanner.
        """
        return FaissScanner(self, self.checked_codes(codes))

    def turned(self, vectors: Floats) -> Floats:
        """Rotate vectors as the index wants them.

        Args:
            vectors: Vectors (n, D).

        Returns:
            Vectors (n, D).
        """
        if "rotation" not in self.parameters:
            return vectors
        return np.ascontiguousarray(vectors @ self.parameters["rotation"].astype(np.float64), np.float32)

    def fill(self, index: Any, codes: Codes) -> None:
        """Add codes to an index.

        Args:
            index: An index as ``index()`` makes it.
            codes: Codes (n, B).
        """
        index.add_sa_codes(np.ascontiguousarray(codes))

    def _encode(self, vectors: Floats) -> Codes:
        encoded: Codes = self._standalone().sa_encode(self.turned(vectors))
        return encoded

    def _decode(self, codes: Codes) -> Floats:
        decoded: Floats = self._standalone().sa_decode(np.ascontiguousarray(codes))
        return self._turned_back(decoded)

    def _turned_back(self, vectors: Floats) -> Floats:
        return vectors @ self.parameters["rotation"].T if "rotation" in self.parameters else vectors

    def _prepare(self) -> None:
        self._made: Any = self.index()

    def _standalone(self) -> Any:
        self._demand_fitted()
        return self._made


class FaissScanner:
    """The scan over codes of a ``FaissCodec``.

    Args:
        codec: The codec.
        codes: Codes to start with (N, B).
    """

    def __init__(self, codec: FaissCodec, codes: Codes) -> None:
        self.codec, self.index = codec, codec.index()
        self.add(codes)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def add(self, codes: Codes) -> None:
        """Append rows; see ``Scanner``.

        Args:
            codes: Codes (N, B).
        """
        codes = self.codec.checked_codes(codes)
        for part in blocks(len(codes), 4 * self.codec.dim):
            self.codec.fill(self.index, codes[part])

    def search(
        self, queries: ArrayLike, top_k: int, *, allowed: Mask | None = None, threads: int | None = None
    ) -> Found:
        """Find the nearest rows; see ``Scanner``.

        Args:
            queries: Vectors (Q, D).
            top_k: Number of rows.
            allowed: Which rows may be returned.
            threads: Most threads; one query takes one.

        Returns:
            Scores and rows, (Q, top_k) each.
        """
        demand_top_k(top_k)
        mask, threads = checked_mask(allowed, len(self)), threads_of(threads)
        asked = self.codec.turned(self.codec.checked_queries(queries))

        def propose(count: int) -> Found:
            with faiss_threads(threads):
                scores, rows = self.index.search(asked, count)
            return np.where(rows < 0, -np.inf, scores).astype(np.float32), rows

        return among(propose, len(asked), top_k, len(self), mask)


class ProductCodec(FaissCodec):
    """Cuts vectors into parts and stores for each part the nearest of the codewords learned for it.

    Args:
        dim: Width D of the vectors.
        bits: Bits per dimension; D * bits / codeword_bits is the number of parts, which must divide D.
        codeword_bits: Bits of one codeword, 4 or 8. With 4 the scan looks tables up in registers, several times as
            fast; with 8 codewords are better.
        seed: Decides where learning starts.

    Raises:
        InputError: these bits give no whole number of equal parts.
        MissingExtraError: faiss is missing (extra ``codecs``).

    References:
        Jégou, Douze, Schmid (2011), Product Quantization for Nearest Neighbor Search, doi:10.1109/TPAMI.2010.57.
    """

    name: ClassVar[str] = "pq"

    def __init__(self, dim: int, *, bits: float = 1.0, codeword_bits: int = 8, seed: int = 0) -> None:
        if codeword_bits not in (4, 8):
            raise InputError(f"codeword_bits={codeword_bits} must be 4 or 8")
        parts = dim * bits / codeword_bits
        if parts != int(parts) or parts < 1 or dim % int(parts) or (int(parts) * codeword_bits) % 8:
            fitting = [n for n in range(1, dim + 1) if dim % n == 0 and n * codeword_bits % 8 == 0]
            near = min(fitting or [dim], key=lambda n: abs(n - parts))
            raise InputError(
                f"bits={bits} give {parts:g} parts of {codeword_bits} bits: a whole number that divides dim={dim} and "
                f"fills bytes is needed, such as bits={near * codeword_bits / dim:g}"
            )
        self.parts, self.codeword_bits = int(parts), codeword_bits
        stored = self.parts * codeword_bits // 8
        super().__init__(dim, bytes_per_vector=stored, seed=seed, bits=bits, codeword_bits=codeword_bits)

    def index(self) -> Any:
        """Return an empty index with the codewords; see ``FaissCodec``."""
        made = self._blank()
        require("faiss", extra="codecs").copy_array_to_vector(self.parameters["codewords"].ravel(), made.pq.centroids)
        made.is_trained = True
        return made

    def fill(self, index: Any, codes: Codes) -> None:
        """Add codes to an index; see ``FaissCodec``.

        Args:
            index: The index.
            codes: Codes (n, B).
        """
        if self.codeword_bits == 8:
            super().fill(index, codes)
        else:
            index.add(self._standalone().sa_decode(np.ascontiguousarray(codes)))  # its codes lie in another order

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        least = 1 << self.codeword_bits
        if len(vectors) < least:
            raise InputError(f"{len(vectors)} vectors: at least {least} are needed, one per codeword")
        faiss, learned = require("faiss", extra="codecs"), self._rotation(vectors)
        index = self._blank()
        index.pq.cp.seed, index.pq.cp.min_points_per_centroid = self.seed + 1, 1
        index.train(np.ascontiguousarray(vectors @ learned["rotation"] if learned else vectors))
        shape = (self.parts, 1 << self.codeword_bits, self.dim // self.parts)
        return {**learned, "codewords": faiss.vector_to_array(index.pq.centroids).reshape(shape)}

    def _rotation(self, vectors: Floats) -> Parameters:
        return {}

    def _blank(self) -> Any:
        faiss = require("faiss", extra="codecs")
        if self.codeword_bits == 8:
            return faiss.IndexPQ(self.dim, self.parts, 8, faiss.METRIC_INNER_PRODUCT)
        return faiss.IndexPQFastScan(self.dim, self.parts, 4, faiss.METRIC_INNER_PRODUCT)


class RotatedProductCodec(ProductCodec):
    """Product quantisation behind a rotation that is learned with it.

    Args:
        dim: Width D of the vectors.
        bits: As for ``ProductCodec``.
        codeword_bits: As for ``ProductCodec``.
        rounds: How often rotation and codewords are learned in turn.
        seed: Decides where learning starts.

    Raises:
        InputError: these bits give no whole number of equal parts, or there are no rounds.
        MissingExtraError: faiss is missing (extra ``codecs``).

    References:
        Ge, He, Ke, Sun (2013), Optimized Product Quantization for Approximate Nearest Neighbor Search,
        doi:10.1109/CVPR.2013.379.
    """

    name: ClassVar[str] = "opq"

    def __init__(self, dim: int, *, bits: float = 1.0, codeword_bits: int = 8, rounds: int = 20, seed: int = 0) -> None:
        if rounds < 1:
            raise InputError(f"rounds={rounds} must be at least 1")
        super().__init__(dim, bits=bits, codeword_bits=codeword_bits, seed=seed)
        self.rounds = self.settings["rounds"] = rounds

    def _rotation(self, vectors: Floats) -> Parameters:
        faiss = require("faiss", extra="codecs")
        matrix = faiss.OPQMatrix(self.dim, self.parts)
        matrix.pq = quantizer = faiss.ProductQuantizer(self.dim, self.parts, self.codeword_bits)
        quantizer.cp.seed, quantizer.cp.min_points_per_centroid = self.seed + 1, 1
        matrix.niter = self.rounds
        matrix.train(vectors[:: max(1, len(vectors) // 65_536)])
        turn: NDArray[np.float32] = faiss.vector_to_array(matrix.A).reshape(self.dim, self.dim).T
        return {"rotation": np.ascontiguousarray(turn)}


class RabitqCodec(FaissCodec):
    """RaBitQ: signs, or more bits, after a random rotation, with two or more factors that make the products unbiased.

    Args:
        dim: Width D of the vectors, a multiple of 8.
        bits: Bits per dimension, 1 to 4.
        query_bits: Bits to which a query is rounded, 0 to leave it as it is.
        seed: Decides the rotation.

    Raises:
        InputError: ``dim``, ``bits`` or ``query_bits`` is not allowed.
        MissingExtraError: faiss is missing (extra ``codecs``).

    References:
        Gao, Long (2024), RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate
        Nearest Neighbor Search, arXiv:2405.12497v1.
    """

    name: ClassVar[str] = "rabitq"

    def __init__(self, dim: int, *, bits: int = 1, query_bits: int = 8, seed: int = 0) -> None:
        if bits not in (1, 2, 3, 4):
            raise InputError(f"bits={bits!r} must be 1, 2, 3 or 4 per dimension")
        if dim % 8 or not 0 <= query_bits <= 8:
            raise InputError(f"dim={dim} must be a multiple of 8, and query_bits={query_bits} from 0 to 8")
        faiss = require("faiss", extra="codecs")
        self.bits, self.query_bits = int(bits), query_bits
        stored = faiss.IndexRaBitQ(dim, faiss.METRIC_INNER_PRODUCT, self.bits).sa_code_size()
        super().__init__(dim, bytes_per_vector=stored, seed=seed, bits=bits, query_bits=query_bits)

    def index(self) -> Any:
        """Return an empty index with the centre; see ``FaissCodec``."""
        faiss = require("faiss", extra="codecs")
        made = faiss.IndexRaBitQ(self.dim, faiss.METRIC_INNER_PRODUCT, self.bits)
        faiss.copy_array_to_vector(self.parameters["center"], made.center)
        made.is_trained, made.qb = True, self.query_bits
        return made

    def _score(self, queries: Floats, codes: Codes) -> Floats:
        return self._products(self.turned(queries), codes, self.query_bits)

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        square = np.random.default_rng(self.seed).standard_normal((self.dim, self.dim))
        turn = np.linalg.qr(square)[0].astype(np.float32)
        return {"rotation": turn, "center": (vectors.mean(axis=0, dtype=np.float64) @ turn).astype(np.float32)}

    def _decode(self, codes: Codes) -> Floats:
        """Score the unit vectors: faiss decodes signs only, and scores are linear but for a small constant."""
        asked = np.concatenate([np.zeros((1, self.dim)), np.eye(self.dim)]).astype(np.float32)
        products = self._products(asked, codes, 0)
        return self._turned_back((products[1:] - products[0]).T)

    def _products(self, turned: Floats, codes: Codes, query_bits: int) -> Floats:
        products = np.empty((len(turned), len(codes)), np.float32)
        for part in blocks(len(codes), 12 * len(turned)):
            index = self.index()
            index.qb = query_bits
            self.fill(index, codes[part])
            scores, rows = index.search(turned, index.ntotal)
            np.put_along_axis(products[:, part], rows, scores, axis=1)
        return products
