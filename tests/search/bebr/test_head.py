"""A sentence-transformers model that emits codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")

import torch

from embedlab._core.errors import InputError
from embedlab.search.bebr import BinarizeHead, RecurrentBinarizer, Training
from embedlab.testing.tiny import tiny_encoder

TEXTS = ["a cat sat on the mat", "the dog ran", "birds fly south", "cats and dogs", "a mat", "south of the house"]


def test_a_model_emits_codes_after_saving_and_loading(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = tiny_encoder(TEXTS)
    vectors = model.encode(TEXTS)
    binarizer = RecurrentBinarizer(vectors.shape[1], code_dim=16, rounds=1).fit(vectors, training=Training(steps=0))
    model.append(BinarizeHead(binarizer))
    emitted = model.encode(TEXTS)
    codes = binarizer.encode(vectors)
    np.testing.assert_allclose(emitted @ emitted.T, codes.score(codes), atol=1e-5)
    features = model.forward(model.preprocess(TEXTS))
    assert np.array_equal(features["sentence_codes"].numpy(), codes.codes)
    model.save(str(tmp_path / "model"))
    again = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True)
    assert np.array_equal(again.encode(TEXTS), emitted)
    assert again.get_embedding_dimension() == 16


def test_the_head_trains_through_the_signs() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    head = BinarizeHead(RecurrentBinarizer(8, rounds=2, hidden=0).fit(rows, training=Training(steps=0)))
    inputs = torch.tensor(rows[:20], requires_grad=True)
    head({"sentence_embedding": inputs})["sentence_embedding"][:, 0].sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().sum() > 0


def test_other_forms_of_saving_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    head = BinarizeHead(RecurrentBinarizer(8, hidden=0).fit(rows, training=Training(steps=0)))
    with pytest.raises(InputError, match="safe_serialization"):
        head.save(str(tmp_path), safe_serialization=False)
