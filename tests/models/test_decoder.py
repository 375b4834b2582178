"""The decoder module: instructions row by row, padding on either side, layers summed up inside the forward pass."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.models.bidirectional import sees_later_tokens, to_bidirectional
from embedlab.models.decoder import DecoderTransformer, as_decoder, end_with_mark, instruct
from embedlab.models.sentence_transformer import SentenceTransformerModel
from embedlab.testing.tiny_decoder import Family, save_tiny_decoder, tiny_decoder

TEXTS = [instruct("find a cat", "the dog"), "the dog ran over the mat", instruct("find a cat", ""), "a dog"]
SIDES: list[Any] = ["left", "right"]


def decoder(family: Family = "llama", side: Any = "right", **options: Any) -> SentenceTransformer:
    model = tiny_decoder(TEXTS, family=family, padding_side=side, pad_is_eos=True)
    model[0] = as_decoder(model[0], **{"attention": "bidirectional", "layer_summary": "mean", **options})
    return model


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_instructions_are_marked_row_by_row(family: Family, side: str) -> None:
    model = decoder(family, side)
    features = model.preprocess(TEXTS)
    for row, text in enumerate(("the dog", TEXTS[1], "", "a dog")):
        left = features["attention_mask"][row] * (1 - features["instruction_mask"][row])
        ids = features["input_ids"][row][left.bool()].tolist()
        plain = model.tokenizer(" " + text if family == "qwen2" and row == 0 else text)["input_ids"]
        assert ids == (plain if row in (1, 3) else plain[1:]), "the mark of the beginning goes with an instruction"


@pytest.mark.parametrize("side", SIDES)
def test_a_prompt_is_an_instruction_too(side: str) -> None:
    model = decoder(side=side)
    said = model.preprocess(["the dog", "a dog ran"], prompt="Instruct: find a cat\nQuery: ")
    written = model.preprocess([instruct("find a cat", text) for text in ("the dog", "a dog ran")])
    for name in ("input_ids", "attention_mask", "instruction_mask"):
        assert torch.equal(said[name], written[name])


def test_one_prompt_for_all_is_counted_as_the_host_counts_it() -> None:
    model = decoder()
    features = model.preprocess(["the dog", "a dog ran"], prompt="find a cat: ")
    assert features["instruction_mask"].sum(1).tolist() == [features["prompt_length"]] * 2


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "mistral"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_padding_changes_nothing(family: Family, attention: Any) -> None:
    right = decoder(family, "right", attention=attention)
    left = decoder(family, "left", attention=attention)
    assert sees_later_tokens(right[0].model) == (attention == "bidirectional")
    for row, text in enumerate(TEXTS):
        alone = right[0](right.preprocess([text]))
        for model in (right, left):
            given = model.preprocess(TEXTS)
            among = model[0](dict(given))
            there = given["attention_mask"][row].bool()
            assert torch.allclose(among["token_embeddings"][row][there], alone["token_embeddings"][0], atol=1e-5)
            assert torch.allclose(among["layer_summaries"][row], alone["layer_summaries"][0], atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("summary", ["mean", "last_token"])
def test_layers_are_those_of_the_host(family: Family, summary: Any) -> None:
    model = decoder(family, layer_summary=summary).eval()
    features = model.preprocess(TEXTS)
    found = model[0](dict(features))["layer_summaries"]
    given = {name: features[name] for name in ("input_ids", "attention_mask")}
    every = model[0].model(**given, output_hidden_states=True).hidden_states[1:]
    assert found.shape[1] == len(every) == 2
    for layer, states in enumerate(every):
        for row, mask in enumerate(features["attention_mask"].bool()):
            there = states[row][mask]
            slow = there.mean(0) if summary == "mean" else there[-1]
            assert torch.allclose(found[row, layer], slow, atol=1e-5)
    hooks = [len(layer._forward_hooks) for layer in model[0].model.modules()]  # the host's own
    model[0](dict(features))
    assert [len(layer._forward_hooks) for layer in model[0].model.modules()] == hooks


def test_layers_carry_a_gradient_under_checkpointing() -> None:
    plain = decoder().train()
    kept = copy.deepcopy(plain)
    kept[0].model.activation_checkpointing_enable()
    grads = []
    for model in (plain, kept):
        model[0](model.preprocess(TEXTS))["layer_summaries"].square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))


def test_features_that_were_handed_in_stay_as_they_were() -> None:
    model = decoder()
    features = model.preprocess(TEXTS)
    before = {name: value.clone() for name, value in features.items() if isinstance(value, torch.Tensor)}
    model[0](dict(features))
    assert all(torch.equal(features[name], value) for name, value in before.items())


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_it_opens_from_a_folder_ends_with_the_mark_and_is_saved(attention: Any, tmp_path: Path) -> None:
    save_tiny_decoder(tmp_path / "lm", texts=TEXTS, family="gpt2")
    body = DecoderTransformer(tmp_path / "lm", attention=attention, layer_summary="last_token", max_seq_length=16)
    model = SentenceTransformer(modules=[body, Pooling(32, "lasttoken")], device="cpu")
    model.save(str(tmp_path / "saved"))
    ours = load_model(str(tmp_path / "saved"), device="cpu")
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    assert isinstance(ours, SentenceTransformerModel)
    for loaded in (ours.host, theirs):
        assert isinstance(loaded[0], DecoderTransformer)
        assert (loaded[0].attention, loaded[0].layer_summary, loaded.max_seq_length) == (attention, "last_token", 16)
        assert sees_later_tokens(loaded) == (attention == "bidirectional")
        assert np.array_equal(loaded.encode(TEXTS), model.encode(TEXTS))
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")


def test_the_switch_is_remembered_by_the_module(tmp_path: Path) -> None:
    both = to_bidirectional(decoder(attention="causal", layer_summary=None))
    both.save(str(tmp_path))
    assert sees_later_tokens(load_model(str(tmp_path)).host)  # type: ignore[attr-defined]


def test_a_class_that_is_not_ours_is_not_trusted(tmp_path: Path) -> None:
    model = decoder()
    model.save(str(tmp_path))
    listed = (tmp_path / "modules.json").read_text()
    for name, says in (
        ("embedlab.models.decoder.Nothing", "does not have"),
        ("embedlab.models.decoder.torch", "no module"),
    ):
        (tmp_path / "modules.json").write_text(listed.replace("embedlab.models.decoder.DecoderTransformer", name))
        with pytest.raises(InputError, match=says):
            load_model(str(tmp_path))
    (tmp_path / "modules.json").write_text(listed.replace("embedlab.models.decoder", "elsewhere"))
    with pytest.raises(InputError, match="third-party code"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_end_mark_is_added_once(family: Family) -> None:
    tokenizer = tiny_decoder(TEXTS, family=family).tokenizer
    marked = tokenizer("a dog")["input_ids"]
    end_with_mark(tokenizer)
    assert tokenizer("a dog")["input_ids"] == marked
    from tokenizers.processors import TemplateProcessing

    begin = ("[CLS]", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[begin])
    assert tokenizer("a dog")["input_ids"] == marked[:-1]
    end_with_mark(tokenizer)
    assert tokenizer("a dog")["input_ids"] == marked


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="attention"):
        DecoderTransformer(tmp_path, attention="sideways")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="layer_summary"):
        DecoderTransformer(tmp_path, layer_summary="max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="end mark"):
        end_with_mark(None)
