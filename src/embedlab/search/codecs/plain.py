"""Codecs that learn little or nothing: float32, float16, one byte and one bit per dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from embedlab.search.codecs.codec import Codec, Codes, Floats, Parameters


class Float32Codec(Codec):
    """Stores vectors as they are.

    Args:
        dim: Width of the vectors.
        seed: Not used.
    """

    name: ClassVar[str] = "float32"

    def __init__(self, dim: int, *, seed: int = 0) -> None:
        super().__init__(dim, bytes_per_vector=4 * dim, seed=seed)

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        return {}

    def _encode(self, vectors: Floats) -> Codes:
        return np.ascontiguousarray(vectors, "<f4").view(np.uint8)

    def _decode(self, codes: Codes) -> Floats:
        return np.ascontiguousarray(codes).view("<f4").astype(np.float32, copy=False)
