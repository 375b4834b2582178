"""The three terms of the loss, each against a slow form of its equation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.dupmae import (
    EnhancedDecoder,
    MaskCollator,
    MaskedAutoEncoder,
    VocabularyHead,
    bag_of_words_loss,
    masked_lm,
)
from embedlab.text.dupmae.masking import IGNORE
from embedlab.text.dupmae.stream import windows

TEXTS = ["the cat sat on the mat and the dog sat by it", "a ship sailed over the sea", "rain"]


@pytest.fixture(scope="module")
def parts():
    model, tokenizer = masked_lm(tiny_encoder(TEXTS, max_length=24))
    rows = windows(TEXTS, tokenizer, max_length=24)
    batch = MaskCollator(tokenizer)([{**row, "draw": place} for place, row in enumerate(rows)])
    return model.double(), batch


def terms(parts, **options):
    model, batch = parts
    with torch.no_grad():
        found = MaskedAutoEncoder(model, **options).double()(**batch)
    return {name: value.item() for name, value in found.items()}


def states_and_logits(parts):
    model, batch = parts
    with torch.no_grad():
        states = model.bert(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        return states, model.cls(states).numpy()


def log_softmax(row):
    top = max(row)
    return [value - top - math.log(math.fsum(math.exp(other - top) for other in row)) for value in row]


def test_masked_words_cost_their_cross_entropy(parts):
    _, logits = states_and_logits(parts)
    labels = parts[1]["labels"].tolist()
    costs = [
        -log_softmax(logits[b, t])[label]
        for b, row in enumerate(labels)
        for t, label in enumerate(row)
        if label != IGNORE
    ]
    for objective in ("mlm", "retromae", "dupmae"):
        assert terms(parts, objective=objective)["mlm"] == pytest.approx(np.mean(costs), abs=1e-9)


@pytest.mark.parametrize("exclude_masked", [False, True])
def test_the_bag_of_words_costs_what_the_loop_says(parts, exclude_masked):
    _, logits = states_and_logits(parts)
    batch = parts[1]
    total = 0.0
    for b in range(len(TEXTS)):
        real = [t for t in range(1, logits.shape[1]) if batch["attention_mask"][b, t]]
        kept = [t for t in real if not exclude_masked or batch["labels"][b, t] == IGNORE]
        strongest = [max(logits[b, t, word] for t in kept) for word in range(logits.shape[2])]
        text = [word for word in batch["decoder_labels"][b].tolist() if word != IGNORE]
        total -= math.fsum(log_softmax(strongest)[word] for word in set(text)) / len(text)
    found = terms(parts, objective="dupmae", exclude_masked=exclude_masked)
    assert found["bow"] == pytest.approx(total / len(TEXTS), abs=1e-9)


def test_masked_tokens_count_only_without_exclude_masked(parts):
    assert terms(parts, objective="dupmae")["bow"] != terms(parts, objective="dupmae", exclude_masked=True)["bow"]


def test_a_word_that_occurs_again_counts_once_but_lengthens_the_text():
    scores = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
    once = bag_of_words_loss(scores, torch.tensor([[3, 5]]), torch.tensor([[3, 5]]))
    again = bag_of_words_loss(scores, torch.tensor([[3, 5, IGNORE, IGNORE]]), torch.tensor([[3, 5, 3, 3]]))
    assert again.item() == pytest.approx(once.item() / 2)
    assert bag_of_words_loss(scores, torch.tensor([[3, 5, IGNORE]]), None).item() == pytest.approx(once.item())


@pytest.mark.parametrize("objective", ["retromae", "dupmae"])
def test_the_decoder_costs_what_the_loop_over_rows_says(parts, objective):
    model, batch = parts
    states, _ = states_and_logits(parts)
    network = MaskedAutoEncoder(model, objective=objective).double()
    decoder, embed = network.decoder, model.bert.embeddings
    ids, visible, labels = batch["decoder_input_ids"], batch["visible"], batch["decoder_labels"]
    costs = []
    with torch.no_grad():
        for b, row in enumerate(ids):
            h = states[b, 0]
            plain = embed(input_ids=row[None])[0]
            context = [h, *plain[1:]]
            for i in range(len(row)):
                if labels[b, i] == IGNORE:
                    continue
                place = embed.position_embeddings.weight[i]
                kind = embed.token_type_embeddings.weight[0]
                query = h + place if objective == "retromae" else embed.LayerNorm(h + kind + place)
                seen = [j for j in range(len(row)) if visible[b, i, j]]
                assert i not in seen
                assert 0 in seen
                read = []
                width = len(h) // decoder.num_heads
                for head in range(decoder.num_heads):
                    part = slice(head * width, (head + 1) * width)
                    q = decoder.query(query)[part]
                    weights = torch.stack([q @ decoder.key(context[j])[part] / width**0.5 for j in seen]).softmax(0)
                    values = [w * decoder.value(context[j])[part] for w, j in zip(weights, seen, strict=True)]
                    read.append(sum(values))
                mixed = decoder.attended(query + decoder.out(torch.cat(read)))
                done = decoder.done(mixed + decoder.narrow(nn.functional.gelu(decoder.widen(mixed))))
                costs.append(-log_softmax(model.cls(done).tolist())[labels[b, i]])
        found = network(**batch)
    assert found["decoder"].item() == pytest.approx(np.mean(costs), abs=1e-9)
    assert found["loss"].item() == pytest.approx(
        sum(found[name].item() * (0.1 if name == "bow" else 1) for name in found if name != "loss")
    )


def test_a_row_learns_nothing_of_its_own_token(parts):
    """The gradient of a row's result does not reach the embedding of the token it shall name."""
    config = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16, hidden_dropout_prob=0.0)
    decoder = EnhancedDecoder(config)
    visible = parts[1]["visible"][:1]
    length = visible.shape[1]
    context = torch.randn(1, length, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    done = decoder(torch.zeros(1, length, 8), context, visible)
    for i in range(1, length):
        (gradient,) = torch.autograd.grad(done[0, i].square().sum(), context, retain_graph=True)
        reached = gradient[0].abs().sum(dim=1) > 0
        assert not reached[i]
        assert torch.equal(reached, visible[0, i])


def test_the_weight_of_the_bag_decides(parts):
    light, heavy = (terms(parts, objective="dupmae", bow_weight=weight) for weight in (0.0, 1.0))
    assert heavy["loss"] - light["loss"] == pytest.approx(heavy["bow"])


FAMILIES = {
    "bert": lambda: masked_lm(tiny_encoder(TEXTS))[0],
    "distilbert": lambda: DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=20)
    ),
    "roberta": lambda: RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=20,
        )
    ),
    "modernbert": lambda: ModernBertForMaskedLM(
        ModernBertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_scores_as_the_model_does(family):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = FAMILIES[family]().eval()
        ids = torch.tensor([[5, 6, 7, 8]])
        states = model.base_model(ids).last_hidden_state
        head = VocabularyHead.of(model)
        torch.testing.assert_close(head(states), model(ids).logits)
        assert head.output.weight is model.get_output_embeddings().weight
        copied = VocabularyHead.empty(head.settings)
        copied.load_state_dict(head.state_dict())
        torch.testing.assert_close(copied(states), model(ids).logits)


def test_a_model_without_learned_positions_learns_by_mlm_only():
    with torch.random.fork_rng(devices=[]):
        model = FAMILIES["modernbert"]()
    with pytest.raises(InputError, match="learned positions"):
        MaskedAutoEncoder(model, objective="dupmae")
    MaskedAutoEncoder(model, objective="mlm")


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_strongest_scores_and_their_gradient_equal_those_of_all_scores(chunk):
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = VocabularyHead(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 11)).double()
    states = torch.randn(3, 7, 6, generator=generator, dtype=torch.double, requires_grad=True)
    counted = torch.ones(3, 7, dtype=torch.bool)
    counted[:, 0] = counted[1, 4:] = False
    weights = torch.randn(3, 11, generator=generator, dtype=torch.double)
    learned = [states, *head.parameters()]
    slow = head(states).masked_fill(~counted[..., None], -torch.inf).amax(dim=1)
    fast = head.strongest(states, counted, chunk=chunk)
    torch.testing.assert_close(fast, slow)
    wanted = torch.autograd.grad((slow * weights).sum(), learned)
    found = torch.autograd.grad((fast * weights).sum(), learned)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_strongest_scores_in_half_precision_are_near():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = VocabularyHead(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 11))
        states, counted = torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)
    exact = head.strongest(states, counted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = head.strongest(states, counted)
    near.sum().backward()
    torch.testing.assert_close(near, exact, atol=0.05, rtol=0.05)
    assert near.dtype == torch.float32
    assert head.output.weight.grad is not None
