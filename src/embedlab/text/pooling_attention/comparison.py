"""Is one design better than another? A paired test over data sets, for each type of task, with Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

import numpy as np

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab.ops.significance import holm, paired_test

if TYPE_CHECKING:
    from rich.table import Table

Test: TypeAlias = Literal["wilcoxon", "randomisation"]
Correction: TypeAlias = Literal["holm", "none"]
Zeros: TypeAlias = Literal["wilcox", "pratt"]
ENOUGH = 6  # pairs that differ: with five, the smallest p-value of a signed-rank test is 1/16


class _Score(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def score(self) -> float: ...


class _Run(Protocol):
    @property
    def model(self) -> str: ...
    @property
    def tasks(self) -> Mapping[str, _Score]: ...


class Runs(Protocol):
    """What ``embedlab.evaluate.evaluate`` gives."""

    @property
    def runs(self) -> Iterable[_Run]: ...


@dataclass(frozen=True, slots=True)
class PairResult:
    """Two models on the data sets of one type.

    Attributes:
        type: Type of the data sets.
        model: The model.
        other: The one it is compared with.
        n: Data sets that both have.
        differing: Those on which they differ.
        mean: The model's mean score.
        other_mean: The other's.
        pvalue: Before correction; NaN where fewer than six pairs differ.
        corrected: After it; NaN likewise.
        verdict: ``"better"``, ``"worse"``, ``"not distinguishable"`` or ``"not enough pairs"``.
    """

    type: str
    model: str
    other: str
    n: int
    differing: int
    mean: float
    other_mean: float
    pvalue: float
    corrected: float
    verdict: str


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """All tests of one comparison.

    Attributes:
        rows: One per type of data set and pair of models.
        test: The test, in words.
        correction: The correction, in words.
        level: p-value up to which a difference counts.
    """

    rows: tuple[PairResult, ...]
    test: str
    correction: str
    level: float

    def of(self, kind: str, model: str) -> PairResult:
        """Return the first row of a model on a type of data set.

        Raises:
            InputError: there is none.
        """
        for row in self.rows:
            if (row.type, row.model) == (kind, model):
                return row
        raise InputError(f"kind={kind!r}, model={model!r}: there is no such comparison")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; a p-value that could not be had is None."""
        rows = [{k: None if v != v else v for k, v in asdict(row).items()} for row in self.rows]
        return {"test": self.test, "correction": self.correction, "level": self.level, "rows": rows}

    def to_table(self) -> Table:
        """Return the table of a terminal report."""
        from rich.table import Table

        table = Table(title=f"{self.test}; {self.correction}", title_justify="left", box=None, pad_edge=False)
        for name in self._head():
            table.add_column(name)
        for line in self._lines():
            table.add_row(*line)
        return table

    def to_markdown(self) -> str:
        """Return the same table as Markdown."""
        lines = [self._head(), ["---"] * len(self._head()), *self._lines()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{self.test}; {self.correction}.\n"

    def _head(self) -> list[str]:
        return ["type", "model", "against", "data sets", "mean", "difference", "p", "p corrected", "verdict"]

    def _lines(self) -> list[list[str]]:
        def number(p: float) -> str:
            return "-" if math.isnan(p) else f"{p:.4f}"

        return [
            [
                row.type,
                row.model,
                row.other,
                str(row.n),
                f"{row.mean:.4f}",
                f"{row.mean - row.other_mean:+.4f}",
                number(row.pvalue),
                number(row.corrected),
                row.verdict,
            ]
            for row in self.rows
        ]


def compare_models(
    results: Mapping[str, Mapping[str, float]] | Runs,
    baseline: str,
    *,
    test: Test = "wilcoxon",
    correction: Correction = "holm",
    types: Mapping[str, str] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    zeros: Zeros = "wilcox",
    level: float = 0.05,
) -> ModelComparison:
    """Test models against a baseline, paired over data sets, for each type of data set.

    Fewer than six pairs that differ cannot give a p-value below 0.05 in a signed-rank test, whatever the differences:
    such rows say ``not enough pairs``, and take no part in the correction.

    Args:
        results: Model -> data set -> score, larger is better; or what ``embedlab.evaluate.evaluate`` gave.
        baseline: The model that the others are compared with.
        test: ``"wilcoxon"``: scipy's signed-rank test, as published. ``"randomisation"``: of the mean difference.
        correction: ``"holm"`` over all rows, or ``"none"``, as published.
        types: Data set -> type (similarity, search, ...); None for one type, or what ``evaluate`` says.
        pairs: Further pairs (model, the one it is compared with).
        zeros: What becomes of data sets on which both score the same, in the signed-rank test: ``"wilcox"`` leaves them
            out, ``"pratt"`` ranks them and then leaves them out.
        level: Largest p-value that counts as a difference, in (0, 1).

    Returns:
        The rows, with means over the data sets that both models have, and verdicts.

    Raises:
        InputError: a name is unknown, a score is not finite, a data set has no type, or an option is not allowed.

    Example:
        >>> scores = {"a": {str(i): 0.5 for i in range(6)}, "b": {str(i): 0.6 + 0.01 * i for i in range(6)}}
        >>> row = compare_models(scores, "a").rows[0]
        >>> row.pvalue, row.verdict
        (0.03125, 'better')

    References:
        Tang and Yang (2024), arXiv:2409.02727v2, section 4; Wilcoxon (1945), doi:10.2307/3001968.
    """
    for name, value, allowed in (("test", test, Test), ("correction", correction, Correction), ("zeros", zeros, Zeros)):
        if value not in get_args(allowed):
            raise unknown_name(name, str(value), get_args(allowed))
    if not 0 < level < 1:
        raise InputError(f"level={level}: must be in (0, 1)")
    scores, kinds = _scores(results, types)
    if baseline not in scores:
        raise unknown_name("baseline", baseline, scores)
    wanted = [(model, baseline) for model in scores if model != baseline] + list(pairs or ())
    for model in (model for pair in wanted for model in pair):
        if model not in scores:
            raise unknown_name("pairs", model, scores)
    found = []
    for kind in dict.fromkeys(kinds.values()):
        for model, other in wanted:
            shared = [name for name in scores[model] if kinds[name] == kind and name in scores[other]]
            if shared:
                values = np.array(
                    [[scores[each][name] for name in shared] for each in (model, other)], dtype=np.float64
                )
                found.append((kind, model, other, values, *_pvalue(values, test, zeros)))
    raw = np.array([row[-1] for row in found], dtype=np.float64)
    fixed = raw.copy()
    tested = ~np.isnan(raw)
    if correction == "holm":
        fixed[tested] = holm(raw[tested])
    rows = tuple(
        PairResult(
            type=kind,
            model=model,
            other=other,
            n=values.shape[1],
            differing=differing,
            mean=float(values[0].mean()),
            other_mean=float(values[1].mean()),
            pvalue=pvalue,
            corrected=float(corrected),
            verdict=_verdict(float(values[0].mean() - values[1].mean()), float(corrected), level),
        )
        for (kind, model, other, values, differing, pvalue), corrected in zip(found, fixed, strict=True)
    )
    names = {"wilcoxon": "Wilcoxon signed-rank test", "randomisation": "paired randomisation test"}
    told = {"holm": f"Holm's correction over {int(tested.sum())} tests", "none": "no correction for several tests"}
    return ModelComparison(rows, names[test], told[correction], level)


def _scores(
    results: Any, types: Mapping[str, str] | None
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:  # model -> data set -> score; data set -> type
    kinds: dict[str, str] = {}
    if isinstance(results, Mapping):
        scores = {model: dict(row) for model, row in results.items()}
    else:
        runs = list(results.runs)
        scores = {run.model: {name: float(task.score) for name, task in run.tasks.items()} for run in runs}
        kinds = {name: str(task.type) for run in runs for name, task in run.tasks.items()}
    names = list(dict.fromkeys(name for row in scores.values() for name in row))
    if types is not None:
        kinds |= types
    missing = [name for name in names if name not in kinds]
    if missing and (types is not None or kinds):
        raise InputError(f"types: no type for the data set {missing[0]!r}")
    for model, row in scores.items():
        for name, score in row.items():
            if not math.isfinite(score):
                raise InputError(f"results: {model!r} has the score {score} on {name!r}, expected a finite number")
    return scores, {name: kinds.get(name, "all") for name in names}


def _pvalue(values: Any, test: Test, zeros: Zeros) -> tuple[int, float]:
    """Count the pairs that differ, and test them if there are enough."""
    steps = values[0] - values[1]
    differing = int(np.count_nonzero(steps))
    if differing < ENOUGH:
        return differing, math.nan
    if test == "randomisation":
        return differing, paired_test(values[0], values[1]).pvalue
    return differing, float(require("scipy.stats", extra="train").wilcoxon(steps, zero_method=zeros).pvalue)


def _verdict(difference: float, pvalue: float, level: float) -> str:
    if math.isnan(pvalue):
        return "not enough pairs"
    if pvalue > level:
        return "not distinguishable"
    return "better" if difference > 0 else "worse"
