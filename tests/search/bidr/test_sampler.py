"""Batches of neighbours: each query once, each linked to its batch, the same again for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from embedlab._core.errors import InputError
from embedlab.search.bidr import FalseNegatives, LocalityCentricBatchSampler
from embedlab.search.bidr.sampler import columns_of, random_batches

STRATEGIES = ["snowball", "random_walk"]


def graph(num_queries=60, num_documents=80, width=6, *, seed=0):
    """Queries on a line: candidates are documents near the query's own place."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.integers(0, num_documents, num_queries))
    near = np.argsort(np.abs(np.arange(num_documents) - places[:, None]), axis=1, kind="stable")
    return places, near[:, 1 : width + 1]


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 50), st.integers(1, 13), st.integers(0, 3), st.integers(1, 3), st.booleans(), st.integers(0, 2**31)
)
def test_every_query_comes_once(strategy, num_queries, batch_size, num_negatives, patches, drop_last, seed):
    positives, candidates = graph(num_queries, seed=seed % 100)
    sampler = LocalityCentricBatchSampler(
        positives,
        candidates,
        batch_size=batch_size,
        strategy=strategy,
        num_negatives=num_negatives,
        patches=min(patches, batch_size),
        drop_last=drop_last,
        seed=seed,
    )
    batches = list(sampler)
    assert len(batches) == len(sampler)
    queries = [query for batch in batches for query, *_ in batch]
    assert len(queries) == len(set(queries))
    assert len(queries) == (num_queries // batch_size * batch_size if drop_last else num_queries)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    for batch in batches:
        for query, positive, *negatives in batch:
            assert positive == positives[query]
            assert len(negatives) == num_negatives
            assert set(negatives) - {-1} <= set(candidates[query].tolist()) - {positive}


@pytest.mark.parametrize("patches", [1, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_query_is_linked_to_its_batch_unless_nobody_was_waiting(strategy, patches):
    positives, candidates = graph(200, 150, seed=3)
    sampler = LocalityCentricBatchSampler(positives, candidates, batch_size=30, strategy=strategy, patches=patches)
    used: set[int] = set()
    linked = 0
    for batch in sampler:
        picked: set[int] = set()
        for place, (query, positive, *negatives) in enumerate(batch):
            if place % (30 // patches) == 0:
                picked = set()
            if picked & set(candidates[query].tolist()):
                linked += 1
            else:
                waiting = {q for q in range(200) if picked & set(candidates[q].tolist())} - used
                assert not waiting, f"query {query} began anew while {waiting} were waiting"
            used.add(query)
            picked |= {document for document in negatives if document >= 0} or {positive}
    assert linked > 120


def spread(strategy):
    positives, candidates = graph(400, 400, seed=1)
    sampler = LocalityCentricBatchSampler(positives, candidates, batch_size=20, strategy=strategy)
    first = next(iter(sampler))
    return float(np.std([positive for _, positive, _ in first]))


def test_batches_are_neighbourhoods_and_walks_go_further():
    positives, _ = graph(400, 400, seed=1)
    apart = float(np.std([p for _, p, _ in next(random_batches(positives, batch_size=20, num_documents=400))]))
    assert spread("snowball") < spread("random_walk") < apart


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_seed_and_the_epoch_decide(strategy):
    positives, candidates = graph()

    def batches(seed, epoch):
        sampler = LocalityCentricBatchSampler(positives, candidates, batch_size=8, strategy=strategy, seed=seed)
        return list(sampler.at(epoch))

    assert batches(0, 0) == batches(0, 0)
    assert batches(0, 0) != batches(0, 1)
    assert batches(0, 0) != batches(1, 0)


def test_documents_beyond_all_candidates_and_missing_candidates_are_no_trouble():
    sampler = LocalityCentricBatchSampler([9, 0], [[-1, -1], [-1, 1]], batch_size=2)
    assert sorted(next(iter(sampler))) == [(0, 9, -1), (1, 0, 1)]


def test_ranks_choose_who_is_picked_and_who_is_linked():
    positives, candidates = np.array([0, 1, 2]), np.array([[3, 4], [4, 5], [5, 3]])
    sampler = LocalityCentricBatchSampler(positives, candidates, batch_size=3, pick_ranks=(0, 1), link_ranks=(1, 2))
    assert {negative for batch in sampler for _, _, negative in batch} <= {3, 4, 5}
    for query, _, negative in next(iter(sampler)):
        assert negative in (candidates[query, 0], -1)


def test_rows_are_the_same_batches_for_hosts():
    from torch.utils.data import DataLoader

    positives, candidates = graph()
    sampler = LocalityCentricBatchSampler(positives, candidates, batch_size=8, num_negatives=0)
    rows = sampler.rows()
    assert [[query for query, *_ in batch] for batch in sampler] == list(rows)
    assert len(rows) == len(sampler)
    rows.set_epoch(2)
    assert sampler.epoch == 2
    loaded = [batch.tolist() for batch in DataLoader(list(range(60)), batch_sampler=rows)]
    assert loaded == list(rows)


def test_triples_reach_a_data_set():
    from torch.utils.data import DataLoader, Dataset

    class Texts(Dataset):
        def __getitem__(self, key):
            return "/".join(map(str, key))

    positives, candidates = graph()
    loaded = next(iter(DataLoader(Texts(), batch_sampler=LocalityCentricBatchSampler(positives, candidates))))
    assert len(loaded) == 60
    assert all(text.count("/") == 2 for text in loaded)


def test_false_negatives_are_masked_alike_in_both_forms():
    vectors = np.array([[1, 0], [0.999, 0.045], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    unsafe = FalseNegatives([0, 2], relevant=[[4], []], groups=[7, -1, 8, 8, -1], vectors=vectors, threshold=0.95)
    expected = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0]], bool)
    assert_array_equal(unsafe.mask([0, 1], np.arange(5)), expected)
    each = np.array([[4, 3, -1], [3, 0, 1]])
    assert_array_equal(unsafe.mask([0, 1], each), [[True, False, True], [True, False, False]])


def test_the_sampler_picks_no_false_negative():
    positives, candidates = graph()
    groups = np.arange(80) // 5
    unsafe = FalseNegatives(positives, groups=groups)
    for make in (
        lambda: LocalityCentricBatchSampler(positives, candidates, batch_size=8, false_negatives=unsafe),
        lambda: random_batches(positives, candidates=candidates, batch_size=8, false_negatives=unsafe),
        lambda: random_batches(positives, num_documents=80, batch_size=8, num_negatives=2, false_negatives=unsafe),
    ):
        drawn = [(groups[p], groups[n]) for batch in make() for _, p, *ns in batch for n in ns if n >= 0]
        assert drawn
        assert all(own != other for own, other in drawn)


def test_columns_begin_with_the_positives():
    queries, documents = columns_of([(5, 1, 7), (3, 2, -1), (4, 0, 7)])
    assert_array_equal(queries, [5, 3, 4])
    assert_array_equal(documents, [1, 2, 0, 7])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"strategy": "snow"}, "did you mean 'snowball'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"patches": 200}, "patches=200"),
        ({"num_negatives": -1}, "num_negatives=-1"),
        ({"pick_ranks": (3, 3)}, "pick_ranks"),
        ({"link_ranks": (-1, 3)}, "link_ranks"),
        ({"query_to_candidates": [[1]]}, "query_to_candidates"),
    ],
)
def test_bad_arguments_are_refused(options, says):
    given_ = {"query_to_pos": [0, 1], "query_to_candidates": [[1], [0]], **options}
    with pytest.raises(InputError, match=says):
        LocalityCentricBatchSampler(given_.pop("query_to_pos"), given_.pop("query_to_candidates"), **given_)


def test_bad_rules_are_refused():
    with pytest.raises(InputError, match="threshold"):
        FalseNegatives([0], threshold=0.9)
    with pytest.raises(InputError, match="relevant"):
        FalseNegatives([0], relevant=[[1], [2]])
    with pytest.raises(InputError, match="num_documents"):
        next(random_batches([0, 1]))
