"""What an evaluation says: tables for a terminal, Markdown and JSON, with uncertainty, cost, slices and doubts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.evaluate.comparison import Comparison, compare
from embedlab.evaluate.mmteb.coverage import pareto
from embedlab.evaluate.scores import ModelCost, ModelRun, TaskScore
from embedlab.evaluate.slices import Slice, slices_of
from embedlab.ops.significance import Interval, bootstrap_interval
from embedlab.ops.weighted import AveragePrecision, Spearman

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import RenderableType

Sheet = tuple[str, list[str], list[list[str]]]  # title, heads, rows
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Models on tasks.

    Attributes:
        runs: One per model, in the order given.
        descriptions: What each task is, by name, in the order given.
    """

    runs: tuple[ModelRun, ...]
    descriptions: dict[str, str]
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # what takes long to compute

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.descriptions)

    def run(self, model: str) -> ModelRun:
        """Return the run of one model.

        Raises:
            InputError: there is none.
        """
        for run in self.runs:
            if run.model == model:
                return run
        raise InputError(f"model={model!r}: evaluated were {', '.join(run.model for run in self.runs)}")

    def comparison(self, *, confidence: float = 0.95, seed: int = 0) -> Comparison | None:
        """Compare every pair of models on every task they share; see ``compare``.

        Returns:
            The comparison; None for a single model, or if no two models have a task in common.
        """
        if not any(sum(task in run.tasks for run in self.runs) > 1 for task in self.tasks):
            return None
        key = ("comparison", confidence, seed)
        if key not in self._known:
            self._known[key] = compare(self, confidence=confidence, seed=seed)
        found: Comparison = self._known[key]
        return found

    def interval(self, model: str, task: str) -> Interval | None:
        """Return the 95% interval of a model's score on a task; see ``interval_of``."""
        key = ("interval", model, task)
        if key not in self._known:
            self._known[key] = interval_of(self.run(model).tasks[task])
        found: Interval | None = self._known[key]
        return found

    def slices(self) -> list[Slice]:
        """Return the scores by length of text and by language."""
        return [piece for run in self.runs for score in run.tasks.values() for piece in slices_of(run.model, score)]

    def to_frame(self) -> DataFrame:
        """Return a data frame with one row per model and task."""
        from pandas import DataFrame

        rows = []
        for run in self.runs:
            cost = {} if run.cost is None else {each.name: getattr(run.cost, each.name) for each in fields(ModelCost)}
            for score in run.tasks.values():
                about = {"model": run.model, "task": score.task, "type": score.type, "metric": score.metric}
                rows.append({**about, "score": score.score, "items": len(score.items), "unit": score.unit, **cost})
        return DataFrame(rows)

    def notes(self) -> list[str]:
        """Return what a reader must know beside the numbers: overlaps with training data, and doubts about scores."""
        found = []
        for run in self.runs:
            if run.training_datasets is None:
                found.append(f"{run.model}: training data unknown, so whether it saw these tests is unknown too.")
            for task, names in run.overlaps.items():
                if names:
                    found.append(f"{run.model}: trained on {', '.join(names)}, which may hold the data of {task}.")
            found += [f"{run.model} on {score.task}: {score.note}." for score in run.tasks.values() if score.note]
            left = [task for task in self.tasks if task not in run.tasks]
            if left:
                found.append(f"{run.model} does not apply to {', '.join(left)}.")
        return found

    def to_dict(self, *, items: bool = True) -> dict[str, Any]:
        """Return everything as plain values for JSON.

        Args:
            items: Whether to give the values of single items too.
        """
        runs = [run.to_dict() for run in self.runs]
        for run, entry in zip(self.runs, runs, strict=True):
            for task in run.tasks:
                interval = self.interval(run.model, task)
                entry["tasks"][task]["interval"] = None if interval is None else [interval.low, interval.high]
                if not items:
                    for column in ("items", "values", "gold", "lengths", "languages"):
                        del entry["tasks"][task][column]
        comparison = self.comparison()
        return {
            "tasks": self.descriptions,
            "models": runs,
            "comparison": None if comparison is None else comparison.to_dict(),
            "slices": [{each.name: getattr(piece, each.name) for each in fields(Slice)} for piece in self.slices()],
            "pareto": self.pareto(),
            "notes": self.notes(),
        }

    def pareto(self) -> list[str]:
        """Return the models that no other beats on mean score and on milliseconds per query at once.

        Only tasks that every model has count for the mean.
        """
        points = [(run.model, run.cost.ms_per_query, self._mean(run)) for run in self.runs if run.cost is not None]
        if not points or any(math.isnan(mean) for *_, mean in points):
            return []
        front = pareto([ms for _, ms, _ in points], [mean for *_, mean in points])
        return [name for (name, *_), best in zip(points, front, strict=True) if best]

    def sheets(self) -> list[Sheet]:
        """Return the tables as text: scores, costs, slices."""
        head = ["model", *self.tasks, "mean"]
        rows = []
        for run in self.runs:
            cells = [self._cell(run, task) for task in self.tasks]
            rows.append([run.model, *cells, _number(self._mean(run))])
        found: list[Sheet] = [("Scores (95% interval)", head, rows)]
        best = self.pareto()
        costs = [_cost_row(run, run.model in best) for run in self.runs if run.cost is not None]
        if costs:
            heads = ["model", "parameters", "bytes/vector", "texts/s", "ms/query", "peak MB", "seconds", "on the front"]
            found.append(("Cost", heads, costs))
        pieces = [
            [piece.model, piece.task, piece.by, piece.name, str(piece.count), _number(piece.score)]
            for piece in self.slices()
        ]
        if pieces:
            found.append(("Slices", ["model", "task", "by", "slice", "items", "score"], pieces))
        return found

    def to_tables(self, *, slices: bool = False) -> list[RenderableType]:
        """Return tables for a terminal.

        Args:
            slices: Whether to show slices too.
        """
        from rich.table import Table
        from rich.text import Text

        tables: list[RenderableType] = []
        for title, head, rows in self.sheets():
            if title == "Slices" and not slices:
                continue
            table = Table(title=title, title_justify="left", box=None, pad_edge=False)
            for name in head:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*map(Text, row))
            tables.append(table)
        comparison = self.comparison()
        return tables if comparison is None else [*tables, *comparison.to_tables()]

    def to_markdown(self) -> str:
        """Return the whole report as Markdown."""
        parts = ["# Evaluation\n"]
        parts += [f"- **{task}**: {said}" for task, said in self.descriptions.items()]
        for title, head, rows in self.sheets():
            lines = [head, ["---"] * len(head), *rows]
            body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
            parts.append(f"\n## {title}\n\n{body}")
        comparison = self.comparison()
        if comparison is not None:
            parts.append(f"\n## Comparison\n\n{comparison.to_markdown()}")
        if self.notes():
            parts.append("\n## Notes\n\n" + "\n".join(f"- {note}" for note in self.notes()))
        return "\n".join(parts) + "\n"

    def write(self, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write ``evaluation.json`` (with the values of all items) and ``evaluation.md``.

        Args:
            folder: Where to; made if missing.

        Returns:
            The two paths.
        """
        home = Path(folder)
        data, report = home / "evaluation.json", home / "evaluation.md"
        atomic_write(data, json.dumps(_finite(self.to_dict()), ensure_ascii=False, indent=1) + "\n")
        atomic_write(report, self.to_markdown())
        return data, report

    def _cell(self, run: ModelRun, task: str) -> str:
        if task not in run.tasks:
            return "-"
        interval = self.interval(run.model, task)
        around = "" if interval is None else f" ({interval.low:.3f}-{interval.high:.3f})"
        return f"{run.tasks[task].score:.4f}{around}"

    def _mean(self, run: ModelRun) -> float:
        shared = [task for task in self.tasks if all(task in each.tasks for each in self.runs)]
        return float(np.mean([run.tasks[task].score for task in shared])) if shared else math.nan


def interval_of(score: TaskScore, *, confidence: float = 0.95) -> Interval | None:
    """Return the bootstrap interval of a score over its items, shifted to the score that mteb gives.

    Args:
        score: The score.
        confidence: Level, in (0, 1).

    Returns:
        The interval; None for repeats, which share their texts, and for a single item.
    """
    if score.unit == "repeat" or len(score.items) < 2:
        return None
    statistic = None
    if score.gold is not None:
        statistic = Spearman(score.gold) if "spearman" in score.metric else AveragePrecision(score.gold)
    found = bootstrap_interval(score.values, statistic=statistic, confidence=confidence, num_resamples=_RESAMPLES)
    shift = score.score - found.estimate  # not 0 where the score is no plain statistic of the items, as for F1
    least = -1.0 if "spearman" in score.metric else 0.0
    low, high = np.clip([found.low + shift, found.high + shift], least, 1.0)
    return Interval(score.score, float(low), float(high), confidence)


def _cost_row(run: ModelRun, best: bool) -> list[str]:
    cost = run.cost
    if cost is None:
        return [run.model]
    return [
        run.model,
        "unknown" if cost.parameters is None else f"{cost.parameters:,}",
        f"{cost.bytes_per_vector:,}",
        f"{cost.texts_per_s:,.0f}",
        f"{cost.ms_per_query:.3g}",
        "unknown" if cost.peak_mb is None else f"{cost.peak_mb:,.0f}",
        f"{cost.seconds:,.1f}",
        "yes" if best else "",
    ]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say by null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
