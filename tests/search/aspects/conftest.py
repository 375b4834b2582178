"""A collection whose documents have a colour and a kind, and a home of its own for every test."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from embedlab import Collection

_spec = importlib.util.spec_from_file_location("tiny_model_of_search", Path(__file__).parents[1] / "tiny_model.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
HashingEncoder: Any = _module.HashingEncoder

COLOURS, KINDS = ("red", "green", "blue", "white"), ("car", "bus", "boat", "train")


def documents(count: int = 48) -> list[dict[str, Any]]:
    return [
        {
            "source": f"d{n}",
            "text": f"the {COLOURS[n % 4]} {KINDS[n // 4 % 4]} of owner{n} in town{n % 7} was sold",
            "metadata": {"colour": COLOURS[n % 4], "kind": KINDS[n // 4 % 4]},
        }
        for n in range(count)
    ]


@pytest.fixture
def encoder() -> Any:
    return HashingEncoder()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def vehicles(encoder: Any) -> Collection:
    collection = Collection.create("vehicles", model=encoder)
    collection.add(documents())
    return collection
