"""From two lists of tasks and a list of models to the whole report, in one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.evaluate.domain_gap.dependency import Parser
from embedlab.evaluate.domain_gap.difficulty import Reader
from embedlab.evaluate.domain_gap.finding import Finding, markdown_table, records
from embedlab.evaluate.domain_gap.measures import controls_of, measure
from embedlab.evaluate.domain_gap.report import GapReport, domain_gap
from embedlab.evaluate.domain_gap.similarity import dataset_similarity
from embedlab.models.encoder import Encoder

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """A domain's suite against a general one: scores, complexity, gap and similarity.

    Attributes:
        gap: The findings on the gap.
        complexity: What ``measure`` gave, one row per data set.
        similarity: How alike the data sets are; None where they were not at hand.
    """

    gap: GapReport
    complexity: DataFrame
    similarity: Finding | None = None

    def markdown(self) -> str:
        """Return the report as Markdown."""
        logged = self.complexity.attrs
        told = [f"parser {logged['parser']}"] if "parser" in logged else []
        told += sorted({f"reader {asked['reader']}" for asked in logged.get("questions", {}).values()})
        note = f"Measured with {', '.join(told)}.\n\n" if told else ""
        parts = [self.gap.markdown(), f"## Complexity\n\n{note}{markdown_table(self.complexity)}\n"]
        return "\n".join(parts + ([self.similarity.markdown()] if self.similarity else []))

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return self.gap.to_dict() | {
            "complexity": records(self.complexity),
            "measured": self.complexity.attrs,
            "similarity": None if self.similarity is None else self.similarity.to_dict(),
        }

    def write(self, folder: Path, *, plots: bool = True) -> list[Path]:
        """Write ``domain_gap.md``, ``domain_gap.json`` and the plots.

        Args:
            folder: Where to; made if missing.
            plots: Whether to draw.

        Returns:
            The files.
        """
        from embedlab.evaluate.domain_gap.plots import draw

        pictures = draw(self, folder) if plots else []
        shown = "".join(f"\n![{path.stem.replace('_', ' ')}]({path.name})\n" for path in pictures)
        atomic_write(folder / "domain_gap.md", self.markdown() + shown)
        atomic_write(folder / "domain_gap.json", json.dumps(self.to_dict(), ensure_ascii=False, indent=2, default=str))
        return [folder / "domain_gap.md", folder / "domain_gap.json", *pictures]


def compare_suites(
    general: Sequence[AbsTask],
    inside: Sequence[AbsTask],
    models: Sequence[str | Encoder],
    *,
    domain: str = "domain",
    measures: Sequence[str] | None = None,
    reader: Reader | None = None,
    parser: Parser | None = None,
    num_texts: int = 500,
    cache: Path | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    on_progress: Callable[[Any], None] | None = None,
) -> SuiteReport:
    """Score models on both suites, measure the complexity of every data set, and ask what remains of the gap.

    Args:
        general: Tasks of the general suite.
        inside: Tasks of the domain's suite.
        models: Names or encoders, as ``embedlab.evaluate.run.evaluate`` takes them.
        domain: What to call the domain.
        measures: Complexity measures, as in ``measure``.
        reader: Reader for ``"llm_error"``.
        parser: Parser for ``"mdd"``.
        num_texts: Texts of each data set whose complexity is measured, at most.
        cache: Folder for vectors and results; None for this user's.
        confidence: Level of all intervals.
        seed: Decides samples, ties and resamples.
        on_progress: Told about every batch of texts that is embedded.

    Returns:
        The report.

    Raises:
        InputError: a suite is empty, a task is in both, or what ``measure`` and ``domain_gap`` refuse.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    from embedlab.evaluate.run import evaluate

    names = {side: [task.metadata.name for task in tasks] for side, tasks in (("general", general), (domain, inside))}
    if domain == "general" or not general or not inside:
        raise InputError(f"general and inside must hold tasks, and domain={domain!r} be another name than 'general'")
    shared = set(names["general"]) & set(names[domain])
    if shared:
        raise InputError(f"{', '.join(sorted(shared))} is in both suites: a data set is general or of the domain")
    tasks = [*general, *inside]
    complexity = measure(tasks, measures=measures, reader=reader, parser=parser, num_texts=num_texts, seed=seed)
    evaluation = evaluate(models, tasks, cache=cache, seed=seed, costs=False, on_progress=on_progress)
    scores = evaluation.to_frame().pivot(index="task", columns="model", values="score")
    scores = scores.reindex(index=names["general"] + names[domain], columns=[run.model for run in evaluation.runs])
    report = domain_gap(
        scores,
        domain=["general"] * len(general) + [domain] * len(inside),
        types=[task.metadata.type for task in tasks],
        complexity=controls_of(complexity),
        confidence=confidence,
        seed=seed,
    )
    return SuiteReport(report, complexity, dataset_similarity(tasks, seed=seed))
