"""The tiny decoder keeps what it was asked for through saving, and is causal."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedlab._core.errors import InputError
from embedlab.models.bidirectional import sees_later_tokens
from embedlab.testing.tiny_decoder import Family, save_tiny_decoder, tiny_decoder

TEXTS = ["a cat sat", "the dog ran over the mat"]


@pytest.mark.parametrize("family", get_args(Family))
def test_it_is_causal_seeded_and_saved(family: Family, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    model, same, other = (tiny_decoder(TEXTS, family=family, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    vectors = model.encode(TEXTS)
    assert vectors.shape == (2, 32)
    assert not np.allclose(vectors[0], vectors[1], atol=0.1)
    assert np.array_equal(vectors, same.encode(TEXTS))
    assert not np.allclose(vectors, other.encode(TEXTS), atol=0.1)
    assert not sees_later_tokens(model)
    model.save(str(tmp_path))
    assert np.array_equal(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), vectors)


@pytest.mark.parametrize("family", get_args(Family))
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_as_asked(family: Family, side: str, tmp_path: Path) -> None:
    model = tiny_decoder(TEXTS, family=family, padding_side=side, pad_is_eos=True)  # type: ignore[arg-type]
    model.save(str(tmp_path))
    for one in (model, SentenceTransformer(str(tmp_path), device="cpu")):
        features = one.preprocess(TEXTS)
        pad = one.tokenizer.eos_token_id
        assert one.tokenizer.pad_token_id == pad
        short, mask = features["input_ids"][0].tolist(), features["attention_mask"][0].tolist()
        assert mask == ([0] * 3 + [1] * 5 if side == "left" else [1] * 5 + [0] * 3)
        assert (short[:4] if side == "left" else short[4:])[:3] == [pad] * 3
        assert features["input_ids"][1, -1] == pad, "the mark of the end is there, and is the padding as well"


def test_it_is_a_language_model(tmp_path: Path) -> None:
    save_tiny_decoder(tmp_path, texts=TEXTS, family="gpt2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    given = tokenizer(TEXTS[0], return_tensors="pt")
    assert model(**given).logits.shape == (1, 5, len(tokenizer))
    assert model.lm_head.weight is model.transformer.wte.weight


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="family"):
        tiny_decoder(TEXTS, family="bert")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_heads"):
        tiny_decoder(TEXTS, dim=33)
