"""Training texts without people: personas ask, a language model or rules write, filters refuse.

synthesizer = PersonaSynthesizer(filters=QualityFilter(evaluation_texts), llm=ChatEndpoint("https://host/v1#model"))
report = synthesizer.run(seeds, "rows.jsonl")  # interrupted? the same call goes on
triplets = mine_negatives([(row.query, row.positive) for row in report.rows], passages, load_model())
"""

from embedlab.text.synthesis.consistency import ConsistencyReport, consistency_filter
from embedlab.text.synthesis.filters import QualityFilter
from embedlab.text.synthesis.generators import (
    CallableGenerator,
    EndpointGenerator,
    TemplateGenerator,
    TextGenerator,
    Usage,
    as_generator,
)
from embedlab.text.synthesis.journal import Journal, SyntheticRow, read_rows
from embedlab.text.synthesis.local_generator import LocalGenerator
from embedlab.text.synthesis.offline import PassageLike, SyntheticPair, offline_queries, salient_phrases
from embedlab.text.synthesis.personas import CASTS, Cast, Persona, TaskKind
from embedlab.text.synthesis.replay import ReplayGenerator
from embedlab.text.synthesis.rules import RuleWriter, split_sentences
from embedlab.text.synthesis.synthesizer import Job, PersonaSynthesizer, SynthesisReport
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

__all__ = [
    "CASTS",
    "Balance",
    "CallableGenerator",
    "Cast",
    "ConsistencyReport",
    "Draft",
    "DraftError",
    "EndpointGenerator",
    "Job",
    "Journal",
    "LocalGenerator",
    "PassageLike",
    "Persona",
    "PersonaSynthesizer",
    "PromptWriter",
    "QualityFilter",
    "ReplayGenerator",
    "RuleWriter",
    "Seed",
    "SynthesisReport",
    "SyntheticPair",
    "SyntheticRow",
    "TaskKind",
    "TemplateGenerator",
    "TextGenerator",
    "Triplet",
    "Usage",
    "Writer",
    "as_generator",
    "balance",
    "consistency_filter",
    "judge_prompt",
    "mine_negatives",
    "offline_queries",
    "passage_prompt",
    "plain_words",
    "query_prompt",
    "read_rows",
    "read_triplets",
    "salient_phrases",
    "split_sentences",
    "write_triplets",
]
