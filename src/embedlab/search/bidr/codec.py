"""Contrastive product quantisation as a codec: trained with torch, used with numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.search.codecs import Codec, Scanner
from embedlab.search.codecs.codec import Codes, Floats, Parameters


class ContrastivePQCodec(Codec):
    """Store vectors as P codewords, trained so that queries find their own documents among all others.

    Learning starts with OPQ on the vectors. Then the codebook alone is trained on pairs of queries and documents by
    ``CE(Q q(D)') + l2_weight * mean |d - q(d)|^2``; without pairs every vector is the query for its own code, which
    favours telling neighbours apart over the mean error. Learning needs torch and faiss; a fitted or loaded codec
    encodes, decodes and scores with numpy alone.

    Args:
        dim: Width D of the vectors.
        parts: Parts of a vector (paper: P), a divisor of ``dim``. Published 96 for 768 dimensions.
        centroids: Codewords of each part (paper: K), 256 (a byte each) or 16 (half a byte). Published 256.
        opq: Whether to learn a rotation first; its rounds are ``opq_iterations``.
        opq_iterations: Rounds of OPQ.
        steps: Steps of contrastive training; 0 leaves OPQ as it is.
        batch_size: Pairs in a batch, at least 2. Published 128 on each of 8 devices.
        learning_rate: Of AdamW. Published 1e-4, together with a whole transformer; a codebook alone wants 1e-3.
        temperature: Divisor of the scores. Published 1; unit vectors want 0.05.
        assignment_temperature: Of the soft choice of codewords. Published 1; unit vectors want 0.01.
        l2_weight: Weight of the quantisation error. Published 1e-6.
        seed: Decides everything random.

    Shape:
        vectors (N, D) -> codes (N, P), or (N, P/2) with 16 centroids

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
        >>> codec = ContrastivePQCodec(8, parts=4, centroids=16, opq_iterations=2, steps=4, batch_size=16)
        >>> codec.fit(vectors, pairs=(vectors + 0.1, vectors)).encode(vectors).shape
        (64, 2)

    References:
        Xiao et al. (2022), arXiv:2201.05409v1, section 3.2; read, not copied: microsoft/BiDR (MIT).
    """

    name: ClassVar[str] = "contrastive_pq"
    learns_from_pairs: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        parts: int = 16,
        centroids: int = 256,
        opq: bool = True,
        opq_iterations: int = 20,
        steps: int = 500,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        temperature: float = 0.05,
        assignment_temperature: float = 0.01,
        l2_weight: float = 1e-6,
        seed: int = 0,
    ) -> None:
        check_shape(dim, parts, centroids)
        if steps < 0 or opq_iterations < 1 or batch_size < 2:
            raise InputError(
                f"steps={steps}, opq_iterations={opq_iterations}, batch_size={batch_size}: at least 0, 1, 2"
            )
        if not (min(learning_rate, temperature, assignment_temperature) > 0 and l2_weight >= 0):
            raise InputError(
                f"learning_rate={learning_rate}, temperature={temperature}, assignment_temperature="
                f"{assignment_temperature} must be above 0, and l2_weight={l2_weight} not below"
            )
        self.parts, self.centroids, self.opq, self.opq_iterations = parts, centroids, opq, opq_iterations
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.temperature, self.assignment_temperature, self.l2_weight = temperature, assignment_temperature, l2_weight
        settings = {name: getattr(self, name) for name in _SETTINGS}
        super().__init__(dim, bytes_per_vector=parts if centroids == 256 else parts // 2, seed=seed, **settings)

    @classmethod
    def of(cls, quantizer: Any) -> ContrastivePQCodec:
        """Make the codec of a trained ``ContrastivePQ``.

        Args:
            quantizer: The module.

        Returns:
            The fitted codec.
        """
        codec = cls(quantizer.dim, parts=quantizer.parts, centroids=quantizer.centroids)
        codec._adopt(_parameters(quantizer))
        return codec

    def quantizer(self) -> Any:
        """Give the codebook as a ``ContrastivePQ``, to go on training.

        Returns:
            A new module.

        Raises:
            InputError: the codec is not fitted.
            MissingExtraError: torch is not installed.
        """
        self._demand_fitted()
        torch = require("torch", extra="train")
        from embedlab.search.bidr.quantizer import ContrastivePQ

        module = ContrastivePQ(
            self.dim,
            parts=self.parts,
            centroids=self.centroids,
            rotation=self.parameters.get("rotation"),
            temperature=self.assignment_temperature,
            seed=self.seed,
        )
        module.codebook.data.copy_(torch.from_numpy(self.parameters["codebook"]))
        return module.eval()

    def scanner(self, codes: Codes) -> Scanner:
        """Make the fast exhaustive scan: table look-ups in faiss if it is installed, otherwise decoding block by block.

        Args:
            codes: Codes (N, B).

        Returns:
            The scanner, which holds about N * B bytes.
        """
        from embedlab._core.errors import MissingExtraError
        from embedlab.search.bidr.partitions import ProductScanner

        try:
            return ProductScanner(self, self.checked_codes(codes))
        except MissingExtraError:
            return super().scanner(codes)

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        require("torch", extra="train")
        from embedlab.search.bidr.training import learn_codebook

        if len(vectors) < max(self.centroids, self.batch_size):
            least = max(self.centroids, self.batch_size)
            raise InputError(f"vectors: {len(vectors)} rows, at least {least} are needed (centroids, batch_size)")
        queries, positives = (vectors, vectors) if pairs is None else pairs
        return _parameters(learn_codebook(self, vectors, queries, positives, on_progress))

    def _prepare(self) -> None:
        codebook = self.parameters["codebook"]  # (P, K, D/P)
        self._lengths = np.vecdot(codebook, codebook)  # (P, K)

    def _encode(self, vectors: Floats) -> Codes:
        codebook, turned = self.parameters["codebook"], self._turned(vectors)
        codes = np.empty((len(vectors), self.parts), np.uint8)
        for part, y in enumerate(np.split(turned, self.parts, axis=1)):
            codes[:, part] = (self._lengths[part] - 2 * (y @ codebook[part].T)).argmin(axis=1)
        if self.centroids == 16:  # as faiss packs them: the first part of two in the lower half byte
            codes = np.bitwise_or(codes[:, ::2], codes[:, 1::2] << 4, dtype=np.uint8)
        return codes

    def _decode(self, codes: Codes) -> Floats:
        turned = self.decode_turned(codes)
        rotation = self.parameters.get("rotation")
        return turned if rotation is None else turned @ rotation

    def decode_turned(self, codes: Codes) -> Floats:
        """Decode without turning back: sums of codewords, in the rotated space.

        Args:
            codes: Codes (n, B).

        Returns:
            Vectors (n, D).
        """
        if self.centroids == 16:
            codes = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), self.parts)
        chosen = self.parameters["codebook"][np.arange(self.parts), codes]  # (n, P, D/P)
        return np.asarray(chosen.reshape(len(codes), self.dim))

    def turned_queries(self, queries: ArrayLike) -> Floats:
        """Check queries and turn them into the space of the codewords.

        Args:
            queries: Vectors (Q, D).

        Returns:
            Vectors (Q, D).

        Raises:
            InputError: they are no finite matrix of width D.
        """
        return np.ascontiguousarray(self._turned(self._checked("queries", queries)))

    def _turned(self, vectors: Floats) -> Floats:
        rotation = self.parameters.get("rotation")
        return vectors if rotation is None else vectors @ rotation.T


def check_shape(dim: int, parts: int, centroids: int) -> None:
    """Refuse what cannot be cut into parts or stored in half bytes.

    Args:
        dim: Width of the vectors.
        parts: Parts of a vector.
        centroids: Codewords of each.

    Raises:
        InputError: ``parts`` does not divide ``dim``, or ``centroids`` is not 16 or 256.
    """
    if dim < 1 or parts < 1 or dim % parts:
        fitting = [p for p in range(1, max(dim, 0) + 1) if dim % p == 0][-12:]
        raise InputError(f"parts={parts} must divide dim={dim}: one of {fitting}")
    if centroids not in (16, 256):
        raise InputError(f"centroids={centroids} must be 256 (a byte per part) or 16 (half a byte)")
    if centroids == 16 and parts % 2:
        raise InputError(f"parts={parts} must be even with 16 centroids: two parts share a byte")


_SETTINGS = (
    "parts",
    "centroids",
    "opq",
    "opq_iterations",
    "steps",
    "batch_size",
    "learning_rate",
    "temperature",
    "assignment_temperature",
    "l2_weight",
)


def _parameters(quantizer: Any) -> Parameters:
    rotation = quantizer.final_rotation()
    codebook = quantizer.codebook.detach().cpu().numpy().copy()
    return {"codebook": codebook, **({} if rotation is None else {"rotation": rotation.cpu().numpy()})}
