"""FinMTEB: is a model that is good in general good in a domain too, and what does adapting it to the domain bring?

A domain is a suite of local tasks, which mteb knows as a benchmark. A report sets it beside a general suite, with
models that count words in every table, means by type, intervals, and how far the two orders of models agree. A model is
adapted with triplets, written by people or by personas (``embedlab.text.synthesis``).

    suite = finance_suite()
    adapted = domain_adapt("sentence-transformers/all-MiniLM-L6-v2", triplets, instruction="Find the paragraph: ")
    print(report(general_suite(), suite, ["default", adapted]).to_markdown())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.evaluate.finmteb.adaptation import Adapted, Lora, domain_adapt
from embedlab.evaluate.finmteb.audit import Audit, WordLeak, audit
from embedlab.evaluate.finmteb.edits import number_edit_pairs
from embedlab.evaluate.finmteb.finance import FINANCE, finance_suite, general_suite
from embedlab.evaluate.finmteb.remote import FINANCE_MTEB, finance_mteb_suite
from embedlab.evaluate.finmteb.report import BASELINES, DomainReport, RankRelation, rank_relation, report
from embedlab.evaluate.finmteb.suite import DomainSuite

if TYPE_CHECKING:
    from embedlab.testing.task import TaskExample

__all__ = [
    "BASELINES",
    "FINANCE",
    "FINANCE_MTEB",
    "Adapted",
    "Audit",
    "DomainReport",
    "DomainSuite",
    "Lora",
    "RankRelation",
    "WordLeak",
    "audit",
    "domain_adapt",
    "example",
    "finance_mteb_suite",
    "finance_suite",
    "general_suite",
    "number_edit_pairs",
    "rank_relation",
    "report",
]

METHOD = {
    "card": 15,
    "title": "FinMTEB: Finance Massive Text Embedding Benchmark",
    "authors": "Yixuan Tang, Yi Yang",
    "year": 2025,
    "source": "arXiv:2502.10990v1 (EMNLP 2025)",
    "kinds": {"task": "DomainSuite"},
    "extras": ["evaluate", "train"],
    "official_code": "yixuantt/FinMTEB (Apache-2.0, a fork of mteb)",
    "deviations": [
        "The tasks are built from data on disk, not the 64 published sets, which live on a hub; the types and their "
        "scores are the same.",
        "Candidates for reranking are the paragraphs around one table, not random ones, on which every model nears 1.",
        "Gold scores of summaries and of edited sentences are made by rule, not given by people.",
        "Ranks on the general suite and the domain's come with an exact p-value and an interval over models.",
    ],
    "known_failures": [
        "Means by type rest on one or two tasks each: read the table per task.",
        "Whether counting words beats an encoder on edited sentences depends on the edits: it does when only articles "
        "and word order change, and does not when words are replaced by synonyms.",
    ],
}


def example(seed: int = 0) -> dict[str, TaskExample]:
    """Make the smallest ready instance: a suite of two tiny tasks, scored by the mean over their types.

    Args:
        seed: Decides which texts belong together.

    Returns:
        Kind -> example, for the contract checks.
    """
    import numpy as np

    from embedlab.evaluate.tasks import from_corpus, from_labelled_pairs
    from embedlab.testing.contract import Refusal
    from embedlab.testing.task import TaskExample

    rng = np.random.default_rng(seed)
    topics = ["tax", "debt", "rent", "cash", "pension", "merger", "hedge", "audit", "bonus", "stock"]
    corpus = {topic: f"The note on {topic} of the company." for topic in topics}
    queries = {topic: f"What is said about {topic}?" for topic in topics}
    first = [f"{topic} rose in {year}" for topic in topics for year in range(2010, 2018)]
    shuffled = [topics[i] for i in rng.permutation(len(topics))]
    others = dict(zip(shuffled, shuffled[1:] + shuffled[:1], strict=True))
    labels = [i % 2 for i in range(len(first))]
    second = [
        f"more {text.split()[0] if same else others[text.split()[0]]} than before {text.split()[-1]}"
        for text, same in zip(first, labels, strict=True)
    ]
    suite = DomainSuite(
        "embedlab-example",
        [
            from_corpus(corpus, queries, {topic: {topic: 1} for topic in topics}, name="example-notes"),
            from_labelled_pairs(first, second, labels, name="example-changes"),
        ],
    )
    texts = list(dict.fromkeys([*corpus.values(), *queries.values(), *first, *second]))

    def oracle(asked: Any) -> Any:
        found = [[word in text for word in topics] for text in asked]
        return np.array(found, dtype=np.float32)

    return {
        "task": TaskExample(
            evaluate=lambda encode: _score(suite, texts, encode),
            oracle=oracle,
            texts=texts,
            chance=0.5,  # mean of 0.454, nDCG of a random order of ten, and of somewhat more than 1/2
            tolerance=0.1,
            top=0.99,
            refuses=(
                Refusal(lambda: DomainSuite("empty", []), says="tasks=[]"),
                Refusal(lambda: DomainSuite("twice", [*suite.tasks, *suite.tasks]), says="example-notes"),
                Refusal(lambda: DomainSuite("x", suite.tasks, types={"note": "STS"}), says="note"),
                Refusal(lambda: DomainSuite("MTEB(eng, v2)", suite.tasks), says="MTEB(eng, v2)"),
                Refusal(lambda: finance_suite(["tatqa"]), says="tatqa-retrieval"),
                Refusal(lambda: number_edit_pairs(["Sales rose 5 %."], num_pairs=3), says="num_pairs=3"),
                Refusal(lambda: report(suite, suite), says="example-changes"),
            ),
        )
    }


def _score(suite: DomainSuite, texts: list[str], encode: Any) -> float:
    """Evaluate a function from texts to vectors: mean over types."""
    import hashlib
    import tempfile
    from pathlib import Path

    import numpy as np

    from embedlab.evaluate.run import evaluate
    from embedlab.models.encoder import unit_rows

    class Given:
        name = "given"
        dim = np.asarray(encode(texts[:1])).shape[1]
        fingerprint = "given:" + hashlib.sha256(np.ascontiguousarray(encode(texts)).tobytes()).hexdigest()[:16]

        def encode_document(self, asked: Any, **_: Any) -> Any:
            return unit_rows(np.array(encode(asked), dtype=np.float32))

        encode_query = encode_document

    with tempfile.TemporaryDirectory() as folder:
        run = evaluate([Given()], suite.tasks, cache=Path(folder), costs=False).runs[0]
    means = suite.type_means({task: score.score for task, score in run.tasks.items()})
    return sum(means.values()) / len(means)
