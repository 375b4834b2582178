"""Word-counting baselines: equal to the host's cosine, to BM25 by a slow loop, sparse inside, and ordinary encoders."""

from __future__ import annotations

import math
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from embedlab._core.errors import InputError
from embedlab.data.loaders import load_cranfield
from embedlab.models import Encoder, lexical
from embedlab.models.lexical import LEXICAL, BagOfWords, Bm25, LexicalModel, Lsa, Tfidf
from embedlab.models.stems import Stems

TEXTS = [
    "The cat sat on the mat with another cat.",
    "Dogs and cats living together: mass hysteria!",
    "Stock markets fell; the market of bonds did not.",
    "A bond market for cats?",
    "",
    "zebra zebra zebra",
]
WORDS = st.lists(st.sampled_from(["tea", "cup", "red", "green", "boat", "ocean", "wind", "tree"]), max_size=12).map(
    " ".join
)
CORPORA = st.lists(WORDS, min_size=2, max_size=8).filter(any)


@pytest.mark.parametrize("settings", [{}, {"ngram_range": (1, 2)}, {"analyzer": "char_wb", "ngram_range": (3, 4)}])
@pytest.mark.parametrize(("ours", "host"), [(BagOfWords, CountVectorizer), (Tfidf, TfidfVectorizer)])
def test_equals_the_cosine_of_the_host(ours: type[BagOfWords], host: type, settings: dict[str, object]) -> None:
    model = ours(**settings).fit(TEXTS)  # type: ignore[arg-type]
    rows = host(**settings).fit_transform(TEXTS)
    expected = cosine_similarity(rows)
    np.testing.assert_allclose(model.scores(TEXTS, TEXTS), expected, atol=1e-6)
    dense = model.encode_document(TEXTS)
    np.testing.assert_allclose(dense @ dense.T, expected, atol=1e-6)


def by_loop(corpus: list[list[str]], query: list[str], *, k1: float, b: float) -> list[float]:
    """BM25 as the books print it, one document and one word at a time."""
    mean = sum(len(words) for words in corpus) / len(corpus)
    scores = []
    for words in corpus:
        counts, score = Counter(words), 0.0
        for word in query:
            holding = sum(word in other for other in corpus)
            if not holding:
                continue
            idf = math.log(1 + (len(corpus) - holding + 0.5) / (holding + 0.5))
            long = k1 * (1 - b + b * len(words) / mean)
            score += idf * counts[word] * (k1 + 1) / (counts[word] + long) if counts[word] else 0.0
        scores.append(score)
    return scores


@settings(max_examples=50, deadline=None)
@given(CORPORA, WORDS, st.sampled_from([0.0, 0.9, 1.2, 2.0]), st.sampled_from([0.0, 0.4, 1.0]))
def test_bm25_by_a_slow_loop(corpus: list[str], query: str, k1: float, b: float) -> None:
    model = Bm25(k1=k1, b=b, language=None).fit(corpus)
    expected = by_loop([text.split() for text in corpus], query.split(), k1=k1, b=b)
    np.testing.assert_allclose(model.scores([query], corpus)[0], expected, rtol=1e-5, atol=1e-6)


def test_bm25_finds_by_stem_and_ignores_stop_words() -> None:
    model = Bm25().fit(["He was running to the river", "A tax on the rich", "Rivers run dry"])
    assert model.scores(["the"], ["He was running to the river"]).tolist() == [[0.0]]
    found, scores = model.rank(["runs in rivers"], model.sparse_documents(["tax", "Rivers run dry", "rich"]), top_k=2)
    assert found.tolist() == [[1, 0]]
    assert scores[0, 0] > scores[0, 1] == 0


def test_words_keep_their_vowel_signs_and_unspaced_scripts_are_cut() -> None:
    assert Stems(None)(["मराठी बातम्या विद्यार्थ्यांना"]) == [["मराठी", "बातम्या", "विद्यार्थ्यांना"]]
    assert Stems(None)(["我们去北京大学", "snake_case, C3PO"]) == [
        ["我们", "去", "北京", "大学"],
        ["snake", "case", "c3po"],
    ]
    assert Stems("English")(["", "the", "He was the running man"]) == [[], [], ["run", "man"]]


@pytest.mark.parametrize("name", LEXICAL)
def test_is_an_ordinary_encoder(name: str) -> None:
    model = LEXICAL[name]().fit(TEXTS)
    assert isinstance(model, Encoder)
    done: list[int] = []
    rows = model.encode_document([*TEXTS, "unseenword"], batch_size=3, on_progress=done.append)
    assert (rows.dtype, rows.shape, done) == (np.float32, (7, model.dim), [3, 3, 1])
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 1, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(model.encode_query(TEXTS), rows[:6], atol=1e-6)
    np.testing.assert_allclose(model.encode_document(TEXTS[2:3])[0], rows[2], atol=1e-6)
    assert model.encode_document([]).shape == (0, model.dim)
    assert model.scores([], TEXTS).shape == (0, 6)


@pytest.mark.parametrize("name", LEXICAL)
def test_fingerprint_tells_what_was_fitted(name: str) -> None:
    family = LEXICAL[name]
    first = family().fit(TEXTS).fingerprint
    assert first.startswith(f"{name}:")
    assert first == family().fit(TEXTS).fingerprint
    assert first != family().fit([*TEXTS, "one more zebra in the market"]).fingerprint
    other: LexicalModel = Bm25(b=0.1) if name == "bm25" else family(ngram_range=(1, 2))  # type: ignore[call-arg]
    assert first != other.fit(TEXTS).fingerprint


def test_rank_is_the_order_of_the_scores_with_ties_to_the_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "_SCORES_AT_ONCE", 7)  # so that queries come in several blocks
    model = Tfidf().fit(TEXTS)
    queries = ["cat market", "nothing known", "zebra bond"]
    found, scores = model.rank(queries, model.sparse_documents(TEXTS), top_k=99)
    every = model.scores(queries, TEXTS)
    for row, places, best in zip(every, found, scores, strict=True):
        assert places.tolist() == sorted(range(len(TEXTS)), key=lambda place: (-row[place], place))
        assert best.tolist() == row[places].tolist()


def test_many_words_stay_sparse() -> None:
    corpus = [f"only{place} here{place} word" for place in range(30_000)]
    model = BagOfWords().fit(corpus)
    assert model.dim == 60_001
    with pytest.raises(
        InputError, match=r"30000 texts by 60001 words are 6\.7 GiB as dense rows: fit with max_features"
    ):
        model.encode_document(corpus)
    found, _ = model.rank(["only123 here123"], model.sparse_documents(corpus), top_k=1)
    assert found.tolist() == [[123]]
    assert BagOfWords(max_features=10).fit(corpus).encode_document(corpus).shape == (30_000, 10)


def test_lsa_is_the_projection_of_tfidf() -> None:
    rows = TfidfVectorizer().fit_transform(TEXTS).toarray()
    left, _, _ = np.linalg.svd(rows.T @ rows)
    projected = rows @ left[:, :3]
    projected /= np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
    model = Lsa(dim=3).fit(TEXTS)
    np.testing.assert_allclose(model.scores(TEXTS, TEXTS), projected @ projected.T, atol=1e-5)
    assert Lsa(dim=100).fit(TEXTS).dim == 6


@pytest.mark.parametrize("name", LEXICAL)
def test_refuses_what_it_cannot_use(name: str) -> None:
    model = LEXICAL[name]()
    with pytest.raises(InputError, match="call fit"):
        model.encode_query(["a"])
    with pytest.raises(InputError, match="call fit"):
        _ = model.fingerprint
    for nothing in ([], ["", "  "]):
        with pytest.raises(InputError, match=f"texts to fit {name} on"):
            model.fit(nothing)
    with pytest.raises(InputError, match=r"texts\[1\]=None"):
        model.fit(["a", None])  # type: ignore[list-item]
    fitted = model.fit(TEXTS)
    with pytest.raises(InputError, match="top_k=0"):
        fitted.rank(["cat"], fitted.sparse_documents(TEXTS), top_k=0)


def test_refuses_settings_that_mean_nothing() -> None:
    with pytest.raises(InputError, match="b in"):
        Bm25(b=2)
    with pytest.raises(InputError, match="language='Klingon'"):
        Bm25(language="Klingon")
    with pytest.raises(InputError, match="dim=0"):
        Lsa(dim=0)


@pytest.mark.skipif("EMBEDLAB_DATA" not in os.environ, reason="EMBEDLAB_DATA is not set")
def test_cranfield_comes_out_as_measured() -> None:
    data = load_cranfield()
    keys, documents = list(data.corpus), [f"{entry.title} {entry.text}" for entry in data.corpus.values()]
    model = Bm25().fit(documents)
    found, _ = model.rank(list(data.queries.values()), model.sparse_documents(documents))
    gains = 1 / np.log2(np.arange(2, 12))
    quality = [
        sum(gain for gain, place in zip(gains, places, strict=True) if keys[place] in data.qrels[query])
        / gains[: len(data.qrels[query])].sum()
        for query, places in zip(data.queries, found, strict=True)
    ]
    assert np.mean(quality) == pytest.approx(0.391, abs=0.005)
