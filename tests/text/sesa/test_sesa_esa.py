"""ESA: by hand, against scikit-learn, under renaming, and as a model on disk."""

from __future__ import annotations

import json
from math import log, sqrt
from pathlib import Path

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.models.word_concepts import WordConcepts
from embedlab.text.sesa import ESA, ConceptSpace, Item

TEXTS = ["queries over tables", "wood and nails for tables", "a recipe for queries", "tables tables tables"]
SPACE = ConceptSpace(["databases", "carpentry", "cooking"], ["tables, queries", "wood nails tables", "recipe kitchen"])


def test_three_documents_by_hand() -> None:
    space = ConceptSpace(["aa", "bb", "cc"], ["red tea", "green tea", "tin can"])
    esa = ESA(space).fit([])
    # three articles: "tea" is in two of them, every other word in one
    rare, tea = log(4 / 2), log(4 / 3)
    red = sqrt(2 * rare**2 + tea**2)  # length of "aa red tea"
    found = esa.encode(["red red tea"])[0]
    first = (1 + log(2)) * rare * rare / red + tea * tea / red
    assert found == pytest.approx([first, tea * tea / red, 0.0], abs=1e-6)
    assert esa.score("tin", "can") == pytest.approx(1.0)


def test_agrees_with_scikit_learn() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    esa = ESA(SPACE, top_k=3).fit(TEXTS)
    words = text.TfidfVectorizer(sublinear_tf=True).fit([*TEXTS, *SPACE.articles])
    words.idf_ = words.idf_ - 1  # theirs never is 0
    articles = words.transform(SPACE.articles).toarray()
    plain = text.TfidfVectorizer(sublinear_tf=True, norm=None, vocabulary=words.vocabulary_).fit(TEXTS)
    plain.idf_ = words.idf_
    assert np.abs(esa.encode(TEXTS) - plain.transform(TEXTS).toarray() @ articles.T).max() < 1e-5


def test_declared_texts_become_part_of_the_articles() -> None:
    unknown = "sourdough"
    assert not ESA(SPACE).fit(TEXTS).encode([unknown]).any()
    taught = ESA(SPACE).fit([*TEXTS, "sourdough bread"], [[], [], [], [], ["cooking"]])
    assert taught.explain(unknown, Item(concepts=["cooking"])) == [("cooking", pytest.approx(1.0))]


def test_permuted_concepts_permute_columns_and_nothing_else() -> None:
    order = [2, 0, 1]
    turned = ConceptSpace([SPACE.names[k] for k in order], [(SPACE.descriptions or [])[k] for k in order])
    one, other = ESA(SPACE).fit(TEXTS), ESA(turned).fit(TEXTS)
    assert np.abs(one.encode(TEXTS)[:, order] - other.encode(TEXTS)).max() < 1e-6
    for x in TEXTS:
        for y in TEXTS:
            assert one.score(x, y) == pytest.approx(other.score(x, y), abs=1e-6)
            assert dict(one.explain(x, y, top_k=None)) == pytest.approx(dict(other.explain(x, y, top_k=None)))


def test_keeps_the_strongest_concepts_and_explains_its_score() -> None:
    esa = ESA(SPACE, top_k=1).fit(TEXTS)
    assert ((esa.encode(TEXTS) > 0).sum(axis=1) <= 1).all()
    whole = ESA(SPACE).fit(TEXTS)
    for pair in ((TEXTS[0], TEXTS[1]), (TEXTS[1], Item(concepts=["carpentry", "cooking"])), ("", TEXTS[0])):
        assert sum(weight for _, weight in whole.explain(*pair, top_k=None)) == pytest.approx(whole.score(*pair))
    assert whole.score("", TEXTS[0]) == 0.0
    with pytest.raises(InputError, match="top_k=0"):
        whole.explain(TEXTS[0], TEXTS[1], top_k=0)


def test_a_saved_model_is_a_model_for_everybody(tmp_path: Path) -> None:
    esa = ESA(SPACE).fit(TEXTS)
    esa.save(tmp_path / "model")
    encoder = load_model(str(tmp_path / "model"))
    assert (encoder.dim, encoder.dimensions) == (3, SPACE.names)  # type: ignore[attr-defined]
    assert encoder.fingerprint == esa.encoder.fingerprint
    rows = encoder.encode_document([*TEXTS, "unheard"])
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 1, 0], abs=1e-6)
    again = ESA.load(tmp_path / "model")
    assert np.array_equal(again.encode(TEXTS), esa.encode(TEXTS))
    assert again.space.names == SPACE.names
    assert ESA(SPACE).fit(TEXTS[:2]).encoder.fingerprint != esa.encoder.fingerprint
    seen: list[int] = []
    encoder.encode_document(TEXTS, batch_size=3, on_progress=seen.append)
    assert seen == [3, 1]


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    ESA(SPACE).fit(TEXTS).save(tmp_path / "model")
    weights, config = tmp_path / "model/model.safetensors", tmp_path / "model/config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    with pytest.raises(InputError, match="cannot be read"):
        load_model(str(tmp_path / "model"))
    weights.write_bytes(whole[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match="damaged"):
        load_model(str(tmp_path / "model"))
    weights.write_bytes(whole)
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "words": settings["words"][:-1]}))
    with pytest.raises(InputError, match="cannot be read"):
        load_model(str(tmp_path / "model"))
    config.write_text(json.dumps({**settings, "version": 99}))
    with pytest.raises(InputError, match="this release"):
        load_model(str(tmp_path / "model"))
    with pytest.raises(InputError, match="cannot be read as JSON"):
        ESA.load(tmp_path)


def test_arrays_that_do_not_fit_are_refused() -> None:
    good = [("a", "b"), ("x", "y"), [1, 1], [0, 1, 2], [0, 1], [1, 1]]
    WordConcepts(*good)  # type: ignore[arg-type]
    for place, bad, says in (
        (0, ("a", "a"), "names must differ"),
        (1, ("x", "x"), "no word twice"),
        (2, [1], "idf"),
        (3, [0, 2, 1], "starts"),
        (4, [0, 2], "concepts"),
        (5, [1, -1], "weights"),
        (5, [1, np.nan], "weights"),
    ):
        with pytest.raises(InputError, match=says):
            WordConcepts(*(bad if k == place else part for k, part in enumerate(good)))  # type: ignore[arg-type]
