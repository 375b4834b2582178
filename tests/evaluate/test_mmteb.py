"""MMTEB's tools against loops and hosts: scikit-learn refits, SciPy ranks, mteb's own evaluator and zero-shot share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LinearRegression
from typer.testing import CliRunner

from embedlab._core.errors import InputError
from embedlab.cli.tasks import app
from embedlab.data import RetrievalData, Text, load_beir
from embedlab.evaluate.mmteb import (
    ScoreTable,
    hard_negative_subset,
    pareto,
    predictability,
    rank,
    rank_agreement,
    rank_intervals,
    read_scores,
    select_tasks,
    zero_shot,
)
from embedlab.evaluate.mmteb.agreement import ndcg_at_10
from embedlab.evaluate.mmteb.selection import _predict
from embedlab.models.lexical import Bm25, Tfidf


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def refitted(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every task from all others, every model left out in turn, by scikit-learn."""
    models, tasks = scores.shape
    predicted = np.empty_like(scores)
    for t in range(tasks):
        others = np.delete(scores, t, axis=1)
        for i in range(models):
            line = LinearRegression().fit(np.delete(others, i, axis=0), np.delete(scores[:, t], i))
            predicted[i, t] = line.predict(others[i : i + 1])[0]
    return predicted


@pytest.mark.parametrize(("models", "tasks"), [(30, 5), (9, 8), (8, 8), (7, 8), (5, 20), (3, 2)])
def test_left_out_predictions_equal_refits(rng: np.random.Generator, models: int, tasks: int) -> None:
    scores = 60 + 10 * rng.normal(size=(models, tasks)) @ rng.normal(size=(tasks, tasks))
    found, expected = predictability(scores), refitted(scores)
    np.testing.assert_allclose(found.predicted, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    for t in range(tasks):
        seen, guessed = scores[:, t], expected[:, t]
        assert found.spearman[t] == pytest.approx(stats.spearmanr(seen, guessed).statistic)
        assert found.pearson[t] == pytest.approx(stats.pearsonr(seen, guessed).statistic, abs=1e-6)
        scaled = (guessed - seen.mean()) / seen.std() - (seen - seen.mean()) / seen.std()
        assert found.nmse[t] == pytest.approx(np.mean(scaled**2), rel=1e-5)


def test_dependent_tasks_are_still_predicted(rng: np.random.Generator) -> None:
    """A copied task makes the closed forms singular; each model is then left out in turn."""
    base = rng.normal(size=(12, 4))
    scores = np.column_stack([base, base[:, 0], base[:, 1] + base[:, 2]])
    np.testing.assert_allclose(predictability(scores).predicted, refitted(scores), atol=1e-9)
    assert predictability(scores).spearman[4] == 1.0


def test_dropped_tasks_are_predicted_from_given_ones(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(20, 6)) @ rng.normal(size=(6, 6))
    names = [f"task {j}" for j in range(6)]
    found = predictability(scores, tasks=names[:2], given=names[2:])
    expected = np.stack([_predict(scores[:, 2:], scores[:, t]) for t in (0, 1)], axis=1)
    np.testing.assert_allclose(found.predicted, expected, atol=1e-9)
    own = predictability(scores, tasks=["task 3"], given=names)  # never from itself
    np.testing.assert_allclose(own.predicted[:, 0], predictability(scores).predicted[:, 3], atol=1e-9)
    with pytest.raises(InputError, match="task 5"):
        predictability(scores, tasks=["task 9"])


def slow_selection(scores: NDArray[np.float64], types: list[str], rho: float, nmse: float) -> list[int]:
    """The card's procedure, word by word; returns the columns removed."""
    left, removed = list(range(scores.shape[1])), []
    while True:
        part = scores[:, left]
        predicted = refitted(part)
        rhos = [stats.spearmanr(part[:, j], predicted[:, j]).statistic for j in range(len(left))]
        errors = [np.mean((predicted[:, j] - part[:, j]) ** 2) / part[:, j].var() for j in range(len(left))]
        for j in sorted(range(len(left)), key=lambda j: -rhos[j]):
            last = sum(types[t] == types[left[j]] for t in left) == 1
            if errors[j] <= nmse and rhos[j] >= rho and not last:
                removed.append(left.pop(j))
                break
        else:
            return removed


def test_selection_equals_the_slow_procedure(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(25, 3)) @ rng.normal(size=(3, 10)) + 0.3 * rng.normal(size=(25, 10))
    types = list("aaabbbbccd")
    found = select_tasks(scores, types=types, rho=0.8, nmse=0.5)
    expected = slow_selection(scores, types, 0.8, 0.5)
    assert len(expected) >= 3
    assert [each.task for each in found.removed] == [f"task {j}" for j in expected]
    assert set(found.kept) | {each.task for each in found.removed} == {f"task {j}" for j in range(10)}


def redundant(rng: np.random.Generator) -> ScoreTable:
    """Three tasks that say the same, one of them in a language of its own."""
    skill = rng.normal(size=20)
    values = np.stack([skill + 0.01 * rng.normal(size=20) for _ in range(3)], axis=1)
    return ScoreTable(tuple(f"m{i}" for i in range(20)), ("x", "y", "z"), values)


def test_the_last_task_of_a_type_stays(rng: np.random.Generator) -> None:
    found = select_tasks(redundant(rng), types=["STS", "STS", "Retrieval"])
    assert "z" in found.kept
    assert len(found.removed) == 1
    assert select_tasks(redundant(rng), types=["a", "b", "c"]).kept == ("x", "y", "z")
    assert set(select_tasks(redundant(rng), types=["a", "b", "c"]).protected.values()) == {
        "the last task of type a",
        "the last task of type b",
        "the last task of type c",
    }


def test_languages_stay_covered_by_the_same_type(rng: np.random.Generator) -> None:
    languages = {"x": ["eng"], "y": ["eng", "deu"], "z": ["eng"]}
    found = select_tasks(redundant(rng), types=["STS"] * 3, languages=languages)
    assert found.kept == ("y",)
    elsewhere = select_tasks(redundant(rng), types=["STS", "STS", "Retrieval"], languages=[["eng"], ["deu"], ["deu"]])
    assert set(elsewhere.kept) == {"x", "y", "z"}
    assert "deu" in elsewhere.protected["y"]


def test_the_keep_list_and_the_least_number_are_kept(rng: np.random.Generator) -> None:
    assert "x" in select_tasks(redundant(rng), types=["STS"] * 3, keep=["x"]).kept
    assert len(select_tasks(redundant(rng), types=["STS"] * 3, min_tasks=2).kept) == 2
    with pytest.raises(InputError, match="task in keep 'X1'"):
        select_tasks(redundant(rng), types=["STS"] * 3, keep=["X1"])


def test_one_model_under_two_names_counts_once(rng: np.random.Generator) -> None:
    """With more tasks than models the one predicts the other, and every task looks superfluous."""
    scores = rng.normal(size=(6, 20))
    doubled = np.concatenate([scores, scores + 1e-4])  # rounded elsewhere
    found = select_tasks(doubled, types=["STS"] * 20)
    assert found.copies == {f"model {i + 6}": f"model {i}" for i in range(6)}
    assert found.removed == ()
    assert len(select_tasks(doubled, types=["STS"] * 20, drop_copies=False).removed) >= 5


def test_holes_are_named() -> None:
    values = np.ones((3, 2))
    values[1, 0] = np.nan
    with pytest.raises(InputError, match=r"1 hole \(b on STS12\)"):
        ScoreTable(("a", "b", "c"), ("STS12", "NQ"), values)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: select_tasks(np.ones((5, 2)), types=["a", "b"], drop_copies=False), "tells nothing"),
        (lambda: select_tasks(np.eye(2), types=["a", "b"]), "at least 3"),
        (lambda: select_tasks(np.eye(4), types=["a"]), "types"),
        (lambda: select_tasks(np.eye(4), types={"task 0": "a"}), "task 1"),
        (lambda: select_tasks(np.eye(4), types=["a"] * 4, nmse=-1), "nmse"),
        (lambda: rank(np.ones(3)), "matrix"),
        (lambda: ScoreTable(("a", "a"), ("t",), np.ones((2, 1))), "twice"),
        (lambda: pareto([1.0, np.nan], [1.0, 2.0]), "finite"),
        (lambda: zero_shot(None, "SciFact"), "tasks"),
    ],
)
def test_bad_values_are_refused(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_borda_is_n_minus_the_mean_rank(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 4, size=(9, 12)).astype(float)  # many ties
    expected = sum(9 - stats.rankdata(-column) for column in scores.T)
    found = rank(scores)
    np.testing.assert_array_equal(found.points, expected)
    np.testing.assert_array_equal(found.ranks, stats.rankdata(-expected))
    types = ["a"] * 3 + ["b"] * 9
    by_type = (scores[:, :3].mean(axis=1) + scores[:, 3:].mean(axis=1)) / 2
    np.testing.assert_allclose(rank(scores, method="mean_type", types=types).points, by_type)
    np.testing.assert_allclose(rank(scores, method="mean").points, scores.mean(axis=1))
    assert rank([[0.1], [0.9], [0.5]]).order() == ["model 1", "model 2", "model 0"]


def test_borda_equals_the_hosts_own(rng: np.random.Generator) -> None:
    import polars as pl
    from mteb.benchmarks._create_table import _get_borda_rank

    scores = rng.integers(0, 5, size=(8, 10)).astype(float)
    frame = pl.DataFrame(scores, schema=[f"t{j}" for j in range(10)])
    theirs = frame.select(_get_borda_rank(frame.columns)).to_series().to_numpy()
    np.testing.assert_array_equal(theirs, stats.rankdata(-rank(scores).points, method="min"))


def test_rank_intervals_hold_the_rank_and_tell_clear_models_apart(rng: np.random.Generator) -> None:
    scores = np.concatenate([rng.normal(size=(5, 30)), rng.normal(size=(1, 30)) + 5])
    for method, types in (("borda", None), ("mean", None), ("mean_type", ["a", "b"] * 15)):
        found = rank_intervals(scores, method=method, types=types, num_resamples=400)  # type: ignore[arg-type]
        assert (found.low <= found.ranking.ranks).all()
        assert (found.ranking.ranks <= found.high).all()
        assert (found.low[5], found.high[5]) == (1, 1)
        assert found.separated[5, :5].all()
        np.testing.assert_array_equal(found.separated, found.separated.T)
        assert found.share_separated() < 1
    again = rank_intervals(scores, num_resamples=400)
    np.testing.assert_array_equal(again.low, rank_intervals(scores, num_resamples=400).low)
    assert rank_intervals(np.ones((1, 3)), num_resamples=100).share_separated() == 1.0


def test_equal_models_are_seldom_told_apart(rng: np.random.Generator) -> None:
    shares = [rank_intervals(rng.normal(size=(6, 40)), num_resamples=300).share_separated() for _ in range(40)]
    assert np.mean(shares) <= 0.09


def test_zero_shot_is_the_hosts_share() -> None:
    import mteb

    tasks = ["NQ", "SciFact", "MSMARCO", "ArguAna", "STS12"]
    meta = mteb.get_model_meta("intfloat/multilingual-e5-small", fetch_from_hf=False)
    assert zero_shot(meta, tasks) == meta.zero_shot_percentage(tasks)
    assert zero_shot({"NQ"}, tasks) == 80
    assert zero_shot(set(), tasks) == 100  # known to be trained on nothing
    assert zero_shot(None, tasks) is None
    assert zero_shot({"my own corpus"}, ["my own task"]) == 100


def test_the_front_equals_the_loop_over_pairs(rng: np.random.Generator) -> None:
    costs, scores = rng.integers(0, 6, size=(25, 2)).astype(float), rng.integers(0, 6, size=25).astype(float)

    def beats(i: int, j: int) -> bool:
        no_worse = (costs[i] <= costs[j]).all() and scores[i] >= scores[j]
        return bool(no_worse and ((costs[i] < costs[j]).any() or scores[i] > scores[j]))

    expected = [not any(beats(i, j) for i in range(25)) for j in range(25)]
    assert pareto(costs, scores).tolist() == expected


def collection(rng: np.random.Generator, documents: int = 120, queries: int = 30) -> RetrievalData:
    words = np.array([f"w{i}" for i in range(80)])
    corpus = {f"d{i}": Text("", " ".join(rng.choice(words, 12))) for i in range(documents)}
    asked = {f"q{i}": " ".join([*corpus[f"d{i}"].text.split()[:3], *rng.choice(words, 2)]) for i in range(queries)}
    qrels = {f"q{i}": {f"d{i}": 1, f"d{documents - 1 - i}": 2} for i in range(queries)}
    return RetrievalData("words", corpus, asked, qrels)


def test_pools_keep_answers_and_say_who_found_what(rng: np.random.Generator) -> None:
    data = collection(rng)
    found = hard_negative_subset(data, ["bm25", "tfidf"], depth=3)
    texts, documents = list(data.queries.values()), [str(text) for text in data.corpus.values()]
    for name, model in (("bm25", Bm25()), ("tfidf", Tfidf())):
        scores = model.fit(documents).scores(texts, documents)
        for query, row in zip(data.queries, scores, strict=True):
            mine = {key for key, who in found.pools[query].items() if name in who}
            assert len(mine) == 3
            worst = min(row[list(data.corpus).index(key)] for key in mine)
            assert worst >= np.sort(row)[-3] - 1e-6
    for query, answers in data.qrels.items():
        assert set(answers) <= set(found.pools[query]) <= set(found.data.corpus)
        assert found.data.qrels[query] == answers
    assert any(who == ("judged",) for pool in found.pools.values() for who in pool.values())
    assert set(found.data.corpus) == {key for pool in found.pools.values() for key in pool}
    assert list(found.data.corpus) == [key for key in data.corpus if key in found.data.corpus]


def test_pools_are_decided_by_the_seed(rng: np.random.Generator) -> None:
    data = collection(rng)
    first, again = (hard_negative_subset(data, ["bm25"], depth=2, max_queries=10, seed=3) for _ in range(2))
    assert (first.data, first.pools) == (again.data, again.pools)
    assert len(first.data.queries) == 10
    assert hard_negative_subset(data, ["bm25"], depth=2, max_queries=10, seed=4).data.queries != first.data.queries


def test_models_that_pooled_are_flagged(rng: np.random.Generator) -> None:
    data = collection(rng)
    texts = [str(text) for text in data.corpus.values()]
    pooled, other = Bm25(name="mine").fit(texts), Tfidf().fit(texts)
    found = hard_negative_subset(data, ["bm25"], depth=2)
    assert found.on_own_pool([pooled, other]) == ("mine",)  # by fingerprint, whatever it is called


def test_a_reduced_task_is_a_task_of_the_hosts(rng: np.random.Generator, tmp_path: Path) -> None:
    from embedlab.evaluate.run import evaluate

    found = hard_negative_subset(collection(rng), ["bm25"], depth=5)
    task = found.task(name="words-hard")
    assert "bm25" in task.metadata.description
    run = evaluate(["tfidf"], [task], cache=tmp_path, costs=False).runs[0]
    texts = [str(text) for text in found.data.corpus.values()]
    scores = Tfidf().fit(texts).scores(list(found.data.queries.values()), texts)
    places = {key: j for j, key in enumerate(found.data.corpus)}
    expected = []
    for (query, _), row in zip(found.data.queries.items(), scores, strict=True):
        gains = np.zeros(len(places))
        for key, grade in found.data.qrels[query].items():
            gains[places[key]] = grade
        expected.append(ndcg_at_10(row + 1e-9 * np.arange(len(row)), gains))
    assert run.tasks["words-hard"].score == pytest.approx(np.mean(expected), abs=1e-3)  # ties are drawn
    again = hard_negative_subset(task, ["bm25"], depth=2)  # and can be reduced once more
    assert set(again.data.corpus) <= set(found.data.corpus)
    with pytest.raises(InputError, match="retrieval task"):
        hard_negative_subset(object(), ["bm25"])  # type: ignore[arg-type]


def test_ndcg_equals_sklearns(rng: np.random.Generator) -> None:
    from sklearn.metrics import ndcg_score

    for _ in range(20):
        keys, gains = rng.permutation(30).astype(float), rng.integers(0, 3, 30).astype(float)
        assert ndcg_at_10(keys, gains) == pytest.approx(ndcg_score([gains], [keys], k=10))
    assert ndcg_at_10(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(1 / np.log2(3))


def test_the_whole_corpus_agrees_with_itself(rng: np.random.Generator) -> None:
    data = collection(rng)
    for within in ("corpus", "query"):
        found = rank_agreement(data, ["tfidf", "bow", "lsa"], ["bm25"], depths=[2, 120], within=within)  # type: ignore[arg-type]
        assert (found.depths[1].spearman, found.depths[1].gap) == (1.0, 0.0)
        assert found.depths[0].gap > 0
        assert found.depths[0].documents < found.depths[1].documents == 120
    assert rank_agreement(data, ["tfidf", "bow", "bm25"], ["bm25"], depths=[9]).own_pool == ("bm25",)
    with pytest.raises(InputError, match="within"):
        rank_agreement(data, ["tfidf", "bow", "lsa"], ["bm25"], within="pool")  # type: ignore[arg-type]


def test_broken_collections_are_refused(rng: np.random.Generator) -> None:
    data = collection(rng)
    empty = RetrievalData("x", {}, data.queries, data.qrels)
    astray = RetrievalData("x", data.corpus, {"q": "w1"}, {"q": {"gone": 1}})
    unjudged = RetrievalData("x", data.corpus, {"q": "w1"}, {"q": {"d1": 0}})
    for wrong, says in ((empty, "0 documents"), (astray, "'gone'"), (unjudged, "0 queries")):
        with pytest.raises(InputError, match=says):
            hard_negative_subset(wrong, ["bm25"])


@pytest.fixture
def scores_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    table = redundant(rng)
    lines = ["Model,Overall,x,y,z"]
    lines += [
        f"{name},0," + ",".join(f"{x:.6f}" for x in row) for name, row in zip(table.models, table.values, strict=True)
    ]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "types.csv").write_text("task,type,languages\nx,STS,eng\ny,STS,eng deu\nz,STS,eng\n", encoding="utf-8")
    return path


def invoke(*args: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


def test_select_from_the_command_line(scores_file: Path) -> None:
    types = scores_file.parent / "types.csv"
    found = json.loads(invoke("select", scores_file, "--types", types, "--json").stdout)
    assert found["kept"] == ["y"]
    assert found["removed"][0]["spearman"] > 0.95
    assert "2 of 3 tasks can go" in invoke("select", scores_file, "--types", types).stdout
    failed = CliRunner().invoke(app, ["select", str(scores_file)])
    assert isinstance(failed.exception, InputError)
    assert "--types" in str(failed.exception)


def test_rank_from_the_command_line(scores_file: Path) -> None:
    found = json.loads(invoke("rank", scores_file, "--json", "--top-k", 3).stdout)
    table = read_scores(scores_file)
    assert [row["model"] for row in found["models"]] == rank(table).order()[:3]
    assert found["tasks"] == 3
    types = scores_file.parent / "types.csv"
    shown = invoke("rank", scores_file, "--method", "mean-type", "--types", types).stdout
    assert "pairs of neighbours" in shown


def test_subset_from_the_command_line(rng: np.random.Generator, tmp_path: Path) -> None:
    from embedlab.evaluate.mmteb.pools import write_beir

    (tmp_path / "words").mkdir()
    write_beir(collection(rng), tmp_path / "words")
    out = tmp_path / "small"
    checks = ["--check", "tfidf", "--check", "bow", "--check", "bm25"]
    options = ["--retriever", "bm25", "--depth", 2, *checks, "--json"]
    found = json.loads(invoke("subset", tmp_path / "words", "--out", out, *options).stdout)
    reduced = load_beir(out)
    assert len(reduced.corpus) == found["documents"] < found["documents_before"] == 120
    assert found["agreement"]["own_pool"] == ["bm25"]
    pools = json.loads((out / "provenance.json").read_text(encoding="utf-8"))["pools"]
    assert set(pools) == set(reduced.queries)
    assert isinstance(CliRunner().invoke(app, ["subset", str(out), "--out", str(out)]).exception, InputError)


def test_files_of_scores_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    for text, says in (
        ("Model,x\na,1\nb\n", "line 3"),
        ("Model,x\na,one\n", "no number"),
        ("Model,x\na,\nb,1\n", "hole"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=says):
            read_scores(path)
    assert read_scores(path, drop_incomplete=True).models == ("b",)
    with pytest.raises(InputError, match="cannot be read"):
        read_scores(tmp_path / "none.csv")
