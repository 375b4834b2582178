"""Tasks from data of one's own: their scores against oracles written by hand, and bad data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.evaluate import tasks
from embedlab.evaluate.ranking import best_first
from embedlab.evaluate.run import evaluate

from .conftest import VectorEncoder

ANGLES = {"north": 90.0, "north-east": 50.0, "east": 5.0, "south-east": -40.0, "south": -95.0, "west": 178.0}


def compass() -> VectorEncoder:
    """Texts as directions on a compass, so that every cosine is known."""

    def vector(text: str) -> np.ndarray:
        angle = math.radians(ANGLES.get(text, 0.0))
        return np.array([math.cos(angle), math.sin(angle)])

    return VectorEncoder(vector, "compass", 3)


def cosine(one: str, other: str) -> float:
    return math.cos(math.radians(ANGLES[one] - ANGLES[other]))


def score(task: Any, tmp_path: Path, encoder: VectorEncoder | None = None) -> Any:
    return evaluate([encoder or compass()], [task], cache=tmp_path, costs=False).runs[0].tasks[task.metadata.name]


def ranking(query: str, among: list[str]) -> list[str]:
    return sorted(among, key=lambda text: -cosine(query, text))


def test_retrieval_is_ndcg_by_the_book(tmp_path: Path) -> None:
    corpus = {text: text for text in ANGLES if text != "north"}
    qrels = {"q": {"south": 2, "east": 1, "west": 0}}
    task = tasks.from_corpus(corpus, {"q": "north"}, qrels, name="hand-retrieval")
    order = ranking("north", list(corpus))
    gains = [qrels["q"].get(text, 0) / math.log2(place + 2) for place, text in enumerate(order)]
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    found = score(task, tmp_path)
    assert found.score == pytest.approx(sum(gains) / ideal, abs=1e-5)  # mteb rounds to five places
    assert found.values == pytest.approx([sum(gains) / ideal], abs=1e-9)
    assert (found.unit, found.items, found.lengths.tolist()) == ("query", ("q",), [5])


def test_reranking_is_average_precision_among_the_candidates(tmp_path: Path) -> None:
    corpus = {text: text for text in ANGLES}
    candidates = {"q": ["south", "east", "west", "south-east"]}
    qrels = {"q": {"east": 1, "south": 1, "north": 1}}  # north is no candidate: never found
    task = tasks.from_reranking(corpus, {"q": "north-east"}, qrels, candidates, name="hand-reranking")
    hits, precisions = 0, []
    for place, text in enumerate(ranking("north-east", candidates["q"])):
        if text in qrels["q"]:
            hits += 1
            precisions.append(hits / (place + 1))
    assert score(task, tmp_path).score == pytest.approx(sum(precisions) / 3, abs=1e-5)


def test_similarity_is_spearman(tmp_path: Path) -> None:
    pairs = [("north", "north-east"), ("north", "east"), ("north", "south"), ("east", "west"), ("south", "west")]
    gold = [3.0, 4.0, 1.0, 2.0, 2.5]
    task = tasks.from_scored_pairs([one for one, _ in pairs], [other for _, other in pairs], gold, name="hand-sts")
    found = [cosine(*pair) for pair in pairs]
    places = [sorted(found).index(value) - sorted(gold).index(want) for value, want in zip(found, gold, strict=True)]
    n = len(pairs)
    expected = 1 - 6 * sum(gap**2 for gap in places) / (n * (n**2 - 1))  # the formula for no ties
    result = score(task, tmp_path)
    assert result.score == pytest.approx(expected, abs=1e-9)
    assert result.values == pytest.approx(found, abs=1e-6)
    assert result.gold.tolist() == gold


def test_document_and_summary_are_a_similarity_task(tmp_path: Path) -> None:
    documents, summaries = ["north", "north", "north", "north"], ["north", "north-east", "east", "south"]
    task = tasks.from_document_summary_scores(documents, summaries, [5, 4, 2, 1], name="hand-document-summary")
    assert task.metadata.type == "STS"
    assert score(task, tmp_path).score == pytest.approx(1.0)


def test_pairs_are_average_precision(tmp_path: Path) -> None:
    pairs = [("north", "north-east"), ("north", "east"), ("north", "south"), ("east", "west"), ("east", "south-east")]
    labels = [1, 0, 1, 0, 1]
    task = tasks.from_labelled_pairs([a for a, _ in pairs], [b for _, b in pairs], labels, name="hand-pairs")
    order = sorted(range(5), key=lambda place: -cosine(*pairs[place]))
    hits, precisions = 0, []
    for rank, place in enumerate(order):
        hits += labels[place]
        if labels[place]:
            precisions.append(hits / (rank + 1))
    found = score(task, tmp_path)
    assert found.scores["cosine_ap"] == pytest.approx(sum(precisions) / 3)
    assert found.score >= found.scores["cosine_ap"] - 1e-12


def test_bitext_is_f1_weighted_by_class(tmp_path: Path) -> None:
    first, second = ["north", "east", "south", "west"], ["north-east", "south-east", "south", "south"]
    task = tasks.from_bitext(first, second, name="hand-bitext")
    nearest = [max(range(4), key=lambda place: (round(cosine(text, second[place]), 9), -place)) for text in first]
    found = score(task, tmp_path)
    assert set(found.values[:3]) <= {0.0, 1.0}
    assert found.values[:2].tolist() == [float(nearest[0] == 0), float(nearest[1] == 1)]
    assert found.scores["accuracy"] == pytest.approx(found.values.mean())
    right = found.values.astype(bool)
    assert right[2] != right[3] or not right[3]  # one of two equal translations is drawn


def test_classification_is_the_share_of_right_texts(tmp_path: Path) -> None:
    train = (["north", "north-east", "south", "west"], ["up", "up", "down", "down"])
    task = tasks.from_labels(
        ["north", "north-east", "south-east", "west"], ["up", "up", "down", "up"], name="hand-classes", train=train
    )
    found = score(task, tmp_path)
    assert found.values.tolist() == [1.0, 1.0, 1.0, 0.0]  # the last is labelled wrongly on purpose
    assert found.score == pytest.approx(0.75)


def test_clusters_that_are_there_are_found(tmp_path: Path) -> None:
    texts = [f"{way} {number}" for number in range(20) for way in ("north", "south")]
    encoder = VectorEncoder(lambda text: np.array([1.0, 0.01] if "north" in text else [-1.0, 0.01]), "two-ways", 4)
    task = tasks.from_labels(texts, [text.split()[0] for text in texts], name="hand-clusters", kind="clustering")
    found = score(task, tmp_path, encoder)
    assert found.score == pytest.approx(1.0)
    assert (found.unit, len(found.items)) == ("repeat", 10)


def test_summaries_are_the_mean_correlation_of_the_nearest_human_summary(tmp_path: Path) -> None:
    human = [["north", "east"], ["south"]]
    machine = [["north-east", "south", "west", "south-east"], ["west", "east", "south-east"]]
    gold = [[3.0, 1.0, 2.0, 4.0], [2.0, 1.0, 3.0]]
    task = tasks.from_summaries(["text one", "text two"], human, machine, gold, name="hand-summaries")

    def spearman(found: list[float], wanted: list[float]) -> float:
        n = len(found)
        gaps = [sorted(found).index(a) - sorted(wanted).index(b) for a, b in zip(found, wanted, strict=True)]
        return 1 - 6 * sum(gap**2 for gap in gaps) / (n * (n**2 - 1))

    expected = [
        spearman([max(cosine(text, person) for person in people) for text in texts], wanted)
        for people, texts, wanted in zip(human, machine, gold, strict=True)
    ]
    found = score(task, tmp_path)
    assert found.values == pytest.approx(expected)
    assert found.score == pytest.approx(np.mean(expected))


@dataclass
class FakePassage:
    id: str
    source: str
    title: str
    text: str


class FakeCollection:
    name = "notes"

    def __init__(self, *passages: FakePassage) -> None:
        self._passages = passages

    def passages(self) -> tuple[FakePassage, ...]:
        return self._passages


def test_a_collection_is_asked_for_titles_that_its_passages_no_longer_hold() -> None:
    body = "leaves are steeped in hot water for three minutes and then taken out."
    collection = FakeCollection(
        FakePassage("1", "a", "Green  Tea", f"green tea\n\n{body}"),
        FakePassage("2", "a", "Green  Tea", f"Second part about GREEN TEA: {body}"),
        FakePassage("3", "b", "", f"Untitled: {body}"),
        FakePassage("4", "c", "Short", "Short and nothing more"),
    )
    task = tasks.from_collection(collection, name="notes-by-title")
    split = task.dataset["default"]["test"]
    assert split["queries"]["text"] == ["Green Tea"]
    assert split["relevant_docs"] == {"green tea": {"1": 1, "2": 1}}
    assert not any("green tea" in text.lower() for text in split["corpus"]["text"])
    assert list(split["corpus"]["id"]) == ["1", "2", "3"]


def test_a_collection_is_asked_for_first_sentences() -> None:
    first = "Tea leaves of this kind are steeped in hot water."
    rest = "They are taken out after three minutes or so."
    passages = [FakePassage("1", "a", "", f"{first} {rest}"), FakePassage("2", "b", "", f"{first} {rest}!")]
    task = tasks.from_collection(
        FakeCollection(*passages, FakePassage("3", "c", "", "No sentence")), queries="first_sentence"
    )
    split = task.dataset["default"]["test"]
    assert list(split["queries"]["text"]) == [first]
    assert split["relevant_docs"] == {"1": {"1": 1, "2": 1}}
    assert not any(first in text for text in split["corpus"]["text"])
    with pytest.raises(InputError, match="no query of kind 'title'"):
        tasks.from_collection(FakeCollection(*passages))


def test_titles_and_texts_are_joined_as_mteb_joins_them() -> None:
    from embedlab.data.datasets import Text
    from embedlab.evaluate.encoders import document_texts

    corpus = {"a": Text("Tea", "is hot. "), "b": {"title": "", "text": " plain "}, "c": {"title": None, "text": "x"}}
    task = tasks.from_corpus(corpus, {"q": "tea"}, {"q": {"a": 1}}, name="joined")
    assert document_texts(task.dataset["default"]["test"]["corpus"]) == ["Tea is hot.", "plain", "x"]


CORPUS, QUERIES, QRELS = {"d": "text"}, {"q": "query"}, {"q": {"d": 1}}
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "empty corpus": (lambda: tasks.from_corpus({}, QUERIES, QRELS, name="bad"), "corpus is empty"),
    "empty queries": (lambda: tasks.from_corpus(CORPUS, {}, QRELS, name="bad"), "queries is empty"),
    "no judgements": (lambda: tasks.from_corpus(CORPUS, QUERIES, {}, name="bad"), "qrels judges no document"),
    "only grade 0": (
        lambda: tasks.from_corpus(CORPUS, QUERIES, {"q": {"d": 0}}, name="bad"),
        "qrels judges no document",
    ),
    "missing document": (
        lambda: tasks.from_corpus(CORPUS, QUERIES, {"q": {"d": 1, "gone": 1}}, name="bad"),
        "judges 'gone'.*on_missing='drop'",
    ),
    "missing query": (lambda: tasks.from_corpus(CORPUS, QUERIES, {**QRELS, "gone": {"d": 1}}, name="bad"), "'gone'"),
    "grade below 0": (lambda: tasks.from_corpus(CORPUS, QUERIES, {"q": {"d": -1}}, name="bad"), "grade"),
    "half a grade": (lambda: tasks.from_corpus(CORPUS, QUERIES, {"q": {"d": 0.5}}, name="bad"), "grade"),  # type: ignore[dict-item]
    "no text": (lambda: tasks.from_corpus({"d": None}, QUERIES, QRELS, name="bad"), r"corpus\['d'\] is None"),
    "no candidates": (lambda: tasks.from_reranking(CORPUS, QUERIES, QRELS, {}, name="bad"), "candidates has none"),
    "unknown candidate": (
        lambda: tasks.from_reranking(CORPUS, QUERIES, QRELS, {"q": ["gone"]}, name="bad"),
        "not in the corpus",
    ),
    "other lengths": (lambda: tasks.from_scored_pairs(["a"], ["b", "c"], [1, 2, 3], name="bad"), "lengths differ"),
    "constant scores": (lambda: tasks.from_scored_pairs(["a"] * 3, ["b"] * 3, [2, 2, 2], name="bad"), "all 2.0"),
    "NaN score": (lambda: tasks.from_scored_pairs(["a"] * 3, ["b"] * 3, [1, 2, math.nan], name="bad"), "finite"),
    "two pairs": (lambda: tasks.from_scored_pairs(["a"] * 2, ["b"] * 2, [1, 2], name="bad"), "at least 3"),
    "third label": (lambda: tasks.from_labelled_pairs(["a"] * 3, ["b"] * 3, [0, 1, 2], name="bad"), "labels holds 2"),
    "one label": (lambda: tasks.from_labelled_pairs(["a"] * 3, ["b"] * 3, [1, 1, 1], name="bad"), "one class"),
    "one class": (lambda: tasks.from_labels(["a", "b"], ["x", "x"], name="bad"), "one class"),
    "one cluster": (lambda: tasks.from_labels(["a", "b"], ["x", "x"], name="bad", kind="clustering"), "one class"),
    "lonely class": (lambda: tasks.from_labels(["a", "b", "c"], ["x", "x", "y"], name="bad"), "'y' once"),
    "untrained class": (
        lambda: tasks.from_labels(["a", "b"], ["x", "y"], train=(["c", "d"], ["x", "x"]), name="bad"),
        "train does not",
    ),
    "unknown kind": (lambda: tasks.from_labels(["a"], ["x"], kind="sorting", name="bad"), "kind='sorting'"),  # type: ignore[arg-type]
    "no class": (lambda: tasks.from_labels(["a", "b"], ["x", ""], name="bad"), "a class is a name"),
    "one translation": (lambda: tasks.from_bitext(["a"], ["b"], name="bad"), "at least 2"),
    "equal summaries": (
        lambda: tasks.from_summaries(["t"], [["h"]], [["m", "n"]], [[1, 1]], name="bad"),
        "equal within every text",
    ),
    "one summary": (lambda: tasks.from_summaries(["t"], [["h"]], [["m"]], [[1]], name="bad"), "two machine summaries"),
    "mteb's name": (lambda: tasks.from_corpus(CORPUS, QUERIES, QRELS, name="SciFact"), "mteb ships a task"),
    "no name": (lambda: tasks.from_corpus(CORPUS, QUERIES, QRELS, name=" "), "needs a name"),
    "no language": (lambda: tasks.from_corpus(CORPUS, QUERIES, QRELS, name="bad", language="English"), "refuses"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_data_are_one_clear_error(what: str) -> None:
    make, says = BAD[what]
    with pytest.raises(InputError, match=says):
        make()


def test_queries_without_judgements_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    queries = {"q": "one", "unjudged": "two", "irrelevant": "three"}
    task = tasks.from_corpus(
        CORPUS,
        queries,
        {**QRELS, "irrelevant": {"d": 0}},
        name="partly",
        languages=["eng-Latn", "deu-Latn", "fra-Latn"],
    )
    assert list(task.dataset["default"]["test"]["queries"]["id"]) == ["q"]
    assert "2 of 3 queries" in caplog.text
    assert task.item_languages == ("eng-Latn",)


def test_judgements_of_missing_documents_can_be_dropped() -> None:
    qrels = {"q": {"d": 1, "gone": 1}, "gone": {"d": 1}}
    task = tasks.from_corpus(CORPUS, QUERIES, qrels, name="dropping", on_missing="drop")
    assert task.dataset["default"]["test"]["relevant_docs"] == {"q": {"d": 1}}


def test_texts_that_are_trained_and_tested_on_are_told(caplog: pytest.LogCaptureFixture) -> None:
    tasks.from_labels(["a", "b"], ["x", "y"], train=(["a", "c"], ["x", "y"]), name="leaky")
    assert "1 of 2 test texts are among the training texts" in caplog.text


def test_another_text_is_another_revision_and_mteb_knows_the_task() -> None:
    import mteb

    one = tasks.from_corpus(CORPUS, QUERIES, QRELS, name="revised")
    same = tasks.from_corpus(CORPUS, QUERIES, QRELS, name="revised")
    other = tasks.from_corpus({"d": "another text"}, QUERIES, QRELS, name="revised")
    assert one.metadata.revision == same.metadata.revision != other.metadata.revision
    found = mteb.get_task("revised")
    found.load_data()
    assert list(found.dataset["default"]["test"]["corpus"]["text"]) == ["another text"]


def test_ties_are_drawn_and_returned_without_ties() -> None:
    values = np.zeros(50)
    firsts = [int(best_first(values, top_k=50, lot=(0, seed))[0][0]) for seed in range(40)]
    assert len(set(firsts)) > 15
    places, scores = best_first(np.array([0.0, -0.0, 1.0, -1.0, 0.5]), top_k=5, lot=(0, 0))
    assert places.tolist()[:2] == [2, 4]
    assert places.tolist()[-1] == 3
    assert (np.diff(scores) < 0).all()
    assert np.abs(scores - np.array([1, 0.5, 0, 0, -1])).max() < 1e-6
    distinct = np.linspace(1, -1, 30)
    np.testing.assert_array_equal(best_first(distinct, top_k=7, lot=(3, 0))[1], distinct[:7].astype(np.float32))
