"""AUC, axis fidelity, matched axes, and search by lists, each against something slower."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.text.sesa import ExplicitIndex, auc, axis_fidelity, contributions, decode, match_axes

RNG = np.random.default_rng(0)


def test_auc_counts_pairs() -> None:
    scores, labels = RNG.integers(0, 6, 60), RNG.random(60) < 0.3
    slow = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    assert auc(scores, labels) == pytest.approx(np.mean(slow), abs=1e-12)
    assert np.isnan(auc([1.0, 2.0], [1, 1]))
    with pytest.raises(InputError, match="scores"):
        auc([1.0], [1, 0])


def test_fidelity_of_true_random_and_shifted_axes() -> None:
    held = (RNG.random((400, 30)) < np.r_[np.full(25, 0.1), np.full(5, 0.9)]).astype(float)
    shares = held.mean(axis=0)
    right = axis_fidelity(held + 0.01 * RNG.random(held.shape), held, shares)
    assert right.macro_auc == 1.0
    assert right.precision_at_5 > 2 * right.prior_at_5 > 0
    assert right.constant_at_5 == pytest.approx(held[:, 25:].mean())  # the five most common, whatever the text says
    random = axis_fidelity(RNG.random(held.shape), held, shares)
    assert abs(random.macro_auc - 0.5) < 0.05
    assert axis_fidelity(np.roll(held, 1, axis=1), held, shares).macro_auc < 0.6
    assert axis_fidelity(held, held, np.where(np.arange(30) < 4, shares, 0)).concepts == 4  # unseen in training
    with pytest.raises(InputError, match="activations"):
        axis_fidelity(held[:, :3], held, shares)


def test_matching_finds_shuffled_axes() -> None:
    held = (RNG.random((200, 12)) < 0.3).astype(float)
    order = RNG.permutation(12)
    latent = held[:, order] + 0.1 * RNG.random(held.shape)
    assert np.array_equal(order[match_axes(latent, held)], np.arange(12))
    with pytest.raises(InputError, match="activations"):
        match_axes(latent[:3], held)


@pytest.mark.parametrize("normalize", [True, False])
def test_lists_find_what_the_dense_product_finds_among_sixty_thousand(normalize: bool) -> None:
    rows = np.zeros((60_000, 120), np.float32)
    places = RNG.integers(0, 120, (60_000, 6))
    rows[np.arange(60_000)[:, None], places] = RNG.random((60_000, 6), np.float32) + 0.1
    queries = rows[RNG.choice(60_000, 8, replace=False)] + 0
    found, scores = ExplicitIndex(rows, normalize=normalize).search(queries, top_k=10)
    if normalize:
        rows, queries = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (rows, queries))
    dense = queries @ rows.T
    assert np.abs(scores + np.sort(-dense, axis=1)[:, :10]).max() < 1e-5
    assert np.abs(np.take_along_axis(dense, found, axis=1) - scores).max() < 1e-5
    gaps = np.diff(-scores, axis=1).min(axis=1) > 1e-5  # without ties the places are the same too
    assert np.array_equal(found[gaps], np.argsort(-dense, axis=1, kind="stable")[gaps, :10])


def test_lists_ties_zeros_and_refusals() -> None:
    from scipy import sparse

    index = ExplicitIndex(sparse.csr_array(np.array([[1.0, 0], [0, 0], [2, 0]])))
    places, scores = index.search([[3.0, 0.0], [0.0, 0.0]], top_k=5)
    assert places.tolist() == [[0, 2, 1], [0, 1, 2]]  # of equals the earlier
    assert scores.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert len(index) == 3
    assert index.size_bytes < 200
    with pytest.raises(InputError, match="2 columns"):
        index.search([[1.0]])
    with pytest.raises(InputError, match="top_k=0"):
        index.search([[1.0, 1.0]], top_k=0)
    with pytest.raises(InputError, match="finite"):
        ExplicitIndex([[np.nan]])


def test_contributions_refuse_what_they_cannot_explain() -> None:
    with pytest.raises(InputError, match="at least 0"):
        contributions([1.0, -1.0], [1.0, -1.0])  # two negatives would speak for each other
    with pytest.raises(InputError, match="expected the same"):
        contributions([1.0], [1.0, 2.0])
    assert contributions([0.0, 0.0], [1.0, 2.0]).tolist() == [0.0, 0.0]
    assert contributions([1.0, 2.0], [3.0, 4.0], normalize=False).tolist() == [3.0, 8.0]


def test_decoding_is_in_order() -> None:
    assert decode([[1.0, 3.0, 3.0, 0.0], [0.0] * 4], list("abcd")) == [[("b", 3.0), ("c", 3.0), ("a", 1.0)], []]
    assert decode([1.0, 3.0], list("ab"), top_k=1) == [("b", 3.0)]
    with pytest.raises(InputError, match="top_k=0"):
        decode([1.0], ["a"], top_k=0)
    with pytest.raises(InputError, match="expected"):
        decode([1.0], ["a", "b"])
