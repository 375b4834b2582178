"""The small BERT that is made here: once, the same from the same seed, and able to learn."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from embedlab._core.errors import InputError
from embedlab.models import small_encoder as module
from embedlab.models.small_encoder import Size, small_encoder, wordpieces

WORDS = [
    "the",
    "cat",
    "dog",
    "ship",
    "sea",
    "bank",
    "door",
    "mat",
    "rain",
    "sat",
    "ran",
    "fell",
    "saw",
    "was",
    "by",
    "on",
]


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Small sizes, and sentences in place of the data folder; counts how often they are read."""
    calls = []

    def texts(characters, seed):
        calls.append(seed)
        rng = random.Random(seed)
        return [" ".join(rng.choices(WORDS, k=20)) for _ in range(100)]

    size = Size(1, 16, 2, vocabulary=200, length=16, batch_size=8, steps=30, characters=0, learning_rate=1e-2)
    monkeypatch.setattr(module, "_texts", texts)
    monkeypatch.setitem(module.SIZES, "tiny", size)
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    return calls


def test_it_is_made_once_and_loads_in_transformers(made, tmp_path):
    folder = small_encoder(size="tiny")
    assert small_encoder(size="tiny") == folder
    assert made == [0]
    assert folder.parent == tmp_path / "made"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder)
    ids = tokenizer("The cat sat", return_tensors="pt")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[0].tolist()) == ["[CLS]", "the", "cat", "sat", "[SEP]"]
    assert model(ids).logits.shape == (1, 5, len(tokenizer))
    assert "30 steps" in (folder / "README.md").read_text()


def test_the_seed_decides_and_the_words_are_learned(made):
    with torch.no_grad():  # it trains all the same
        folders = [small_encoder(size="tiny", seed=seed) for seed in (0, 1)]
        one, other = (AutoModelForMaskedLM.from_pretrained(folder) for folder in folders)
        assert not torch.equal(one.bert.embeddings.word_embeddings.weight, other.bert.embeddings.word_embeddings.weight)
        tokenizer = AutoTokenizer.from_pretrained(folders[0])
        ids = tokenizer("the [MASK] sat", return_tensors="pt")["input_ids"]
        chances = one(ids).logits[0, 2].softmax(dim=0).numpy()
    known = tokenizer.convert_tokens_to_ids(WORDS)
    assert chances[known].sum() > 0.9
    assert np.isfinite(chances).all()


def test_the_global_random_state_stays(made):
    before = torch.random.get_rng_state()
    small_encoder(size="tiny")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unknown_size_is_refused():
    with pytest.raises(InputError, match="cpu"):
        small_encoder(size="cpuu")


def test_wordpieces_are_as_many_as_asked_for_and_spell_the_rest():
    few, many = (wordpieces([" ".join(WORDS)] * 5, vocabulary=count, length=8) for count in (45, 200))
    assert len(few) <= 45 < len(many)
    assert many.tokenize("The Sea") == ["the", "sea"]
    spelled = few.tokenize("the ship")
    assert "".join(spelled).replace("##", "") == "theship"
    assert len(spelled) > 2
    assert many.model_max_length == 8
