"""The recipes through the trainer: the adapted model is an ordinary embedder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sentence_transformers import SentenceTransformer

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.models.bidirectional import sees_later_tokens
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text import train

WORDS = ["cat", "dog", "mat", "sat", "ran", "away", "the", "on", "a", "from"]
TEXTS = [" ".join(WORDS[(place + step) % 10] for step in range(3 + place % 4)) for place in range(24)]
ROWS = [{"text": text} for text in TEXTS]


def adapted(recipe: str, out: Path, **options: object) -> SentenceTransformer:
    model = tiny_decoder([*TEXTS, "the same text again : that follows"], pooling=str(options.pop("pooling", "mean")))
    train(recipe, model=model, data=ROWS, out=out, evaluate=False, steps=3, batch_size=8, learning_rate=1e-2, **options)
    loaded = load_model(str(out), device="cpu")
    rows = loaded.encode_document(TEXTS)
    assert np.isfinite(rows).all()
    assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.abs(rows - model.encode(TEXTS, normalize_embeddings=True)).max() > 1e-3
    return loaded.host  # type: ignore[attr-defined, no-any-return]


def test_mntp_gives_a_bidirectional_embedder_that_the_host_opens_alone(tmp_path: Path) -> None:
    model = adapted("mntp", tmp_path / "out")
    assert sees_later_tokens(model)
    plain = SentenceTransformer(str(tmp_path / "out"), device="cpu")  # no trust_remote_code
    assert_allclose(plain.encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_mntp_on_the_last_layers_alone(tmp_path: Path) -> None:
    assert sees_later_tokens(adapted("mntp", tmp_path / "out", last_layers=1))


@pytest.mark.parametrize("recipe", ["ebae", "ebar"])
@pytest.mark.parametrize("slot", ["pooling", "prompt"])
def test_bags_of_words(tmp_path: Path, recipe: str, slot: str) -> None:
    model = adapted(recipe, tmp_path / "out", slot=slot, pooling="lasttoken")
    assert type(model[0]).__name__ == ("PromptModule" if slot == "prompt" else "Transformer")
    assert not sees_later_tokens(model)


def test_simcse_drops_in_training_alone(tmp_path: Path) -> None:
    model = adapted("simcse", tmp_path / "out", dropout=0.2)
    assert all(getattr(module, "attention_dropout", 0.0) == 0.0 for module in model.modules())
    with pytest.raises(InputError, match="dropout=0"):
        adapted("simcse", tmp_path / "other", dropout=0.0)


def test_an_unknown_slot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="slot"):
        adapted("ebae", tmp_path / "out", slot="middle")
