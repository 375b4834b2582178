"""Rows whose words say what belongs together, and a model small enough to train in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from embedlab.testing.tiny import tiny_encoder

LOOKS = ("red", "blue", "green", "dark", "light", "small", "big", "old", "new", "cold")
THINGS = ("cat", "dog", "house", "river", "stone", "tree", "car", "boat", "bird", "lamp")
QUERIES = [f"{look} {thing} please" for look in LOOKS for thing in THINGS]
ANSWERS = [f"this is the {thing} that looks {look}" for look in LOOKS for thing in THINGS]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def model() -> SentenceTransformer:
    return tiny_encoder([*QUERIES, *ANSWERS], seed=0)


@pytest.fixture(scope="session")
def pairs() -> Dataset:
    return Dataset.from_dict({"anchor": QUERIES, "positive": ANSWERS})


@pytest.fixture
def run(model: SentenceTransformer, pairs: Dataset, tmp_path: Path) -> Any:
    """Train with small settings and no evaluation, unless a test says otherwise."""
    from embedlab.text import train

    def small(recipe: Any = "contrastive", **changes: Any) -> Any:
        settings = {
            "model": model,
            "data": pairs,
            "out": tmp_path / "out",
            "evaluate": False,
            "steps": 6,
            "batch_size": 8,
            "learning_rate": 1e-3,
        }
        return train(recipe, **{**settings, **changes})

    return small
