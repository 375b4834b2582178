"""Two-way analysis of variance, score ~ model + domain: on the scores, and on resamples as the paper does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.evaluate.domain_gap.finding import Finding, shown_number
from embedlab.evaluate.domain_gap.table import ScoreTable

if TYPE_CHECKING:
    from pandas import DataFrame

_NEEDED = ("model", "domain", "score")


def anova_two_way(frame: DataFrame, *, num_boot: int = 500, seed: int = 0) -> DataFrame:
    """Split the variance of scores between model and domain: additive, sums of squares of Type II.

    With ``num_boot`` the scores of each (model, domain) are drawn anew so many times and each mean counts as one
    observation. That is the paper's procedure, and **its F and p are no evidence**: the more is drawn, the larger they
    get. Which factor has the larger share is still told. With 0 the scores stand as they are; then scores of different
    models on one data set count as independent, which they are not: ``label_test`` is the test to believe.

    Args:
        frame: One row per score, with columns ``model``, ``domain`` and ``score``.
        num_boot: Resamples per (model, domain); 0 takes the scores as they are. Published: 500.
        seed: Decides the resamples.

    Returns:
        Rows ``model``, ``domain`` and ``residual``; columns ``sum_sq``, ``df``, ``F``, ``p`` and ``share``, the part of
        the three sums of squares.

    Raises:
        InputError: a column is missing, there are not two models and two domains, a (model, domain) has no score, or
            too few scores are left for an error term.
        MissingExtraError: statsmodels is not installed.

    Example:
        >>> import pandas as pd
        >>> rows = [(m, d, 0.1 * m + 0.4 * d + 0.01 * ((m + d) % 2)) for m in range(3) for d in range(2)]
        >>> table = anova_two_way(pd.DataFrame(rows, columns=["model", "domain", "score"]), num_boot=0)
        >>> table["df"].astype(int).tolist(), f"{table.loc['domain', 'share']:.2f}"
        ([2, 1, 2], '0.86')
    """
    require("statsmodels", extra="evaluate")
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    _check(frame, num_boot)
    data = _redrawn(frame, num_boot, seed) if num_boot else frame
    fit = ols("score ~ C(model) + C(domain)", data=data).fit()
    if fit.df_resid < 1:
        raise InputError(
            f"frame: {len(data)} scores leave no degree of freedom for the error: more data sets or models"
        )
    table: DataFrame = anova_lm(fit, typ=2)
    table.index = ["model", "domain", "residual"]
    table = table.rename(columns={"PR(>F)": "p"})
    table["share"] = table["sum_sq"] / table["sum_sq"].sum()
    return table


def anova(table: ScoreTable, *, num_boot: int = 500, seed: int = 0) -> Finding:
    """Do the paper's analysis of variance, per type and on the means of all cells.

    Args:
        table: The scores.
        num_boot: Resamples per cell.
        seed: Decides the resamples.

    Returns:
        Per type F, p and share of both factors; the row ``average`` has one mean over types per (model, domain).
    """
    from pandas import DataFrame, concat

    rows = []
    frame = table.long()
    kinds = [kind for kind, part in frame.groupby("type") if part["domain"].nunique() == 2]
    for number, kind in enumerate(kinds):
        part = frame[frame["type"] == kind]
        rows.append(_row(str(kind), anova_two_way(part, num_boot=num_boot, seed=seed + number)))
    cells = frame[frame["type"].isin(kinds)].groupby(["type", "model", "domain"])["score"].mean()
    mean = cells.groupby(["model", "domain"]).mean().reset_index()
    rows.append(_row("average", anova_two_way(mean, num_boot=0)))
    result = DataFrame(concat([DataFrame([row]) for row in rows])).set_index("type")
    larger = int((result["share domain"] > result["share model"]).iloc[:-1].sum())
    last = result.iloc[-1]
    verdict = (
        f"The domain explains more than the model in {larger} of {len(kinds)} types; on the {len(mean)} cell means"
        f" F(domain) = {shown_number(float(last['F domain']))} and F(model) = {shown_number(float(last['F model']))}."
        f" The paper's procedure: F and p of the single types grow with the {num_boot} resamples and are no evidence;"
        " see the test with the data set as unit."
    )
    return Finding(f"Analysis of variance (the paper's, {num_boot} resamples per cell)", result, verdict)


def _row(kind: str, table: DataFrame) -> dict[str, Any]:
    numbers: dict[str, Any] = {"type": kind}
    for name in ("F", "p", "share"):
        for factor in ("domain", "model"):
            numbers[f"{name} {factor}"] = table.loc[factor, name]
    numbers["residual df"] = table.loc["residual", "df"]
    return numbers


def _redrawn(frame: DataFrame, num_boot: int, seed: int) -> DataFrame:
    """Means of resamples of each cell: the same data sets are drawn for no two cells, as in the paper."""
    from pandas import DataFrame, concat

    rng = np.random.default_rng(seed)
    cells = []
    for (model, domain), part in frame.groupby(["model", "domain"], sort=True):
        scores = np.sort(part["score"].to_numpy(dtype=np.float64))
        drawn = rng.integers(0, len(scores), size=(num_boot, len(scores)))
        cells.append(DataFrame({"model": model, "domain": domain, "score": scores[drawn].mean(axis=1)}))
    return concat(cells, ignore_index=True)


def _check(frame: DataFrame, num_boot: int) -> None:
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise InputError(f"frame lacks the columns {', '.join(missing)}: it needs {', '.join(_NEEDED)}")
    if num_boot < 0:
        raise InputError(f"num_boot={num_boot} must be 0 (no resampling) or more")
    models, domains = frame["model"].nunique(), frame["domain"].nunique()
    if models < 2 or domains < 2:
        raise InputError(f"frame: two models and two domains are needed at least, got {models} and {domains}")
    cells = frame.groupby(["model", "domain"]).ngroups
    if cells < models * domains:
        raise InputError(f"frame: {models * domains - cells} of {models * domains} (model, domain) have no score")
