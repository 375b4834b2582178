"""The loss with and without the batch: a loop, the host's loss, the cached form, and mixed instructions in training."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from embedlab._core.errors import InputError
from embedlab.models.decoder import instruct
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text.nv_embed import CachedHardNegativesRankingLoss, HardNegativesRankingLoss
from embedlab.text.pooling_attention import build_llm_embedder

COLUMNS = [
    [instruct("find", "a cat sat"), "shares fell", instruct("tell me", "it rained"), "we sang", "a bus came"],
    ["the cat slept", "stocks lost", "rain came", "a song began", "the bus left now"],
    ["a dog sat", "shares rose", "it snowed", "we slept", "a train came"],
    ["a cow", "a fund grew by far", "fog", "we", "a tram"],
]


def model_of(side: Any = "right") -> Any:
    base = tiny_decoder([text for column in COLUMNS for text in column], padding_side=side)
    return build_llm_embedder(base, pooling="latent_attention", num_latents=4, num_heads=2).double()


def value_and_gradient(loss: Any, model: Any, columns: Any = COLUMNS) -> tuple[float, list[Any]]:
    model.zero_grad()
    value = loss([model.preprocess(column) for column in columns], None)
    value.backward()
    return value.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("negatives", [1, 2])
def test_without_the_batch_it_is_a_softmax_over_ones_own(negatives: int) -> None:
    model, columns = model_of(), COLUMNS[: 2 + negatives]
    value, _ = value_and_gradient(HardNegativesRankingLoss(model, scale=7.0, in_batch_negatives=False), model, columns)
    anchors, *others = (model.encode(column).astype(np.float64) for column in columns)
    slow = []
    for row, anchor in enumerate(anchors):
        cosines = [float(anchor @ other[row] / np.linalg.norm(anchor) / np.linalg.norm(other[row])) for other in others]
        slow.append(-np.log(np.exp(7 * cosines[0]) / np.sum(np.exp(7 * np.array(cosines)))))
    assert value == pytest.approx(np.mean(slow), abs=1e-6)


def test_with_the_batch_it_is_the_hosts() -> None:
    model = model_of()
    ours, host = HardNegativesRankingLoss(model), MultipleNegativesRankingLoss(model, scale=50.0)
    (value, gradient), (expected, theirs) = value_and_gradient(ours, model), value_and_gradient(host, model)
    assert value == expected
    assert all(torch.equal(a, b) for a, b in zip(gradient, theirs, strict=True))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("size", [1, 2, 16])
def test_the_cached_form_gives_the_same_gradients(side: str, in_batch: bool, size: int) -> None:
    model = model_of(side)
    plain = HardNegativesRankingLoss(model, in_batch_negatives=in_batch)
    cached = CachedHardNegativesRankingLoss(model, in_batch_negatives=in_batch, mini_batch_size=size)
    (value, gradient), (expected, theirs) = value_and_gradient(cached, model), value_and_gradient(plain, model)
    assert value == pytest.approx(expected, abs=1e-9)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(gradient, theirs, strict=True))
    with torch.no_grad():
        assert cached([model.preprocess(c) for c in COLUMNS], None).item() == pytest.approx(expected, abs=1e-9)


def test_the_batch_does_not_matter_when_it_is_off() -> None:
    model = model_of()
    loss = HardNegativesRankingLoss(model, in_batch_negatives=False)
    one = [[column[place] for column in COLUMNS] for place in range(5)]
    alone = [loss([model.preprocess([text]) for text in row], None).item() for row in one]
    assert loss([model.preprocess(c) for c in COLUMNS], None).item() == pytest.approx(np.mean(alone), abs=1e-6)


def test_arguments_are_checked_and_told() -> None:
    model = model_of()
    for kind in (HardNegativesRankingLoss, CachedHardNegativesRankingLoss):
        with pytest.raises(InputError, match="scale"):
            kind(model, scale=-1.0)
        loss = kind(model, in_batch_negatives=False)
        assert loss.get_config_dict()["in_batch_negatives"] is False
        with pytest.raises(InputError, match="in_batch_negatives"):
            loss([model.preprocess(column) for column in COLUMNS[:2]], None)


def test_the_model_is_not_copied_by_the_loss() -> None:
    model = model_of()
    assert HardNegativesRankingLoss(model).model is model
    assert copy.deepcopy(HardNegativesRankingLoss(model)).scale == 50.0
