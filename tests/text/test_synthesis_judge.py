"""Judges, labels and clusters: constructed data whose right answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedlab import load_model
from embedlab._core.errors import InputError
from embedlab.text.synthesis import (
    ClusterFeedback,
    LLMJudge,
    TemplateGenerator,
    Triplet,
    as_judge,
    assignment_entropy,
    distillation_rows,
    drop_false_labels,
    relabel_with_ranker,
)


class Scripted:
    """A model whose scores are a function of prompt and options."""

    name = "scripted"

    def __init__(self, score: Any) -> None:
        self._score, self.asked = score, []  # type: ignore[var-annotated]

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        return ['{"name": "a name"}'] * len(prompts)

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        self.asked.append(prompt)
        return list(self._score(prompt, options))


def always_first(prompt: str, options: Sequence[str]) -> list[float]:
    return [0.0, *[-50.0] * (len(options) - 1)]


def by_content(word: str) -> Any:
    """Prefer the side whose text holds the word."""

    def score(prompt: str, options: Sequence[str]) -> list[float]:
        return [5.0 * (word in prompt.split(f"<{option}>")[1].split(f"</{option}>")[0]) for option in options]

    return score


def test_a_judge_that_looks_at_the_place_only_is_seen_through() -> None:
    found = LLMJudge(Scripted(always_first)).preference("q", "one", "two")
    assert (found.first, found.order_gap) == (pytest.approx(0.5), pytest.approx(1.0))
    trusting = LLMJudge(Scripted(always_first), both_orders=False).preference("q", "one", "two")
    assert (trusting.first, trusting.order_gap) == (pytest.approx(1.0), 0.0)
    scores = LLMJudge(Scripted(always_first)).rerank("q", ["a", "b", "c"])
    assert sorted(scores.round(3).tolist()) == [0.0, 0.5, 0.5]  # the ends of the list, one in each order


def test_a_judge_that_reads_wins_in_both_orders() -> None:
    judge = LLMJudge(Scripted(by_content("right")))
    found = judge.preference("q", "the right one", "another")
    assert found.first == pytest.approx(1 / (1 + np.exp(-5)))
    assert found.order_gap == pytest.approx(0)
    scores = judge.rerank("q", ["no", "yes right", "no no", "nothing"])
    assert scores.argmax() == 1
    assert scores.sum() == pytest.approx(1)
    with pytest.raises(InputError, match="27 candidates"):
        judge.rerank("q", ["x"] * 27)


def test_grades_are_means_over_the_models_chances() -> None:
    chances = {"0": 0.0, "1": 0.0, "2": 0.5, "3": 0.5}
    judge = LLMJudge(Scripted(lambda _, options: [np.log(chances[o] + 1e-30) for o in options]))
    assert judge.relevance([("q", "p")]).tolist() == [pytest.approx(2.5)]


def test_similarity_asks_both_orders_and_averages_them() -> None:
    model = Scripted(lambda prompt, options: [30.0 * (o == ("5" if "<first>\na" in prompt else "1")) for o in options])
    assert LLMJudge(model).similarity([("a", "b")]).tolist() == [pytest.approx(3.0, abs=1e-6)]
    assert len(model.asked) == 2
    assert LLMJudge(TemplateGenerator()).similarity([("a b", "a b"), ("a b", "c d")]).round(1).tolist() == [4.8, 0.2]


def test_cross_encoders_and_functions_judge_too() -> None:
    class Cross:
        def predict(self, pairs: list[tuple[str, str]], show_progress_bar: bool) -> np.ndarray:
            return np.array([len(passage) for _, passage in pairs], dtype=np.float32)

    assert as_judge(Cross()).relevance([("q", "abc")]).tolist() == [3.0]
    with pytest.raises(InputError, match="one number each"):
        as_judge(lambda pairs: [1.0]).relevance([("q", "a"), ("q", "b")])
    with pytest.raises(InputError, match="judge=3"):
        as_judge(3)


TOPICS = ("boiler", "sonnet", "glacier", "ledger")
PASSAGES = [f"{kind} {topic} {topic}" for topic in TOPICS for kind in ("vague remarks on the", "the answer about the")]


def knows(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Score 2 for the answer on the topic, 1 for remarks on it, 0 otherwise."""
    return [(query.split()[-1] in p) * (1 + ("answer" in p)) for query, p in pairs]


def test_a_better_positive_and_a_harder_negative_are_found() -> None:
    pairs = [(f"what about the {topic}", PASSAGES[2 * i]) for i, topic in enumerate(TOPICS)]
    found = relabel_with_ranker(pairs, PASSAGES, load_model(), knows, top_k=3)
    for i, each in enumerate(found):
        assert each.triplet.positive == PASSAGES[2 * i + 1]
        assert each.changed
        assert each.seed_rank == 2
        assert each.seed_positive == PASSAGES[2 * i]
        assert TOPICS[i] not in each.triplet.negatives[0]
        assert each.scores == (2.0, 0.0)
    right = [(query, each.triplet.positive) for (query, _), each in zip(pairs, found, strict=True)]
    assert not any(each.changed for each in relabel_with_ranker(right, PASSAGES, load_model(), knows, top_k=3))
    same = relabel_with_ranker(pairs, PASSAGES, load_model(), lambda all_: [0.0] * len(all_), top_k=3)
    assert not any(each.changed for each in same)  # among equals the seed stays
    with pytest.raises(InputError, match="no candidate"):
        relabel_with_ranker(pairs[:1], PASSAGES[:1], load_model(), knows)


def test_false_positives_and_false_negatives_go() -> None:
    query = "what about the boiler"
    given = [
        Triplet(query, PASSAGES[1], (PASSAGES[0], PASSAGES[2])),  # remarks score 1 against 2
        Triplet(query, PASSAGES[3], (PASSAGES[5],)),  # not about boilers
        Triplet(query, PASSAGES[1], (PASSAGES[1] + " indeed",)),  # its only negative is an answer
        Triplet(query, PASSAGES[1]),
    ]
    kept, report = drop_false_labels(given, knows, least=1.0, margin=1.0)
    assert kept == [Triplet(query, PASSAGES[1], (PASSAGES[2],)), Triplet(query, PASSAGES[1])]
    assert (report.false_positives, report.false_negatives, report.emptied) == (1, 2, 1)
    assert report.scores.tolist() == [2, 0, 2, 2]
    with pytest.raises(InputError, match="margin"):
        drop_false_labels(given, knows, margin=-1)


def test_labels_of_a_teacher_fit_the_hosts_losses() -> None:
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss
    from sentence_transformers.util import pairwise_cos_sim

    from embedlab.models.sentence_transformer import SentenceTransformerModel
    from embedlab.testing.tiny import tiny_encoder

    triplets = [
        Triplet(f"what about the {t}", PASSAGES[2 * i], (PASSAGES[2 * i - 1], PASSAGES[2 * i - 2]))
        for i, t in enumerate(TOPICS)
    ]
    host = tiny_encoder([text for each in triplets for text in (each.query, each.positive)])
    teacher = SentenceTransformerModel.of(host, name="tiny")
    for objective, loss in (("margin", MarginMSELoss), ("kl", DistillKLDivLoss)):
        rows = distillation_rows(triplets, teacher, objective=objective)  # type: ignore[arg-type]
        assert list(rows) == ["query", "positive", "negative_1", "negative_2", "label"]
        columns = [host.preprocess(rows[name]) for name in list(rows)[:-1]]
        value = loss(host, similarity_fct=pairwise_cos_sim)(columns, torch.tensor(rows["label"]))
        assert value.item() == pytest.approx(0, abs=1e-6)  # the student is the teacher
    single = distillation_rows([Triplet("a", "b", ("c",))], lambda pairs: [0.9, 0.2])
    assert single["label"] == [pytest.approx(0.7)]
    with pytest.raises(InputError, match="same number"):
        distillation_rows([*triplets, Triplet("a", "b")], teacher)
    with pytest.raises(InputError, match="margin"):
        distillation_rows(triplets, teacher, objective="marging")  # type: ignore[arg-type]


def test_the_recipe_distill_learns_the_teachers_margins(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from embedlab.testing.tiny import tiny_encoder
    from embedlab.text.training.run import train

    rows = [
        {"anchor": f"what about the {t}", "positive": PASSAGES[2 * i], "negative_1": PASSAGES[2 * i - 1]}
        for i, t in enumerate(TOPICS)
    ]
    student = tiny_encoder([text for row in rows for text in row.values()])
    for objective in ("margin", "kl"):
        report = train(
            "distill",
            model=student,
            data=rows,
            out=tmp_path / objective,
            teacher="default",
            objective=objective,
            steps=8,
            batch_size=4,
            learning_rate=1e-3,
            evaluate=False,
        )
        losses = list(report.arm.losses.values())
        assert losses[-1] < losses[0]
    with pytest.raises(InputError, match="teacher"):
        train("distill", model=student, data=rows, out=tmp_path / "none", steps=2, evaluate=False)


def cloud(seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Three clusters of eight texts, and one text between the first two that belongs to the second."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], 8)
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 20.0]])
    vectors = centres[labels] + rng.normal(scale=0.3, size=(24, 2))
    texts = [f"{'abc'[label]} text {i}" for i, label in enumerate(labels)]
    return [*texts, "b stray"], np.vstack([vectors, [[2.8, 0.0]]]), np.append(labels, 0)


def same_letter(prompt: str, options: Sequence[str]) -> list[float]:
    """Answer both kinds of questions by the first letter of the texts."""

    def letter(tag: str) -> str:
        return prompt.split(f"<{tag}>\n")[1][0]

    if "yes" in options:
        return [5.0 * ((letter("first") == letter("second")) == (option == "yes")) for option in options]
    return [5.0 * (letter(option) == letter("text")) for option in options]


def test_the_doubtful_text_is_asked_about_and_moved() -> None:
    texts, vectors, labels = cloud()
    feedback = ClusterFeedback(Scripted(same_letter))
    assert int(assignment_entropy(vectors, labels).argmax()) == 24
    (question,) = feedback.questions(vectors, labels, most=1)
    assert question.text == 24
    assert {int(labels[question.first]), int(labels[question.second])} == {0, 1}
    moved = feedback.reassign(texts, vectors, labels, most=5)
    assert moved[24] == 1
    np.testing.assert_array_equal(moved[:24], labels[:24])
    assert labels[24] == 0  # the given ones are left alone
    triplets = feedback.triplets(texts, feedback.ask(texts, [question]))
    assert [(t.query, t.positive[0], t.negatives[0][0]) for t in triplets] == [("b stray", "b", "a")]


def test_contradicting_answers_are_dropped() -> None:
    texts, vectors, labels = cloud()
    feedback = ClusterFeedback(Scripted(always_first))
    assert feedback.ask(texts, feedback.questions(vectors, labels, most=10)) == []


def test_entropy_by_a_loop() -> None:
    _, vectors, labels = cloud(1)
    centres = [vectors[labels == k].mean(axis=0) for k in range(3)]
    for row, found in zip(vectors, assignment_entropy(vectors, labels), strict=True):
        near = sorted((1 / (1 + float(((row - centre) ** 2).sum())) for centre in centres), reverse=True)[:2]
        slow = -sum(each / sum(near) * np.log(each / sum(near)) for each in near)
        assert found == pytest.approx(slow)


@pytest.mark.parametrize("merged", [False, True])
def test_the_number_of_clusters_follows_the_answers(merged: bool) -> None:
    texts, vectors, _ = cloud()
    texts, vectors = texts[:24], vectors[:24]
    if merged:  # the first two belong together
        texts = [text.replace("b text", "a text") for text in texts]
    found = ClusterFeedback(Scripted(same_letter)).granularity(texts, vectors, [1, 2, 3, 6, 12], most=200)
    assert found.num_clusters == (2 if merged else 3)
    assert found.agreement[found.num_clusters] == 1.0
    with pytest.raises(InputError, match="sizes"):
        ClusterFeedback(Scripted(same_letter)).granularity(texts, vectors, [0, 3])


def test_clusters_get_names() -> None:
    texts, vectors, labels = cloud()
    assert ClusterFeedback(Scripted(same_letter)).names(texts, vectors, labels) == {
        0: "a name",
        1: "a name",
        2: "a name",
    }
    assert ClusterFeedback(lambda _: "no idea").names(texts, vectors, labels) == {0: "", 1: "", 2: ""}


def test_an_embedder_learns_from_answers(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from embedlab.testing.tiny import tiny_encoder

    texts, vectors, labels = cloud()
    feedback = ClusterFeedback(Scripted(same_letter))
    model = tiny_encoder(texts)
    answers = feedback.ask(texts, feedback.questions(vectors, labels, most=12))
    triplets = feedback.triplets(texts, answers)
    assert len(triplets) >= 6

    def lead(encoder: Any) -> float:
        sides = [
            encoder.encode(
                [getattr(t, side) if side != "n" else t.negatives[0] for t in triplets], normalize_embeddings=True
            )
            for side in ("query", "positive", "n")
        ]
        return float(np.mean((sides[0] * sides[1]).sum(1) - (sides[0] * sides[2]).sum(1)))

    before = lead(model)
    trained = feedback.fine_tune(model, texts, answers, tmp_path / "m", steps=20, batch_size=4, learning_rate=1e-3)
    assert lead(trained) > before + 0.05
    assert lead(model) == before
    with pytest.raises(InputError, match="at least two"):
        feedback.fine_tune(model, texts, [], tmp_path / "n")
