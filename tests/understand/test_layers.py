"""What each layer is worth: the vectors are the host's, the matrix is a correlation, the scores follow the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.understand.layers import layer_correlation, layer_scores, layer_vectors

TEXTS = ["a cat sat", "the dog ran over the mat", "a dog", "the mat", "a cat ran over a dog"]


def models() -> list[Any]:
    return [
        tiny_encoder(TEXTS, num_layers=3),
        tiny_decoder(TEXTS, num_layers=3),
        tiny_decoder(TEXTS, num_layers=3, family="gpt2", padding_side="left", pad_is_eos=True),
    ]


@pytest.mark.parametrize("model", models())
@pytest.mark.parametrize("pooling", ["mean", "last_token"])
def test_vectors_are_those_of_the_host(model: Any, pooling: Any) -> None:
    found = layer_vectors(model, TEXTS, pooling=pooling, batch_size=2)
    assert found.shape == (3, 5, 32)
    for row, text in enumerate(TEXTS):
        features = model.preprocess([text])
        given = {name: features[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            every = model[0].model(**given, output_hidden_states=True).hidden_states[1:]
        for layer, states in enumerate(every):
            slow = states[0].mean(0) if pooling == "mean" else states[0, -1]
            np.testing.assert_allclose(found[layer, row], slow / slow.norm(), atol=1e-5)


@pytest.mark.parametrize("model", models())
def test_the_matrix_is_a_correlation(model: Any) -> None:
    found = layer_correlation(model, TEXTS)
    assert found.shape == (3, 3)
    assert np.array_equal(found, found.T)
    assert np.array_equal(np.diag(found), np.ones(3))
    assert (np.abs(found) <= 1).all()
    vectors = layer_vectors(model, TEXTS).astype(np.float64)
    pairs = [[float(layer[i] @ layer[j]) for i in range(5) for j in range(i + 1, 5)] for layer in vectors]
    assert found[0, 2] == pytest.approx(spearmanr(pairs[0], pairs[2]).statistic, abs=1e-9)


def test_each_layer_is_scored_and_each_text_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models()[1].train()
    read: list[str] = []
    preprocess = model.preprocess
    monkeypatch.setattr(model, "preprocess", lambda texts: (read.extend(texts), preprocess(texts))[1])
    calls: list[Any] = []

    def first(encode: Any) -> float:
        calls.append(encode(TEXTS))
        return float(calls[-1][0] @ calls[-1][1])

    scores = layer_scores(model, {"first": first, "again": first})
    assert model.training
    assert len(calls) == 6
    assert scores["first"] == scores["again"]
    assert sorted(read) == sorted([*TEXTS, "a"])
    vectors = layer_vectors(model, TEXTS)
    assert np.allclose(scores["first"], [float(layer[0] @ layer[1]) for layer in vectors], atol=1e-5)


def test_what_has_no_layers_is_refused() -> None:
    model = models()[0]
    for call, says in (
        (lambda: layer_vectors(model, []), "texts"),
        (lambda: layer_vectors(model, TEXTS, pooling="max"), "pooling"),  # type: ignore[arg-type]
        (lambda: layer_correlation(model, TEXTS[:2]), "at least 3"),
        (lambda: layer_vectors(SentenceTransformer(modules=[BoW(["a"])]), TEXTS), "begins with"),
    ):
        with pytest.raises(InputError, match=says):
            call()
