"""The small decoder: made once, reloadable, its tokenizer loses nothing, and held-out text stays out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedlab._core.errors import InputError
from embedlab.data.loaders import load_sick, load_stdlib_functions, load_stsb
from embedlab.models import small_decoder as module
from embedlab.models.small_decoder import DecoderRecipe, small_decoder, training_texts

TINY = DecoderRecipe(1, 16, 300, 32, 2, 3, 1e-2, 0.0, {"titles": 60_000})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.setitem(module.SIZES, "tiny", TINY)
    return small_decoder(size="tiny")


def test_it_is_made_once_and_opens_as_any_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("made twice"))
    assert small_decoder(size="tiny") == folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    text = 'How to say "naïve" in 漢字?\n  def f(x):  # twice'
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id)
    assert tokenizer.mask_token is None
    with torch.no_grad():
        assert model(torch.tensor([ids[:32]])).logits.isfinite().all()
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    told = json.loads((folder / "recipe.json").read_text())
    assert 0 < told["measured"]["bits_per_byte"] < 8
    assert f"{told['measured']['bits_per_byte']:.3f} bits per byte" in (folder / "README.md").read_text()


def test_another_seed_is_another_model(folder: Path) -> None:
    other = small_decoder(size="tiny", seed=1)
    first, second = (AutoModelForCausalLM.from_pretrained(one).state_dict() for one in (folder, other))
    assert other != folder
    assert any(first[key].shape != second[key].shape or not first[key].equal(second[key]) for key in first)


def test_what_is_tested_on_is_not_trained_on() -> None:
    train, held_out = training_texts({"sentences": 10**9})
    assert len(train) > 5000
    assert not set(train) & set(held_out)
    keys = {module._key(text) for text in [*train, *held_out]}
    for pairs in (load_stsb("test"), load_stsb("dev"), load_sick("test"), load_sick("trial")):
        assert not keys & {module._key(text) for text in [*pairs.first, *pairs.second]}


def test_functions_of_the_standard_library() -> None:
    functions = load_stdlib_functions(limit=200)
    assert len(functions) == 200
    assert len({one.code for one in functions}) == 200
    assert 0 < sum(one.held_out for one in functions) < 150
    for one in functions:
        assert one.code.startswith(("def ", "async def "))
        assert one.summary not in one.code
        assert "\n" not in one.summary
    assert len({one.held_out for one in functions if one.module == functions[0].module}) == 1


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="cpu"):
        small_decoder(size="cpuu")
    with pytest.raises(InputError, match="titles"):
        training_texts({"title": 10})
