"""Pictures of a domain's gap: per model, against complexity, with complexity held fixed; and of like data sets."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.extras import require
from embedlab._core.files import atomic_write

if TYPE_CHECKING:
    from pandas import DataFrame

    from embedlab.evaluate.domain_gap.suites import SuiteReport

_GENERAL, _DOMAIN, _GREY = "#2b6cb0", "#c05621", "#718096"
_DPI = 110


def draw(report: SuiteReport, folder: Path) -> list[Path]:
    """Draw a report.

    Args:
        report: The report.
        folder: Where to put the pictures.

    Returns:
        The files: ``gap.png``, ``control.png``, and, as far as there is something to show, ``complexity.png`` and
        ``similarity.png``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="evaluate")
    written = []
    for name, figure in _figures(report):
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=_DPI)
        atomic_write(folder / f"{name}.png", picture.getvalue())
        written.append(folder / f"{name}.png")
    return written


def _figures(report: SuiteReport) -> Iterator[tuple[str, Any]]:
    yield "gap", _gap(report)
    if report.gap.controls.values:
        yield "complexity", _complexity(report)
    yield "control", _control(report)
    if report.similarity is not None:
        yield "similarity", _similarity(report.similarity.table)


def _gap(report: SuiteReport) -> Any:
    """One panel per type: each model's gap with its interval."""
    from matplotlib.figure import Figure

    table, domain = report.gap.gaps.table, report.gap.scores.domain
    kinds = list(dict.fromkeys(kind for kind, _ in table.index))
    models = report.gap.scores.models
    figure = Figure(figsize=(2.2 + 2.4 * len(kinds), 1.4 + 0.32 * len(models)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(kinds), sharey=True))
    for panel, kind in zip(panels, kinds, strict=True):
        rows = table.loc[kind].reindex(models)
        places = np.arange(len(models))
        _bars(panel, places, rows["gap"], rows["low"], rows["high"], _DOMAIN)
        _mark_zero(panel, kind)
        panel.set_yticks(places, models)
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    figure.supxlabel(f"score on {domain} less score on general", fontsize=9)
    return figure


def _complexity(report: SuiteReport) -> Any:
    """One panel per measure: mean standardised score of each data set against its complexity."""
    from matplotlib.figure import Figure

    table, controls = report.gap.scores, report.gap.controls.values
    scores = table.standardised().mean(axis=1)
    figure = Figure(figsize=(0.8 + 3.0 * len(controls), 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(controls), sharey=True))
    for panel, measure in zip(panels, controls, strict=True):
        values = report.complexity.loc[list(table.datasets), measure].to_numpy(dtype=np.float64)
        for side, colour, marker, label in (
            (False, _GENERAL, "o", "general"),
            (True, _DOMAIN, "^", table.domain),
        ):
            chosen = table.inside == side
            panel.scatter(values[chosen], scores[chosen], c=colour, marker=marker, s=28, label=label)
            if chosen.sum() > 2 and np.ptp(values[chosen]) > 0:
                slope, start = np.polyfit(values[chosen], scores[chosen], 1)
                ends = np.array([values[chosen].min(), values[chosen].max()])
                panel.plot(ends, start + slope * ends, color=colour, linewidth=1)
        panel.set_xlabel(measure.replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=8)
    panels[0].set_ylabel("mean score, standardised in its type", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8, frameon=False
    )
    return figure


def _control(report: SuiteReport) -> Any:
    """The domain's coefficient under each control, with both intervals."""
    from matplotlib.figure import Figure

    rows = report.gap.regression.table
    figure = Figure(figsize=(6.4, 1.3 + 0.4 * len(rows)), layout="constrained")
    panel = figure.subplots()
    places = np.arange(len(rows))
    _bars(panel, places, rows["gap"], rows["low"], rows["high"], _DOMAIN, label="data sets as unit (HC3)")
    _bars(
        panel,
        places + 0.22,
        rows["gap"],
        rows["cluster low"],
        rows["cluster high"],
        _GREY,
        label="clustered (too narrow)",
    )
    _mark_zero(panel, "")
    panel.set_yticks(places, list(rows.index))
    panel.set_ylim(len(rows) - 0.4, -0.5)
    panel.set_xlabel(f"{report.gap.scores.domain} less general, standard deviations, complexity held fixed", fontsize=9)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def _similarity(cosines: DataFrame) -> Any:
    """Cosines between mean embeddings."""
    from matplotlib.figure import Figure

    names = list(cosines.index)
    size = 2.2 + 0.34 * len(names)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    panel = figure.subplots()
    shown = panel.imshow(cosines.to_numpy(), vmin=0, vmax=1, cmap="viridis")
    panel.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    figure.colorbar(shown, ax=panel, shrink=0.8, label="cosine of mean embeddings")
    return figure


def _bars(panel: Any, places: Any, middle: Any, low: Any, high: Any, colour: str, label: str | None = None) -> None:
    middle, low, high = (np.asarray(values, dtype=np.float64) for values in (middle, low, high))
    reach = np.nan_to_num(np.stack([middle - low, high - middle]))  # no interval, no bar
    known = np.isfinite(middle)
    panel.errorbar(
        middle[known], places[known], xerr=reach[:, known], fmt="o", color=colour, ms=4, lw=1.4, capsize=2, label=label
    )


def _mark_zero(panel: Any, title: str) -> None:
    panel.axvline(0, color=_GREY, linewidth=0.8, linestyle=":")
    panel.set_title(title, fontsize=9)
    panel.tick_params(labelsize=8)
    panel.locator_params(axis="x", nbins=5)
