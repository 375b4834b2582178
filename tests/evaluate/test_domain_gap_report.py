"""The inference against statsmodels, scipy and slow loops; simulated tables; and what cannot be told."""

from __future__ import annotations

import json
import math
from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from embedlab._core.errors import InputError
from embedlab.evaluate.domain_gap import SuiteReport, anova_two_way, compare_suites, domain_gap, spearman
from embedlab.evaluate.domain_gap.control import Controls, regression
from embedlab.evaluate.domain_gap.finding import Finding, markdown_table
from embedlab.evaluate.domain_gap.gaps import label_test
from embedlab.evaluate.domain_gap.labels import difference, permutation_pvalue
from embedlab.evaluate.domain_gap.table import score_table

NAMES = [f"set {place:02}" for place in range(18)]
DOMAIN = ["general", "finance"] * 9
TYPES = ["STS"] * 6 + ["Retrieval"] * 6 + ["Classification"] * 6
MODELS = ["bow", "static", "minilm", "bge"]


def table(
    seed: int = 0, *, effect: float = 0.0, slope: float = 0.0, noise: float = 0.1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores with a known effect of the domain and a known slope of complexity, and the complexity."""
    rng = np.random.default_rng(seed)
    inside = np.array([side == "finance" for side in DOMAIN])
    hard = rng.normal(size=18) + inside
    level = 0.6 + effect * inside + slope * hard + 0.1 * rng.normal(size=18)
    scores = level[:, None] + np.linspace(0, 0.1, 4) + 0.02 * rng.normal(size=(18, 4))
    complexity = pd.DataFrame({"entropy": hard, "fog": rng.normal(size=18)}, index=NAMES)
    return pd.DataFrame(scores, index=NAMES, columns=MODELS), complexity


@pytest.fixture(scope="module")
def report():
    scores, complexity = table(effect=-0.3, slope=-0.05)
    return domain_gap(scores, domain=DOMAIN, types=TYPES, complexity=complexity, num_boot=50)


class TestAnova:
    def test_agrees_with_statsmodels(self) -> None:
        scores, _ = table(effect=-0.1)
        frame = score_table(scores, domain=DOMAIN, types=TYPES).long()
        found = anova_two_way(frame, num_boot=0)
        wanted = anova_lm(smf.ols("score ~ C(model) + C(domain)", frame).fit(), typ=2)
        np.testing.assert_allclose(found[["sum_sq", "df"]], wanted[["sum_sq", "df"]])
        np.testing.assert_allclose(found["p"], wanted["PR(>F)"])
        assert found["share"].sum() == pytest.approx(1)

    def test_has_the_papers_degrees_of_freedom(self) -> None:
        rng = np.random.default_rng(0)
        scores = rng.normal(size=(18, 7))
        report = domain_gap(scores, domain=DOMAIN, types=TYPES, num_boot=500)
        assert report.anova is not None
        assert report.anova.table["residual df"].tolist() == [6992, 6992, 6992, 6]

    def test_grows_with_the_resamples_though_nothing_is_there(self) -> None:
        scores, _ = table(seed=3)
        frame = score_table(scores, domain=DOMAIN, types=TYPES).long()
        few, many = (anova_two_way(frame, num_boot=number).loc["domain", "F"] for number in (50, 500))
        assert many > 5 * few
        assert label_test(score_table(scores, domain=DOMAIN, types=TYPES)).table["p"].iloc[-1] > 0.05

    @pytest.mark.parametrize(
        ("rows", "says"),
        [
            ([("a", 0, 1.0), ("a", 1, 0.5)], "two models"),
            ([("a", 0, 1.0), ("a", 1, 0.5), ("b", 0, 1.0)], "1 of 4"),
            ([("a", 0, 1.0), ("b", 0, 0.5)], "two domains"),
        ],
    )
    def test_missing_cells_are_refused(self, rows: list[tuple[str, int, float]], says: str) -> None:
        with pytest.raises(InputError, match=says):
            anova_two_way(pd.DataFrame(rows, columns=["model", "domain", "score"]))
        with pytest.raises(InputError, match="lacks the columns score"):
            anova_two_way(pd.DataFrame({"model": ["a"], "domain": [0]}))
        with pytest.raises(InputError, match="num_boot=-1"):
            anova_two_way(pd.DataFrame(rows, columns=["model", "domain", "score"]), num_boot=-1)


class TestLabelTest:
    def test_looks_at_every_relabelling(self) -> None:
        rng = np.random.default_rng(0)
        strata = [
            (rng.normal(size=5), np.array([1, 1, 0, 0, 0], bool)),
            (rng.normal(size=4), np.array([1, 0, 0, 0], bool)),
        ]
        gaps = []
        for first in combinations(range(5), 2):
            for second in combinations(range(4), 1):
                gap = 0.0
                for (values, _), chosen in zip(strata, (first, second), strict=True):
                    rest = [at for at in range(len(values)) if at not in chosen]
                    gap += values[list(chosen)].mean() - values[rest].mean()
                gaps.append(gap)
        seen = sum(values[labels].mean() - values[~labels].mean() for values, labels in strata)
        pvalue, least, exact = permutation_pvalue(strata)
        assert exact
        assert pvalue == pytest.approx(np.mean(np.abs(gaps) >= abs(seen) - 1e-12))
        assert least == 1 / 40

    def test_draws_when_there_are_too_many(self) -> None:
        values, labels = np.random.default_rng(0).normal(size=40), np.arange(40) % 2 == 0
        pvalue, _, exact = permutation_pvalue([(values, labels)])
        assert not exact
        assert pvalue == pytest.approx(stats.ttest_ind(values[labels], values[~labels]).pvalue, abs=0.03)

    def test_interval_is_welchs(self) -> None:
        rng = np.random.default_rng(0)
        values, labels = rng.normal(size=9), np.arange(9) < 4
        found = difference([(values, labels)])
        wanted = stats.ttest_ind(values[labels], values[~labels], equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))

    @pytest.mark.filterwarnings("ignore::statsmodels.tools.sm_exceptions.ConvergenceWarning")
    def test_estimate_is_the_mixed_models(self) -> None:
        scores, _ = table(effect=-0.1)
        frame = score_table(scores, domain=DOMAIN, types=["all"] * 18).long()
        mixed = smf.mixedlm("score ~ domain + C(model)", frame, groups=frame["dataset"]).fit()
        found = label_test(score_table(scores, domain=DOMAIN)).table.iloc[0]
        assert found["gap"] == pytest.approx(mixed.params["domain"], abs=1e-6)


class TestRegression:
    def test_agrees_with_statsmodels(self, report) -> None:
        frame = report.scores.long(report.scores.standardised())
        frame["entropy"] = np.repeat(report.controls.values["entropy"], 4)
        frame["fog"] = np.repeat(report.controls.values["fog"], 4)
        formula = "score ~ domain + entropy + fog + C(model) + C(type)"
        groups = pd.factorize(frame["dataset"])[0]
        wanted = smf.ols(formula, frame).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        row = report.regression.table.loc["all measures"]
        assert row["gap"] == pytest.approx(wanted.params["domain"])
        assert row["cluster p"] == pytest.approx(wanted.pvalues["domain"])
        means = frame.groupby("dataset", sort=False)[["score", "domain", "entropy", "fog"]].mean()
        means["type"] = frame.groupby("dataset", sort=False)["type"].first()
        robust = smf.ols("score ~ domain + entropy + fog + C(type)", means).fit(cov_type="HC3", use_t=True)
        assert (row["low"], row["high"]) == pytest.approx(tuple(robust.conf_int().loc["domain"]))
        details = report.regression.details
        assert details.loc[("all measures", "fog"), "coefficient"] == pytest.approx(robust.params["fog"])

    def test_inflation_by_hand(self, report) -> None:
        inside = report.scores.inside.astype(float)
        hard = report.controls.values["entropy"]
        kinds = pd.get_dummies(pd.Series(report.scores.types), drop_first=True, dtype=float)
        others = np.column_stack([np.ones(18), hard, kinds])
        rest = inside - others @ np.linalg.lstsq(others, inside, rcond=None)[0]
        wanted = ((inside - inside.mean()) ** 2).sum() / (rest**2).sum()
        assert report.regression.table.loc["entropy", "VIF"] == pytest.approx(wanted)

    def test_keeps_its_level_where_complexity_alone_matters(self) -> None:
        controlled, naive = [], []
        for seed in range(200):
            scores, complexity = table(seed, slope=-0.1)
            checked = score_table(scores, domain=DOMAIN, types=TYPES)
            hard = complexity["entropy"].to_numpy()[checked.order]
            rows = regression(checked, Controls({"entropy": (hard - hard.mean()) / hard.std()}, {})).table
            controlled.append(rows["p"].iloc[1] < 0.05)
            naive.append(rows["p"].iloc[0] < 0.05)
        assert np.mean(controlled) <= 0.07
        assert np.mean(naive) > 0.2

    def test_finds_an_effect_that_is_there(self) -> None:
        found = []
        for seed in range(20):
            scores, complexity = table(seed, effect=-0.25, slope=-0.1)
            rows = domain_gap(scores, domain=DOMAIN, types=TYPES, complexity=complexity, num_boot=0).regression.table
            found.append(rows["high"].iloc[-1] < 0)
        assert np.mean(found) > 0.8

    def test_label_test_keeps_its_level(self) -> None:
        rejected = [
            label_test(score_table(table(seed)[0], domain=DOMAIN, types=TYPES)).table["p"].iloc[-1] < 0.05
            for seed in range(200)
        ]
        assert np.mean(rejected) <= 0.08


class TestRanks:
    @pytest.mark.parametrize(("n", "least"), [(3, 1 / 3), (4, 1 / 12), (5, 1 / 60), (7, 2 / 5040)])
    def test_the_smallest_p_of_few_models(self, n: int, least: float) -> None:
        found = spearman(range(n), range(n))
        assert (found.rho, found.exact) == (1.0, True)
        assert found.pvalue == pytest.approx(least)
        assert found.high == 1.0

    def test_with_five_models_nothing_below_one_is_significant(self) -> None:
        assert spearman([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).pvalue == pytest.approx(0.0833, abs=1e-3)

    def test_agrees_with_scipy_and_with_all_orders(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.integers(0, 4, 6).astype(float), rng.normal(size=6)
        found = spearman(a, b)
        assert found.rho == pytest.approx(stats.spearmanr(a, b).statistic)
        every = [stats.spearmanr(a[list(order)], b).statistic for order in permutations(range(6))]
        assert found.pvalue == pytest.approx(np.mean(np.abs(every) >= abs(found.rho) - 1e-9))
        long = rng.normal(size=(2, 30))
        assert spearman(*long).pvalue == pytest.approx(stats.spearmanr(*long).pvalue)
        assert not spearman(*long).exact

    def test_few_models_have_no_interval(self) -> None:
        assert (spearman([1, 2, 3], [3, 1, 2]).low, spearman([1, 2, 3], [3, 1, 2]).high) == (-1.0, 1.0)
        assert spearman([1, 2, 3, 4], [4, 3, 2, 1]).low == -1.0

    @pytest.mark.parametrize(
        ("a", "b", "says"), [([1], [1], "two"), ([1, 2], [1, 1], "constant"), ([1, math.nan], [1, 2], "finite")]
    )
    def test_bad_input_is_refused(self, a: list[float], b: list[float], says: str) -> None:
        with pytest.raises(InputError, match=says):
            spearman(a, b)


class TestReport:
    def test_gaps_by_hand(self, report) -> None:
        scores, _ = table(effect=-0.3, slope=-0.05)
        inside = np.array([side == "finance" for side in DOMAIN])
        sts = scores["bow"].to_numpy()[:6]
        row = report.gaps.table.loc[("STS", "bow")]
        assert row["gap"] == pytest.approx(sts[inside[:6]].mean() - sts[~inside[:6]].mean())
        assert row["relative"] == pytest.approx(row["gap"] / row["general"])
        assert row["relative low"] < row["relative"] < row["relative high"]
        means = [report.gaps.table.loc[(kind, "bow"), "gap"] for kind in report.scores.kinds]
        assert report.gaps.table.loc[("mean of types", "bow"), "gap"] == pytest.approx(np.mean(means))

    def test_finds_the_domain_and_says_so(self, report) -> None:
        assert report.regression.table.loc["all measures", "high"] < 0
        assert "finance scores lower beyond what complexity explains" in report.verdict
        assert "n = 18 data sets, 4 models" in report.regression.verdict
        assert "n = 9 finance and 9 general" in report.label_test.verdict

    def test_order_does_not_matter(self, report) -> None:
        scores, complexity = table(effect=-0.3, slope=-0.05)
        order = np.random.default_rng(1).permutation(18)
        turned = domain_gap(
            scores.iloc[order],
            domain=[DOMAIN[at] for at in order],
            types=[TYPES[at] for at in order],
            complexity=complexity,
            num_boot=50,
        )
        assert turned.markdown() == report.markdown()

    def test_terciles_hold_like_data_sets(self, report) -> None:
        frame = report.subgroup.table
        assert list(frame.loc["entropy"].index) == ["low", "medium", "high"]
        assert (frame["n general"] + frame["n finance"]).tolist() == [6] * 6
        values, scores = report.controls.values["entropy"], report.scores.standardised().mean(axis=1)
        middle = np.argsort(values, kind="stable")[6:12]
        inside = report.scores.inside[middle]
        wanted = scores[middle][inside].mean() - scores[middle][~inside].mean()
        assert frame.loc[("entropy", "medium"), "gap"] == pytest.approx(wanted)

    def test_markdown_and_json_hold_everything(self, report) -> None:
        text = report.markdown()
        assert all(f"## {each.title}" in text for each in report.findings)
        assert "no evidence" in text
        assert len(report.findings) == 6
        back = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert len(back["datasets"]) == 18
        assert back["findings"][0]["table"][0]["model"] == "bow"
        assert "finance" in str(report)

    def test_tables_print(self) -> None:
        frame = pd.DataFrame({"a|b": [0.5, math.nan, 12345.6]}, index=pd.Index(["x", "y", "z|"], name="name"))
        assert markdown_table(frame).splitlines()[2:] == ["| x | 0.500 |", "| y | – |", "| z\\| | 12346 |"]
        assert Finding("Title", frame, "Verdict.").markdown().startswith("## Title\n\nVerdict.\n\n| name | a|b |")


class TestNotIdentifiable:
    def test_one_data_set_on_each_side(self) -> None:
        report = domain_gap([[0.6, 0.7], [0.4, 0.5]], domain=["general", "finance"], num_boot=20)
        assert "Not identifiable" in report.label_test.verdict
        assert "No interval" in report.gaps.verdict
        assert report.gaps.table["low"].isna().all()
        assert "Not identifiable" in report.regression.verdict

    def test_a_type_with_one_side_only(self) -> None:
        scores, _ = table()
        report = domain_gap(scores, domain=DOMAIN, types=["STS"] * 16 + ["News", "Own"], num_boot=0)
        assert "Not identifiable, since only one side has data sets: News, Own" in report.gaps.verdict
        assert report.anova is None

    def test_constant_and_missing_complexity(self) -> None:
        scores, complexity = table()
        complexity["constant"] = 3.0
        complexity["holes"] = [math.nan, *range(17)]
        report = domain_gap(scores, domain=DOMAIN, complexity=complexity, num_boot=0)
        assert set(report.controls.values) == {"entropy", "fog"}
        assert "constant is the same for all data sets" in report.regression.note
        assert "holes is not measured on set 00" in report.regression.note
        only = domain_gap(scores, domain=DOMAIN, complexity=complexity[["constant"]], num_boot=0)
        assert only.regression.verdict.startswith("Not identifiable: constant is the same")
        assert only.subgroup.verdict.startswith("Not identifiable")
        bare = domain_gap(scores, domain=DOMAIN, num_boot=0)
        assert bare.regression.verdict == "Not identifiable: no complexity was given."

    def test_complexity_that_is_the_domain(self) -> None:
        scores, complexity = table()
        complexity["label"] = [float(side == "finance") for side in DOMAIN]
        report = domain_gap(scores, domain=DOMAIN, complexity=complexity, num_boot=0)
        assert math.isnan(report.regression.table.loc["label", "gap"])
        assert "Not identifiable with all measures" in report.regression.verdict
        assert "Not identifiable in" in report.subgroup.verdict

    def test_one_model_has_no_ranks(self) -> None:
        scores, _ = table()
        report = domain_gap(scores[["bow"]], domain=DOMAIN, types=TYPES)
        assert report.rank_corr.verdict.startswith("Not identifiable")
        assert report.anova is None

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"domain": ["general"] * 18}, "one other name"),
            ({"domain": ["general", "a", "b"] * 6}, "one other name"),
            ({"types": DOMAIN}, "no task type has data sets of both"),
            ({"types": ["STS"]}, "types has 1"),
            ({"models": ["a"]}, "models has 1"),
            ({"datasets": ["a"] * 18}, "datasets must be different"),
            ({"general": "wide"}, "unknown general"),
            ({"confidence": 0.0}, "confidence"),
            ({"complexity": pd.DataFrame({"fog": [1.0]}, index=["elsewhere"])}, "complexity has no row for set"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, changed: dict[str, object], says: str) -> None:
        scores, _ = table()
        with pytest.raises(InputError, match=says):
            domain_gap(scores, **({"domain": DOMAIN} | changed))  # type: ignore[arg-type]

    def test_missing_scores_are_named(self) -> None:
        scores, _ = table()
        scores.iloc[3, 1] = math.nan
        with pytest.raises(InputError, match="static on set 03"):
            domain_gap(scores, domain=DOMAIN)
        with pytest.raises(InputError, match="data sets by models"):
            domain_gap([0.1, 0.2], domain=["general", "finance"])


def _suite(topic: str, words: list[str]) -> list[object]:
    from embedlab.evaluate.tasks import from_labelled_pairs, from_scored_pairs

    texts = [
        f"the {word} was {state} in {month}" for word in words for state in ("low", "high") for month in ("May", "June")
    ]
    other = [text.replace("low", "small").replace("May", "spring") for text in texts]
    scores = [5.0 if place % 2 else 2.0 for place in range(len(texts))]
    same = [score > 3 for score in scores]
    return [
        task
        for part in (0, 1)
        for task in (
            from_scored_pairs(texts[part:], other[part:], scores[part:], name=f"gap-{topic}-pairs-{part}"),
            from_labelled_pairs(texts[part:], other[part:], same[part:], name=f"gap-{topic}-same-{part}"),
        )
    ]


def test_one_call_from_tasks_and_models_to_files(tmp_path) -> None:
    general, inside = _suite("general", ["river", "mountain", "road"]), _suite("finance", ["dividend", "yield", "debt"])
    found = compare_suites(general, inside, ["default", "bow", "tfidf"], domain="finance", cache=tmp_path / "cache")
    assert isinstance(found, SuiteReport)
    assert found.gap.scores.values.shape == (8, 3)
    assert set(found.gap.scores.kinds) == {"STS", "PairClassification"}
    written = found.write(tmp_path / "out")
    assert {path.name for path in written} >= {"domain_gap.md", "domain_gap.json", "gap.png", "similarity.png"}
    assert all(path.stat().st_size > 500 for path in written)
    assert "en_embedlab_ewt_small" in (tmp_path / "out" / "domain_gap.md").read_text(encoding="utf-8")
    json.loads((tmp_path / "out" / "domain_gap.json").read_text(encoding="utf-8"))
    with pytest.raises(InputError, match="is in both suites"):
        compare_suites(general, general, ["default"], domain="finance")
    with pytest.raises(InputError, match="must hold tasks"):
        compare_suites([], inside, ["default"], domain="finance")


class TestCommand:
    def invoke(self, *args: object) -> str:
        from typer.testing import CliRunner

        from embedlab.cli import app

        result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    @pytest.fixture
    def scores(self, tmp_path):
        frame, complexity = table(effect=-0.3)
        rows = [
            {"dataset": name, "type": kind, "domain": side, "model": model, "score": frame.loc[name, model]}
            | complexity.loc[name].to_dict()
            for name, kind, side in zip(NAMES, TYPES, DOMAIN, strict=True)
            for model in MODELS
        ]
        path = tmp_path / "scores.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    def test_gap_from_scores(self, scores, tmp_path) -> None:
        shown = self.invoke("domain-gap", "--scores", scores, "--out", tmp_path / "out")
        assert "finance scores lower beyond what complexity explains" in shown
        assert (tmp_path / "out" / "complexity.png").is_file()
        found = json.loads(self.invoke("domain-gap", "--scores", scores, "--json"))
        assert found["domain"] == "finance"
        assert len(found["complexity"]) == 18

    def test_complexity_of_text_files(self, tmp_path) -> None:
        (tmp_path / "plain.txt").write_text("a a b b\n\nA man plays the guitar on stage.\n", encoding="utf-8")
        (tmp_path / "other.txt").write_text("Two dogs run.\n", encoding="utf-8")
        shown = self.invoke("complexity", tmp_path / "plain.txt", tmp_path / "other.txt")
        assert "entropy" in shown
        assert "en_embedlab_ewt_small" in shown
        found = json.loads(self.invoke("complexity", tmp_path / "plain.txt", "--json"))
        assert found["datasets"][0]["dataset"] == "plain"

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (["domain-gap"], "give models"),
            (["domain-gap", "default", "--scores", "x.csv"], "either it"),
            (["domain-gap", "--scores", "nowhere.csv"], "cannot be read"),
            (["complexity", "no-such-set"], "unknown task"),
        ],
    )
    def test_bad_calls_are_refused(self, args: list[str], says: str) -> None:
        with pytest.raises(InputError, match=says):
            self.invoke(*args)

    def test_a_csv_that_does_not_fit_is_refused(self, scores, tmp_path) -> None:
        frame = pd.read_csv(scores)
        for changed, says in (
            (frame.drop(columns="type"), "lacks the columns type"),
            (pd.concat([frame, frame.head(1)]), "has two scores"),
            (frame.assign(fog=range(len(frame))), "one value of each measure"),
        ):
            changed.to_csv(tmp_path / "bad.csv", index=False)
            with pytest.raises(InputError, match=says):
                self.invoke("domain-gap", "--scores", tmp_path / "bad.csv")
