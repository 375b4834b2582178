"""The trainable quantiser against faiss, against table look-ups, and in what training does to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from embedlab._core.errors import InputError
from embedlab.search.bidr import ContrastivePQ, ContrastivePQCodec
from embedlab.search.bidr.faiss_index import product_index, train_opq

faiss = pytest.importorskip("faiss")


def cloud(n=300, dim=16, *, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def turn(dim=16, *, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0].astype(np.float32)


@pytest.fixture(params=["plain", "turned"])
def quantizer(request):
    return ContrastivePQ(16, parts=4, centroids=16, rotation=turn() if request.param == "turned" else None).eval()


def test_forward_is_what_faiss_reconstructs(quantizer):
    vectors, index = cloud(), quantizer.to_faiss()
    index.add(vectors)
    with torch.no_grad():
        assert_allclose(quantizer(torch.from_numpy(vectors)), index.reconstruct_n(0, 300), atol=1e-5)


def test_faiss_search_is_the_sum_of_table_look_ups(quantizer):
    vectors, queries, index = cloud(), cloud(5, seed=1), quantizer.to_faiss()
    index.add(vectors)
    codes = quantizer.encode(torch.from_numpy(vectors)).numpy()
    codebook = quantizer.codebook.detach().numpy()
    rotation = quantizer.final_rotation()
    turned = queries if rotation is None else queries @ rotation.numpy().T
    scores = [
        [sum(float(q[4 * m : 4 * m + 4] @ codebook[m, code[m]]) for m in range(4)) for code in codes] for q in turned
    ]
    found, rows = index.search(queries, 300)
    assert_allclose(found, np.take_along_axis(np.array(scores), rows, axis=1), atol=1e-5)
    assert (np.diff(found, axis=1) <= 0).all()


def test_a_faiss_index_goes_in_and_comes_out():
    vectors = cloud(600)
    index = faiss.index_factory(16, "OPQ4,PQ4x4", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    quantizer = ContrastivePQ(16, parts=4, centroids=16).init_from_faiss(index).eval()
    again = quantizer.to_faiss()
    again.add(vectors)
    queries = cloud(7, seed=1)
    assert_allclose(again.search(queries, 5)[0], index.search(queries, 5)[0], atol=1e-5)
    with torch.no_grad():
        assert_allclose(quantizer(torch.from_numpy(vectors)), index.reconstruct_n(0, 600), atol=1e-5)


@pytest.mark.parametrize("spec", ["PQ8x4", "PQ4x8", "Flat", "PCA16,OPQ4,PQ4x4"])
def test_other_indexes_are_refused(spec):
    with pytest.raises(InputError, match=r"expected|transforms"):
        ContrastivePQ(16, parts=4, centroids=16).init_from_faiss(faiss.index_factory(16, spec))


def test_an_untrained_index_is_refused():
    with pytest.raises(InputError, match="trained"):
        ContrastivePQ(16, parts=4, centroids=16).init_from_faiss(faiss.IndexPQ(16, 4, 4))


def test_gradients_reach_codebook_and_vectors(quantizer):
    vectors = torch.from_numpy(cloud()).requires_grad_()
    (quantizer(vectors) * torch.from_numpy(cloud(seed=2))).sum().backward()
    assert vectors.grad.abs().sum(dim=1).min() > 0
    chosen = quantizer.encode(vectors)
    for part in range(4):
        used = torch.zeros(16, dtype=torch.bool)
        used[chosen[:, part].long()] = True
        moved = quantizer.codebook.grad[part].abs().sum(dim=1) > 0
        assert moved[used].all()


def test_the_soft_gradient_is_that_of_the_softmax():
    """Straight through: the vectors' gradient equals that of sum_k p_k C_k with constant codewords."""
    quantizer = ContrastivePQ(8, parts=2, centroids=16, temperature=0.3)
    words, target = quantizer.codebook.detach(), torch.from_numpy(cloud(5, 8, seed=3))
    vectors = torch.from_numpy(cloud(5, 8)).requires_grad_()
    (quantizer(vectors) * target).sum().backward()
    soft = vectors.detach().clone().requires_grad_()
    loss = torch.zeros(())
    for row in range(5):
        for part in range(2):
            y = soft[row, 4 * part : 4 * part + 4]
            p = torch.softmax(torch.stack([-((y - word) ** 2).sum() / 0.3 for word in words[part]]), 0)
            loss = loss + (p @ words[part]) @ target[row, 4 * part : 4 * part + 4]
    loss.backward()
    assert_allclose(vectors.grad, soft.grad, atol=1e-5)


def test_a_trained_rotation_stays_orthogonal_and_learns():
    quantizer = ContrastivePQ(16, parts=4, centroids=16, rotation=turn(), train_rotation=True)
    optimiser = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    vectors, start = torch.from_numpy(cloud()), quantizer.final_rotation()
    assert_allclose(start, turn(), atol=1e-5)
    losses = []
    for _ in range(20):
        loss = (quantizer(vectors) - vectors).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    rotation = quantizer.final_rotation()
    assert_allclose(rotation @ rotation.T, np.eye(16), atol=1e-4)
    assert (rotation - start).abs().max() > 0.05
    assert losses[-1] < losses[0]


def test_dead_codewords_come_back_to_life():
    quantizer = ContrastivePQ(16, parts=4, centroids=16)
    with torch.no_grad():
        quantizer.codebook[:, 3:] = 1e3  # nobody's nearest
    vectors = torch.from_numpy(cloud())
    quantizer(vectors)
    assert quantizer.usage().max() <= 3 / 16
    error = float((quantizer(vectors) - vectors).square().mean().detach())
    moved = quantizer.reseed(vectors, generator=torch.Generator().manual_seed(0))
    assert moved == 4 * 13
    assert float((quantizer(vectors) - vectors).square().mean().detach()) < error
    assert quantizer.usage().min() > 0.8
    assert quantizer.reseed(vectors[:2], generator=torch.Generator().manual_seed(0)) <= 8


def test_evaluation_counts_no_usage(quantizer):
    quantizer(torch.from_numpy(cloud()))
    assert float(quantizer.usage().sum()) == 0


def test_state_holds_everything():
    first = ContrastivePQ(16, parts=4, centroids=16, rotation=turn(), seed=3)
    second = ContrastivePQ(16, parts=4, centroids=16, rotation=turn(seed=9))
    second.load_state_dict(first.state_dict())
    vectors = torch.from_numpy(cloud())
    assert_array_equal(first(vectors).detach(), second(vectors).detach())


def test_codes_decode_to_the_reconstruction(quantizer):
    vectors = torch.from_numpy(cloud())
    with torch.no_grad():
        assert_allclose(quantizer.decode(quantizer.encode(vectors)), quantizer(vectors), atol=1e-6)


@pytest.mark.parametrize("centroids", [16, 256])
def test_the_codec_says_what_the_module_says(centroids):
    quantizer = ContrastivePQ(16, parts=4, centroids=centroids, rotation=turn()).eval()
    codec, vectors = ContrastivePQCodec.of(quantizer), cloud()
    codes = codec.encode(vectors)
    assert codes.shape == (300, 4 if centroids == 256 else 2)
    with torch.no_grad():
        assert_allclose(codec.decode(codes), quantizer(torch.from_numpy(vectors)), atol=1e-5)
    index = product_index(codec.parameters["codebook"])
    assert_array_equal(codes, index.sa_encode(vectors @ turn().T))
    back = codec.quantizer()
    assert_array_equal(back.encode(torch.from_numpy(vectors)), quantizer.encode(torch.from_numpy(vectors)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"parts": 3}, "must divide dim=16: one of"),
        ({"parts": 4, "centroids": 64}, "centroids=64"),
        ({"parts": 4, "temperature": 0}, "temperature"),
        ({"parts": 4, "rotation": np.ones((16, 16))}, "orthogonal"),
        ({"parts": 4, "rotation": np.eye(8)}, r"must be \(16, 16\)"),
    ],
)
def test_bad_arguments_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        ContrastivePQ(16, **options)


def test_vectors_of_another_width_are_refused(quantizer):
    with pytest.raises(InputError, match="must have shape"):
        quantizer(torch.zeros(2, 15))


def test_opq_is_seeded_and_better_than_pq():
    mixed = (cloud(800) * np.linspace(0.1, 3, 16)).astype(np.float32)

    def error(codebook, rotation):
        y = mixed if rotation is None else mixed @ rotation.T
        parts = y.reshape(len(y), 4, 1, 4)
        return float(((parts - codebook[None]) ** 2).sum(-1).min(-1).sum(-1).mean())

    first, again, other = (train_opq(mixed, parts=4, centroids=16, iterations=8, seed=seed) for seed in (0, 0, 1))
    assert_array_equal(first[0], again[0])
    assert np.abs(first[0] - other[0]).max() > 1e-3
    assert_allclose(first[1] @ first[1].T, np.eye(16), atol=1e-4)
    assert error(*first) < error(*train_opq(mixed, parts=4, centroids=16, rotate=False))
