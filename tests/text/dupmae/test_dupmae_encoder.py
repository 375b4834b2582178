"""Both halves of a vector: how they are scored, kept, searched and saved."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sentence_transformers import SentenceTransformer

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.dupmae import (
    DuplexDocuments,
    DuplexEncoder,
    DuplexIndex,
    DuplexQueries,
    DuplexScore,
    masked_lm,
    pooling_of,
)

TEXTS = [
    "the cat sat on the mat",
    "a dog ran",
    "a ship sailed over the calm sea and the wind blew from the west",
    "rain fell on the ship",
    "the dog saw the cat",
]
QUERIES = ["cat", "calm sea", "where did the dog run"]


def encoder(**options):
    model, tokenizer = masked_lm(tiny_encoder(TEXTS, max_length=20))
    return DuplexEncoder(model, tokenizer=tokenizer, **{"dense_dim": 8, "sparse_k": 5, **options})


@pytest.fixture(scope="module")
def duplex():
    return encoder()


@pytest.fixture(scope="module")
def vectors(duplex):
    return duplex.encode_query(QUERIES), duplex.encode_document(TEXTS)


def test_the_halves_are_the_projected_cls_state_and_the_strongest_scores(duplex):
    body, pooling = duplex.host[0], duplex.pooling
    with torch.no_grad():
        for text in TEXTS:
            tokens = duplex.host.preprocess([text])
            states = body(tokens)["token_embeddings"][0]
            found = duplex.encode_query([text])
            assert_allclose(found.dense[0], (pooling.project.weight @ states[0]).numpy(), atol=1e-5)
            assert_allclose(found.words[0], pooling.head(states[1:]).max(dim=0).values.numpy(), atol=1e-5)


def test_the_score_is_the_dense_dot_plus_the_sparse_dot(duplex, vectors):
    queries, documents = vectors
    kept = sparse.csr_matrix(documents.words)
    slow = queries.dense @ documents.dense.T + (sparse.csr_matrix(queries.words) @ kept.T).toarray()
    assert_allclose(duplex.score(queries, documents), slow, rtol=1e-5)


def test_a_document_keeps_its_strongest_words_and_no_more(duplex, vectors):
    documents = vectors[1]
    everything = duplex.encode_query(TEXTS).words
    assert_array_equal(np.diff(documents.words.indptr), 5)
    for row, scores in zip(documents.words.toarray(), everything, strict=True):
        assert set(np.flatnonzero(row)) == set(np.argsort(-scores)[:5])
        assert_allclose(np.sort(row)[-5:], np.sort(scores)[-5:], rtol=1e-6)


def test_fewer_words_are_those_of_a_smaller_sparse_k(duplex):
    texts = [*TEXTS, ""]
    fewer, direct = duplex.encode_document(texts).with_words(3), encoder(sparse_k=3).encode_document(texts)
    assert_allclose(fewer.words.toarray(), direct.words.toarray(), atol=1e-5)
    assert fewer.words.nnz == 15
    assert duplex.encode_document(texts).with_words(0).words.nnz == 0


def test_a_query_is_not_cut(duplex, vectors):
    assert vectors[0].words.shape == (3, duplex.pooling.vocabulary)
    assert (vectors[0].words != 0).all()


def test_one_half_alone():
    both, cls, words = encoder(), encoder(mode="cls"), encoder(mode="ot")
    queries, documents = both.encode_query(QUERIES), both.encode_document(TEXTS)
    dense = cls.score(cls.encode_query(QUERIES), cls.encode_document(TEXTS))
    rest = words.score(words.encode_query(QUERIES), words.encode_document(TEXTS))
    assert_allclose(dense, queries.dense @ documents.dense.T, rtol=1e-5)
    assert_allclose(dense + rest, both.score(queries, documents), rtol=1e-4)
    assert cls.encode_document(TEXTS).words.nnz == 0
    assert words.encode_document(TEXTS).dense.shape == (5, 0)


def test_size_in_bits():
    num_words = encoder().pooling.vocabulary
    place = int(np.ceil(np.log2(num_words)))
    assert encoder(mode="cls").encode_document(TEXTS).bits_per_document == 8 * 32
    assert encoder().encode_document(TEXTS).bits_per_document == 8 * 32 + 5 * (32 + place)
    published = DuplexDocuments(
        np.zeros((1, 384), np.float32), sparse.csr_array(np.r_[np.ones(260), np.zeros(30262)][None].astype(np.float32))
    )
    assert 768 * 32 * 0.99 < published.bits_per_document <= 768 * 32  # the paper's pair of equal size


def test_padding_and_company_change_nothing(duplex):
    whole = duplex.encode_document(TEXTS), duplex.encode_query(TEXTS)
    for place, text in enumerate(TEXTS):
        alone = duplex.encode_document([text], batch_size=1), duplex.encode_query([text])
        assert_allclose(alone[0].dense[0], whole[0].dense[place], atol=1e-5)
        assert_allclose(alone[0].words.toarray()[0], whole[0].words[[place]].toarray()[0], atol=1e-5)
        assert_allclose(alone[1].words[0], whole[1].words[place], atol=1e-5)


def test_long_texts_are_truncated_and_empty_ones_give_zeros(duplex):
    long = duplex.encode_query([" ".join(TEXTS * 5), " ".join(["the cat sat on the mat a dog ran"] * 9)])
    assert np.isfinite(long.words).all()
    first = "the cat sat on the mat a dog ran a ship sailed over the calm sea and the wind blew from the west"
    one, other = duplex.encode_query([first, first + " rain"]).words
    assert_allclose(one, other, atol=1e-5)
    documents, queries = duplex.encode_document(["", TEXTS[0], "  "]), duplex.encode_query([""])
    assert np.diff(documents.words.indptr).tolist() == [0, 5, 0]
    assert not documents.dense[[0, 2]].any()
    assert not duplex.score(queries, documents).any()
    assert duplex.encode_document([]).dense.shape == (0, 8)
    assert duplex.encode_query([]).words.shape == (0, duplex.pooling.vocabulary)


def test_saved_and_loaded_it_gives_the_same(duplex, vectors, tmp_path):
    duplex.save(tmp_path / "duplex")
    loaded = DuplexEncoder.load(tmp_path / "duplex")
    assert_array_equal(loaded.encode_query(QUERIES).words, vectors[0].words)
    assert_array_equal(loaded.encode_document(TEXTS).dense, vectors[1].dense)
    assert loaded.pooling.head.output.weight is loaded.host[0].model.get_input_embeddings().weight, "still tied"
    assert DuplexEncoder.load(tmp_path / "duplex", mode="cls").encode_query(QUERIES).words.any() == False  # noqa: E712
    vectors[1].save(tmp_path / "documents.npz")
    back = DuplexDocuments.load(tmp_path / "documents.npz")
    assert_array_equal(back.dense, vectors[1].dense)
    assert_array_equal(back.words.toarray(), vectors[1].words.toarray())
    with pytest.raises(InputError, match="no such folder"):
        DuplexEncoder.load(tmp_path / "nowhere")


def test_the_export_is_a_plain_model(duplex, tmp_path):
    plain = duplex.to_sentence_transformer(pooling="mean")
    plain.save_pretrained(str(tmp_path / "plain"), create_model_card=False)
    assert "embedlab" not in (tmp_path / "plain" / "modules.json").read_text()
    loaded = SentenceTransformer(str(tmp_path / "plain"))
    assert_allclose(loaded.encode(TEXTS), tiny_encoder(TEXTS, max_length=20).encode(TEXTS), atol=1e-5)


def test_the_score_of_training_is_the_score_of_search(duplex, vectors):
    asked, told = (torch.tensor(duplex.host.encode(texts)) for texts in (QUERIES, TEXTS))
    scores = duplex.score(*vectors)
    assert_allclose(DuplexScore(duplex.pooling)(asked, told).numpy(), scores, rtol=1e-4)
    assert_allclose(DuplexScore(duplex.pooling, pairwise=True)(asked, told[:3]).numpy(), np.diag(scores), rtol=1e-4)


def test_the_index_ranks_by_score(duplex, vectors):
    queries, documents = vectors
    places, best = DuplexIndex(documents).search(queries, top_k=3)
    scores = duplex.score(queries, documents)
    assert_array_equal(places, np.argsort(-scores, axis=1, kind="stable")[:, :3])
    assert_allclose(best, np.take_along_axis(scores, places, axis=1))


def test_lists_of_all_words_give_the_exact_ranking_and_few_words_another_score(vectors):
    queries, documents = vectors
    index = DuplexIndex(documents)
    exact, by_lists = index.search(queries, top_k=5), index.search(queries, top_k=5, query_words=10_000)
    assert_array_equal(by_lists[0], exact[0])
    assert_allclose(by_lists[1], exact[1], rtol=1e-4)
    one = int(np.abs(queries.words[0]).argmax())
    slow = queries.dense[0] @ documents.dense.T + queries.words[0, one] * documents.words.toarray()[:, one]
    assert_allclose(index.search(queries, top_k=5, query_words=1)[1][0], np.sort(slow)[::-1], rtol=1e-4)


def test_balance_brings_both_halves_to_one_scale():
    duplex = encoder()
    duplex.balance(TEXTS)
    queries, documents = duplex.encode_query(TEXTS), duplex.encode_document(TEXTS)
    apart = ~np.eye(len(TEXTS), dtype=bool)
    dense = (queries.dense @ documents.dense.T)[apart].std()
    words = (documents.words @ queries.words.T).T[apart].std()
    assert dense == pytest.approx(words, rel=1e-3)
    with pytest.raises(InputError, match="texts"):
        duplex.balance(TEXTS[:1])


def test_the_given_model_is_left_alone():
    model, tokenizer = masked_lm(tiny_encoder(TEXTS, max_length=20))
    before = copy.deepcopy(model.state_dict())
    duplex = DuplexEncoder(model, tokenizer=tokenizer, dense_dim=8, sparse_k=5)
    with torch.no_grad():
        for weight in duplex.host.parameters():
            weight.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dense_dim": 33}, "dense_dim"),
        ({"sparse_k": 0}, "sparse_k"),
        ({"mode": "all"}, "mode"),
        ({"max_length": 99}, "max_length"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        encoder(**options)


def test_bad_calls_are_refused(duplex, vectors):
    with pytest.raises(InputError, match="batch_size"):
        duplex.encode_document(TEXTS, batch_size=0)
    with pytest.raises(InputError, match="top_k"):
        DuplexIndex(vectors[1]).search(vectors[0], top_k=0)
    with pytest.raises(InputError, match="one encoder"):
        duplex.score(DuplexQueries(vectors[0].dense[:, :3], vectors[0].words), vectors[1])
    with pytest.raises(InputError, match="DuplexPooling"):
        pooling_of(tiny_encoder(TEXTS))
    with pytest.raises(InputError, match="tokenizer"):
        DuplexEncoder(masked_lm(tiny_encoder(TEXTS))[0])
