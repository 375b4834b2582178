"""The pictures of the page: drawn by matplotlib as SVG whose colours the page's own style decides."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.extras import require
from embedlab.understand.inspection.record import Inspection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that nothing else uses stand for roles; the page's style sheet says what they look like by day and by night.
_ROLES = {"#010101": "ink", "#020202": "line", "#030303": "first", "#040404": "second", "#050505": "third"}
_INK, _LINE, _FIRST, _SECOND, _THIRD = _ROLES
_SHADES = (_FIRST, _SECOND, _THIRD, "#8a6fb0", "#b0896f", "#6f9fb0")

_STYLE: dict[str, Any] = {
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.color": _LINE,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def pictures_of(found: Inspection) -> dict[str, tuple[str, str]]:
    """Draw what can be drawn.

    Args:
        found: The inspection.

    Returns:
        Key of a section -> SVG and its description in words.

    Raises:
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    require("matplotlib", extra="evaluate")
    drawers: dict[str, tuple[Callable[[Inspection, Any], None], bool, str]] = {
        "directions": (_draw_directions, True, "All texts on two principal components, and the variance these hold"),
        "hubs": (_draw_hubs, found.hubness is not None, "How often texts are among the nearest of others"),
        "lengths": (_draw_lengths, bool(found.profiles), "Quantities by the length of texts, with 95 % intervals"),
        "layers": (_draw_layers, found.layers is not None, "Filter rate layer by layer"),
        "depth": (_draw_depth, True, "How depths are distributed"),
    }
    return {key: (_svg(key, draw, found), words) for key, (draw, wanted, words) in drawers.items() if wanted}


def _svg(key: str, draw: Callable[[Inspection, Any], None], found: Inspection) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": key}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.6, 2.9))
        FigureCanvasSVG(figure)
        draw(found, figure)
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    picture = content.getvalue()
    picture = picture[picture.index("<svg") :]  # inside a page there is neither XML declaration nor document type
    picture = re.sub(r"<metadata>.*?</metadata>", "", picture, flags=re.DOTALL)
    picture = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", picture, count=1)
    picture = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", picture, count=1)
    picture = re.sub(r"(id=\"|url\(#|href=\"#)", rf"\g<1>{key}-", picture)  # several pictures share a page
    for colour, role in _ROLES.items():
        picture = picture.replace(colour, f"var(--{role})")
    return picture


def _draw_directions(found: Inspection, figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    size = 3 if len(found.plane) > 500 else 9
    dots: dict[str, Any] = {"s": size, "linewidths": 0, "rasterized": True}
    if len(found.plane_lengths) and found.against is None:
        lengths = np.log10(np.maximum(found.plane_lengths, 1))
        low, high = lengths.min(), lengths.max()
        dark = low - 0.4 * (high - low)  # the darkest shades would be lost on a dark page
        spots = left.scatter(*found.plane.T, c=lengths, cmap="viridis", vmin=dark, **dots)
        bar = figure.colorbar(spots, ax=left, format=lambda power, _: f"{10**power:,.0f}")
        bar.ax.set_ylim(low, high)
        bar.ax.set_title(found.length_unit, fontsize=8)
        bar.outline.set_visible(False)
    else:
        left.scatter(*found.plane.T, c="#5b8dd6", alpha=0.55, label=_short(found.name), **dots)
    if found.against is not None:
        left.scatter(*found.spots.T, c="#e08a3c", alpha=0.55, label=_short(found.against.name), **dots)
        left.legend(loc="best", markerscale=3, fontsize=9)
    left.set(xlabel="first component", ylabel="second component", xticks=[], yticks=[], aspect="equal")
    left.set_adjustable("datalim")
    shares = np.cumsum(found.isotropy.spectrum)
    right.plot(np.arange(1, len(shares) + 1), shares, color=_FIRST, label="these vectors")
    right.plot([0, len(shares)], [0, 1], color=_LINE, linestyle="--", label="every direction alike")
    right.set(xlabel="principal components", ylabel="share of the variance", ylim=(0, 1.02), xlim=(0, len(shares)))
    right.legend(loc="lower right", fontsize=9)


def _draw_hubs(found: Inspection, figure: Any) -> None:
    hubs = found.hubness
    if hubs is None:
        return
    axes = figure.subplots()
    times = np.bincount(hubs.occurrences)
    if len(times) <= 60:
        edges = np.arange(len(times) + 1) - 0.5
    else:
        edges = np.unique(np.round(np.linspace(0, len(times), 60))) - 0.5
    counts = np.histogram(hubs.occurrences, bins=edges)[0]
    centres, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    axes.bar(centres, counts, width=0.9 * widths, color=_FIRST, label="texts")
    axes.axvline(hubs.k, color=_SECOND, linestyle="--", label=f"mean, {hubs.k}")
    limit = hubs.k + 2 * hubs.occurrences.std()
    axes.axvline(limit, color=_THIRD, linestyle=":", label="hubs are beyond")
    axes.set(xlabel=f"times among the {hubs.k} nearest of another text", ylabel="texts", yscale="symlog")
    axes.set_ylim(0, None)
    _plain_ticks(axes, float(counts.max()))
    axes.legend(fontsize=9)


def _draw_lengths(found: Inspection, figure: Any) -> None:
    profiles = found.profiles[:3]
    grid = np.atleast_1d(figure.subplots(1, len(profiles)))
    for axes, profile in zip(grid, profiles, strict=True):
        buckets = [bucket for bucket in profile.buckets if bucket.num_texts and math.isfinite(bucket.mean)]
        means = np.array([bucket.mean for bucket in buckets])
        reach = np.array(
            [
                [bucket.mean - bucket.mean_low for bucket in buckets],
                [bucket.mean_high - bucket.mean for bucket in buckets],
            ]
        )
        bars = np.where(np.isfinite(reach), reach, 0.0)
        axes.errorbar(range(len(buckets)), means, yerr=bars, color=_FIRST, marker="o", capsize=3)
        names = [f"{b.low:g}-{b.high:g}" if math.isfinite(b.high) else f"{b.low:g}+" for b in buckets]
        axes.set_xticks(range(len(buckets)), names, rotation=30 if len(names) > 4 else 0)
        axes.set(xlabel=f"length in {found.length_unit}", title=profile.quantity)
        axes.title.set_fontsize(10)


def _draw_layers(found: Inspection, figure: Any) -> None:
    if found.layers is None:
        return
    grid = figure.subplots(1, 2)
    for axes, quantity in zip(grid, ("sigma", "high_share"), strict=True):
        axes.set_prop_cycle(color=_SHADES)
        found.layers.plot(axes, quantity=quantity)
    grid[0].axhline(1, color=_LINE, linestyle="--")
    grid[1].legend(fontsize=8)


def _draw_depth(found: Inspection, figure: Any) -> None:
    axes = figure.subplots()
    everything = found.depth.depths
    if found.against is not None:
        everything = np.concatenate([everything, found.against.depths])
    edges = np.linspace(everything.min(), everything.max() + 1e-9, 50)
    axes.hist(found.depth.depths, bins=edges, density=True, color=_FIRST, alpha=0.75, label=_short(found.name))
    if found.against is not None:
        axes.hist(
            found.against.depths, bins=edges, density=True, color=_SECOND, alpha=0.6, label=_short(found.against.name)
        )
    axes.legend(fontsize=9)
    axes.set(xlabel=f"depth in {_short(found.name)}: more central to the right", ylabel="share of texts", yticks=[])


def _plain_ticks(axes: Axes, most: float) -> None:
    """Ticks in numbers that people read: 0, 1, 10, 100."""
    ticks = [0, *(10**power for power in range(int(math.log10(max(most, 1))) + 1))]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()


def _short(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"
