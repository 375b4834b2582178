"""Models of other libraries: prompts, fingerprints, model2vec folders, blank texts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.models import Encoder, StaticModel, load_model
from embedlab.models.sentence_transformer import _static_embedding

pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sentence-transformers model with prompts, made of a table of 8 numbers a token."""
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    default = load_model()
    assert isinstance(default, StaticModel)
    table = _static_embedding()(
        Tokenizer.from_str(default.tokenizer_json), embedding_weights=default.rows[:, :8].copy()
    )
    model = SentenceTransformer(modules=[table], prompts={"query": "query: ", "passage": "passage: "}, device="cpu")
    home = tmp_path_factory.mktemp("st") / "model"
    model.save(str(home))
    return home


def test_prompts_are_used(folder: Path) -> None:
    model = load_model(str(folder), device="cpu")
    assert isinstance(model, Encoder)
    assert model.dim == 8
    query, document = model.encode_query(["alpha beta"]), model.encode_document(["alpha beta"])
    assert not np.allclose(query, document)
    bare = model.host.encode(["query: alpha beta"], normalize_embeddings=True)  # type: ignore[attr-defined]
    np.testing.assert_allclose(query, bare, atol=1e-6)


def test_blank_texts_give_zero_rows_and_order_is_kept(folder: Path) -> None:
    model = load_model(str(folder), device="cpu")
    seen: list[int] = []
    texts = ["a rather long text about cats and dogs", "", "short", "\n"]
    got = model.encode_document(texts, batch_size=1, on_progress=seen.append)
    assert sum(seen) == 4
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), [1, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(got[2], model.encode_document(["short"])[0], atol=1e-6)


def test_the_fingerprint_follows_weights_and_prompts(folder: Path, tmp_path: Path) -> None:
    first = load_model(str(folder), device="cpu")
    assert first.fingerprint == load_model(str(folder), device="cpu").fingerprint
    changed = load_model(str(folder), device="cpu")
    changed.host.prompts["query"] = "another: "  # type: ignore[attr-defined]
    heavier = load_model(str(folder), device="cpu")
    next(heavier.host.parameters()).data[5, 0] += 1  # type: ignore[attr-defined]
    assert len({first.fingerprint, changed.fingerprint, heavier.fingerprint}) == 3
    assert first.fingerprint.startswith("sentence-transformers:")


def test_a_model2vec_folder_loads(tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec")
    from tokenizers import Tokenizer

    default = load_model()
    assert isinstance(default, StaticModel)
    rows = default.rows[:, :16].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = model2vec.StaticModel(vectors=rows, tokenizer=Tokenizer.from_str(default.tokenizer_json), normalize=True)
        peer.save_pretrained(str(tmp_path / "m2v"))
        model = load_model(str(tmp_path / "m2v"), device="cpu")
    texts = ["hello world", "static tables are fast"]
    np.testing.assert_allclose(model.encode_document(texts), peer.encode(texts), atol=1e-5)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    with pytest.raises(InputError, match="name="):
        load_model(str(tmp_path), device="cpu")
