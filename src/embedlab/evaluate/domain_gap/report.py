"""The whole question at once: a table of scores in, gaps, tests, controls and ranks out, each with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from embedlab._core.errors import InputError
from embedlab.evaluate.domain_gap.anova import anova
from embedlab.evaluate.domain_gap.control import Controls, regression, standardise, terciles
from embedlab.evaluate.domain_gap.finding import Finding
from embedlab.evaluate.domain_gap.gaps import gaps, label_test
from embedlab.evaluate.domain_gap.ranks import rank_relation
from embedlab.evaluate.domain_gap.table import ScoreTable, score_table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class GapReport:
    """What is known about a domain's gap.

    Attributes:
        gaps: Gap of each model, per type.
        label_test: The test with the data set as unit: the one to believe before control.
        anova: The paper's analysis of variance.
        subgroup: Terciles of complexity.
        regression: The gap with complexity held fixed: the one to believe after control.
        rank_corr: Whether ranks of models carry over.
        scores: The scores, sorted.
        controls: The complexity measures, standardised.
    """

    gaps: Finding
    label_test: Finding
    anova: Finding | None
    subgroup: Finding
    regression: Finding
    rank_corr: Finding
    scores: ScoreTable
    controls: Controls

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings that there are, in the order to read them."""
        every = (self.gaps, self.label_test, self.regression, self.subgroup, self.rank_corr, self.anova)
        return tuple(each for each in every if each is not None)

    @property
    def verdict(self) -> str:
        """Two sentences: the gap as it is, and with complexity held fixed."""
        return f"{self.label_test.verdict} {self.regression.verdict}"

    def markdown(self) -> str:
        """Return the report as Markdown."""
        head = f"# Is {self.scores.domain} different, or only harder?\n\n{self.verdict}\n"
        return "\n".join([head, *(each.markdown() for each in self.findings)])

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "domain": self.scores.domain,
            "verdict": self.verdict,
            "models": list(self.scores.models),
            "datasets": [
                {"dataset": name, "type": kind, "domain": bool(inside), "scores": values}
                | {"complexity": {measure: float(column[row]) for measure, column in self.controls.values.items()}}
                for row, (name, kind, inside, values) in enumerate(
                    zip(
                        self.scores.datasets,
                        self.scores.types,
                        self.scores.inside,
                        self.scores.values.tolist(),
                        strict=True,
                    )
                )
            ],
            "findings": [each.to_dict() for each in self.findings],
        }

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.findings))


def domain_gap(
    scores: ArrayLike | DataFrame,
    *,
    domain: Sequence[str],
    types: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    complexity: DataFrame | None = None,
    general: str = "general",
    num_boot: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> GapReport:
    """Ask whether models score lower on a domain because it is different, or because its data sets are harder.

    Scores ``y[d, m]`` of models m on data sets d of both sides are compared per task type; then with the data set as
    unit, by exchanging the domain's label between data sets; then with complexity ``c[d]`` held fixed::

        y[d, m] = domain[d] * gap + sum_k c_k[d] * b_k + model[m] + type[d] + error[d] + error[d, m]

    A gap that stays below 0 with its interval is more than complexity. The paper's analysis of variance on resamples is
    there too, marked as what it is: its F grows with the number of resamples.

    Args:
        scores: Scores of data sets (rows) by models (columns); a frame brings the names. None may be missing.
        domain: For each data set ``general`` or the domain's name.
        types: Task type of each data set, such as mteb's; None when all are of one.
        models: Names of the models; None takes the frame's columns.
        datasets: Names of the data sets; None takes the frame's index.
        complexity: One row per data set, one column per measure (see ``measure``), indexed by the names of the data
            sets or in the order of ``scores``; None leaves control out.
        general: The name of the general side in ``domain``.
        num_boot: Resamples per cell of the paper's analysis of variance; 0 leaves that analysis out. Published: 500.
        confidence: Level of all intervals, in (0, 1).
        seed: Decides resamples, and relabellings where there are too many to look at all.

    Shape:
        scores (N, M), domain (N,), types (N,), complexity (N, K) -> GapReport

    Returns:
        Findings, each with a table and a verdict. What cannot be told is said to be "not identifiable": a type with one
        side only, a side with one data set, complexity that does not vary or tells the sides apart completely.

    Raises:
        InputError: a score is missing, there are not two sides, no type has both, or names or sizes do not fit.
        MissingExtraError: statsmodels is not installed.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> hard = rng.normal(size=12)                                      # complexity of twelve data sets
        >>> domain = ["general", "finance"] * 6
        >>> scores = 0.6 - 0.1 * hard[:, None] - 0.2 * (np.arange(12) % 2)[:, None] + 0.01 * rng.normal(size=(12, 4))
        >>> import pandas as pd
        >>> report = domain_gap(scores, domain=domain, complexity=pd.DataFrame({"hard": hard}), num_boot=0)
        >>> print(report.regression.verdict)
        Holding hard fixed, finance scores lower beyond what complexity explains: ...

    References:
        Tang and Yang (2024), Do We Need Domain-Specific Embedding Models? An Empirical Investigation,
        arXiv:2409.18511v2. No code of the study was released; what was not printed (which readability index, how text
        values were pooled) is stated where it was chosen. Test by labels of data sets and HC3 errors are additions.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} must be in (0, 1)")
    table = score_table(scores, domain=domain, types=types, models=models, datasets=datasets, general=general)
    controls = Controls({}, {}) if complexity is None else standardise(table, _aligned(table, complexity))
    return GapReport(
        gaps=gaps(table, confidence=confidence),
        label_test=label_test(table, confidence=confidence, seed=seed),
        anova=anova(table, num_boot=num_boot, seed=seed) if num_boot and len(table.models) > 1 else None,
        subgroup=terciles(table, controls, confidence=confidence, seed=seed),
        regression=regression(table, controls, confidence=confidence),
        rank_corr=rank_relation(table, confidence=confidence),
        scores=table,
        controls=controls,
    )


def _aligned(table: ScoreTable, complexity: DataFrame) -> DataFrame:
    """Bring the rows into the table's order: by name where names are given, else by place."""
    names = [str(name) for name in complexity.index]
    if set(names) >= set(table.datasets):
        return complexity.set_axis(names, axis=0).loc[list(table.datasets)]
    if names == [str(place) for place in range(len(table.datasets))]:
        return complexity.iloc[table.order]
    missing = [name for name in table.datasets if name not in names]
    raise InputError(
        f"complexity has no row for {', '.join(missing[:3])}{', ...' * (len(missing) > 3)}: index it by the names of"
        " the data sets, or give one row per row of scores"
    )
