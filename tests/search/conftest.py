"""A tiny model and a home of its own for every test of the collection."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray


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
                digest = hashlib.blake2b(f"{self.salt}{word}".encode("utf-8", "replace"), digest_size=8).digest()
                row += np.random.default_rng(int.from_bytes(digest, "big")).standard_normal(self.dim)
            length = float(np.linalg.norm(row))
            row /= length or 1.0
        return rows


@pytest.fixture
def encoder() -> HashingEncoder:
    return HashingEncoder()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("EMBEDLAB_HOME", str(home))
    return home
