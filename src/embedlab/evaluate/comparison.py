"""Which differences between models are real? Every pair on every task, corrected over tasks, and the order over all.

A difference that could be chance is called *not distinguishable*, in every output.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.evaluate.mmteb.ranking import RankIntervals, rank_intervals
from embedlab.evaluate.mmteb.scores import ScoreTable
from embedlab.ops.significance import PairedTest, holm, paired_tests
from embedlab.ops.weighted import AveragePrecision, Spearman, Statistic, mean

if TYPE_CHECKING:
    from rich.table import Table

Family = Literal["tasks", "all"]
SAME = "not distinguishable"
_FAMILIES = {
    "tasks": "Holm's correction over the tasks of each pair of models, at most {tests}",
    "all": "Holm's correction over all {tests} tests of {pairs} pairs of models",
}
_WRAPPED = ("task", "model", "A", "B", "not distinguishable from")  # columns of names, which a narrow terminal may fold
_OFF = 0.005  # beyond this, what is tested and what is reported as score are not the same number


class Score(Protocol):
    """One model on one task, as ``evaluate`` gives it (``TaskScore``)."""

    @property
    def type(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def unit(self) -> str: ...
    @property
    def items(self) -> tuple[str, ...]: ...
    @property
    def values(self) -> NDArray[np.float64]: ...
    @property
    def gold(self) -> NDArray[np.float64] | None: ...


class Run(Protocol):
    """One model on all its tasks (``ModelRun``)."""

    @property
    def model(self) -> str: ...
    @property
    def tasks(self) -> Mapping[str, Score]: ...


class Runs(Protocol):
    """What ``compare`` takes (``Evaluation``)."""

    @property
    def runs(self) -> Iterable[Run]: ...


@dataclass(frozen=True, slots=True)
class Duel:
    """Two models on one task.

    Attributes:
        task: The task.
        metric: Its main score.
        unit: What was compared: ``"query"``, ``"pair"``, ``"text"`` or ``"repeat"``.
        first: One model.
        second: The other.
        scores: The main scores of both, as mteb gives them.
        test: The difference, first less second, with its interval, and the p-value before correction.
        pvalue: The p-value corrected for the family.
        better: The better model, or None where the two are not distinguishable.
        note: What to know about this test, empty as a rule.
    """

    task: str
    metric: str
    unit: str
    first: str
    second: str
    scores: tuple[float, float]
    test: PairedTest
    pvalue: float
    better: str | None
    note: str = ""

    @property
    def verdict(self) -> str:
        """The result in words: the better model, or that the two are not distinguishable."""
        return SAME if self.better is None else f"{self.better} is better"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs of models on all tasks they share, and the order over those tasks.

    Attributes:
        models: The models, as they were given.
        tasks: Tasks that every model has.
        left_out: Tasks that only some models have -> those models; these are compared on it, but it takes no part in
            the order.
        duels: One per task and pair of models that have it.
        overall: Borda order with intervals over tasks, None for a single task.
        family: Over what the p-values are corrected, in words.
        confidence: Level of intervals; 1 - confidence is the level of the tests.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]
    duels: tuple[Duel, ...]
    overall: RankIntervals | None
    family: str
    confidence: float

    def duel(self, task: str, first: str, second: str) -> Duel:
        """Return one test; the models in either order, as they were compared.

        Raises:
            InputError: there is no such task or model.
        """
        found = [each for each in self.duels if each.task == task and {each.first, each.second} == {first, second}]
        if not found:
            raise InputError(f"there is no comparison of {first!r} and {second!r} on {task!r}")
        return found[0]

    def notes(self) -> list[str]:
        """Return what a reader must know beside the numbers, one sentence each."""
        lines = [f"Tests at the {1 - self.confidence:.0%} level; {self.family}."]
        for task, models in self.left_out.items():
            lines.append(f"{task} takes no part in the order over tasks and in the mean: only for {', '.join(models)}.")
        if self.overall is not None and len(self.tasks) < 5:
            lines.append(f"Rank intervals over {len(self.tasks)} tasks are rough: tasks are the sample.")
        return lines + list(dict.fromkeys(f"{each.task}: {each.note}" for each in self.duels if each.note))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; an end of an interval that is not known is None."""
        return {
            "models": list(self.models),
            "tasks": list(self.tasks),
            "left_out": {task: list(models) for task, models in self.left_out.items()},
            "confidence": self.confidence,
            "family": self.family,
            "notes": self.notes(),
            "duels": [_plain(each) for each in self.duels],
            "overall": self._places(),
        }

    def to_tables(self) -> list[Table]:
        """Return the tables of a terminal report: the order over tasks, then every pair on every task."""
        from rich.table import Table
        from rich.text import Text

        tables = []
        for title, head, rows in self._sheets():
            table = Table(title=title, title_justify="left", box=None, pad_edge=False)
            for name in head:
                table.add_column(name, no_wrap=name not in _WRAPPED, overflow="fold")
            for row in rows:
                table.add_row(*(Text(cell, style="dim" if cell == SAME else "") for cell in row))
            tables.append(table)
        return tables

    def to_markdown(self) -> str:
        """Return the same tables and the notes as Markdown."""
        parts = []
        for title, head, rows in self._sheets():
            lines = [head, ["---"] * len(head), *rows]
            body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
            parts.append(f"### {title}\n\n{body}\n")
        return "\n".join(parts) + "\n" + "\n".join(f"- {note}" for note in self.notes()) + "\n"

    def _sheets(self) -> list[tuple[str, list[str], list[list[str]]]]:
        level = f"{self.confidence:.0%}"
        sheets = []
        places = self._places()
        if places:
            body = []
            for each in places:
                alike = ", ".join(each["not_distinguishable_from"]) or "-"
                numbers = f"{each['rank']:g}", f"{each['low']:g}-{each['high']:g}", f"{each['points']:g}"
                body.append([each["model"], *numbers, alike])
            head = ["model", "rank", f"{level} interval", "Borda points", "not distinguishable from"]
            sheets.append((f"Order over {len(self.tasks)} tasks", head, body))
        duels = []
        for duel in self.duels:
            shown = f"{duel.test.difference.estimate:+.3f}", _ends(duel.test), _pvalue(duel.pvalue)
            duels.append([duel.task, duel.first, duel.second, *shown, duel.verdict])
        head = ["task", "A", "B", "A - B", f"{level} interval", "p", "verdict"]
        return [*sheets, ("Pairs of models (p corrected)", head, duels)] if duels else sheets

    def _places(self) -> list[dict[str, Any]]:
        if self.overall is None:
            return []
        ranking, found = self.overall.ranking, []
        for name in ranking.order():
            i = ranking.models.index(name)
            alike = [ranking.models[j] for j in np.flatnonzero(~self.overall.separated[i]) if j != i]
            found.append(
                {
                    "model": name,
                    "rank": float(ranking.ranks[i]),
                    "low": float(self.overall.low[i]),
                    "high": float(self.overall.high[i]),
                    "points": float(ranking.points[i]),
                    "not_distinguishable_from": alike,
                }
            )
        return found


def compare(
    evaluation: Runs,
    *,
    family: Family = "tasks",
    on_incomplete: Literal["error", "shared"] = "shared",
    confidence: float = 0.95,
    num_resamples: int = 5000,
    seed: int = 0,
) -> Comparison:
    """Compare every pair of models on every task they share, and order all models over these tasks.

    Per task the same items are compared: a paired bootstrap interval of the difference, and paired randomisation for
    the p-value. Spearman (STS) and average precision (pair classification) are no means over items: they are computed
    anew in every resample. Tasks that give only repeated scores (clustering) are tested with the spread of the repeats
    as the uncertainty, since repeats share their texts. The order over tasks is Borda's, with intervals from drawing
    the tasks anew.

    Args:
        evaluation: Runs of at least two models.
        family: ``"tasks"``: p-values of a pair of models are corrected over its tasks; ``"all"``: over all pairs too.
        on_incomplete: ``"shared"`` leaves tasks that not every model has out of the order, and says so; ``"error"``
            refuses them.
        confidence: Level of intervals, in (0, 1).
        num_resamples: Resamples per task, at least 100; raised where the family needs smaller p-values.
        seed: Decides the resamples.

    Returns:
        The comparison, with tables for a terminal, Markdown and JSON.

    Raises:
        InputError: fewer than two models, two of one name, no task in common, or other items for two models on a task.
    """
    if family not in _FAMILIES:
        raise unknown_name("family", family, _FAMILIES)
    runs = list(evaluation.runs)
    models = tuple(run.model for run in runs)
    if len(models) < 2 or len(set(models)) < len(models):
        raise InputError(f"evaluation holds the models {models}: comparing needs two or more, of different names")
    tasks, left_out = _shared(runs)
    if left_out and on_incomplete == "error":
        task, having = next(iter(left_out.items()))
        raise InputError(f"the task {task!r} was run for {', '.join(having)} only: run it for all, or leave it out")
    pairs = list(combinations(models, 2))
    common = {(a.model, b.model): len(a.tasks.keys() & b.tasks.keys()) for a, b in combinations(runs, 2)}
    if not any(common.values()):
        raise InputError("no two models were run on the same task: nothing can be compared")
    tests = sum(common.values()) if family == "all" else max(common.values())
    enough = max(num_resamples, math.ceil(5 * tests / (1 - confidence)))
    found: list[Duel] = []
    for task in dict.fromkeys(task for run in runs for task in run.tasks):
        scores = [(run.model, run.tasks[task]) for run in runs if task in run.tasks]
        if len(scores) > 1:
            found += _on_task(task, scores, confidence, enough, seed)
    words = _FAMILIES[family].format(tests=tests, pairs=len(pairs))
    overall = None
    if len(tasks) > 1:
        table = ScoreTable(models, tasks, np.array([[run.tasks[task].score for task in tasks] for run in runs]))
        overall = rank_intervals(table, confidence=confidence, seed=seed)
    duels = _corrected(found, family, 1 - confidence)
    return Comparison(models, tasks, left_out, tuple(duels), overall, words, confidence)


def _shared(runs: Sequence[Run]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    everything = dict.fromkeys(task for run in runs for task in run.tasks)
    having = {task: tuple(run.model for run in runs if task in run.tasks) for task in everything}
    shared = tuple(task for task, models in having.items() if len(models) == len(runs))
    return shared, {task: models for task, models in having.items() if len(models) < len(runs)}


def _on_task(
    task: str, scores: list[tuple[str, Score]], confidence: float, num_resamples: int, seed: int
) -> list[Duel]:
    """All pairs of models on one task, before correction."""
    names, results = [name for name, _ in scores], [score for _, score in scores]
    head = results[0]
    rows = np.stack([_aligned(task, head, names[0], score, name) for name, score in scores])
    statistic = _statistic(task, head)
    repeated = head.unit == "repeat"
    tests = paired_tests(
        rows,
        statistic=statistic,
        test="repeats" if repeated else "randomisation",
        confidence=confidence,
        num_resamples=num_resamples,
        seed=seed,
    )
    note = "tested over repeats on the same texts: whether it holds for other texts is not known" if repeated else ""
    if head.type == "Classification" and not repeated:
        note = "test texts are drawn anew, the samples to train on stay as they are"
    whole = [(statistic or mean)(row[None], np.ones((1, len(row))))[0] for row in rows]
    if not note and any(abs(seen - each.score) > _OFF for seen, each in zip(whole, results, strict=True)):
        what = "the mean" if statistic is None else type(statistic).__name__
        note = f"the test compares {what} of the items' values, which is not quite {head.metric}"
    return [
        Duel(
            task,
            head.metric,
            head.unit,
            names[i],
            names[j],
            (float(results[i].score), float(results[j].score)),
            test,
            test.pvalue,
            None,
            note,
        )
        for (i, j), test in tests.items()
    ]


def _aligned(task: str, head: Score, first: str, score: Score, name: str) -> NDArray[np.float64]:
    """The values of a model in the order of the first model's items."""
    if score.items == head.items:
        return score.values
    places = {item: place for place, item in enumerate(score.items)}
    missing = [item for item in head.items if item not in places]
    if missing or len(places) != len(head.items):
        raise InputError(
            f"{first!r} and {name!r} were run on other items of {task!r} ({len(head.items)} and {len(score.items)}"
            f"{f', {missing[0]!r} is missing' if missing else ''}): run both on the same data"
        )
    return np.asarray(score.values[[places[item] for item in head.items]])


def _statistic(task: str, score: Score) -> Statistic | None:
    """What the main score does with the items' values; None for a mean."""
    if score.gold is None or score.unit == "repeat":
        return None
    if "spearman" in score.metric:
        return Spearman(score.gold, undefined=0.0)  # constant similarities: chance
    if score.metric == "ap" or score.metric.endswith("_ap"):
        return AveragePrecision(score.gold)
    raise InputError(
        f"{task!r} has gold values and the score {score.metric!r}: known are Spearman and average precision"
    )


def _corrected(found: Sequence[Duel], family: Family, level: float) -> list[Duel]:
    """Put the corrected p-values and the verdicts in."""
    families: dict[tuple[str, str] | None, list[int]] = {}
    for place, duel in enumerate(found):
        families.setdefault(None if family == "all" else (duel.first, duel.second), []).append(place)
    adjusted = np.empty(len(found))
    for places in families.values():
        adjusted[places] = holm([found[place].test.pvalue for place in places])
    result = []
    for duel, pvalue in zip(found, adjusted, strict=True):
        winner = duel.first if duel.test.difference.estimate > 0 else duel.second
        result.append(replace(duel, pvalue=float(pvalue), better=winner if pvalue <= level else None))
    return result


def _plain(duel: Duel) -> dict[str, Any]:
    known = [end if math.isfinite(end) else None for end in (duel.test.difference.low, duel.test.difference.high)]
    return {
        "task": duel.task,
        "metric": duel.metric,
        "unit": duel.unit,
        "first": duel.first,
        "second": duel.second,
        "scores": list(duel.scores),
        "difference": duel.test.difference.estimate,
        "interval": known,
        "pvalue": duel.test.pvalue,
        "pvalue_corrected": duel.pvalue,
        "test": duel.test.test,
        "n": duel.test.n,
        "better": duel.better,
        "verdict": duel.verdict,
        "note": duel.note,
    }


def _ends(test: PairedTest) -> str:
    low, high = test.difference.low, test.difference.high
    return f"{low:+.3f} to {high:+.3f}" if math.isfinite(low) else "unknown"


def _pvalue(pvalue: float) -> str:
    return f"{pvalue:.3f}" if pvalue >= 0.001 else "<0.001"
