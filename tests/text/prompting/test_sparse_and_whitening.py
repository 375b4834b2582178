"""Sparse weights from logits, fused rankings, and the linear maps that take away what vectors share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedlab._core.errors import InputError
from embedlab.text.prompting import PromptEmbedder, fuse_scores, sparse_weights, whitening, whitening_module

TEXTS = [
    "a cat sat on the mat",
    "the dog ran away from the cat",
    "a mat",
    "on the mat the dog sat and the cat ran away",
]


def test_sparse_weights_match_the_loop() -> None:
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)) * 3
    marks = (torch.arange(36).view(3, 12) % 3 != 0).float()
    found = sparse_weights(logits, marks, top_k=3)
    for row in range(3):
        weights = [math.log(1 + max(0.0, float(logits[row, v]))) if marks[row, v] else 0.0 for v in range(12)]
        kept = sorted(range(12), key=lambda v: -weights[v])[:3]
        assert_allclose(found[row], [weights[v] if v in kept else 0.0 for v in range(12)], atol=1e-6)
    with pytest.raises(InputError, match="top_k=0"):
        sparse_weights(logits, marks, top_k=0)


def test_only_tokens_of_the_text_get_weights(decoder: Callable[[str], Path]) -> None:
    embedder = PromptEmbedder(decoder("llama"), method="promptreps")
    found = embedder.encode_sparse(TEXTS, batch_size=3)
    tokenizer = AutoTokenizer.from_pretrained(decoder("llama"))
    model = AutoModelForCausalLM.from_pretrained(decoder("llama")).eval()
    assert found.shape == (len(TEXTS), len(tokenizer))
    assert found.nnz > 0
    for text, row in zip(TEXTS, found, strict=True):
        allowed = set(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert set(row.indices) <= allowed
        ids = tokenizer(f'Text: "{text}" The most important word of the text is:')["input_ids"][:-1]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        expected = [math.log1p(max(0.0, float(logits[v]))) if v in allowed else 0.0 for v in range(len(tokenizer))]
        assert_allclose(row.toarray()[0], expected, atol=1e-5)
    assert (np.diff(embedder.encode_sparse(TEXTS, top_k=1).indptr) <= 1).all()
    word = int(found.indices[0])
    stopped = embedder.encode_sparse(TEXTS, stop_words=[tokenizer.decode([word])])
    assert found[:, [word]].nnz
    assert not stopped[:, [word]].nnz
    cut = PromptEmbedder(decoder("llama"), method="promptreps", max_length=len(ids) - 4)
    short = cut.encode_sparse([TEXTS[-1]])  # "on the mat the dog sat and the cat ran off", less its end
    assert set(short.indices) <= set(tokenizer("on the mat the dog sat and the", add_special_tokens=False)["input_ids"])
    assert embedder.encode_sparse([]).shape == (0, len(tokenizer))


def test_fusing_scores() -> None:
    dense, sparse = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]]), np.array([[10.0, 0.0, 5.0], [0.0, 1.0, 2.0]])
    assert_allclose(fuse_scores(dense, sparse, weight=1.0), [[0, 1, 0.5], [0, 0, 0]])
    assert_allclose(fuse_scores(dense, sparse, weight=0.25), [[0.75, 0.25, 0.5], [0, 0.375, 0.75]])
    for bad in ({"weight": 1.5}, {"sparse": sparse[:1]}):
        with pytest.raises(InputError):
            fuse_scores(dense, **{"sparse": sparse, **bad})  # type: ignore[arg-type]


def test_whitened_vectors_have_the_identity_as_covariance() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)) + 3
    matrix, mean = whitening(rows)
    assert_allclose(np.cov((matrix @ (rows - mean).T), bias=True), np.eye(5), atol=1e-9)
    matrix, mean = whitening(rows, fix="standardise")
    assert_allclose(((rows - mean) @ matrix.T).std(0), 1, atol=1e-9)
    matrix, mean = whitening(rows, fix="centre")
    assert_allclose(matrix, np.eye(5))
    assert_allclose(mean, rows.mean(0))


def test_directions_without_data_are_not_blown_up() -> None:
    rows = np.zeros((10, 3))
    rows[:, 0] = np.arange(10)
    for fix in ("whiten", "standardise"):
        matrix, _ = whitening(rows, fix=fix, floor=0.01)  # type: ignore[arg-type]
        assert np.abs(matrix).max() == pytest.approx(10 / rows[:, 0].std())
    assert np.isfinite(whitening(np.ones((4, 2)))[0]).all()


def test_the_module_does_what_the_map_does() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    matrix, mean = whitening(rows)
    out = whitening_module(rows)({"sentence_embedding": torch.from_numpy(rows)})["sentence_embedding"]
    assert_allclose(out.numpy(), (rows - mean) @ matrix.T, atol=1e-4)


@pytest.mark.parametrize("bad", [np.ones((1, 3)), np.ones(3), np.array([[1.0, np.nan], [0, 1]])])
def test_vectors_that_tell_nothing_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="vectors"):
        whitening(bad)
    with pytest.raises(InputError, match="fix='round'"):
        whitening(np.ones((3, 2)), fix="round")  # type: ignore[arg-type]
