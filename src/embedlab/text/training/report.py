"""What a training run gave: the model's folder, the course of the loss, and whether the model is better than before."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.text.training.assessment import TRAINED, Assessment, Duel, Score

if TYPE_CHECKING:
    from rich.table import Table
    from sentence_transformers import SentenceTransformer

REPORT = "report.json"
WORSE = "worse-than-start"  # folder of a model that must not be taken by accident


@dataclass(frozen=True, slots=True)
class UsedData:
    """One data set of a run.

    Attributes:
        name: Its name.
        kind: What its rows are.
        rows: Rows trained on, after the recipe's preparation.
        development: Rows held out for development.
        test: Rows held out for the test.
    """

    name: str
    kind: str
    rows: int
    development: int
    test: int


@dataclass(frozen=True, slots=True)
class TrainedArm:
    """One model that was trained: by the recipe, or by its baseline.

    Attributes:
        recipe: Name of the recipe.
        steps: Optimiser steps.
        seconds: How long they took; after a resume, only those since.
        trained_parameters: How many numbers were trained.
        losses: Step -> training loss.
    """

    recipe: str
    steps: int
    seconds: float
    trained_parameters: int
    losses: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """A finished run.

    Attributes:
        folder: The result folder.
        plan: The run as resolved, as in ``recipe.yaml``.
        fingerprint: Hash over the plan and the data.
        data: What was trained on, and held out.
        arm: The trained model.
        baseline: The baseline, if it was trained.
        assessment: Scores, tests and the verdict.
        notes: What a reader must know beside the numbers.
        versions: Versions of the packages that made it.
    """

    folder: Path
    plan: Mapping[str, Any]
    fingerprint: str
    data: tuple[UsedData, ...]
    arm: TrainedArm
    baseline: TrainedArm | None
    assessment: Assessment
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """``"better"``, ``"not distinguishable"``, ``"worse"`` than the start model, or ``"not judged"``."""
        return self.assessment.verdict

    @property
    def model_folder(self) -> Path:
        """Where the model is: the result folder, or a folder inside whose name says that it got worse."""
        return self.folder / WORSE if self.verdict == "worse" else self.folder

    @property
    def losses(self) -> Mapping[int, float]:
        """Step -> training loss of the trained model."""
        return self.arm.losses

    def load(self, *, even_if_worse: bool = False) -> SentenceTransformer:
        """Load the trained model.

        Args:
            even_if_worse: Whether to hand over a model that is worse than the one it began with.

        Returns:
            The model.

        Raises:
            EmbedlabError: the model is worse than the start model.
        """
        if self.verdict == "worse" and not even_if_worse:
            raise EmbedlabError(f"{self.assessment.sentence} To load it all the same, say even_if_worse=True")
        from embedlab.models import load_model

        loaded: Any = load_model(str(self.model_folder))
        model: SentenceTransformer = loaded.host
        return model

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN and infinite numbers are None."""
        found = asdict(self)
        found["folder"] = self.folder.name
        found["verdict"] = self.verdict
        plain: dict[str, Any] = _finite(found)
        return plain

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the report of a finished run.

        Args:
            folder: The result folder.

        Raises:
            InputError: there is none, or it is no such report.
        """
        path = Path(folder) / REPORT
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            judged = entry["assessment"]
            lists = {"scores": Score, "duels": Duel, "development": Score}
            assessment = Assessment(
                judged["verdict"],
                judged["sentence"],
                **{name: tuple(kind(**each) for each in judged[name]) for name, kind in lists.items()},
                notes=tuple(judged["notes"]),
            )
            return cls(
                folder=Path(folder),
                plan=entry["plan"],
                fingerprint=entry["fingerprint"],
                data=tuple(UsedData(**each) for each in entry["data"]),
                arm=_arm(entry["arm"]),
                baseline=None if entry["baseline"] is None else _arm(entry["baseline"]),
                assessment=assessment,
                notes=tuple(entry["notes"]),
                versions=entry["versions"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no report of a training run: {error}") from error

    def sheets(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Return the tables as texts: data, scores, comparison; each a title, heads and rows."""
        data = [[each.name, each.kind, *map(str, (each.rows, each.development, each.test))] for each in self.data]
        found = [("Data", ["data", "kind", "training rows", "development", "test"], data)]
        for title, scores in (
            ("Scores (95% interval)", self.assessment.scores),
            ("Scores on the development part", self.assessment.development),
        ):
            if scores:
                found.append((title, *_score_table(scores)))
        duels = [
            [
                each.task,
                each.against,
                f"{each.difference:+.4f}",
                f"{each.low:+.4f} to {each.high:+.4f}",
                f"{each.pvalue:.4f}",
                each.verdict,
            ]
            for each in self.assessment.duels
        ]
        if duels:
            head = ["task", f"{TRAINED} against", "difference", "95% interval", "p", "verdict"]
            found.append(("Comparison (paired tests, p corrected over tasks)", head, duels))
        return found

    def to_tables(self) -> list[Table]:
        """Return the tables for a terminal."""
        from rich.table import Table
        from rich.text import Text

        tables = []
        for title, head, rows in self.sheets():
            table = Table(title=title, title_justify="left", box=None, pad_edge=False)
            for name in head:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*map(Text, row))
            tables.append(table)
        return tables

    def remarks(self) -> tuple[str, ...]:
        """Return all notes: on the data and on the evaluation."""
        return (*self.notes, *self.assessment.notes)


def _score_table(scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    models = list(dict.fromkeys(each.model for each in scores))
    rows = []
    for task in dict.fromkeys(each.task for each in scores):
        by_model = {each.model: each for each in scores if each.task == task}
        first = next(iter(by_model.values()))
        rows.append([task, first.metric, str(first.items), *(_cell(by_model.get(model)) for model in models)])
    return ["task", "metric", "items", *models], rows


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    around = "" if score.low is None or score.high is None else f" ({score.low:.3f}-{score.high:.3f})"
    return f"{score.score:.4f}{around}"


def _arm(entry: Mapping[str, Any]) -> TrainedArm:
    losses = {int(step): math.nan if loss is None else float(loss) for step, loss in entry["losses"].items()}
    return TrainedArm(**{**entry, "losses": losses})


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value if isinstance(value, str | int | bool | None) else str(value)
