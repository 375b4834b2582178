"""Intervals cover, tests keep their level, and the arithmetic equals SciPy's, scikit-learn's and plain loops."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score

from embedlab._core.errors import InputError
from embedlab.ops.significance import bootstrap_interval, holm, paired_test, resamples
from embedlab.ops.weighted import AveragePrecision, Spearman, Statistic, mean, midranks, of_sample

ROUNDS = 400


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def drawn(weights: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    return [np.repeat(np.arange(len(row)), row.astype(int)) for row in weights]


def test_weighted_statistics_equal_scipy_and_sklearn_on_the_items_drawn(rng: np.random.Generator) -> None:
    values, gold = rng.integers(0, 6, 40).astype(float), rng.integers(0, 4, 40).astype(float)  # many ties
    weights = rng.integers(0, 3, (6, 40)).astype(float)
    places = drawn(weights)
    spearman = [stats.spearmanr(values[i], gold[i]).statistic for i in places]
    precision = [average_precision_score(gold[i] > 1, values[i]) for i in places]
    np.testing.assert_allclose(Spearman(gold)(values[None], weights), spearman, atol=1e-12)
    np.testing.assert_allclose(AveragePrecision(gold > 1)(values[None], weights), precision, atol=1e-12)
    np.testing.assert_allclose(mean(values[None], weights), [values[i].mean() for i in places], atol=1e-12)
    np.testing.assert_allclose(Spearman(gold).contributions(values).sum(), stats.spearmanr(values, gold).statistic)


def test_statistics_of_many_rows_of_values_equal_those_of_each(rng: np.random.Generator) -> None:
    values, gold, ones = rng.integers(0, 5, (7, 30)).astype(float), rng.normal(size=30), np.ones((1, 30))
    np.testing.assert_allclose(Spearman(gold)(values, ones), [stats.spearmanr(row, gold).statistic for row in values])
    np.testing.assert_allclose(
        AveragePrecision(gold > 0)(values, ones), [average_precision_score(gold > 0, row) for row in values]
    )
    np.testing.assert_array_equal(midranks(values), stats.rankdata(values, axis=1))


def test_undefined_statistics_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="gold"):
        Spearman(np.ones(5))
    with pytest.raises(InputError, match="labels"):
        AveragePrecision(np.ones(5))
    with pytest.raises(InputError, match="undefined"):
        bootstrap_interval(np.ones(5), statistic=Spearman(np.arange(5)))
    with pytest.raises(InputError, match="gold has 5 items"):
        bootstrap_interval(rng.normal(size=6), statistic=Spearman(np.arange(5)))


def skewed(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return rng.beta(0.5, 1.5, size=size)  # mean 1/4, much at zero: like nDCG per query


@pytest.mark.parametrize("size", [12, 60])
def test_intervals_of_a_mean_cover_as_often_as_they_say(rng: np.random.Generator, size: int) -> None:
    hits = 0
    for seed in range(ROUNDS):
        interval = bootstrap_interval(rng.normal(size=size), num_resamples=400, seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert 0.92 <= hits / ROUNDS <= 0.98


def test_paired_intervals_of_skewed_scores_cover(rng: np.random.Generator) -> None:
    hits = 0
    for seed in range(ROUNDS):
        hard = skewed(rng, 60)
        a, b = 0.5 * hard + 0.5 * skewed(rng, 60), 0.5 * hard + 0.3 * skewed(rng, 60)
        found = paired_test(a, b, num_resamples=400, seed=seed).difference
        hits += found.low <= 0.2 * 0.25 <= found.high
    assert 0.92 <= hits / ROUNDS <= 0.98


def test_clusters_widen_the_interval_to_where_it_covers(rng: np.random.Generator) -> None:
    hits = {"items": 0, "clusters": 0}
    groups = np.repeat(np.arange(25), 8)
    for seed in range(200):
        values = np.repeat(rng.normal(size=25), 8) + 0.5 * rng.normal(size=200)
        for name, given in (("items", None), ("clusters", groups)):
            interval = bootstrap_interval(values, groups=given, num_resamples=300, seed=seed)
            hits[name] += interval.low <= 0 <= interval.high
    assert hits["items"] / 200 < 0.7  # what ignoring them would have claimed to be 0.95
    assert 0.91 <= hits["clusters"] / 200 <= 0.985


def test_spearman_intervals_cover(rng: np.random.Generator) -> None:
    truth = 6 / math.pi * math.asin(0.6 / 2)  # of a normal pair with correlation 0.6
    hits, rounds = 0, 200
    for seed in range(rounds):
        gold = rng.normal(size=80)
        values = 0.6 * gold + 0.8 * rng.normal(size=80)
        interval = bootstrap_interval(values, statistic=Spearman(gold), num_resamples=300, seed=seed)
        hits += interval.low <= truth <= interval.high
    assert 0.91 <= hits / rounds <= 0.985


def scores_of_equal_models(kind: str, rng: np.random.Generator) -> tuple[Any, Any, Statistic | None]:
    """Two models that are equally good, with very different scales where only ranks count."""
    if kind == "mean":
        hard = skewed(rng, 30)
        return hard + skewed(rng, 30), hard + skewed(rng, 30), None
    gold = rng.normal(size=40)
    a, b = gold + rng.normal(size=40), np.exp(gold + rng.normal(size=40))
    return a, b, Spearman(gold) if kind == "spearman" else AveragePrecision(gold > 0.3)


@pytest.mark.parametrize(
    ("kind", "test"),
    [("mean", "randomisation"), ("mean", "wilcoxon"), ("spearman", "randomisation"), ("precision", "randomisation")],
)
def test_tests_keep_their_level(rng: np.random.Generator, kind: str, test: Any) -> None:
    rounds, rejected = 200, 0
    for seed in range(rounds):
        a, b, statistic = scores_of_equal_models(kind, rng)
        rejected += paired_test(a, b, statistic=statistic, test=test, num_resamples=200, seed=seed).distinguishable
    assert 0.015 <= rejected / rounds <= 0.09


def test_a_better_model_is_found(rng: np.random.Generator) -> None:
    gold = rng.normal(size=200)
    a, b = gold + 0.4 * rng.normal(size=200), gold + 1.2 * rng.normal(size=200)
    for statistic in (Spearman(gold), AveragePrecision(gold > 0.5), None):
        offset = 0.5 if statistic is None else 0.0
        result = paired_test(a + offset, b, statistic=statistic, num_resamples=500)
        assert result.distinguishable
        assert result.difference.low > 0


def test_exact_tests_equal_the_loop_over_all_assignments(rng: np.random.Generator) -> None:
    a, b, gold = rng.normal(size=7), rng.normal(size=7), rng.normal(size=7)
    signs = np.array(list(itertools.product((1, -1), repeat=7)))

    def share(sums: NDArray[np.float64], seen: float) -> float:
        return float(np.mean(np.abs(sums) >= abs(seen) - 1e-12))

    result = paired_test(a, b)
    assert result.exact
    assert result.pvalue == pytest.approx(share(signs @ (a - b), float(np.sum(a - b))))
    assert paired_test(a, b, test="wilcoxon").pvalue == pytest.approx(stats.wilcoxon(a, b, mode="exact").pvalue)

    labels, ranks = gold > 0, (stats.rankdata(a), stats.rankdata(b))
    gaps = [
        average_precision_score(labels, np.where(s > 0, *ranks))
        - average_precision_score(labels, np.where(s < 0, *ranks))
        for s in signs
    ]
    seen = average_precision_score(labels, a) - average_precision_score(labels, b)
    assert paired_test(a, b, statistic=AveragePrecision(labels)).pvalue == pytest.approx(share(np.array(gaps), seen))


def test_random_assignments_agree_with_scipy(rng: np.random.Generator) -> None:
    a = rng.normal(size=50)
    b = a + rng.normal(0.25, 1, size=50)
    expected = stats.ttest_rel(a, b).pvalue
    result = paired_test(a, b, num_resamples=20_000)
    assert not result.exact
    assert result.pvalue == pytest.approx(expected, abs=0.015)
    assert paired_test(a, b, test="wilcoxon", num_resamples=20_000).pvalue == pytest.approx(
        stats.wilcoxon(a, b).pvalue, abs=0.015
    )


def test_stopping_early_changes_no_verdict(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = rng.integers(0, 2, 300)
    a, b = labels + rng.normal(size=300), labels + rng.normal(size=300)
    early = paired_test(a, b, statistic=AveragePrecision(labels), num_resamples=4000)
    monkeypatch.setattr("embedlab.ops.significance._ENOUGH_EXTREME", 10**9)
    whole = paired_test(a, b, statistic=AveragePrecision(labels), num_resamples=4000)
    assert early.pvalue == pytest.approx(whole.pvalue, abs=0.08)
    assert early.pvalue != whole.pvalue


def test_clusters_are_exchanged_whole() -> None:
    a, b = np.ones(8), np.zeros(8)
    assert paired_test(a, b).pvalue == 2 / 2**8
    assert paired_test(a, b, groups=[0, 0, 0, 0, 1, 1, 1, 1]).pvalue == 2 / 2**2
    with pytest.raises(InputError, match="groups"):
        paired_test(a, b, groups=[0, 1])


def test_repeats_of_one_data_set_are_no_fresh_evidence(rng: np.random.Generator) -> None:
    """Repeats that resample the same items: the plain t-test rejects far too often, this one keeps its level."""
    rejected = {"naive": 0, "repeats": 0}
    for _ in range(300):
        items = rng.normal(size=60)  # no difference in the population
        repeats = np.array([items[rng.integers(0, 60, 60)].mean() for _ in range(10)])
        rejected["naive"] += stats.ttest_1samp(repeats, 0).pvalue < 0.05
        rejected["repeats"] += paired_test(repeats, np.zeros(10), test="repeats").distinguishable
    assert rejected["naive"] / 300 > 0.3
    assert rejected["repeats"] / 300 <= 0.08


def test_what_cannot_be_told_is_not_told() -> None:
    one = paired_test([1.0], [0.0])
    assert (one.pvalue, one.distinguishable, one.difference.low) == (1.0, False, -math.inf)
    same = paired_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.pvalue, same.difference.estimate, same.difference.low) == (1.0, 0.0, 0.0)
    frozen = paired_test([0.5, 0.5, 0.5], [0.4, 0.4, 0.4], test="repeats")  # repeats without any chance in them
    assert (frozen.pvalue, frozen.difference.high) == (1.0, math.inf)


def test_holm_equals_statsmodels(rng: np.random.Generator) -> None:
    from statsmodels.stats.multitest import multipletests

    pvalues = np.concatenate([rng.uniform(size=20) ** 3, [0.01, 0.01, 1.0]])
    np.testing.assert_allclose(holm(pvalues), multipletests(pvalues, method="holm")[1])
    assert holm([]).shape == (0,)
    with pytest.raises(InputError, match="pvalues"):
        holm([0.5, float("nan")])


def test_any_function_of_the_items_drawn_will_do(rng: np.random.Generator) -> None:
    x = rng.normal(size=50)
    y = 2 * x + rng.normal(size=50)
    slope = of_sample(lambda values, places: float(np.polyfit(x[places], values, 1)[0]))
    interval = bootstrap_interval(y, statistic=slope, num_resamples=500)
    line = stats.linregress(x, y)
    assert interval.estimate == pytest.approx(line.slope)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * line.stderr, rel=0.3)
    assert paired_test(y, y + 1, statistic=slope).pvalue == 1.0


def test_one_seed_one_result_whatever_the_chunks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    values = rng.normal(size=40)
    first = bootstrap_interval(values), paired_test(values, values[::-1])
    monkeypatch.setattr("embedlab.ops.resampling.CHUNK_VALUES", 1000)
    again = bootstrap_interval(values), paired_test(values, values[::-1])
    assert (first[0].low, first[0].high) == pytest.approx((again[0].low, again[0].high))
    assert bootstrap_interval(values, seed=1).low != first[0].low
    assert {row.sum() for chunk in resamples(40, num_resamples=100) for row in chunk} == {40.0}


def test_memory_does_not_grow_with_the_resamples(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=100_000), rng.normal(size=100_000)
    tracemalloc.start()
    paired_test(a, b, num_resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: bootstrap_interval([]), "values"),
        (lambda: bootstrap_interval([1.0, math.nan]), "values"),
        (lambda: bootstrap_interval([1.0, 2.0], confidence=95), "confidence"),
        (lambda: bootstrap_interval([1.0, 2.0], num_resamples=10), "num_resamples"),
        (lambda: paired_test([1.0], [1.0, 2.0]), "same items"),
        (lambda: paired_test([1.0], [2.0], test="wilcoxn"), "wilcoxon"),  # type: ignore[arg-type]
        (lambda: paired_test([1.0], [2.0], test="repeats", groups=[0]), "randomisation"),
        (lambda: list(resamples(0)), "num_items"),
    ],
)
def test_bad_values_are_refused(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()
