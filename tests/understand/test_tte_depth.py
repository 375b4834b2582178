"""Depth against its definition, written as loops; the test against scipy; the order against what must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from embedlab._core.errors import InputError
from embedlab.understand.tte_depth import TextDepth, compare_depths, corpus_shift, q_score, select_exemplars


def cloud(n: int, dim: int = 6, *, seed: int = 0, shift: float = 1.0, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)) * spread + shift


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))


def chord_distance(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a / math.sqrt(math.fsum(a * a)), b / math.sqrt(math.fsum(b * b))
    return math.sqrt(math.fsum((a - b) ** 2))


def loop_depths(reference, rows, delta, *, members, sup=2.0):
    """The definition, term by term."""
    depths = []
    for i, x in enumerate(rows):
        others = [delta(x, y) for j, y in enumerate(reference) if not (members and i == j)]
        depths.append(sup - math.fsum(others) / len(others))
    return depths


def loop_q(inner, outer):
    return math.fsum(1.0 if x < y else 0.5 if x == y else 0.0 for x in inner for y in outer) / (len(inner) * len(outer))


DISTANCES = {
    "cosine": (TextDepth("cosine"), cosine_distance, 2.0),
    "chord": (TextDepth("chord"), chord_distance, 2.0),
    "custom": (
        # taxicab, and 1 to oneself: a member must be left out of its own mean by place, not by its distance
        TextDepth(lambda a, b: 1 + np.abs(a[:, None] - b[None]).sum(-1), sup=200.0),
        lambda a, b: 1 + math.fsum(abs(a - b)),
        200.0,
    ),
}


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize(("n", "m"), [(50, 50), (50, 31), (200, 7)])
def test_depths_equal_the_definition(name, n, m):
    depth, delta, sup = DISTANCES[name]
    reference, other = cloud(n), cloud(m, seed=1, shift=-0.5)
    depth.fit(reference)
    assert_allclose(depth.depths(), loop_depths(reference, reference, delta, members=True, sup=sup), atol=1e-10, rtol=0)
    expected = loop_depths(reference, other, delta, members=False, sup=sup)
    assert_allclose(depth.depths(other), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_corpus_of_equal_size_is_not_taken_for_the_reference(name):
    depth, _, _ = DISTANCES[name]
    reference, other = cloud(40), cloud(41, seed=1)
    depth.fit(reference)
    assert_allclose(depth.depths(other[:40]), depth.depths(other)[:40], atol=1e-12)


def test_pairs_beyond_one_block_are_all_counted(monkeypatch):
    reference = cloud(57)
    whole = TextDepth("chord").fit(reference).depths()
    monkeypatch.setattr("embedlab.understand.tte_depth.depth._BLOCK", 10)
    assert_allclose(TextDepth("chord").fit(reference).depths(), whole, atol=1e-12)
    monkeypatch.setattr("embedlab.understand.tte_depth.rows._CHUNK", 10)
    assert_allclose(
        TextDepth().fit(reference).depths(), loop_depths(reference, reference, cosine_distance, members=True)
    )


def test_depth_ignores_rotation_and_the_length_of_rows():
    reference, other = cloud(60), cloud(20, seed=1)
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    stretch = rng.uniform(0.1, 10.0, size=(60, 1))
    plain, turned = TextDepth().fit(reference), TextDepth().fit(reference * stretch @ turn)
    assert_allclose(turned.depths(), plain.depths(), atol=1e-12)
    assert_allclose(turned.depths(other @ turn), plain.depths(other), atol=1e-12)


def test_batches_and_saved_sums_give_the_same_depths():
    reference, other = cloud(90), cloud(11, seed=1)
    whole, batched = TextDepth().fit(reference), TextDepth()
    for start in range(0, 90, 32):
        batched.update(reference[start : start + 32])
    saved = TextDepth.from_sum(batched.total, batched.count)
    for depth in (batched, saved):
        assert_allclose(depth.depths(other), whole.depths(other), atol=1e-12)
        assert_allclose(depth.depths(reference[:5], members=True), whole.depths()[:5], atol=1e-12)
        with pytest.raises(InputError, match="rows are not at hand"):
            depth.median()
    grown = TextDepth().fit(np.vstack([reference, other]))
    assert_allclose(whole.update(other).depths(other, members=True), grown.depths()[90:])


def test_a_memory_map_is_read_in_place(tmp_path):
    np.save(tmp_path / "rows.npy", cloud(300).astype(np.float32))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert_allclose(TextDepth().fit(mapped).depths(), TextDepth().fit(np.array(mapped)).depths())


def test_order_runs_from_the_median_to_the_outliers():
    rows = np.vstack([cloud(40, spread=0.2), -np.ones((2, 6))])
    depth = TextDepth().fit(rows)
    order = depth.order()
    assert depth.median() == order[0] == depth.depths().argmax()
    assert set(depth.outliers(2 / 42)) == {40, 41}
    assert list(depth.outliers(1.0)) == sorted(range(42), key=lambda i: (depth.depths()[i], i))
    assert len(depth.outliers(1e-9)) == 1


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
)
def test_q_is_the_share_of_pairs(inner, outer):
    assert q_score(inner, outer) == pytest.approx(loop_q(inner, outer))
    pooled = [sum(z < y for z in inner + outer) / (len(inner) + len(outer)) for y in outer]
    assert q_score(inner, outer, pooled=True) == pytest.approx(np.mean(pooled))


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 1000))
def test_statistic_and_p_value_are_those_of_the_rank_sum_test(n, m, seed):
    rng = np.random.default_rng(seed)
    inner, outer = rng.integers(0, 12, n) / 10, rng.integers(0, 10, m) / 10
    for alternative in ("greater", "less", "two-sided"):
        expected = scipy.stats.ranksums(inner, outer, alternative=alternative)
        result = compare_depths(inner, outer, alternative=alternative)
        assert result.statistic == pytest.approx(expected.statistic, abs=1e-12)
        assert result.pvalue == pytest.approx(expected.pvalue, rel=1e-9)


def test_q_tells_further_out_from_further_in():
    reference = cloud(300)
    depth = TextDepth().fit(reference)
    assert depth.q(cloud(200, seed=1)) == pytest.approx(0.5, abs=0.06)
    assert depth.q(cloud(200, seed=1, shift=-3.0, spread=0.1)) == 0.0
    assert depth.q(cloud(200, seed=1, spread=0.05)) > 0.9
    # fully apart, the official figure stops at m / 2(n + m)
    assert depth.q(cloud(300, seed=1, shift=-3.0, spread=0.1), pooled=True) == pytest.approx(0.25, abs=0.001)


def test_random_splits_are_rejected_as_often_as_the_level_says():
    rows = cloud(240, dim=8)
    rng = np.random.default_rng(0)
    pvalues = {"asymptotic": [], "permutation": []}
    for _ in range(300):
        order = rng.permutation(240)
        depth = TextDepth().fit(rows[order[:120]])
        pvalues["asymptotic"].append(depth.test(rows[order[120:]]).pvalue)
    for _ in range(100):
        order = rng.permutation(40)
        result = TextDepth().fit(rows[order[:20]]).test(rows[order[20:]], method="permutation", num_resamples=99)
        pvalues["permutation"].append(result.pvalue)
    assert 0.02 <= np.mean(np.array(pvalues["asymptotic"]) < 0.05) <= 0.09
    assert 0.01 <= np.mean(np.array(pvalues["permutation"]) < 0.05) <= 0.12


@pytest.mark.parametrize("distance", ["cosine", "chord"])
def test_the_permutation_test_counts_splits_of_the_pooled_rows(distance):
    """Against every one of the 20 splits of six texts, depths measured by loops."""
    from itertools import combinations

    rows = cloud(6, dim=3, shift=0.3)
    delta = {"cosine": cosine_distance, "chord": chord_distance}[distance]

    def split_q(chosen):
        inner, outer = rows[list(chosen)], rows[[i for i in range(6) if i not in chosen]]
        return loop_q(loop_depths(inner, inner, delta, members=True), loop_depths(inner, outer, delta, members=False))

    qs = np.array([split_q(chosen) for chosen in combinations(range(6), 3)])
    for alternative, extreme in (("greater", qs <= qs[0]), ("less", qs >= qs[0])):
        result = (
            TextDepth(distance)
            .fit(rows[:3])
            .test(rows[3:], alternative=alternative, method="permutation", num_resamples=4000)
        )
        assert result.q == pytest.approx(qs[0])
        assert result.pvalue == pytest.approx(extreme.mean(), abs=0.03)


def test_the_interval_agrees_with_the_bootstrap():
    reference, other = cloud(150), cloud(90, seed=1, spread=1.4)
    depth = TextDepth().fit(reference)
    result = depth.test(other)
    inner, outer = depth.depths(), depth.depths(other)
    rng = np.random.default_rng(0)
    qs = [q_score(rng.choice(inner, 150), rng.choice(outer, 90)) for _ in range(2000)]
    assert_allclose([result.q_low, result.q_high], np.quantile(qs, [0.025, 0.975]), atol=0.01)
    assert depth.test(other[:1]).q_low == 0.0
    narrow = depth.test(other, confidence=0.5)
    assert result.q_low < narrow.q_low < result.q < narrow.q_high < result.q_high


def test_shift_names_the_rows_that_stray_most():
    reference, other = cloud(200), cloud(50, seed=1)
    other[7] = -5.0
    report = corpus_shift(reference, other)
    assert report.order[0] == 7
    assert_allclose(report.depths, TextDepth().fit(reference).depths(other))
    assert report.spread == pytest.approx(TextDepth().fit(reference).depths().std())
    assert report.test == TextDepth().fit(reference).test(other, alternative="two-sided")


def test_exemplars_are_the_deepest_within_each_label():
    rows, labels = cloud(60), np.array(["b", "a", "c"] * 20)
    chosen = select_exemplars(rows, 3, labels=labels)
    expected = [
        i for label in "bac" for i in sorted(np.flatnonzero(labels == label), key=group_depth(rows, labels))[:3]
    ]
    assert chosen.tolist() == expected
    shallow = select_exemplars(rows, 3, strategy="shallow")
    assert shallow.tolist() == TextDepth().fit(rows).outliers(3 / 60).tolist()


def group_depth(rows, labels):
    depths = {label: TextDepth().fit(rows[labels == label]).depths() for label in set(labels)}
    return lambda i: -depths[labels[i]][np.flatnonzero(labels == labels[i]).tolist().index(i)]


def test_diverse_exemplars_leave_near_duplicates_out():
    rows = np.vstack([np.tile(np.ones(6), (5, 1)), cloud(20, seed=3)])
    assert set(select_exemplars(rows, 3)) <= set(range(5))
    diverse = select_exemplars(rows, 3, strategy="deep_diverse")
    assert sum(index < 5 for index in diverse) == 1
    assert len(set(select_exemplars(rows, 25, strategy="deep_diverse"))) == 25


def test_random_exemplars_follow_the_seed():
    rows = cloud(50)
    picks = [select_exemplars(rows, 5, strategy="random", seed=seed).tolist() for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert select_exemplars(rows[:1], 1).tolist() == [0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: TextDepth().depths(cloud(3)), "too few"),
        (lambda: TextDepth().fit([]), "reference must be a matrix"),
        (lambda: TextDepth().fit([["a", "b"]]), "real numbers"),
        (lambda: TextDepth().fit(np.full((4, 2), np.nan)), "row 0 is not finite"),
        (lambda: TextDepth().fit([[1.0, 0.0], [0.0, 0.0]]), "row 1 is zero"),
        (lambda: TextDepth("chord").fit(np.eye(3)).depths(np.zeros((1, 3))), "zero"),
        (lambda: TextDepth("chord").fit(np.eye(3)).depths(np.eye(3), members=True), "cosine"),
        (lambda: TextDepth("chord").update(np.eye(3)), "cosine"),
        (lambda: TextDepth("cosine", sup=2.0), "leave sup out"),
        (lambda: TextDepth(np.add, sup=math.inf), "sup=inf"),
        (lambda: TextDepth(lambda a, b: a @ b.T, sup=0.5).fit(np.eye(2)).depths(), "sup=0.5"),
        (lambda: TextDepth(lambda a, b: a, sup=9.0).fit(np.ones((3, 2))).depths(), "shape (3, 3)"),
        (lambda: TextDepth().update(np.eye(3)).update(np.eye(2)), "2 columns and the reference 3"),
        (lambda: TextDepth.from_sum([5.0, 0.0], 3), "no sum of count=3"),
        (lambda: TextDepth().fit(np.eye(3)).test(np.eye(3), method="exact"), "unknown method 'exact'"),
        (lambda: TextDepth().fit(np.eye(3)).test(np.eye(3), confidence=95), "confidence=95"),
        (lambda: TextDepth().fit(np.eye(3)).test(np.eye(3), num_resamples=0), "num_resamples=0"),
        (lambda: q_score([], [1.0]), "reference_depths"),
        (lambda: select_exemplars(np.eye(3), 2, labels=["a", "a", "b"]), "label 'b'"),
        (lambda: select_exemplars(np.eye(3), 1, labels=["a"]), "1 entries for 3"),
        (lambda: select_exemplars(np.eye(3), 1, strategy="deepest"), "did you mean 'deep'"),
    ],
)
def test_bad_input_is_refused_by_name(call, says):
    with pytest.raises(InputError) as caught:
        call()
    assert says in str(caught.value)
