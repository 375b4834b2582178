"""MMTEB's machinery: fewer tasks, smaller tasks, ranks with their uncertainty, and what a model had seen before.

A benchmark of many tasks costs more than it tells. Tasks whose scores the others predict can go; a retrieval corpus
can shrink to the documents that some retriever confuses with an answer; and the order of models over tasks is a vote
(Borda), whose firmness is seen by drawing the tasks anew. Scores themselves are mteb's: nothing here computes them
again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.evaluate.mmteb.agreement import Agreement, AtDepth, rank_agreement
from embedlab.evaluate.mmteb.coverage import pareto, zero_shot
from embedlab.evaluate.mmteb.pools import HardNegatives, hard_negative_subset
from embedlab.evaluate.mmteb.ranking import Ranking, RankIntervals, rank, rank_intervals
from embedlab.evaluate.mmteb.scores import ScoreTable, read_scores
from embedlab.evaluate.mmteb.selection import Predictability, Removed, Selection, predictability, select_tasks

if TYPE_CHECKING:
    from embedlab.testing.probe import ProbeExample
    from embedlab.testing.task import TaskExample

__all__ = [
    "Agreement",
    "AtDepth",
    "HardNegatives",
    "Predictability",
    "RankIntervals",
    "Ranking",
    "Removed",
    "ScoreTable",
    "Selection",
    "example",
    "hard_negative_subset",
    "pareto",
    "predictability",
    "rank",
    "rank_agreement",
    "rank_intervals",
    "read_scores",
    "select_tasks",
    "zero_shot",
]

METHOD = {
    "card": 47,
    "title": "MMTEB: Massive Multilingual Text Embedding Benchmark",
    "authors": "Kenneth Enevoldsen, Isaac Chung, Imene Kerboua, Márton Kardos and others",
    "year": 2025,
    "source": "arXiv:2502.13595v1 (ICLR 2025)",
    "kinds": {"probe": "rank", "task": "hard_negative_subset"},
    "extras": ["evaluate"],
    "official_code": "embeddings-benchmark/mteb (Apache-2.0)",
    "deviations": [
        "Left-out predictions come from one factorisation for all tasks; the official code fits every task and model.",
        "Models with the same scores everywhere are left out before selection: each would predict the other.",
        "Scores with holes are refused; the official Borda count gives a missing task no points.",
        "Ranks have intervals, from drawing the tasks anew; the paper gives points alone.",
        "Fast clustering and classification are mteb's own task classes, and are not written again here.",
    ],
    "known_failures": [
        "A selected set keeps what single tasks tell; the mean over it follows the full mean no better than the mean "
        "over random tasks does, since redundant tasks had their weight in it.",
        "Pools of fewer than ten documents turn the order of models over, and shallow pools favour models that did not "
        "pool.",
        "Borda points depend on which models are in the table.",
    ],
}


def example(seed: int = 0) -> dict[str, ProbeExample | TaskExample]:
    """Return the smallest ready instances: a table of twelve models, and a task reduced to pools of BM25.

    Args:
        seed: Decides the scores and the texts.

    Returns:
        Kind -> example, for the contract checks.
    """
    return {"probe": _ranking_example(seed), "task": _pool_example(seed)}


def _ranking_example(seed: int) -> ProbeExample:
    import numpy as np

    from embedlab.testing.contract import Refusal
    from embedlab.testing.probe import KnownValue, ProbeExample

    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(12, 1)) + rng.normal(size=(12, 9))
    tied = np.array([[0.5, 0.9], [0.5, 0.1], [0.2, 0.4]])  # points 3 - rank: 1.5 + 2, 1.5 + 0, 0 + 1
    return ProbeExample(
        compute=rank,
        inputs=(scores,),
        numbers=lambda ranking: ranking.points,
        bounds=(0.0, 9 * 11.0),
        known=(
            KnownValue((tied,), [3.5, 1.5, 1.0], "two models tie on the first task and share its three points"),
            KnownValue((np.ones((4, 5)),), [7.5] * 4, "all tie: each task gives (4 - 2.5) points to all"),
        ),
        refuses=(
            Refusal(lambda: rank(scores, method="bord"), says="borda"),  # type: ignore[arg-type]
            Refusal(lambda: rank(scores, method="mean_type"), says="types"),
            Refusal(lambda: rank(scores, method="mean_type", types=["STS"]), says="types"),
            Refusal(lambda: rank_intervals(scores, confidence=95), says="confidence"),
            Refusal(lambda: rank(np.where(scores > 2, np.nan, scores)), says="hole"),
            Refusal(lambda: select_tasks(scores, types=["STS"] * 9, rho=2), says="rho"),
            Refusal(lambda: select_tasks(scores, types=["STS"] * 9, keep=["task 10"]), says="keep"),
            Refusal(lambda: pareto([1.0, 2.0], [1.0]), says="costs"),
            Refusal(lambda: zero_shot(None, []), says="tasks"),
        ),
        rows="each",
        tie_rule="models with equal scores on a task share the mean of their ranks there",
    )


def _pool_example(seed: int) -> TaskExample:
    import random

    import numpy as np

    from embedlab.data.datasets import RetrievalData, Text
    from embedlab.testing.contract import Refusal
    from embedlab.testing.task import TaskExample

    rng = random.Random(seed)
    words = ["".join(rng.choices("bdfgklmnprst", k=3)) + "a" for _ in range(60)]
    corpus = {f"d{i}": Text("", " ".join(rng.sample(words, 6))) for i in range(60)}
    queries = {f"q{i}": " ".join(corpus[f"d{i}"].text.split()[:2]) + f" {words[i]}" for i in range(30)}
    full = RetrievalData("pool-example", corpus, queries, {f"q{i}": {f"d{i}": 1} for i in range(30)})
    reduced = hard_negative_subset(full, ["bm25"], depth=3, seed=seed)
    answers = {query: number for number, query in enumerate(queries.values())}
    answers |= {text.text: number for number, text in enumerate(corpus.values())}

    def oracle(texts: Any) -> Any:
        return np.eye(len(corpus), dtype=np.float32)[[answers[text] for text in texts]]

    chance = float(np.sum(1 / np.log2(np.arange(10) + 2))) / len(reduced.data.corpus)  # one answer, at a random place
    return TaskExample(
        evaluate=lambda encode: _score(reduced, encode),
        oracle=oracle,
        texts=[*queries.values(), *(text.text for text in corpus.values())],
        chance=chance,
        tolerance=0.06,
        top=1.0,
        refuses=(
            Refusal(lambda: hard_negative_subset(full, []), says="retrievers"),
            Refusal(lambda: hard_negative_subset(full, ["bm25"], depth=0), says="depth"),
            Refusal(lambda: hard_negative_subset(full, ["bm25", "bm25"]), says="twice"),
            Refusal(lambda: rank_agreement(full, ["bm25"], ["bm25"]), says="models"),
            Refusal(lambda: rank_agreement(full, ["bm25"], ["bm25"], depths=[]), says="depths"),
        ),
    )


def _score(reduced: HardNegatives, encode: Any) -> float:
    """Score a bare encoding function on the reduced task with mteb's own evaluator."""
    import hashlib
    import tempfile
    from pathlib import Path

    import numpy as np

    from embedlab.evaluate.run import evaluate

    class Bare:
        name = "bare"

        def __init__(self) -> None:
            rows = encode([*reduced.data.queries.values(), *(str(text) for text in reduced.data.corpus.values())])
            self.dim = rows.shape[1]
            self.fingerprint = f"bare:{hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:16]}"

        def encode_document(self, texts: Any, *, batch_size: int = 32, on_progress: Any = None) -> Any:
            return np.asarray(encode(texts), dtype=np.float32)

        def encode_query(self, texts: Any) -> Any:
            return self.encode_document(texts)

    task = reduced.task()
    with tempfile.TemporaryDirectory() as folder:
        run = evaluate([Bare()], [task], cache=Path(folder), costs=False).runs[0]
    return float(run.tasks[task.metadata.name].score)
