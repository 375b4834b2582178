"""The folded temperature against a forward pass that really divides its logits, for every family of attention."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from torch import nn

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.temp_scale import attention_temperature, get_temperature, set_temperature, tempered_copy

TEXTS = ["a cat sat on a mat", "the dog ran", "on the mat the dog sat and the cat ran away", "a mat"]
SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}

# family -> (model class, configuration): projections under each name, fused, with rotary positions, query norms, biases
FAMILIES = {
    "bert": ("BertModel", SMALL | DROPOUT),
    "roberta": ("RobertaModel", SMALL | DROPOUT),
    "xlm-roberta": ("XLMRobertaModel", SMALL | DROPOUT),
    "electra": ("ElectraModel", SMALL | DROPOUT | {"embedding_size": 32}),
    "albert": ("AlbertModel", SMALL | DROPOUT | {"embedding_size": 16}),
    "mpnet": ("MPNetModel", SMALL | DROPOUT),
    "deberta-v2": (
        "DebertaV2Model",
        SMALL | DROPOUT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    "distilbert": (
        "DistilBertModel",
        {"vocab_size": 40, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "dropout": 0.0},
    ),
    "modernbert": (
        "ModernBertModel",
        SMALL | {"pad_token_id": 0, "local_attention": 6, "global_attn_every_n_layers": 2},
    ),
    "nomic-bert": ("NomicBertModel", SMALL | DROPOUT),
    "eurobert": ("EuroBertModel", GROUPED),
    "t5-encoder": ("T5EncoderModel", {"vocab_size": 40, "d_model": 32, "num_layers": 3, "num_heads": 4, "d_kv": 8}),
    "gpt2": ("GPT2Model", {"vocab_size": 40, "n_embd": 32, "n_layer": 3, "n_head": 4}),
    "llama": ("LlamaModel", GROUPED),
    "qwen3": ("Qwen3Model", GROUPED),
    "gemma3": ("Gemma3TextModel", GROUPED | {"sliding_window": 8}),
}


def make(family: str, seed: int = 0) -> transformers.PreTrainedModel:
    name, options = FAMILIES[family]
    kind = getattr(transformers, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(kind.config_class(**options)).eval()
        for parameter in model.parameters():  # wide enough that logits matter, gains and biases included
            parameter.data.add_(torch.randn_like(parameter) * 0.15)
    return model


def tokens() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 40, (3, 14), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0  # a shorter text, padded
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def states(model: nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
    inputs = inputs or tokens()
    return model(**inputs).last_hidden_state[inputs["attention_mask"].bool()]


def states_with_divided_logits(model: nn.Module, temperature: float, monkeypatch) -> torch.Tensor:
    """The paper's form: every softmax of the eager attention gets its logits divided."""
    plain, calls = nn.functional.softmax, []

    def divided(logits, *args, **kwargs):
        calls.append(logits.shape)
        lowest = torch.finfo(logits.dtype).min  # where the mask is that already, dividing it would give -inf and NaN
        return plain((logits / temperature).clamp(min=lowest), *args, **kwargs)

    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "softmax", divided)
        found = states(model)
    assert len(calls) == 3, "one softmax per layer"
    return found


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_folding_divides_the_logits_exactly(family, implementation, monkeypatch):
    model = make(family)
    expected = states_with_divided_logits(model, 0.7, monkeypatch)
    if implementation == "sdpa" and family in ("mpnet", "deberta-v2"):
        pytest.skip("this family has eager attention only")
    model.set_attn_implementation(implementation)
    before = states(model)
    folded = states(tempered_copy(model, 0.7))
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=1e-5)
    assert (folded - before).abs().max() > 1e-3, "the logits are too small for the check to say anything"


@pytest.mark.parametrize("family", FAMILIES)
def test_one_brings_back_the_original_bits(family):
    model = make(family)
    original = copy.deepcopy(model.state_dict())
    config = model.config.to_dict()
    for temperature in (0.8, 0.55, 1.7, 1.0):
        set_temperature(model, temperature)
    assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items())
    assert model.config.to_dict() == config


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def encoder() -> SentenceTransformer:
    return tiny_encoder(TEXTS)


def test_setting_is_absolute_so_nothing_compounds(encoder):
    once = weights(tempered_copy(encoder, 0.8))
    for temperature in (0.8, 0.8, 0.5, 0.8):
        set_temperature(encoder, temperature)
    assert same(weights(encoder), once)
    assert get_temperature(encoder) == get_temperature(encoder[0].model) == 0.8


def test_a_saved_model_keeps_its_temperature_and_tells_it(encoder, tmp_path):
    original = weights(encoder)
    sharper = tempered_copy(encoder, 0.8)
    sharper.save(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    assert get_temperature(loaded) == 0.8
    np.testing.assert_array_equal(loaded.encode(TEXTS), sharper.encode(TEXTS))
    with attention_temperature(loaded, 0.6):
        pass
    assert same(weights(loaded), weights(sharper))
    set_temperature(loaded, 1.0)  # the originals are gone; what is left is one rounding
    for name, value in weights(loaded).items():
        torch.testing.assert_close(value, original[name], rtol=2**-22, atol=0)


def test_a_block_gives_the_bits_back_also_after_an_error(encoder):
    original = weights(encoder)
    with attention_temperature(encoder, 0.7):
        with attention_temperature(encoder, 0.5):
            assert get_temperature(encoder) == 0.5
        assert get_temperature(encoder) == 0.7
    assert same(weights(encoder), original)
    with pytest.raises(TypeError), attention_temperature(encoder, 0.7):
        len(3)
    assert same(weights(encoder), original)
    assert get_temperature(encoder) == 1.0


def test_a_copy_of_a_tempered_model_is_restored_as_well(encoder):
    restored = tempered_copy(copy.deepcopy(tempered_copy(encoder, 0.7)), 1.0)
    assert same(weights(restored), weights(encoder))


def test_training_in_between_is_kept(encoder):
    query = encoder[0].model.encoder.layer[0].attention.self.query
    set_temperature(encoder, 0.8)
    query.weight.data += 0.25
    trained = query.weight.detach().clone()
    set_temperature(encoder, 1.0)
    torch.testing.assert_close(query.weight.detach(), trained * 0.8, rtol=1e-6, atol=1e-7)


def test_a_model_halved_in_between_is_the_original_halved(encoder):
    expected = weights(copy.deepcopy(encoder).half())
    set_temperature(encoder, 0.7)
    set_temperature(encoder.half(), 1.0)
    assert same(weights(encoder), expected)


def test_values_out_of_range_leave_the_model_alone(encoder):
    encoder.half()
    encoder[0].model.encoder.layer[1].attention.self.query.weight.data[0, 0] = 6e4
    original = weights(encoder)
    with pytest.raises(InputError, match=re.escape("layer.1.attention.self.query.weight beyond torch.float16")):
        set_temperature(encoder, 0.5)
    assert same(weights(encoder), original)
    assert get_temperature(encoder) == 1.0


def test_attention_of_torch_itself():
    torch_layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    other_keys = nn.MultiheadAttention(16, 2, kdim=8, vdim=8, batch_first=True)
    for module in (torch_layer, other_keys):
        for parameter in module.parameters():
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 8)
    q, k = (part.view(2, 5, 2, 8).transpose(1, 2) for part in _qk(torch_layer.self_attn, x))
    expected = torch.softmax(q @ k.mT / (0.6 * 8**0.5), dim=-1).mean(dim=1)
    with torch.no_grad(), attention_temperature(torch_layer, 0.6):
        assert get_temperature(torch_layer) == 0.6
        found = torch_layer.self_attn(x, x, x)[1]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)

    plain = other_keys(x, memory, memory)[1]
    other_keys.num_heads = 2
    sharper = tempered_copy(other_keys, 0.6)(x, memory, memory)[1]
    assert (sharper.max(dim=-1).values >= plain.max(dim=-1).values - 0.2).all()
    assert not torch.allclose(sharper, plain)


@torch.no_grad()
def _qk(attention, x):
    projected = x @ attention.in_proj_weight.T + attention.in_proj_bias
    return projected[..., :16], projected[..., 16:32]


def swin():
    options = {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 2}
    return transformers.SwinModel(transformers.SwinConfig(**options))


def adapted():
    import warnings

    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings(action="ignore"):  # peft still calls names that transformers is about to drop
        return get_peft_model(make("bert"), LoraConfig(r=2, target_modules=["query"]))


def without_gain():
    model = make("qwen3")
    for layer in model.layers:
        layer.self_attn.q_norm = nn.RMSNorm(8, elementwise_affine=False)
    return model


def capped():
    return transformers.Gemma2Model(transformers.Gemma2Config(**GROUPED, attn_logit_softcapping=50.0))


def alibi():
    options = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    return transformers.FalconModel(transformers.FalconConfig(**options, alibi=True))


def narrow_fused():
    model = make("gpt2")
    model.h[0].attn.c_attn = transformers.pytorch_utils.Conv1D(48, 32)
    return model


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: nn.Linear(2, 2), "Linear has no attention layer"),
        (swin, "'relative_position_bias' may change the logits"),
        (adapted, r"layer.0.attention.self' \(BertSelfAttention\): 'query' is Linear, no plain linear layer"),
        (without_gain, r"'layers.0.self_attn' \(Qwen3Attention\): 'q_norm' \(RMSNorm\) has no gain"),
        (capped, "attn_logit_softcapping=50.0"),
        (alibi, "alibi=True"),
        (narrow_fused, r"'c_attn' of shape \(32, 48\) does not hold three equal projections"),
    ],
)
def test_attention_that_is_not_understood_is_refused_by_name(build, says):
    model = build()
    before = weights(model)
    with pytest.raises(InputError, match=says):
        set_temperature(model, 0.9)
    assert same(weights(model), before)


def test_parts_of_different_temperature_are_not_mixed_up():
    both = nn.ModuleList([make("bert"), make("t5-encoder")])
    set_temperature(both[0], 0.9)
    with pytest.raises(InputError, match=r"\[0.9, 1.0\]"):
        set_temperature(both, 0.8)
    set_temperature(both[0], 1.0)
    set_temperature(both, 0.8)
    assert get_temperature(both[1]) == 0.8


@pytest.mark.parametrize("temperature", [0, -1.0, 0.001, 11, float("nan"), float("inf"), "0.9", None])
def test_temperatures_that_make_no_sense_are_refused(encoder, temperature):
    with pytest.raises(InputError, match="temperature="):
        set_temperature(encoder, temperature)
