"""The default model as it is shipped: size, start, quality on a few plain cases, an honest card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import embedlab.models
from embedlab.models import StaticModel, load_model

FOLDER = Path(embedlab.models.__file__).parent / "default"


def test_at_most_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 10_000_000


def test_the_card_tells_what_was_measured() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    model = load_model()
    assert model.dim == config["dim"] == 256
    for fact in (
        model.fingerprint,
        "Apache-2.0",
        "all-MiniLM-L6-v2",
        "STS-B",
        "SciFact",
        "Cranfield",
        "default_recipe",
    ):
        assert fact in card, fact


def test_every_row_is_finite_and_unknown_is_nothing() -> None:
    model = load_model()
    assert isinstance(model, StaticModel)
    assert np.isfinite(model.rows).all()
    assert not model.rows[0].any()


def test_meaning_beats_spelling() -> None:
    model = load_model()
    for query, near, far in [
        ("remove a file", "delete documents from the disk", "a treaty of peace"),
        ("heart attack treatment", "therapy of myocardial infarction", "a treatment of the siege of the city"),
        ("open a network connection", "create a TCP socket", "the bakery opens at seven"),
        ("feline", "cat", "felony"),
    ]:
        scores = model.encode_document([near, far]) @ model.encode_query([query])[0]
        assert scores[0] > scores[1], query


def test_encoding_needs_no_heavy_packages() -> None:
    code = """
import sys
from embedlab.models import load_model
load_model().encode_query(["a first query"])
heavy = set("torch transformers sentence_transformers scipy pyarrow lancedb httpx rich".split()) & set(sys.modules)
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
