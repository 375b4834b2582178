"""How much lower does each model score on the domain, and could the domain's label be exchanged between data sets?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab.evaluate.domain_gap.finding import Finding, interval_text, shown_number
from embedlab.evaluate.domain_gap.labels import Floats, Strata, difference, permutation_pvalue
from embedlab.evaluate.domain_gap.table import ScoreTable

if TYPE_CHECKING:
    pass

MEAN = "mean of types"


def gaps(table: ScoreTable, *, confidence: float = 0.95) -> Finding:
    """Compare each model's mean score on the domain's data sets with that on the general ones, type by type.

    Args:
        table: The scores.
        confidence: Level of the intervals, Welch's over data sets.

    Returns:
        Per type and model: both means, the absolute and relative gap (domain less general) with intervals, and how many
        data sets there are. The last rows are the mean over types, each type counting alike.
    """
    from pandas import DataFrame

    rows: list[dict[str, Any]] = []
    kinds = [kind for kind in table.kinds if _two_sided(table, kind)]
    for kinds_together, shown in [((kind,), kind) for kind in kinds] + [(tuple(kinds), MEAN)] * (len(kinds) > 1):
        for column, model in enumerate(table.models):
            rows.append({"type": shown, "model": model} | _gap(table, kinds_together, column, confidence))
    lower = [row for row in rows if row["type"] == (MEAN if len(kinds) > 1 else kinds[0])]
    clear = sum(bool(row["high"] < 0) for row in lower)
    verdict = (
        f"{sum(row['gap'] < 0 for row in lower)} of {len(lower)} models score lower on {table.domain}"
        f" (n = {_sizes(table)}), {clear} of them with a {confidence:.0%} interval below 0."
    )
    left_out = [kind for kind in table.kinds if kind not in kinds]
    if left_out:
        verdict += f" Not identifiable, since only one side has data sets: {', '.join(left_out)}."
    single = [kind for kind in kinds if _smallest_side(table, kind) < 2]
    if single:
        verdict += f" No interval, since one data set on a side has no spread: {', '.join(single)}."
    return Finding(
        "Gap per model",
        DataFrame(rows).set_index(["type", "model"]),
        verdict,
        note=f"Gap: {table.domain} less general. Types have metrics of their own; their mean is for orientation only."
        if len(kinds) > 1
        else f"Gap: {table.domain} less general.",
    )


def label_test(table: ScoreTable, *, confidence: float = 0.95, seed: int = 0) -> Finding:
    """Test whether the domain matters with the data set as the unit: exchange the label between data sets of a type.

    For a complete table the estimate is the mixed model's, with a random intercept per data set: the difference of the
    means over data sets of each data set's mean over models.

    Args:
        table: The scores.
        confidence: Level of the intervals.
        seed: Decides the relabellings where there are too many to look at all.

    Returns:
        Per type, and over all types in standard deviations: the gap with its interval, the p-value, the smallest
        p-value that so few data sets can give, and n.
    """
    from pandas import DataFrame

    kinds = [kind for kind in table.kinds if _two_sided(table, kind)]
    raw, standard = (
        table.values.mean(axis=1),
        table.standardised().mean(axis=1),
    )  # (N,) each data set's mean over models
    rows = [_tested(table, raw, (kind,), kind, confidence, seed) for kind in kinds]
    rows.append(_tested(table, standard, tuple(kinds), "all types (standardised)", confidence, seed))
    last = rows[-1]
    gap = interval_text(last["gap"], last["low"], last["high"])
    if last["smallest p"] > 1 - confidence:
        verdict = (
            f"Not identifiable: with n = {_sizes(table)} no relabelling test can reach p = {1 - confidence:.2f} (at"
            f" best {shown_number(last['smallest p'])}); the gap seen is {gap} standard deviations."
        )
    else:
        found = "differ" if last["p"] <= 1 - confidence else "are not distinguishable"
        verdict = (
            f"The two sides {found}: {table.domain} less general is {gap} standard deviations of a type's scores,"
            f" p = {shown_number(last['p'])} by exchanging labels of data sets (n = {_sizes(table)})."
        )
    frame = DataFrame(rows).set_index("type")
    return Finding("Does the domain matter? (data set as unit)", frame, verdict)


def _gap(table: ScoreTable, kinds: tuple[str, ...], column: int, confidence: float) -> dict[str, float]:
    strata = _strata(table, table.values[:, column], kinds)
    gap = difference(strata, confidence=confidence)
    general = float(np.mean([values[~labels].mean() for values, labels in strata]))
    inside = float(np.mean([values[labels].mean() for values, labels in strata]))
    row = {
        "general": general,
        table.domain: inside,
        "gap": gap.estimate,
        "low": _known(gap.low),
        "high": _known(gap.high),
    }
    if general:
        # the ratio moves as (inside - ratio * general) / general does, to first order
        ratio = inside / general
        scaled = [(np.where(labels, values, ratio * values), labels) for values, labels in strata]
        reach = difference(scaled, confidence=confidence)
        row["relative"] = ratio - 1
        row["relative low"] = _known(ratio - 1 + (reach.low - reach.estimate) / abs(general))
        row["relative high"] = _known(ratio - 1 + (reach.high - reach.estimate) / abs(general))
    else:
        row |= dict.fromkeys(("relative", "relative low", "relative high"), math.nan)
    return row | _counts(table, strata)


def _known(end: float) -> float:
    return end if math.isfinite(end) else math.nan


def _counts(table: ScoreTable, strata: Strata) -> dict[str, float]:
    inside = sum(int(labels.sum()) for _, labels in strata)
    return {"n general": sum(len(labels) for _, labels in strata) - inside, f"n {table.domain}": inside}


def _tested(
    table: ScoreTable, values: Floats, kinds: tuple[str, ...], shown: str, confidence: float, seed: int
) -> dict[str, Any]:
    strata = _strata(table, values, kinds)
    gap = difference(strata, confidence=confidence)
    pvalue, least, exact = permutation_pvalue(strata, seed=seed)
    return {
        "type": shown,
        "gap": gap.estimate,
        "low": _known(gap.low),
        "high": _known(gap.high),
        "p": pvalue,
        "smallest p": least,
        "exact": "yes" if exact else "no",
    } | _counts(table, strata)


def _strata(table: ScoreTable, values: Floats, kinds: tuple[str, ...]) -> list[tuple[Floats, NDArray[np.bool_]]]:
    return [(values[table.of_type(kind)], table.inside[table.of_type(kind)]) for kind in kinds]


def _two_sided(table: ScoreTable, kind: str) -> bool:
    return _smallest_side(table, kind) > 0


def _smallest_side(table: ScoreTable, kind: str) -> int:
    labels = table.inside[table.of_type(kind)]
    return int(min(labels.sum(), (~labels).sum()))


def _sizes(table: ScoreTable) -> str:
    inside = int(table.inside.sum())
    return f"{inside} {table.domain} and {len(table.datasets) - inside} general data sets"
