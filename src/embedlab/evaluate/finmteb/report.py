"""General and domain suites side by side: scores, means by type, intervals, and whether the ranks agree."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.evaluate.finmteb.suite import DomainSuite
from embedlab.evaluate.report import Evaluation, interval_of
from embedlab.evaluate.run import Step, evaluate
from embedlab.models.encoder import Encoder
from embedlab.ops.significance import Interval
from embedlab.ops.weighted import midranks

if TYPE_CHECKING:
    from rich.console import RenderableType

BASELINES = ("bow", "tfidf", "bm25")  # always in a report: a model that loses to counting words should be seen to
_EXACT = 8  # models up to which all orders are looked at; beyond, they are drawn
_DRAWS = 20_000
OVERALL = "average"


@dataclass(frozen=True, slots=True)
class RankRelation:
    """How far the order of models on the general suite tells their order on the domain's.

    Attributes:
        type: Type of task, or ``"average"``.
        models: The models that both suites have scores of.
        spearman: Rank correlation, with an interval from resampled models; it is wide, as models are few.
        pvalue: Chance of a correlation at least as far from 0 if the orders had nothing to do with each other; from
            all orders up to eight models, beyond from drawn ones.
    """

    type: str
    models: tuple[str, ...]
    spearman: Interval
    pvalue: float


@dataclass(frozen=True, slots=True)
class DomainReport:
    """What ``report`` gives.

    Attributes:
        general: The general suite.
        domain: The domain's.
        general_scores: All models on the general tasks.
        domain_scores: All models on the domain's tasks.
        relations: Rank relation by type of task, and over averages.
    """

    general: DomainSuite
    domain: DomainSuite
    general_scores: Evaluation
    domain_scores: Evaluation
    relations: tuple[RankRelation, ...]

    def means(self, *, domain: bool) -> dict[str, dict[str, Interval]]:
        """Average by type, and over types for models that have them all.

        Args:
            domain: The domain's suite, or the general one.

        Returns:
            Model -> type -> mean with its interval over items; the tasks are taken as given.
        """
        return _means(self.domain, self.domain_scores) if domain else _means(self.general, self.general_scores)

    def sheets(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Return the tables as text: title, head and rows."""
        found = []
        for words, suite, scores in (
            ("General", self.general, self.general_scores),
            ("Domain", self.domain, self.domain_scores),
        ):
            means = _means(suite, scores)
            kinds = list(dict.fromkeys(kind for by_type in means.values() for kind in by_type))
            rows = [
                [model, *(_shown(means[model].get(kind)) for kind in kinds), _place(means, model)] for model in means
            ]
            found.append((f"{words}: {suite.name}, means by type (95% interval)", ["model", *kinds, "rank"], rows))
            tasks = list(suite.types)
            rows = []
            for run in scores.runs:
                cells = []
                for task in tasks:
                    score = run.tasks.get(task)
                    cells.append("-" if score is None else _shown(interval_of(score) or _point(score.score)))
                rows.append([run.model, *cells])
            heads = [f"{task} ({suite.types[task]})" for task in tasks]
            found.append((f"{words}: per task", ["model", *heads], rows))
        rows = [
            [each.type, str(len(each.models)), _shown(each.spearman), f"{each.pvalue:.3g}"] for each in self.relations
        ]
        found.append(("General against domain", ["type", "models", "rank correlation", "p"], rows))
        return found

    def notes(self) -> list[str]:
        """Return what a reader must know beside the numbers."""
        thin = [
            f"{kind} has one task in {suite.name}: its mean is that task."
            for suite in (self.general, self.domain)
            for kind in dict.fromkeys(suite.types.values())
            if list(suite.types.values()).count(kind) == 1
        ]
        high = []
        for task in self.domain.types:
            scores = [run.tasks[task].score for run in self.domain_scores.runs if task in run.tasks]
            if len(scores) > 1 and min(scores) > 0.95:
                high.append(f"{task}: all models score above 0.95, so it says little about them.")
        own = self.general_scores.notes() + self.domain_scores.notes()
        return list(dict.fromkeys([*high, *own, *thin]))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but single items as plain values for JSON."""
        return {
            "general": self.general_scores.to_dict(items=False),
            "domain": self.domain_scores.to_dict(items=False),
            "types": {self.general.name: self.general.types, self.domain.name: self.domain.types},
            "means": {
                suite.name: {
                    model: {kind: asdict(mean) for kind, mean in by_type.items()}
                    for model, by_type in _means(suite, scores).items()
                }
                for suite, scores in ((self.general, self.general_scores), (self.domain, self.domain_scores))
            },
            "relations": [asdict(each) for each in self.relations],
            "notes": self.notes(),
        }

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        parts = [f"# {self.domain.name} beside {self.general.name}\n"]
        for title, head, rows in self.sheets():
            lines = [head, ["---"] * len(head), *rows]
            parts.append(f"## {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in self.notes()) + "\n")
        return "\n".join(parts)

    def to_tables(self) -> list[RenderableType]:
        """Return tables for a terminal."""
        from rich.table import Table

        tables: list[RenderableType] = []
        for title, head, rows in self.sheets():
            table = Table(*head, title=title, title_justify="left", box=None, pad_edge=False)
            for row in rows:
                table.add_row(*row)
            tables.append(table)
        return tables

    def write(self, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write ``domain.json`` and ``domain.md``.

        Args:
            folder: Where to; made if missing.

        Returns:
            The two paths.
        """
        data, text = Path(folder, "domain.json"), Path(folder, "domain.md")
        atomic_write(data, json.dumps(_finite(self.to_dict()), ensure_ascii=False, indent=1) + "\n")
        atomic_write(text, self.to_markdown())
        return data, text


def report(
    general: DomainSuite,
    domain: DomainSuite,
    models: Sequence[str | Encoder | Any] = (),
    *,
    baselines: Sequence[str] = BASELINES,
    cache: Path | None = None,
    seed: int = 0,
    on_progress: Callable[[Step], None] | None = None,
) -> DomainReport:
    """Score models on a general suite and on a domain's, and compare the two orders.

    Args:
        general: The general suite.
        domain: The domain's suite.
        models: Names, encoders or ``SentenceTransformer`` objects, as ``evaluate`` takes them.
        baselines: Models that count words; they are added to every report.
        cache: Folder for vectors and results; None for this user's.
        seed: Decides ties and resamples.
        on_progress: Told about every batch of texts.

    Returns:
        The report.

    Raises:
        InputError: the suites share a task's name, or ``evaluate`` refuses the models.
    """
    shared = sorted(set(general.types) & set(domain.types))
    if shared:
        raise InputError(f"both suites have a task {shared[0]!r}: tasks need names of their own")
    chosen = [*(name for name in baselines if name not in models), *models]
    found = [
        evaluate(chosen, suite.tasks, cache=cache, seed=seed, costs=False, on_progress=on_progress)
        for suite in (general, domain)
    ]
    return DomainReport(general, domain, found[0], found[1], _relations(general, domain, found, seed))


def rank_relation(
    general: dict[str, float], domain: dict[str, float], *, kind: str = OVERALL, seed: int = 0
) -> RankRelation | None:
    """Correlate the ranks of models on two suites.

    Args:
        general: Score by model.
        domain: Score by model.
        kind: What the scores are of.
        seed: Decides resamples, and orders where there are too many to look at all.

    Returns:
        The relation over the models that both have; None for fewer than four, or if one side ties all of them.

    Example:
        >>> scores = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
        >>> relation = rank_relation(scores, scores)
        >>> relation.spearman.estimate, round(relation.pvalue, 4)
        (1.0, 0.0833)
    """
    models = tuple(name for name in general if name in domain)
    x, y = (np.array([scores[name] for name in models]) for scores in (general, domain))
    if len(models) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    estimate = _spearman(x[None], y[None])[0]
    rng = np.random.default_rng(seed)
    if len(models) <= _EXACT:
        orders = np.array(list(itertools.permutations(range(len(models)))))
        added = 0
    else:
        orders = np.array([rng.permutation(len(models)) for _ in range(_DRAWS)])
        added = 1
    drawn = _spearman(np.broadcast_to(x, orders.shape), y[orders])
    extreme = int(np.sum(np.abs(drawn) >= abs(estimate) - 1e-9))
    places = rng.integers(len(models), size=(2000, len(models)))
    usable = [row for row in places if np.ptp(x[row]) > 0 and np.ptp(y[row]) > 0]
    resampled = _spearman(x[np.array(usable)], y[np.array(usable)])
    low, high = np.quantile(resampled, [0.025, 0.975])
    interval = Interval(float(estimate), float(low), float(high), 0.95)
    return RankRelation(kind, models, interval, (extreme + added) / (len(orders) + added))


def _relations(
    general: DomainSuite, domain: DomainSuite, found: list[Evaluation], seed: int
) -> tuple[RankRelation, ...]:
    means = [_means(general, found[0]), _means(domain, found[1])]
    kinds = [kind for kind in dict.fromkeys(general.types.values()) if kind in domain.types.values()]
    relations = []
    for kind in (*kinds, OVERALL):
        scores = [{m: by[kind].estimate for m, by in side.items() if kind in by} for side in means]
        relation = rank_relation(scores[0], scores[1], kind=kind, seed=seed)
        if relation is not None:
            relations.append(relation)
    return tuple(relations)


def _means(suite: DomainSuite, evaluation: Evaluation) -> dict[str, dict[str, Interval]]:
    found: dict[str, dict[str, Interval]] = {}
    kinds = list(dict.fromkeys(suite.types.values()))
    for run in evaluation.runs:
        own: dict[str, Interval] = {}
        for kind in kinds:
            tasks = [task for task, its in suite.types.items() if its == kind]
            if all(task in run.tasks for task in tasks):
                own[kind] = _mean([interval_of(run.tasks[task]) or _point(run.tasks[task].score) for task in tasks])
        if len(own) == len(kinds):
            own[OVERALL] = _mean(list(own.values()))
        found[run.model] = own
    return found


def _mean(parts: list[Interval]) -> Interval:
    """Average independent estimates: squared half-widths add."""
    estimate = sum(part.estimate for part in parts) / len(parts)
    down = math.sqrt(sum((part.estimate - part.low) ** 2 for part in parts if math.isfinite(part.low))) / len(parts)
    up = math.sqrt(sum((part.high - part.estimate) ** 2 for part in parts if math.isfinite(part.high))) / len(parts)
    return Interval(estimate, estimate - down, estimate + up, parts[0].confidence)


def _point(score: float) -> Interval:
    """A score without an interval: repeats share their texts."""
    return Interval(score, score, score, 0.95)


def _place(means: dict[str, dict[str, Interval]], model: str) -> str:
    if OVERALL not in means[model]:
        return "-"
    better = sum(
        other[OVERALL].estimate > means[model][OVERALL].estimate for other in means.values() if OVERALL in other
    )
    return str(better + 1)


def _shown(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low == interval.high:
        return f"{interval.estimate:.4f}"
    return f"{interval.estimate:.4f} ({interval.low:.3f} to {interval.high:.3f})"


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate the ranks of rows, (R, N) and (R, N) -> (R,)."""
    a, b = (midranks(np.ascontiguousarray(rows)) for rows in (x, y))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    found: NDArray[np.float64] = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return found


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say by null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
