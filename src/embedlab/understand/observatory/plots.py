"""Pictures of what a property gave: the values of its measures, their mean and its interval."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from embedlab.understand.observatory.results import PropertyResult

_SCALES = ("cosine", "mcv", "purity")


def draw(result: PropertyResult, *, reference: ArrayLike = ()) -> Figure:
    """Draw all values as dots with mean and interval, one axis for each scale.

    Args:
        result: What a property gave.
        reference: Cosines between different columns; where nine of ten of them lie is shaded.

    Returns:
        A matplotlib figure, unknown to pyplot, so that nothing has to be closed.

    Raises:
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    drawing = require("matplotlib.figure", extra="evaluate")
    kinds = list(dict.fromkeys(name.split("_")[0] for name in result.measures))
    if not set(kinds) <= set(_SCALES):
        kinds = [""]  # one scale, whatever the measures are called
    panels = [[name for name in result.measures if name.startswith(kind)] for kind in kinds]
    figure: Figure = drawing.Figure(
        figsize=(6.4, 0.65 * len(panels) + 0.3 * len(result.measures)), layout="constrained"
    )
    heights = [len(names) + 0.6 for names in panels]
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axes, names in zip(grid, panels, strict=True):
        _panel(axes, result, names, np.asarray(reference, dtype=np.float64))
    return figure


def svg(result: PropertyResult, *, reference: ArrayLike = ()) -> str:
    """Draw as ``draw`` does, as an SVG element to be put into a page; the same for the same result.

    Args:
        result: What a property gave.
        reference: Cosines between different columns.

    Returns:
        The element.

    Raises:
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    matplotlib = require("matplotlib", extra="evaluate")
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": result.name, "font.size": 9}):
        draw(result, reference=reference).savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def _panel(axes: Any, result: PropertyResult, names: Sequence[str], reference: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(0)
    correlation = result.name == "join_relationship"  # the values are cosines, the estimate is a correlation
    if reference.size and names[0].startswith("cosine"):
        low, high = np.quantile(reference, [0.05, 0.95])
        axes.axvspan(low, high, color="#dddddd", lw=0, label="cosine between different columns (90 %)")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8, borderpad=0)
    for row, name in enumerate(reversed(names)):
        each = result.measures[name]
        if not correlation and not name.startswith("purity"):  # whose values are 0 or 1
            shift = rng.uniform(-0.25, 0.25, size=len(each.values))
            axes.plot(each.values, row + shift, ".", color="#4c78a8", alpha=0.35, ms=4, mew=0)
        ends = np.array([each.interval.low, each.interval.high])
        if np.isfinite(ends).all():
            axes.plot(ends, [row, row], "-", color="#c03d3e", lw=2, solid_capstyle="butt")
        axes.plot(each.interval.estimate, row, "o", color="#c03d3e", ms=5)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in reversed(names)])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.margins(x=0.02)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("rank correlation of overlap and cosine, with 95 %" if correlation else "objects; mean with 95 %")
