"""Embedding and writing by one decoder: both terms, each under its own mask."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from embedlab._core.errors import InputError
from embedlab.models.bidirectional import to_bidirectional
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text.joint import JointLoss, attention

QUERIES = ["where is the cat", "who has a boat", "is the lamp on"]
DOCUMENTS = ["the cat sat on the mat", "Ann has a boat", "the lamp is on all night long"]


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    return tiny_decoder(QUERIES + DOCUMENTS, family=request.param, pooling="mean")


def features(model):
    return [model.preprocess(texts) for texts in (QUERIES, DOCUMENTS)]


def test_the_sum_of_a_sentence_loss_seen_both_ways_and_a_loop_over_tokens(model):
    loss = JointLoss(model, MultipleNegativesRankingLoss(model), weight=0.3)
    got = loss(features(model), torch.arange(3))
    both = to_bidirectional(model)
    embedding = MultipleNegativesRankingLoss(both)(features(both), torch.arange(3))
    nats = []
    for text in DOCUMENTS:
        column = model.preprocess([text])
        states = model[0].model(input_ids=column["input_ids"]).last_hidden_state[0]
        logs = (states @ model[0].model.get_input_embeddings().weight.T).log_softmax(-1)
        ids = column["input_ids"][0].tolist()
        nats += [-logs[place, token] for place, token in enumerate(ids[1:])]
    writing = torch.stack(nats).mean()
    torch.testing.assert_close(got, embedding + 0.3 * writing, atol=1e-5, rtol=1e-5)
    assert loss.parts["writing"] == pytest.approx(writing.item(), abs=1e-5)
    assert loss.parts["embedding"] == pytest.approx(embedding.item(), abs=1e-5)


def test_the_direction_is_restored_even_after_an_error(model):
    config = model[0].model.config
    before = getattr(config, "is_causal", None)
    with pytest.raises(InputError, match="only 2 columns"):
        JointLoss(model, MultipleNegativesRankingLoss(model), write=(2,))(features(model), torch.arange(3))
    with attention(model, causal=False):
        assert config.is_causal is False
    assert getattr(config, "is_causal", None) is before


def test_ten_steps_lower_both_terms(model):
    loss = JointLoss(model, MultipleNegativesRankingLoss(model))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    seen = []
    for _ in range(10):
        optimizer.zero_grad()
        loss(features(model), torch.arange(3)).backward()
        optimizer.step()
        seen.append(dict(loss.parts))
    assert seen[-1]["writing"] < seen[0]["writing"]
    assert seen[-1]["embedding"] < seen[0]["embedding"]


def test_weight_zero_is_the_sentence_loss(model):
    inner = MultipleNegativesRankingLoss(model)
    got = JointLoss(model, inner, weight=0.0)(features(model), torch.arange(3))
    with attention(model, causal=False):
        torch.testing.assert_close(got, inner(features(model), torch.arange(3)))


@pytest.mark.parametrize(("options", "says"), [({"weight": -1.0}, "weight=-1"), ({"write": ()}, "write")])
def test_bad_values_are_refused(model, options, says):
    with pytest.raises(InputError, match=says):
        JointLoss(model, MultipleNegativesRankingLoss(model), **options)
