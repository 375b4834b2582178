"""The folded temperature against a forward pass that really divides its logits, for every family of attention."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import nn

from embedlab.text.temp_scale import set_temperature, tempered_copy

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
