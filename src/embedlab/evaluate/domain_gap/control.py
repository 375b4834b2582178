"""Is the domain's gap more than complexity? Terciles of complexity, and regressions that hold it fixed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.extras import require
from embedlab.evaluate.domain_gap.finding import Finding, interval_text, shown_number
from embedlab.evaluate.domain_gap.labels import Floats, difference, permutation_pvalue
from embedlab.evaluate.domain_gap.table import ScoreTable

if TYPE_CHECKING:
    from pandas import DataFrame

TERCILES = ("low", "medium", "high")
NO_CONTROL, JOINT = "no control", "all measures"


@dataclass(frozen=True, slots=True)
class Controls:
    """Complexity measures of the data sets of a table, and why some of them cannot be used.

    Attributes:
        values: Measure -> one standardised value per data set (N,), over both sides together.
        unusable: Measure -> why it is left out.
    """

    values: dict[str, Floats]
    unusable: dict[str, str]


def standardise(table: ScoreTable, complexity: DataFrame) -> Controls:
    """Bring complexity measures to mean 0 and deviation 1 over all data sets of both sides.

    Args:
        table: The scores.
        complexity: One row per data set of the table, in the table's order; one column per measure.

    Returns:
        The measures that vary and are complete; the others with the reason.
    """
    values, unusable = {}, {}
    for name in complexity.columns:
        column = complexity[name].to_numpy(dtype=np.float64)
        missing = [table.datasets[row] for row in np.flatnonzero(~np.isfinite(column))]
        if missing:
            unusable[str(name)] = f"not measured on {', '.join(missing[:3])}{', ...' * (len(missing) > 3)}"
        elif float(column.std()) <= 1e-9 * max(1.0, float(np.abs(column).max())):
            unusable[str(name)] = "the same for all data sets"
        else:
            values[str(name)] = (column - column.mean()) / column.std()
    return Controls(values, unusable)


def terciles(table: ScoreTable, controls: Controls, *, confidence: float = 0.95, seed: int = 0) -> Finding:
    """Compare the domain with general data among data sets of like complexity.

    For each measure all data sets are sorted (equal ones by type, side and name) and cut into three parts. Within a
    part, each data set's mean over models, standardised within its type, is compared between the sides.

    Args:
        table: The scores.
        controls: Complexity measures.
        confidence: Level of the intervals.
        seed: Decides the relabellings where there are too many to look at all.

    Returns:
        Per measure and tercile: data sets on either side, their means, the difference with its interval, the p-value
        by relabelling and the smallest p-value possible. A tercile with one side only is not identifiable.
    """
    from pandas import DataFrame

    scores = table.standardised().mean(axis=1)  # (N,)
    rows: list[dict[str, Any]] = []
    for measure, values in controls.values.items():
        for part, places in zip(TERCILES, np.array_split(np.argsort(values, kind="stable"), 3), strict=True):
            rows.append({"measure": measure, "tercile": part} | _compared(table, scores, places, confidence, seed))
    if not rows:
        frame = DataFrame(columns=["measure", "tercile", "gap"]).set_index(["measure", "tercile"])
        return Finding("Terciles of complexity", frame, f"Not identifiable: {_why(controls)}.")
    frame = DataFrame(rows).set_index(["measure", "tercile"])
    known = frame[frame["gap"].notna()]
    verdict = (
        f"{table.domain} scores lower in {int((known['gap'] < 0).sum())} of {len(known)} terciles that hold both sides,"
        f" in {int((known['high'] < 0).sum())} with a {confidence:.0%} interval below 0"
        f" (n = {len(table.datasets)} data sets, about {len(table.datasets) // 3} a tercile)."
    )
    if len(known) < len(frame):
        verdict += f" Not identifiable in {len(frame) - len(known)} terciles, which hold one side only."
    return Finding("Terciles of complexity", frame, verdict, note=_left_out(controls))


def regression(table: ScoreTable, controls: Controls, *, confidence: float = 0.95) -> Finding:
    """Regress scores on the domain with complexity held fixed, once per measure and once with all of them.

    ``score ~ domain + complexity + model + type`` over (model, data set); scores are standardised within their type.
    Two errors are given. ``cluster`` is the usual one, robust to heteroskedasticity with clusters of scores on one data
    set; with a few dozen data sets it finds effects that are not there (in simulations two to three times as often as
    it should). ``low``, ``high`` and ``p`` therefore come from the same coefficient on the data sets' means over models
    with HC3 errors and Student's t on data sets less coefficients, which keeps its level; the verdict uses those.

    Args:
        table: The scores.
        controls: Complexity measures.
        confidence: Level of the intervals.

    Returns:
        Per set of controls the domain's coefficient in standard deviations, its intervals and p-values, the variance
        inflation factor of the domain, and n; in the details each measure's coefficient and inflation factor.
    """
    from pandas import DataFrame

    require("statsmodels", extra="evaluate")
    sets: dict[str, list[str]] = {NO_CONTROL: []} | {name: [name] for name in controls.values}
    if len(controls.values) > 1:
        sets[JOINT] = list(controls.values)
    rows, details = [], []
    for name, chosen in sets.items():
        row, terms = _regressed(table, [controls.values[measure] for measure in chosen], chosen, confidence)
        rows.append({"control": name} | row)
        details += [{"control": name} | term for term in terms]
    frame = DataFrame(rows).set_index("control")
    more = DataFrame(details).set_index(["control", "term"]) if details else None
    verdict = _regression_verdict(table, frame, controls, confidence)
    return Finding("Regressions that hold complexity fixed", frame, verdict, details=more, note=_left_out(controls))


def _compared(
    table: ScoreTable, scores: Floats, places: NDArray[np.intp], confidence: float, seed: int
) -> dict[str, float]:
    values, labels = scores[places], table.inside[places]
    row = {
        "n general": int((~labels).sum()),
        f"n {table.domain}": int(labels.sum()),
        "general": float(values[~labels].mean()) if (~labels).any() else math.nan,
        table.domain: float(values[labels].mean()) if labels.any() else math.nan,
    }
    if labels.all() or not labels.any():
        return row | dict.fromkeys(("gap", "low", "high", "p", "smallest p"), math.nan)
    gap = difference([(values, labels)], confidence=confidence)
    pvalue, least, _ = permutation_pvalue([(values, labels)], seed=seed)
    low, high = (end if math.isfinite(end) else math.nan for end in (gap.low, gap.high))
    return row | {"gap": gap.estimate, "low": low, "high": high, "p": pvalue, "smallest p": least}


def _regressed(
    table: ScoreTable, controls: list[Floats], names: list[str], confidence: float
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    import statsmodels.api as sm
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    kinds = [table.of_type(kind).astype(np.float64) for kind in table.kinds[1:]]
    between = np.column_stack([np.ones(len(table.datasets)), table.inside.astype(np.float64), *controls, *kinds])
    scores, (n, width) = table.standardised(), between.shape
    row = dict.fromkeys(("gap", "low", "high", "p", "cluster low", "cluster high", "cluster p", "VIF"), math.nan)
    row |= {"n data sets": float(n), "n models": float(len(table.models))}
    if n - width < 1 or np.linalg.matrix_rank(between) < width:
        return row, []  # too few data sets, or complexity and domain are one and the same: nothing to tell apart
    level = 1 - confidence
    means = sm.OLS(scores.mean(axis=1), between).fit()
    robust = means.get_robustcov_results(cov_type="HC3", use_t=True)
    ends = robust.conf_int(alpha=level)  # (width, 2)
    effects = np.tile(np.eye(len(table.models))[:, 1:], (n, 1))
    full = np.column_stack([np.repeat(between, len(table.models), axis=0), effects])
    groups = np.repeat(np.arange(n), len(table.models))
    clustered = sm.OLS(scores.ravel(), full).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    inflation = [float(variance_inflation_factor(between, place)) for place in range(1, 2 + len(controls))]
    row |= {
        "gap": float(robust.params[1]),
        "low": float(ends[1, 0]),
        "high": float(ends[1, 1]),
        "p": float(robust.pvalues[1]),
        "cluster low": float(clustered.conf_int(alpha=level)[1, 0]),
        "cluster high": float(clustered.conf_int(alpha=level)[1, 1]),
        "cluster p": float(clustered.pvalues[1]),
        "VIF": inflation[0],
    }
    terms = [
        {
            "term": name,
            "coefficient": float(robust.params[place]),
            "low": float(ends[place, 0]),
            "high": float(ends[place, 1]),
            "p": float(robust.pvalues[place]),
            "VIF": inflation[place - 1],
        }
        for place, name in enumerate(names, start=2)
    ]
    return row, terms


def _regression_verdict(table: ScoreTable, frame: DataFrame, controls: Controls, confidence: float) -> str:
    if not controls.values:
        return f"Not identifiable: {_why(controls)}."
    last = frame.iloc[-1]
    if math.isnan(last["gap"]):
        usable = frame[frame["gap"].notna()]
        why = (
            f"Not identifiable with {last.name}: {len(table.datasets)} data sets are too few, or complexity tells the"
            " sides apart completely."
        )
        if len(usable) < 2:
            return why
        last = usable.iloc[-1]
        return f"{why} {_sentence(table, last, confidence)}"
    return _sentence(table, last, confidence)


def _sentence(table: ScoreTable, row: Any, confidence: float) -> str:
    gap = interval_text(float(row["gap"]), float(row["low"]), float(row["high"]))
    if not math.isfinite(row["low"]) or row["low"] <= 0 <= row["high"]:
        found = f"no effect of {table.domain} beyond complexity is shown"
    else:
        found = f"{table.domain} scores {'lower' if row['gap'] < 0 else 'higher'} beyond what complexity explains"
    return (
        f"Holding {row.name} fixed, {found}: {gap} standard deviations ({confidence:.0%} interval),"
        f" p = {shown_number(float(row['p']))}, VIF of the domain {shown_number(float(row['VIF']))}"
        f" (n = {len(table.datasets)} data sets, {len(table.models)} models)."
    )


def _why(controls: Controls) -> str:
    return "; ".join(f"{name} is {why}" for name, why in controls.unusable.items()) or "no complexity was given"


def _left_out(controls: Controls) -> str:
    return f"Left out: {_why(controls)}." if controls.unusable else ""
