"""From passages or questions to training triplets: personas ask, a writer writes, filters refuse."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from embedlab._core.errors import InputError
from embedlab.text.synthesis.filters import QualityFilter
from embedlab.text.synthesis.generators import Usage, usage_of
from embedlab.text.synthesis.journal import Journal, SyntheticRow, job_id
from embedlab.text.synthesis.personas import CASTS, Persona, TaskKind
from embedlab.text.synthesis.rules import RuleWriter
from embedlab.text.synthesis.writers import (
    BatchWriter,
    Complete,
    Draft,
    DraftError,
    PromptWriter,
    Seed,
    Writer,
    judge_prompt,
)

_MARGIN = 200  # characters of a model's answer that are kept beside a refused row


@dataclass(frozen=True, slots=True)
class Job:
    """One draw: a seed, and who asks what for.

    Attributes:
        id: Hash of the rest.
        seed: The seed.
        draw: Number of the draw from this seed, from 0.
        persona: Who asks.
        task: What for.
    """

    id: str
    seed: Seed
    draw: int
    persona: Persona
    task: TaskKind


@dataclass(frozen=True, slots=True)
class SynthesisReport:
    """What a run did.

    Attributes:
        rows: The rows that are kept, of this run and of earlier ones on the same file.
        refused: Reason -> number of jobs.
        resumed: Number of jobs that were finished before.
        usage: What this run asked of the language model.
    """

    rows: list[SyntheticRow]
    refused: dict[str, int]
    resumed: int
    usage: Usage = field(default_factory=Usage)


class PersonaSynthesizer:
    """Write (query, positive) rows in which different people ask for different things.

    Every seed is drawn ``per_seed`` times. Personas and tasks are dealt from a shuffled deck of all their pairs, so
    that no pair comes up more than once oftener than another. What a writer gives goes past the judge, if
    there is one, and through the filters. Every job leaves one line in a file, kept or refused, with persona, task and
    prompt hash; a run that was interrupted goes on where it stopped, without asking again for what is there.

    Args:
        personas: Who asks; the finance personas by default.
        tasks: What for; the finance tasks by default.
        llm: A function from prompt to text, or a ``Writer``. None writes by rules, which needs no language model.
        filters: What is refused; by default lengths and repeated queries only. Give ``QualityFilter`` the texts that
            will be evaluated on.
        judge: A function from prompt to text that is asked whether the passage answers the query; None for no judge.
        per_seed: Draws from each seed, at least 1.
        workers: Prompts under way at the same time, at least 1; the rows do not depend on it.
        seed: Decides who asks what, and what the rules draw.

    Raises:
        InputError: there are no personas or tasks, names occur twice, or a number is below 1.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from embedlab.text.synthesis import Seed
        >>> passage = "Deferred revenue from software subscriptions fell. Customers renewed late. Cash was unaffected."
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = PersonaSynthesizer(per_seed=2).run([Seed("a", passage)], Path(folder, "rows.jsonl"))
        >>> len(report.rows), report.rows[0].writer
        (2, 'rules')
    """

    def __init__(
        self,
        personas: Sequence[Persona] = CASTS["finance"].personas,
        tasks: Sequence[TaskKind] = CASTS["finance"].tasks,
        *,
        llm: Complete | Writer | None = None,
        filters: QualityFilter | None = None,
        judge: Complete | None = None,
        per_seed: int = 1,
        workers: int = 1,
        seed: int = 0,
    ) -> None:
        for name, group in (("personas", personas), ("tasks", tasks)):
            names = [each.name for each in group]
            if not names or len(set(names)) < len(names):
                raise InputError(f"{name}={names}: at least one is needed, and no name may occur twice")
        for name, value in (("per_seed", per_seed), ("workers", workers)):
            if value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        self.personas, self.tasks = tuple(personas), tuple(tasks)
        self._writer = _writer(llm, seed)
        self._filters = filters if filters is not None else QualityFilter()
        self._judge = judge
        self._per_seed, self._workers, self._seed = per_seed, workers, seed

    def jobs(self, seeds: Iterable[Seed]) -> list[Job]:
        """Deal personas and tasks to the draws.

        Args:
            seeds: The seeds.

        Returns:
            One job per seed and draw.

        Raises:
            InputError: a seed is blank, or two have one id.
        """
        listed = list(seeds)
        ids = Counter(seed.id for seed in listed)
        twice = [seed_id for seed_id, count in ids.items() if count > 1]
        if twice:
            raise InputError(f"the seed id {twice[0]!r} occurs {ids[twice[0]]} times: ids must differ")
        blank = [seed.id for seed in listed if not seed.text.strip()]
        if blank:
            raise InputError(f"the seed {blank[0]!r} has no text: leave it out")
        rng = np.random.default_rng(self._seed)
        pairs = [(persona, task) for persona in self.personas for task in self.tasks]
        deck: list[tuple[Persona, TaskKind]] = []
        found = []
        for draw in range(self._per_seed):
            for seed in listed:
                if not deck:
                    deck = [pairs[i] for i in rng.permutation(len(pairs))]
                persona, task = deck.pop()
                found.append(Job(job_id(seed.id, seed.text, draw, persona.name, task.name), seed, draw, persona, task))
        return found

    def run(
        self,
        seeds: Iterable[Seed],
        path: str | os.PathLike[str],
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> SynthesisReport:
        """Do all jobs that the file does not hold yet.

        Args:
            seeds: Passages or questions to start from.
            path: File of JSON lines, made if missing.
            on_progress: Called with the number of jobs just finished.

        Returns:
            The rows that are kept, and how many were refused for which reason.

        Raises:
            InputError: a seed is unusable, or the file belongs to a run with other settings.
            EndpointError: the language model cannot be reached; what is finished stays.
        """
        jobs = self.jobs(seeds)
        if isinstance(self._writer, RuleWriter) and not self._writer.documents:
            self._writer.fit({job.seed.id: job.seed.text for job in jobs}.values())
        with Journal(path, self._settings(jobs)) as journal:
            done = {row.job for row in journal.rows}
            before = usage_of(self._writer)
            self._filters.remember(row.query for row in journal.rows if not row.reason)
            todo = [job for job in jobs if job.id not in done]
            if on_progress is not None and len(todo) < len(jobs):
                on_progress(len(jobs) - len(todo))
            size = max(16, 4 * self._workers)
            with ThreadPoolExecutor(self._workers) as pool:
                for start in range(0, len(todo), size):
                    batch = todo[start : start + size]
                    journal.add(self._finish(batch, self._drafts(batch, pool), pool))
                    if on_progress is not None:
                        on_progress(len(batch))
            refused = Counter(row.reason for row in journal.rows if row.reason)
            kept = [row for row in journal.rows if not row.reason]
            return SynthesisReport(kept, dict(refused), len(done), usage_of(self._writer) - before)

    def _drafts(self, jobs: list[Job], pool: ThreadPoolExecutor) -> list[Draft | DraftError]:
        if isinstance(self._writer, BatchWriter):
            return self._writer.write_many([(job.seed, job.persona, job.task, job.draw) for job in jobs])
        return list(pool.map(self._draft, jobs))

    def _draft(self, job: Job) -> Draft | DraftError:
        try:
            return self._writer.write(job.seed, job.persona, job.task, draw=job.draw)
        except DraftError as error:
            return error

    def _finish(self, jobs: list[Job], given: list[Draft | DraftError], pool: ThreadPoolExecutor) -> list[SyntheticRow]:
        drafts = [draft for draft in given if isinstance(draft, Draft)]
        verdicts: list[tuple[bool, str]] = [(True, "")] * len(drafts)
        if self._judge is not None:
            verdicts = list(pool.map(self._ask_judge, drafts))
        passed = [draft for draft, (good, _) in zip(drafts, verdicts, strict=True) if good]
        reasons = iter(self._filters.reasons(passed))
        judged = iter(verdicts)
        rows = []
        for job, draft in zip(jobs, given, strict=True):
            if isinstance(draft, DraftError):
                rows.append(self._row(job, Draft("", "", draft.prompts), draft.reason, draft.raw[:_MARGIN]))
                continue
            good, answer = next(judged)
            rows.append(self._row(job, draft, next(reasons) if good else "judge", "" if good else answer[:_MARGIN]))
        return rows

    def _ask_judge(self, draft: Draft) -> tuple[bool, str]:
        answer = self._judge(judge_prompt(draft.query, draft.positive)) if self._judge is not None else "yes"
        return answer.strip().lower().startswith("yes"), answer

    def _row(self, job: Job, draft: Draft, reason: str, raw: str) -> SyntheticRow:
        return SyntheticRow(
            job=job.id,
            seed=job.seed.id,
            draw=job.draw,
            persona=job.persona.name,
            task=job.task.name,
            writer=self._writer.name,
            prompt_hash=draft.prompt_hash,
            query=draft.query,
            positive=draft.positive,
            reason=reason,
            raw=raw,
            negative=draft.negative,
            attributes=draft.attributes,
        )

    def _settings(self, jobs: list[Job]) -> dict[str, Any]:
        return {
            "writer": self._writer.name,
            "judge": self._judge is not None,
            "jobs": job_id(*(job.id for job in jobs)),
            "personas": job_id(*((each.name, each.description, each.register) for each in self.personas)),
            "tasks": job_id(*((each.name, each.description, each.questions) for each in self.tasks)),
            "filters": self._filters.settings,
            "seed": self._seed,
            **getattr(self._writer, "settings", {}),
        }


def _writer(llm: Complete | Writer | None, seed: int) -> Writer:
    if llm is None:
        return RuleWriter(seed)
    return cast(Writer, llm) if hasattr(llm, "write") else PromptWriter(llm)
