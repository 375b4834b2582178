"""Small clusters on the sphere, near enough for neighbours to mean something."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def cloud(count: int, dim: int, *, seed: int = 0, clusters: int = 40) -> Floats:
    """Make unit vectors around some centres; clouds of one width share the centres."""
    centres = np.random.default_rng(dim).normal(size=(clusters, dim))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(clusters, size=count)] + 0.7 * rng.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def documents() -> Floats:
    return cloud(2_000, 64)


@pytest.fixture(scope="session")
def queries() -> Floats:
    return cloud(24, 64, seed=1)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedlab.search.codecs.kernels.has_compiler", lambda: False)
    monkeypatch.setattr("embedlab.search.codecs.sdc.has_compiler", lambda: False)
