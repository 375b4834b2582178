"""The switch to both directions, on the architectures that decoders come in."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, MistralConfig, MistralModel

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.models.bidirectional import decoder_layers, restore_direction, sees_later_tokens, to_bidirectional
from embedlab.testing.tiny import tiny_encoder
from embedlab.testing.tiny_decoder import Family, save_tiny_decoder, tiny_decoder

TEXTS = ["a cat sat", "the dog ran over the mat", "a dog"]
FAMILIES = get_args(Family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("last_layers", [None, 1, 2])
def test_later_tokens_are_seen_and_stay_seen(
    family: Family, kernel: str, last_layers: int | None, tmp_path: Path
) -> None:
    model = tiny_decoder(TEXTS, family=family, pooling="mean")
    model[0].model.set_attn_implementation(kernel)
    before, weights = model.encode(TEXTS), copy.deepcopy(model.state_dict())
    both = to_bidirectional(model, last_layers=last_layers)
    assert sees_later_tokens(both)
    assert not sees_later_tokens(model)
    assert np.array_equal(model.encode(TEXTS), before)
    assert all(torch.equal(value, weights[name]) for name, value in both.state_dict().items())
    assert not np.allclose(both.encode(TEXTS), before, atol=1e-3)
    both.save(str(tmp_path))
    trusted = last_layers == 1  # the host knows the rest itself
    loaded = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=trusted)
    assert sees_later_tokens(loaded)
    assert np.allclose(loaded.encode(TEXTS), both.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_last_layers_look_both_ways(family: Family) -> None:
    model = to_bidirectional(tiny_decoder(TEXTS, family=family, num_layers=3), last_layers=1)
    body = model[0].model
    features = model.preprocess(TEXTS)
    other = {**features, "input_ids": features["input_ids"].clone()}
    other["input_ids"][:, 3] = 4
    inputs = [{k: f[k] for k in ("input_ids", "attention_mask")} for f in (features, other)]
    with torch.no_grad():
        one, two = (body(**given, output_hidden_states=True).hidden_states for given in inputs)
    early = [bool((a[:, 2] - b[:, 2]).abs().max() > 1e-5) for a, b in zip(one, two, strict=True)]
    assert early == [False, False, False, True]


def test_all_layers_one_by_one_are_the_same_as_all() -> None:
    model = tiny_decoder(TEXTS, num_layers=3, pooling="mean")
    every = to_bidirectional(model)
    two = to_bidirectional(model, last_layers=2)
    hooked = copy.deepcopy(two)
    hooked[0].model.config.bidirectional_last_layers = 3
    restore_direction(hooked[0].model)
    assert np.allclose(hooked.encode(TEXTS), every.encode(TEXTS), atol=1e-6)
    assert not np.allclose(two.encode(TEXTS), every.encode(TEXTS), atol=1e-3)


def test_a_plain_transformer_is_restored_by_name(tmp_path: Path) -> None:
    save_tiny_decoder(tmp_path / "causal", texts=TEXTS)
    both = to_bidirectional(AutoModel.from_pretrained(tmp_path / "causal"), last_layers=1)
    both.save_pretrained(tmp_path / "both")
    loaded = AutoModel.from_pretrained(tmp_path / "both")
    assert not sees_later_tokens(loaded)
    restore_direction(loaded)
    restore_direction(loaded)
    assert sees_later_tokens(loaded)
    assert sum(len(layer._forward_pre_hooks) for layer in decoder_layers(loaded)) == 1


def test_a_gradient_reaches_earlier_tokens_under_checkpointing() -> None:
    model = to_bidirectional(tiny_decoder(TEXTS), last_layers=1)
    plain, kept = model, copy.deepcopy(model)
    kept[0].model.activation_checkpointing_enable()
    values = []
    for one in (plain.train(), kept.train()):
        one(one.preprocess(TEXTS))["sentence_embedding"].square().sum().backward()
        values.append(next(one.parameters()).grad)
    assert torch.allclose(values[0], values[1], atol=1e-5)


def test_an_encoder_sees_both_ways_already() -> None:
    assert sees_later_tokens(tiny_encoder(TEXTS))


def test_a_switch_that_is_not_heeded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_decoder(TEXTS)
    monkeypatch.setattr("embedlab.models.bidirectional.sees_later_tokens", lambda model: False)
    with pytest.raises(EmbedlabError, match="LlamaModel"):
        to_bidirectional(model)


def test_half_a_switch_is_an_error() -> None:
    body = tiny_decoder(TEXTS)[0].model
    for layer in decoder_layers(body):  # what a flag on the attention alone would do: nothing where a mask is made
        layer.self_attn.is_causal = False
    with pytest.raises(EmbedlabError, match="some paths only"):
        sees_later_tokens(body)


@pytest.mark.parametrize("value", [0, 3, -1, "1"])
def test_a_wrong_number_of_layers_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="last_layers"):
        to_bidirectional(tiny_decoder(TEXTS), last_layers=value)


def test_what_cannot_be_switched_is_refused() -> None:
    with pytest.raises(InputError, match="expected a transformer"):
        sees_later_tokens(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    tiny = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    sliding = MistralModel(MistralConfig(vocab_size=20, intermediate_size=8, sliding_window=4, **tiny)).eval()
    with pytest.raises(InputError, match="sliding window"):
        to_bidirectional(sliding, last_layers=1)
    assert sees_later_tokens(to_bidirectional(sliding))
