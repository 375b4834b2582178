"""Measures against trec_eval's, and the trivial cases."""

from __future__ import annotations

import random

import pytest

from embedlab._core.errors import InputError
from embedlab.tune.measures import Goal, value_of


@pytest.mark.parametrize(
    ("goal", "theirs"), [("ndcg@10", "ndcg_cut_10"), ("recall@5", "recall_5"), ("map", "map_cut_100")]
)
def test_as_trec_eval(goal: str, theirs: str) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    draw = random.Random(0)
    for _ in range(30):
        documents = [f"d{n}" for n in range(20)]
        draw.shuffle(documents)
        # recall of at most as many as fit: trec_eval divides by all relevant ones
        relevant = {doc: draw.choice([1, 2, 3]) for doc in draw.sample(documents, 4)}
        run = {doc: 20.0 - place for place, doc in enumerate(documents[:15])}
        told = pytrec_eval.RelevanceEvaluator({"q": relevant}, {theirs}).evaluate({"q": run})["q"][theirs]
        graded = {doc: float(grade) for doc, grade in relevant.items()}
        assert value_of(Goal.of(goal), documents[:15], graded) == pytest.approx(told, abs=1e-6)


def test_nothing_found_is_nought_and_all_in_front_is_one() -> None:
    for name in ("ndcg@10", "recall@100", "map"):
        goal = Goal.of(name)
        assert value_of(goal, ["x", "y"], {"a": 1.0}) == 0.0
        assert value_of(goal, ["a", "b"], {"a": 2.0, "b": 1.0}) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["", "mrr", "ndcg@0", "ndcg@x", "recall@5000"])
def test_no_goal(name: str) -> None:
    with pytest.raises(InputError, match="goal="):
        Goal.of(name)
