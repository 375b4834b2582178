"""From passages, fields or tasks to training rows, with any generator: pairs, triplets, instructions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from embedlab._core.errors import InputError
from embedlab.text.synthesis.filters import QualityFilter
from embedlab.text.synthesis.generators import as_generator
from embedlab.text.synthesis.journal import SyntheticRow
from embedlab.text.synthesis.offline import PassageLike, SyntheticPair
from embedlab.text.synthesis.personas import CASTS, Cast
from embedlab.text.synthesis.prompts import PromptTemplate
from embedlab.text.synthesis.synthesizer import PersonaSynthesizer, SynthesisReport
from embedlab.text.synthesis.template_writer import TemplateWriter
from embedlab.text.synthesis.triplets import Triplet
from embedlab.text.synthesis.writers import Seed

Texts = Sequence[str | PassageLike | Seed]


def synthesize_pairs(
    passages: Texts,
    llm: Any,
    path: str | os.PathLike[str],
    *,
    prompt: str | PromptTemplate = "query",
    cast: Cast = CASTS["general"],
    per_passage: int = 1,
    filters: QualityFilter | None = None,
    attempts: int = 3,
    max_tokens: int = 512,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> SynthesisReport:
    """Let a language model write a query, a paraphrase, a summary ... for each passage.

    Each row is asked for by another person with another task, at another length and difficulty. What cannot be read,
    repeats prompt or passage, is too long or short, or comes up twice is refused and kept with its reason. The file
    holds a line per finished row; an interrupted run goes on in it.

    Args:
        passages: Texts to write for; for the prompt ``"document"``, queries.
        llm: A ``TextGenerator``, ``"https://host/v1#model"``, the folder of a causal language model, or a function.
        path: File of JSON lines, made if missing.
        prompt: What is written: ``"query"``, ``"paraphrase"``, ``"entailment"``, ``"summary"``, ``"document"``,
            ``"negative"``, or a prompt of your own.
        cast: Who asks, and what for.
        per_passage: Rows from each passage, at least 1.
        filters: What is refused; by default lengths and repeated queries. Give ``QualityFilter`` the texts that will be
            evaluated on, and ``max_copied`` to cap the words that a query takes from its passage.
        attempts: Most answers to ask for until one can be used.
        max_tokens: Longest answer.
        seed: Decides who asks what, and is sent to the model.
        on_progress: Called with the number of rows just finished.

    Returns:
        Rows, refusals by reason, and what was used; ``pairs_of`` and ``triplets_of`` turn rows into training data.

    Raises:
        InputError: an argument is out of range, or the file belongs to a run with other settings.
        EndpointError: the language model cannot be reached; what is finished stays.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from embedlab.text.synthesis import TemplateGenerator
        >>> passage = "The boundary layer grows along the plate. Heat is lost to the wall."
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = synthesize_pairs([passage], TemplateGenerator(), Path(folder, "rows.jsonl"))
        >>> pairs_of(report.rows)[0].query
        'what is known about plate?'
    """
    writer = TemplateWriter(as_generator(llm), prompt, attempts=attempts, max_tokens=max_tokens, seed=seed)
    quality = filters
    if quality is None:  # a summary or an instruction stands for a text of any length
        quality = QualityFilter(query_chars=(3, 20_000), passage_chars=(3, 20_000))
    synthesizer = PersonaSynthesizer(
        cast.personas, cast.tasks, llm=writer, filters=quality, per_seed=per_passage, seed=seed
    )
    return synthesizer.run(_seeds(passages), path, on_progress=on_progress)


def synthesize_instructions(
    texts: Texts, llm: Any, path: str | os.PathLike[str], *, fields: bool = False, **options: Any
) -> SynthesisReport:
    """Let a language model write instructions: what searches over such texts are for.

    Args:
        texts: A sample of the texts that will be searched, or names of fields.
        llm: See ``synthesize_pairs``.
        path: File of JSON lines.
        fields: ``texts`` are names of fields, such as ``"tax law"``: the first of two steps to whole examples.
        **options: Further arguments of ``synthesize_pairs``.

    Returns:
        Rows whose ``query`` is the instruction, and whose ``positive`` is what it was written for.
    """
    return synthesize_pairs(texts, llm, path, prompt="task" if fields else "instruction", **options)


def synthesize_triplets(
    tasks: Texts, llm: Any, path: str | os.PathLike[str], *, passages: bool = False, **options: Any
) -> SynthesisReport:
    """Let a language model write whole examples for tasks: query, positive and hard negative.

    Args:
        tasks: Descriptions of tasks, such as ``synthesize_instructions`` gives (two steps), or passages.
        llm: See ``synthesize_pairs``.
        path: File of JSON lines.
        passages: ``tasks`` are passages: each is the positive, and query and hard negative are written for it.
        **options: Further arguments of ``synthesize_pairs``.

    Returns:
        Rows with a ``negative``; ``triplets_of`` makes training data of them.
    """
    return synthesize_pairs(tasks, llm, path, prompt="negative" if passages else "triplet", **options)


def pairs_of(rows: Iterable[SyntheticRow]) -> list[SyntheticPair]:
    """Turn rows into pairs.

    Args:
        rows: Rows of a pipeline, whose seeds are places among the passages given to it.

    Returns:
        Pairs; ``source`` is -1 where the seeds had ids of their own.
    """
    return [
        SyntheticPair(row.query, row.positive, row.writer, int(row.seed) if row.seed.isdecimal() else -1)
        for row in rows
        if not row.reason
    ]


def triplets_of(rows: Iterable[SyntheticRow]) -> list[Triplet]:
    """Turn rows into triplets.

    Args:
        rows: Rows of a pipeline.

    Returns:
        Triplets, with the negative that was written, if any.
    """
    return [Triplet(row.query, row.positive, (row.negative,) if row.negative else ()) for row in rows if not row.reason]


def _seeds(texts: Texts) -> list[Seed]:
    seeds = []
    for place, each in enumerate(texts):
        if isinstance(each, Seed):
            seeds.append(each)
        elif isinstance(each, str):
            seeds.append(Seed(str(place), each))
        elif hasattr(each, "text"):
            seeds.append(Seed(str(place), each.text, " / ".join(getattr(each, "headings", ()))))
        else:
            raise InputError(f"passages[{place}]={each!r:.80}: expected a text, a Seed, or something with a text")
    return seeds
