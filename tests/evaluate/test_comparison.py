"""Comparing evaluated models: the right statistic for each task, Holm over tasks, and chance called chance."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from embedlab._core.errors import InputError
from embedlab.evaluate.comparison import SAME, Comparison, compare
from embedlab.ops.significance import holm, paired_test
from embedlab.ops.weighted import AveragePrecision, Spearman


@dataclass(frozen=True)
class Score:
    values: NDArray[np.float64]
    type: str = "Retrieval"
    metric: str = "ndcg_at_10"
    unit: str = "query"
    gold: NDArray[np.float64] | None = None
    items: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", self.items or tuple(f"q{i}" for i in range(len(self.values))))

    @property
    def score(self) -> float:
        if self.gold is None:
            return float(self.values.mean())
        if self.type == "STS":
            return float(spearmanr(self.values, self.gold).statistic)
        return float(average_precision_score(self.gold, self.values))


@dataclass(frozen=True)
class Run:
    model: str
    tasks: dict[str, Any]


@dataclass(frozen=True)
class Runs:
    runs: list[Run] = field(default_factory=list)


def runs(seed: int = 0) -> Runs:
    """Three models, four types of task; A is clearly better than C, and B is A with another coin."""
    rng = np.random.default_rng(seed)
    hard, gold, labels = rng.uniform(size=80), rng.normal(size=90), rng.integers(0, 2, 90)
    found = []
    for name, skill in (("A", 1.0), ("B", 1.0), ("C", 0.0)):
        tasks = {
            "retrieval": Score(np.clip(hard + 0.3 * skill + 0.2 * rng.normal(size=80), 0, 1)),
            "sts": Score(np.exp((0.4 + skill) * gold + rng.normal(size=90)), "STS", "cosine_spearman", "pair", gold),
            "pairs": Score(
                (0.3 + skill) * labels + rng.normal(size=90), "PairClassification", "max_ap", "pair", labels
            ),
            "clusters": Score(0.5 + 0.2 * skill + 0.01 * rng.normal(size=10), "Clustering", "v_measure", "repeat"),
        }
        found.append(Run(name, tasks))
    return Runs(found)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(runs(), num_resamples=1000)


def test_clear_differences_are_found_and_chance_is_called_chance(comparison: Comparison) -> None:
    for task in comparison.tasks:
        assert comparison.duel(task, "C", "A").better == "A"
        assert comparison.duel(task, "A", "B").verdict == SAME
    assert len(comparison.duels) == 4 * 3
    with pytest.raises(InputError, match="no comparison"):
        comparison.duel("sts", "A", "D")


def test_every_task_is_tested_with_its_own_statistic(comparison: Comparison) -> None:
    first, second = (run.tasks for run in runs().runs[:2])
    for task, statistic in (
        ("retrieval", None),
        ("sts", Spearman(first["sts"].gold)),
        ("pairs", AveragePrecision(first["pairs"].gold)),
    ):
        expected = paired_test(first[task].values, second[task].values, statistic=statistic, num_resamples=1000)
        duel = comparison.duel(task, "A", "B")
        assert duel.test == expected
        assert duel.test.difference.estimate == pytest.approx(first[task].score - second[task].score, abs=1e-9)
    clusters = comparison.duel("clusters", "A", "B")
    assert (clusters.test.test, clusters.test.n) == ("repeats", 10)
    assert "repeats" in clusters.note


def test_pvalues_are_corrected_over_the_stated_family(comparison: Comparison) -> None:
    own = [duel for duel in comparison.duels if (duel.first, duel.second) == ("A", "B")]
    np.testing.assert_allclose([duel.pvalue for duel in own], holm([duel.test.pvalue for duel in own]))
    assert "the tasks of each pair of models, at most 4" in comparison.family
    everything = compare(runs(), family="all", num_resamples=1000)
    expected = holm([duel.test.pvalue for duel in everything.duels])
    np.testing.assert_allclose([duel.pvalue for duel in everything.duels], expected)
    assert "all 12 tests" in everything.family


def test_equal_models_are_told_apart_no_more_often_than_the_level_allows() -> None:
    """Twenty tasks, no difference anywhere: uncorrected, two of three families would hold a false alarm."""
    rng, alarms, families = np.random.default_rng(1), 0, 40
    for _ in range(families):
        hard = rng.uniform(size=(20, 40))
        pair = [
            Run(name, {f"t{t}": Score(hard[t] + 0.3 * rng.normal(size=40)) for t in range(20)}) for name in ("A", "B")
        ]
        alarms += any(duel.better for duel in compare(Runs(pair), num_resamples=500).duels)
    assert alarms <= 6  # 5 % of 40, and three deviations


def test_small_p_values_stay_reachable_for_large_families() -> None:
    rng = np.random.default_rng(2)
    good, bad = ({f"t{t}": Score(rng.normal(size=60) + skill) for t in range(60)} for skill in (3, 0))
    result = compare(Runs([Run("good", good), Run("bad", bad)]), num_resamples=100)
    assert all(duel.better == "good" for duel in result.duels)


def test_the_order_over_tasks_is_bordas(comparison: Comparison) -> None:
    assert comparison.overall is not None
    assert comparison.overall.ranking.ranks[2] == 3
    assert comparison.overall.ranking.points.sum() == 4 * (2 + 1 + 0)
    assert any("rough" in note for note in comparison.notes())
    single = [Run(run.model, {"sts": run.tasks["sts"]}) for run in runs().runs]
    assert compare(Runs(single), num_resamples=200).overall is None


def test_tasks_of_some_models_only_are_compared_between_these_and_left_out_of_the_order() -> None:
    data = runs()
    del data.runs[1].tasks["sts"]
    result = compare(data, num_resamples=200)
    assert result.left_out == {"sts": ("A", "C")}
    assert "sts" not in result.tasks
    assert [(duel.first, duel.second) for duel in result.duels if duel.task == "sts"] == [("A", "C")]
    own = [duel for duel in result.duels if (duel.first, duel.second) == ("A", "B")]
    assert len(own) == 3
    np.testing.assert_allclose([duel.pvalue for duel in own], holm([duel.test.pvalue for duel in own]))
    assert any("only for A, C" in note for note in result.notes())
    ring = [{"x", "y"}, {"y", "z"}, {"z", "x"}]  # every two share a task, all three none
    scores = data.runs[0].tasks["retrieval"]
    chain = compare(
        Runs([Run(f"M{i}", dict.fromkeys(names, scores)) for i, names in enumerate(ring)]), num_resamples=200
    )
    assert (chain.tasks, chain.overall, len(chain.duels)) == ((), None, 3)
    apart = Runs([Run("A", {"a": data.runs[0].tasks["sts"]}), Run("B", {"b": data.runs[0].tasks["sts"]})])
    with pytest.raises(InputError, match="no two models"):
        compare(apart)
    with pytest.raises(InputError, match="'sts' was run for A, C only"):
        compare(data, on_incomplete="error")


def test_items_are_matched_by_name() -> None:
    one, two = (run.tasks["retrieval"] for run in runs().runs[:2])
    turned = replace(two, values=two.values[::-1], items=two.items[::-1])
    straight, matched = (
        compare(Runs([Run("A", {"t": one}), Run("B", {"t": second})]), num_resamples=200) for second in (two, turned)
    )
    assert straight.duels == matched.duels
    for wrong in (
        replace(two, items=("x", *two.items[1:])),
        replace(two, values=two.values[:-1], items=two.items[:-1]),
    ):
        with pytest.raises(InputError, match="other items of 't'"):
            compare(Runs([Run("A", {"t": one}), Run("B", {"t": wrong})]))


def test_what_the_score_is_not_is_said() -> None:
    class Weighted(Score):
        @property
        def score(self) -> float:
            return 0.123

    values = np.linspace(0, 1, 20)
    result = compare(Runs([Run("A", {"t": Weighted(values)}), Run("B", {"t": Score(values)})]), num_resamples=200)
    assert "not quite ndcg_at_10" in result.duels[0].note
    assert result.duels[0].verdict == SAME


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (Runs(runs().runs[:1]), "two or more"),
        (Runs([runs().runs[0]] * 2), "different names"),
        (Runs([Run("A", {"x": Score(np.ones(3))}), Run("B", {"y": Score(np.ones(3))})]), "no two models"),
        (
            Runs([Run(name, {"x": Score(np.ones(3), metric="pearson", gold=np.arange(3.0))}) for name in "AB"]),
            "pearson",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(data: Runs, says: str) -> None:
    with pytest.raises(InputError, match=says):
        compare(data)


def test_reports_say_the_same_everywhere(comparison: Comparison) -> None:
    plain = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert [duel["verdict"] for duel in plain["duels"]] == [duel.verdict for duel in comparison.duels]
    assert plain["overall"][0]["not_distinguishable_from"]
    console = Console(width=240, record=True, file=io.StringIO())
    for table in comparison.to_tables():
        console.print(table)
    text, markdown = console.export_text(), comparison.to_markdown()
    assert text.count(SAME) >= sum(duel.better is None for duel in comparison.duels)
    assert markdown.count(SAME) >= text.count(f" {SAME}") > 0
    assert "Holm" in markdown


def test_an_unknown_interval_is_null_in_json() -> None:
    pair = [Run(name, {"t": Score(np.array([value]))}) for name, value in (("A", 0.3), ("B", 0.6))]
    result = compare(Runs(pair), num_resamples=200)
    assert result.to_dict()["duels"][0]["interval"] == [None, None]
    assert math.isinf(result.duels[0].test.difference.low)
    assert "unknown" in result.to_markdown()


def test_constant_similarities_count_as_chance() -> None:
    @dataclass(frozen=True)
    class Flat(Score):
        @property
        def score(self) -> float:
            return 0.0

    gold = np.arange(30.0)
    given = {"type": "STS", "metric": "cosine_spearman", "unit": "pair", "gold": gold}
    flat, good = Flat(np.ones(30), **given), Score(gold, **given)
    duel = compare(Runs([Run("flat", {"t": flat}), Run("good", {"t": good})]), num_resamples=500).duels[0]
    assert duel.better == "good"
    assert duel.test.difference.estimate == -1
