"""The finance suite: edits, suites, reports, adaptation and published sets, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedlab._core.errors import InputError, MissingDataError
from embedlab.data import load_phrasebank, load_tatqa, load_tatqa_tables
from embedlab.evaluate.finmteb import (
    BASELINES,
    FINANCE_MTEB,
    DomainSuite,
    Lora,
    audit,
    domain_adapt,
    finance_mteb_suite,
    finance_suite,
    number_edit_pairs,
    rank_relation,
    report,
)
from embedlab.evaluate.finmteb.adaptation import _Batches, _keys
from embedlab.evaluate.finmteb.edits import change_meaning, keep_meaning
from embedlab.evaluate.tasks import from_document_summary_scores, from_labels, from_scored_pairs, from_summaries
from embedlab.models import load_model
from embedlab.testing.contract import random_state_kept
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.synthesis import Triplet

pytest.importorskip("mteb")

FIRST = ["profit rose by 5 million", "the loan falls due in May", "tax was paid", "profit profit fell again"]
SECOND = ["profit fell by 5 million", "the loan was paid in May", "rain on the hills", "profit rose again and again"]
SENTENCES = [
    f"In {2000 + i}, {name} sales increased by approximately {i + 12}.{i} million in the first half of the year."
    for i, name in enumerate(["Alpine", "Harbour", "Meadow", "Cedar", "Quarry", "Lagoon", "Summit", "Prairie"] * 3)
]


@pytest.fixture
def data() -> None:
    try:
        load_tatqa()
    except MissingDataError as error:
        pytest.skip(str(error))


def pairs_task(name: str) -> Any:
    return from_scored_pairs(FIRST, SECOND, [3, 2, 0, 1], name=name)


# edits


@pytest.mark.parametrize("seed", range(5))
def test_half_of_the_pairs_change_one_thing_and_half_nothing(seed: int) -> None:
    pairs = number_edit_pairs(SENTENCES, num_pairs=12, seed=seed)
    assert pairs.scores.count(1.0) == pairs.scores.count(0.0) == 6
    assert len(set(pairs.first)) == 12
    for first, second, score in zip(pairs.first, pairs.second, pairs.scores, strict=True):
        assert first != second
        changed = sorted(c for c in first if c.isdigit()) != sorted(c for c in second if c.isdigit())
        one, other = first.split(), second.split()
        if score:
            assert not changed
            assert "increased" in second
        else:
            assert len(one) == len(other)
            assert sum(a != b for a, b in zip(one, other, strict=True)) == 1


def test_edits_are_drawn_by_seed() -> None:
    first, again, other = (number_edit_pairs(SENTENCES, num_pairs=8, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_what_cannot_be_edited_stays() -> None:
    rng = np.random.default_rng(0)
    assert change_meaning("Nothing here.", rng) == "Nothing here."
    assert keep_meaning("Nothing here.", rng) == "Nothing here."
    assert keep_meaning("At December 31, 2019, debt was 7.", rng) == "At December 31, 2019, debt was 7."
    assert change_meaning("It is 11.", rng) == "It is 11."
    assert change_meaning("It is 12.", rng) == "It is 21."
    assert keep_meaning("Prior to May, 5 fell due.", rng, synonyms=True) == "Before May, 5 fell due."


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: number_edit_pairs(SENTENCES, num_pairs=3), "num_pairs=3"),
        (lambda: number_edit_pairs(SENTENCES, kept_edits=0), "kept_edits=0"),
        (lambda: number_edit_pairs(SENTENCES[:2], num_pairs=40), "2 pairs only"),
    ],
)
def test_bad_requests_for_edits(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


# data


@pytest.mark.usefixtures("data")
def test_tatqa_is_what_its_card_says() -> None:
    dev, train = load_tatqa(), load_tatqa("train")
    assert (len(dev.corpus), len(dev.queries)) == (1356, 896)
    assert len(train.queries) == 867
    plain = {" ".join(text.text.lower().split()) for text in dev.corpus.values()}
    assert not [text for text in train.corpus.values() if " ".join(text.text.lower().split()) in plain]
    assert all(uid in train.corpus for grades in train.qrels.values() for uid in grades)
    assert len(load_tatqa_tables()) == 278
    assert {uid for table in load_tatqa_tables() for uid in table.paragraphs} == set(dev.corpus)
    with pytest.raises(InputError, match="dev"):
        load_tatqa("devel")


@pytest.mark.usefixtures("data")
def test_phrasebank_is_read_as_latin_1() -> None:
    sure, half = load_phrasebank(), load_phrasebank("half")
    assert (len(sure.texts), len(half.texts)) == (2264, 4846)
    assert set(half.labels) == {"positive", "negative", "neutral"}
    assert any("ä" in text for text in half.texts)


@pytest.mark.usefixtures("data")
def test_the_finance_suite_has_all_seven_types(tmp_path: Path) -> None:
    suite = finance_suite(max_items=40)
    assert len(suite.tasks) == 9
    kinds = {"Retrieval", "Reranking", "Classification", "Clustering", "STS", "PairClassification", "Summarization"}
    assert set(suite.types.values()) == kinds
    quick = finance_suite(["tatqa-reranking", "tatqa-summaries", "banking-pairs"], max_items=40)
    general = DomainSuite("general-test", [pairs_task("general-pairs")])
    found = report(general, quick, ["default"], cache=tmp_path)
    assert [run.model for run in found.domain_scores.runs] == ["bow", "tfidf", "bm25", "default"]
    means = found.means(domain=True)
    assert means["default"].keys() == {"Reranking", "Summarization", "PairClassification", "average"}
    assert means["bm25"].keys() == {"Reranking"}  # it only searches
    assert 0.3 < means["default"]["Reranking"].estimate < 0.99  # neither hopeless nor too easy to tell anything


# suites and reports


def test_a_suite_is_a_benchmark_of_mteb() -> None:
    import mteb

    suite = DomainSuite("Test finance", [pairs_task("test-a"), pairs_task("test-b")], types={"test-b": "Summarization"})
    assert [task.metadata.name for task in mteb.get_benchmark("Test finance").tasks] == ["test-a", "test-b"]
    assert suite.type_means({"test-a": 0.2, "test-b": 0.6}) == {"STS": 0.2, "Summarization": 0.6}
    assert suite.type_means({"test-a": 0.2}) == {"STS": 0.2}
    DomainSuite("Test finance", [pairs_task("test-c")])  # may be replaced
    assert len(mteb.get_benchmark("Test finance").tasks) == 1


def test_bag_of_words_through_the_suite_is_the_cosine_of_counts(tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.metrics.pairwise import paired_cosine_distances

    counts = CountVectorizer().fit(FIRST + SECOND)
    wanted = 1 - paired_cosine_distances(counts.transform(FIRST), counts.transform(SECOND))
    suites = [DomainSuite(f"bow-{side}", [pairs_task(f"bow-{side}")]) for side in ("general", "domain")]
    found = report(*suites, cache=tmp_path)
    np.testing.assert_allclose(found.domain_scores.run("bow").tasks["bow-domain"].values, wanted, atol=1e-6)
    assert {run.model for run in found.domain_scores.runs} == set(BASELINES)


def test_a_report_holds_scores_means_intervals_and_ranks(tmp_path: Path) -> None:
    texts = [f"{topic} report number {i}" for i in range(12) for topic in ("tax", "debt", "weather")]
    labels = [text.split()[0] for text in texts]
    general = DomainSuite("g", [pairs_task("g-pairs"), from_labels(texts, labels, name="g-topics")])
    domain = DomainSuite(
        "d", [pairs_task("d-pairs"), pairs_task("d-more"), from_labels(texts, labels, name="d-topics")]
    )
    found = report(general, domain, ["default", "lsa"], cache=tmp_path)
    means = found.means(domain=True)["tfidf"]
    scores = found.domain_scores.run("tfidf").tasks
    assert means["STS"].estimate == pytest.approx((scores["d-pairs"].score + scores["d-more"].score) / 2)
    assert means["average"].estimate == pytest.approx((means["STS"].estimate + means["Classification"].estimate) / 2)
    assert means["STS"].low <= means["STS"].estimate <= means["STS"].high
    text = found.to_markdown()
    for word in ("d-pairs (STS)", "General against domain", "rank", "default", "bm25"):
        assert word in text
    assert any("one task" in note for note in found.notes())
    data, _ = found.write(tmp_path / "out")
    told = json.loads(data.read_text())
    assert told["means"]["d"]["tfidf"]["STS"]["estimate"] == pytest.approx(means["STS"].estimate)
    assert found.to_tables()


def test_rank_relation_of_opposite_and_of_tied_orders() -> None:
    up = {name: float(place) for place, name in enumerate("abcdefg")}
    down = {name: -value for name, value in up.items()}
    relation = rank_relation(up, down)
    assert relation is not None
    assert relation.spearman.estimate == pytest.approx(-1)
    assert relation.pvalue == pytest.approx(2 / 5040)  # of all orders, only this one and its mirror image
    assert rank_relation(up, dict.fromkeys(up, 1.0)) is None
    assert rank_relation({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}) is None
    many = {f"m{i}": float(i) for i in range(12)}
    far = rank_relation(many, many)
    assert far is not None
    assert 0 < far.pvalue < 0.001


# both kinds of summarisation


def test_summarisation_as_similarity_and_by_mteb_are_two_tasks() -> None:
    ours = from_document_summary_scores(FIRST, SECOND, [3, 2, 0, 1], name="summaries-as-sts")
    theirs = from_summaries(
        ["a text"],
        [["what a person wrote"]],
        [["one", "another", "a third"]],
        [[1.0, 0.5, 0.0]],
        name="summaries-of-mteb",
    )
    assert (ours.metadata.type, theirs.metadata.type) == ("STS", "Summarization")
    suite = DomainSuite("two kinds", [ours, theirs], types={"summaries-as-sts": "Summarization"})
    assert set(suite.types.values()) == {"Summarization"}


# adaptation

TRIPLETS = [Triplet(f"query {i} about cash", f"passage {i} on cash and debt", (f"other {i} thing",)) for i in range(24)]


def tiny() -> Any:
    return tiny_encoder([text for each in TRIPLETS for text in (each.query, each.positive, *each.negatives)], seed=0)


def test_adapting_learns_keeps_the_input_and_repeats_itself() -> None:
    model = tiny()
    before = model.encode(["query 3 about cash"])
    with random_state_kept("adapting"):
        first = domain_adapt(model, TRIPLETS, steps=8, batch_size=8, learning_rate=1e-2, seed=1)
    again = domain_adapt(model, TRIPLETS, steps=8, batch_size=8, learning_rate=1e-2, seed=1)
    assert (model.encode(["query 3 about cash"]) == before).all()
    assert (first.model.encode(["query 3 about cash"]) != before).any()
    assert first.losses == again.losses
    assert len(first.losses) == 8
    assert np.mean(first.losses[4:]) < np.mean(first.losses[:4])


def test_the_instruction_goes_to_queries_only() -> None:
    text = "query 3 about cash"
    found = domain_adapt(tiny(), TRIPLETS, instruction="query about ", steps=2, batch_size=4).model
    plain = found.encode([text])
    np.testing.assert_allclose(found.encode_document([text]), plain, atol=1e-6)
    np.testing.assert_allclose(found.encode_query([text]), found.encode(["query about " + text]), atol=1e-6)
    assert np.abs(found.encode_query([text]) - plain).max() > 1e-3


@pytest.mark.parametrize("options", [{"lora": Lora(rank=2)}, {"last_layers": 1}, {"chunk_size": 2}])
def test_ways_to_adapt(options: dict[str, Any]) -> None:
    whole = sum(weight.numel() for weight in tiny().parameters())
    found, again = (
        domain_adapt(tiny(), TRIPLETS, steps=3, batch_size=6, learning_rate=1e-2, **options) for _ in range(2)
    )
    assert found.losses == again.losses
    assert len(found.losses) == 3
    assert np.isfinite(found.model.encode(["query 1"])).all()
    assert (found.trained_parameters == whole) == ("chunk_size" in options)
    assert not [name for name, _ in found.model.named_parameters() if "lora" in name]


def test_no_batch_holds_a_text_or_a_group_twice() -> None:
    triplets = [Triplet(f"q{i}", f"p{i // 2}") for i in range(40)]
    groups = [i % 10 for i in range(40)]
    batches = _Batches(_keys(triplets, groups, 8), 8, seed=0)
    seen = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        for batch in batches:
            assert len(batch) == 8
            assert len({triplets[i].positive for i in batch}) == 8
            assert len({groups[i] for i in batch}) == 8
            seen.append(tuple(batch))
    assert len(set(seen)) == len(seen) >= 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 64}, "only 24 triplets"),
        ({"temperature": 0.0}, "temperature"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"warmup": 1.0}, "warmup"),
        ({"lora": Lora(rank=0), "batch_size": 4}, "rank"),
        ({"lora": Lora(), "last_layers": 1, "batch_size": 4}, "exclude"),
        ({"last_layers": 99, "batch_size": 4}, "last_layers=99"),
        ({"groups": [1] * 24, "batch_size": 4}, "1 groups"),
        ({"groups": [1], "batch_size": 4}, "groups has 1"),
    ],
)
def test_bad_settings_of_adaptation(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        domain_adapt(tiny(), TRIPLETS, **options)
    with pytest.raises(InputError, match="negatives"):
        domain_adapt(tiny(), [*TRIPLETS, Triplet("a", "b")], batch_size=4)


# audit


def test_the_audit_tells_copied_queries_from_human_ones() -> None:
    names = ["Alpine", "Harbour", "Meadow", "Cedar", "Quarry", "Lagoon", "Summit", "Prairie"]
    passages = [f"{name} lodge: earnings were weak and debts high" for name in names]
    copied = [(passage, passage) for passage in passages]
    human = [(f"how profitable was it in {i}", passage) for i, passage in enumerate(passages)]
    found = audit(copied, passages, human=human, encoder=load_model())
    assert found.synthetic.found_first.estimate == found.synthetic.shared_words.estimate == 1.0
    assert found.human is not None
    assert found.human.shared_words.estimate == 0.0
    assert found.shift is not None
    assert found.shift.q < 0.1  # copies of passages lie outside the questions
    assert len(found.straying) == 5
    assert audit(copied, passages).shift is None
    with pytest.raises(InputError, match="pairs has 1"):
        audit(copied[:1], passages)


# published sets


def fake_hub(path: str, subset: str, split: str, revision: str) -> Iterable[Mapping[str, Any]]:
    assert len(revision) == 40
    topics = ["tax", "debt", "rent", "cash"] * 8
    kind = next(known.type for known in FINANCE_MTEB.values() if known.path == path)
    if kind == "Retrieval":
        if subset == "corpus":
            return [{"_id": i, "title": "", "text": f"note {i} on {topic}"} for i, topic in enumerate(topics[:4])]
        if subset == "queries":
            return [{"_id": f"q{i}", "text": f"what about {topic}"} for i, topic in enumerate(topics[:4])]
        return [{"query-id": f"q{i}", "corpus-id": i, "score": 1} for i in range(4)]
    rows: dict[str, Callable[[int, str], dict[str, Any]]] = {
        "STS": lambda i, topic: {"sentence1": topic, "sentence2": f"{topic} {i}", "score": i / 32},
        "Summarization": lambda i, topic: {"text": topic, "summary": f"{topic} {i}", "score": i / 32},
        "PairClassification": lambda i, topic: {"sent1": topic, "sent2": f"{topic} {i}", "labels": i % 2},
        "Classification": lambda i, topic: {"sentence": f"{split} {topic} {i}", "label": i % 4},
        "Clustering": lambda i, topic: {"sentences": [f"{topic} {i}", f"more {topic} {i}"], "labels": [i % 4, i % 4]},
        "Reranking": lambda i, topic: {"query": topic, "positive": [f"{topic} {i}"], "negative": ["rain", "hail"]},
    }
    return [rows[kind](i, topic) for i, topic in enumerate(topics)]


def test_published_sets_become_tasks_of_all_types() -> None:
    suite = finance_mteb_suite(read=fake_hub)
    assert set(suite.types.values()) == {
        "Retrieval", "Reranking", "Classification", "Clustering", "STS", "PairClassification", "Summarization",
    }  # fmt: skip
    assert len(suite.tasks) == len(FINANCE_MTEB)
    with pytest.raises(InputError, match="FinSTS"):
        finance_mteb_suite(["FinST"])
    with pytest.raises(InputError, match="no column 'sentence1'"):
        finance_mteb_suite(["FinSTS"], read=lambda *_: [{"text": "a"}])
