"""Training both sides: the loss by its definition, what moves and what stays, and that it helps."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from embedlab._core.errors import InputError
from embedlab.search.bidr import (
    ContrastivePQ,
    ContrastivePQCodec,
    FalseNegatives,
    LocalityCentricBatchSampler,
    Pairs,
    ResidualHead,
    Schedule,
    train_dense,
    train_sparse,
)
from embedlab.search.bidr.sampler import columns_of, random_batches

pytest.importorskip("faiss")
DIM = 16


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def task(num_documents=600, num_queries=300, *, seed=0):
    """Documents told apart by half of their dimensions; the other half is loud and says nothing about queries."""
    rng = np.random.default_rng(seed)
    told, noise = rng.normal(size=(num_documents, DIM // 2)), 3 * rng.normal(size=(num_documents, DIM // 2))
    positives = rng.integers(0, num_documents, num_queries)
    queries = np.hstack([told[positives] + 0.2 * rng.normal(size=(num_queries, DIM // 2)), np.zeros((num_queries, 8))])
    return Pairs.of(unit(queries), unit(np.hstack([told, noise])), positives)


def recall(queries, documents, positives, k=10):
    scores = queries @ documents.T
    return float(((scores > scores[np.arange(len(positives)), positives][:, None]).sum(axis=1) < k).mean())


def opq(pairs, **options):
    from embedlab.search.bidr.faiss_index import train_opq

    codebook, rotation = train_opq(pairs.documents, parts=4, centroids=16, iterations=5)
    quantizer = ContrastivePQ(DIM, parts=4, centroids=16, rotation=rotation, temperature=0.01, **options)
    quantizer.codebook.data.copy_(torch.from_numpy(codebook))
    return quantizer.eval()


def coded(quantizer, documents):
    with torch.no_grad():
        return quantizer.eval()(torch.from_numpy(documents)).numpy()


FAST = Schedule(steps=60, batch_size=64, learning_rate=0.01, temperature=0.05)


def test_the_first_loss_is_the_definition():
    pairs = task()
    quantizer = opq(pairs)
    head = ResidualHead(DIM, hidden=8, seed=0)
    schedule = Schedule(steps=1, batch_size=32, learning_rate=1e-4, temperature=0.1)
    unsafe = FalseNegatives(pairs.positives, groups=np.arange(600) // 10)
    found = train_sparse(
        copy.deepcopy(quantizer),
        pairs,
        query_head=copy.deepcopy(head),
        schedule=schedule,
        false_negatives=unsafe,
        dense_weight=0.5,
        l2_weight=0.3,
    )
    batch = next(random_batches(pairs.positives, batch_size=32, num_documents=600, false_negatives=unsafe))
    rows, columns = columns_of(batch)
    documents, replaced = pairs.documents[columns], coded(quantizer, pairs.documents[columns])

    def cross_entropy(candidates):
        total = 0.0
        for place, row in enumerate(rows):
            own = pairs.positives[row]
            logits = [
                float(pairs.queries[row] @ candidates[at]) / 0.1
                for at, document in enumerate(columns)
                if at == place or document // 10 != own // 10
            ]
            right = float(pairs.queries[row] @ candidates[place]) / 0.1
            total += math.log(sum(math.exp(logit) for logit in logits)) - right
        return total / len(rows)

    expected = cross_entropy(replaced) + 0.5 * cross_entropy(documents)
    expected += 0.3 * float(((documents - replaced) ** 2).mean())
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_a_contrastive_codebook_finds_more_than_opq_and_fixed_documents_stay():
    pairs = task()
    before = pairs.documents.copy()
    quantizer = opq(pairs)
    start = recall(pairs.queries, coded(quantizer, pairs.documents), pairs.positives)
    losses = train_sparse(quantizer, pairs, schedule=FAST)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert recall(pairs.queries, coded(quantizer, pairs.documents), pairs.positives) > start + 0.05
    assert_array_equal(pairs.documents, before)


def test_joint_training_beats_the_codebook_alone():
    pairs, alone = task(), opq(task())
    together, query, document = copy.deepcopy(alone), ResidualHead(DIM, seed=0), ResidualHead(DIM, seed=1)
    train_sparse(alone, pairs, schedule=FAST)
    train_sparse(together, pairs, query_head=query, document_head=document, schedule=FAST)
    joint = recall(query.apply_to(pairs.queries), coded(together, document.apply_to(pairs.documents)), pairs.positives)
    assert joint > recall(pairs.queries, coded(alone, pairs.documents), pairs.positives) + 0.05


def test_only_the_query_side_learns_when_documents_are_fixed():
    pairs, quantizer, head = task(), opq(task()), ResidualHead(DIM, seed=0)
    words = quantizer.codebook.detach().clone()
    train_sparse(quantizer, pairs, query_head=head, schedule=Schedule(steps=3, batch_size=64, learning_rate=0.01))
    assert (quantizer.codebook != words).any()
    assert head.outer.abs().sum() > 0


def test_dense_heads_learn_on_neighbourhoods():
    pairs, quantizer = task(), opq(task())
    scores = pairs.queries @ coded(quantizer, pairs.documents).T
    candidates = np.argsort(-scores, axis=1)[:, :30]
    sampler = LocalityCentricBatchSampler(pairs.positives, candidates, batch_size=64)
    query, document = ResidualHead(DIM, hidden=32, seed=0), ResidualHead(DIM, hidden=32, seed=1)
    before = recall(pairs.queries, pairs.documents, pairs.positives, 1)
    train_dense(pairs, sampler.at, query_head=query, document_head=document, schedule=FAST)
    after = recall(query.apply_to(pairs.queries), document.apply_to(pairs.documents), pairs.positives, 1)
    assert after > before + 0.05


def test_one_seed_one_result_and_the_hosts_random_state_is_left_alone():
    state = torch.random.get_rng_state()

    def words(seed):
        pairs, quantizer = task(), opq(task())
        schedule = Schedule(steps=4, batch_size=64, learning_rate=0.01, seed=seed)
        train_sparse(quantizer, pairs, schedule=schedule, reseed_every=2)
        return quantizer.codebook.detach().numpy()

    assert_array_equal(words(0), words(0))
    assert (words(0) != words(1)).any()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_head_may_serve_both_sides():
    pairs, head = task(), ResidualHead(DIM, seed=0)
    batches = LocalityCentricBatchSampler(pairs.positives, np.full((300, 1), -1), batch_size=64).at
    losses = train_dense(pairs, batches, query_head=head, document_head=head, schedule=FAST)
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_a_head_is_the_identity_before_training():
    vectors = unit(np.random.default_rng(0).normal(size=(9, DIM)))
    for hidden in (0, 8):
        assert np.abs(ResidualHead(DIM, hidden=hidden, seed=0).apply_to(vectors, block=4) - vectors).max() < 1e-6


def test_the_codec_learns_from_pairs():
    pairs = task()
    options = {"parts": 4, "centroids": 16, "opq_iterations": 5, "batch_size": 64, "learning_rate": 0.01}
    own = pairs.documents[pairs.positives]
    plain = ContrastivePQCodec(DIM, steps=0, **options).fit(pairs.documents)
    shares: list[float] = []
    taught = ContrastivePQCodec(DIM, steps=60, **options).fit(
        pairs.documents, pairs=(pairs.queries, own), on_progress=shares.append
    )
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    found = [
        recall(pairs.queries, codec.decode(codec.encode(pairs.documents)), pairs.positives) for codec in (plain, taught)
    ]
    assert found[1] > found[0] + 0.05
    assert plain.fingerprint != taught.fingerprint
    by_itself = ContrastivePQCodec(DIM, steps=5, **options).fit(pairs.documents)
    assert by_itself.fingerprint not in (plain.fingerprint, taught.fingerprint)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: train_dense(p, lambda epoch: [], query_head=None, document_head=None), "nothing to train"),
        (lambda p: train_sparse(ContrastivePQ(8, parts=4, centroids=16), p), "16 wide"),
        (lambda p: Pairs.of(p.queries, p.documents[:, :3], p.positives), "expected"),
        (lambda p: Pairs.of(p.queries, p.documents[:5], p.positives), "rows of the 5 documents"),
        (lambda p: Schedule(steps=0), "steps=0"),
        (lambda p: Schedule(temperature=0), "above 0"),
    ],
)
def test_bad_arguments_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call(task())
