"""A model of a few lines, for tests in which the model does not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray


@cache
def _vector(word: str, dim: int) -> NDArray[np.float64]:
    digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).standard_normal(dim)


class HashingEncoder:
    """Sums a fixed random vector per word: deterministic, dependency-free, and near texts share words."""

    def __init__(self, dim: int = 32, name: str = "hashing", salt: str = "") -> None:
        self.name, self.dim, self.salt = name, dim, salt
        self.fingerprint = f"hashing:{hashlib.sha256(f'{dim}{salt}'.encode()).hexdigest()[:16]}"
        self.encoded = 0

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        self.encoded += len(texts)
        return self.encode_query(texts)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row += _vector(f"{self.salt}{word}", self.dim)
            length = float(np.linalg.norm(row))
            row /= length or 1.0
        return rows
