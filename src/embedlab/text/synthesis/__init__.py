"""Training texts without people: personas ask, a language model or rules write, filters refuse.

synthesizer = PersonaSynthesizer(filters=QualityFilter(evaluation_texts), llm=ChatEndpoint("https://host/v1#model"))
report = synthesizer.run(seeds, "rows.jsonl")  # interrupted? the same call goes on
triplets = mine_negatives([(row.query, row.positive) for row in report.rows], passages, load_model())
"""

from embedlab.text.synthesis.consistency import ConsistencyReport, consistency_filter
from embedlab.text.synthesis.distill import distillation_rows
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
    "balance",
    "consistency_filter",
    "distillation_rows",
    "drop_false_labels",
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
