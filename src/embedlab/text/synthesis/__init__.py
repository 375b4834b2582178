"""Training texts without people: queries made and filtered, judged and relabelled, and clusters asked about.

Without a language model, and without a network:

    pairs = offline_queries(passages)  # headings, first sentences taken out, salient phrases
    kept, report = consistency_filter(pairs, passages, load_model())

With one, asked by many people for many tasks; every answer is on record, and an interrupted run goes on:

    llm = ReplayGenerator("answers.jsonl", EndpointGenerator("https://host/v1#model"))
    rows = synthesize_pairs(passages, llm, "rows.jsonl", filters=QualityFilter(evaluation_texts)).rows
    better = relabel_with_ranker(pairs_of(rows), passages, load_model(), LLMJudge(llm))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.synthesis.clusters import (
    ClusterFeedback,
    Granularity,
    Question,
    assignment_chances,
    assignment_entropy,
)
from embedlab.text.synthesis.consistency import ConsistencyReport, consistency_filter
from embedlab.text.synthesis.distill import distillation_rows
from embedlab.text.synthesis.filters import QualityFilter, copied_share
from embedlab.text.synthesis.generators import (
    CallableGenerator,
    EndpointGenerator,
    TemplateGenerator,
    TextGenerator,
    Usage,
    as_generator,
)
from embedlab.text.synthesis.journal import Journal, SyntheticRow, read_rows
from embedlab.text.synthesis.judge import Judge, LLMJudge, Preference, as_judge
from embedlab.text.synthesis.local_generator import LocalGenerator
from embedlab.text.synthesis.offline import PassageLike, SyntheticPair, offline_queries, salient_phrases
from embedlab.text.synthesis.personas import CASTS, Cast, Persona, TaskKind
from embedlab.text.synthesis.pipelines import (
    pairs_of,
    synthesize_instructions,
    synthesize_pairs,
    synthesize_triplets,
    triplets_of,
)
from embedlab.text.synthesis.prompts import PromptTemplate, load_prompts
from embedlab.text.synthesis.recipes import DISTILL
from embedlab.text.synthesis.relabel import JudgeReport, Relabelled, drop_false_labels, relabel_with_ranker
from embedlab.text.synthesis.replay import ReplayGenerator
from embedlab.text.synthesis.rules import RuleWriter, split_sentences
from embedlab.text.synthesis.synthesizer import Job, PersonaSynthesizer, SynthesisReport
from embedlab.text.synthesis.template_writer import TemplateWriter
from embedlab.text.synthesis.triplets import Balance, Triplet, balance, mine_negatives, read_triplets, write_triplets
from embedlab.text.synthesis.writers import (
    Draft,
    DraftError,
    PromptWriter,
    Seed,
    Writer,
    judge_prompt,
    passage_prompt,
    plain_words,
    query_prompt,
)

if TYPE_CHECKING:
    from embedlab.testing.probe import ProbeExample

__all__ = [
    "CASTS",
    "DISTILL",
    "Balance",
    "CallableGenerator",
    "Cast",
    "ClusterFeedback",
    "ConsistencyReport",
    "Draft",
    "DraftError",
    "EndpointGenerator",
    "Granularity",
    "Job",
    "Journal",
    "Judge",
    "JudgeReport",
    "LLMJudge",
    "LocalGenerator",
    "PassageLike",
    "Persona",
    "PersonaSynthesizer",
    "Preference",
    "PromptTemplate",
    "PromptWriter",
    "QualityFilter",
    "Question",
    "Relabelled",
    "ReplayGenerator",
    "RuleWriter",
    "Seed",
    "SynthesisReport",
    "SyntheticPair",
    "SyntheticRow",
    "TaskKind",
    "TemplateGenerator",
    "TemplateWriter",
    "TextGenerator",
    "Triplet",
    "Usage",
    "Writer",
    "as_generator",
    "as_judge",
    "assignment_chances",
    "assignment_entropy",
    "balance",
    "consistency_filter",
    "copied_share",
    "distillation_rows",
    "drop_false_labels",
    "example",
    "judge_prompt",
    "load_prompts",
    "mine_negatives",
    "offline_queries",
    "pairs_of",
    "passage_prompt",
    "plain_words",
    "query_prompt",
    "read_rows",
    "read_triplets",
    "relabel_with_ranker",
    "salient_phrases",
    "split_sentences",
    "synthesize_instructions",
    "synthesize_pairs",
    "synthesize_triplets",
    "triplets_of",
    "write_triplets",
]

METHOD = {
    "card": 7,
    "title": "When Text Embedding Meets Large Language Model: A Comprehensive Survey",
    "authors": "Zhijie Nie, Zhangchi Feng, Mingxin Li, Cunwang Zhang, Yanzhao Zhang, Dingkun Long, Richong Zhang",
    "year": 2024,
    "source": "arXiv:2412.09165v3",
    "kinds": {"probe": "assignment_entropy"},
    "recipes": {"distill": "DISTILL"},
    "extras": ["train"],
    "official_code": None,
    "deviations": [
        "A survey has no method of its own: this is its first theme, language models that make and clean data. The "
        "second is spread over the methods that docs/llm-and-embeddings.md names, the third is in inversion and "
        "soft_context.",
        "Everything runs without a language model too: queries come from headings, first sentences, salient phrases, "
        "and a cross-encoder or any function may judge.",
        "A grade is the mean under the model's probabilities for the grades, where the literature reads one number.",
        "Clusters are fine-tuned with the host's contrastive loss and the losing text as hard negative; pairs for the "
        "number of clusters are drawn from those that the numbers in question treat differently.",
    ],
    "known_failures": [
        "Queries made from the passage share its words: models that count words look better on them than on queries of "
        "people.",
        "The round-trip filter keeps what its encoder can already do; queries that are right but hard go too.",
        "A chat endpoint tells no probabilities here: it chooses by letter, and grades are whole numbers.",
    ],
}


def example(seed: int = 0) -> dict[str, ProbeExample]:
    """Make the smallest ready instance: three clouds of vectors with some between them.

    Args:
        seed: Decides the vectors.

    Returns:
        ``{"probe": ...}`` for the contract of that kind.
    """
    import numpy as np

    from embedlab.testing.contract import Refusal
    from embedlab.testing.probe import KnownValue, ProbeExample

    rng = np.random.default_rng(seed)
    labels = np.arange(12) % 3
    vectors = np.eye(4)[labels] * 3 + rng.normal(scale=0.5, size=(12, 4))
    middle = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    chances = np.array([1 / (1 + 1 / 4 + 1 / 4), 1 / (1 + 9 / 4 + 1 / 4)])  # of the centres (1/2, 1/2), (3/2, -1/2)
    share = chances / chances.sum()
    return {
        "probe": ProbeExample(
            compute=assignment_entropy,
            inputs=(vectors, labels),
            numbers=np.asarray,
            bounds=(0.0, float(np.log(2))),
            known=(
                KnownValue(
                    (middle, np.array([0, 1, 0, 1])),
                    np.full(4, -(share * np.log(share)).sum()),
                    "squared distances to the two centres are 1/2 and 5/2 for each: chances 7/10 and 3/10",
                ),
            ),
            refuses=(
                Refusal(lambda: assignment_entropy(vectors, labels[:3]), "labels"),
                Refusal(lambda: assignment_entropy(vectors, np.zeros(12)), "one cluster"),
                Refusal(lambda: ClusterFeedback(str.upper).questions(vectors, labels, most=0), "most"),
            ),
            rows="each",
            tie_rule="equal vectors in one cluster have equal distances to all centres, and so equal entropies",
        )
    }
