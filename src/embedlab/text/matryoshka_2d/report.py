"""A grid of depths and widths as a table, a heat map and a curve of quality against time."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from embedlab._core.extras import require
from embedlab._core.files import atomic_write
from embedlab.text.matryoshka_2d.grid import Grid


def write_report(grid: Grid, folder: Path) -> list[Path]:
    """Write what a grid shows: ``grid.json``, ``grid.md``, ``heatmap.svg`` and ``pareto.svg``.

    Args:
        grid: What ``evaluate_grid`` gave.
        folder: Where to; made if it is not there.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="evaluate")
    folder.mkdir(parents=True, exist_ok=True)
    rows = grid.frame().to_dict(orient="records")
    parts = {
        "grid.json": json.dumps({"metric": grid.metric, "sizes": rows}, indent=2) + "\n",
        "grid.md": table(grid),
        "heatmap.svg": _svg(_heat_map(grid)),
        "pareto.svg": _svg(_curve(grid)),
    }
    for name, content in parts.items():
        atomic_write(folder / name, content)
    return [folder / name for name in parts]


def table(grid: Grid) -> str:
    """Set a grid as a Markdown table: depths down, widths across; sizes worth having in bold.

    Args:
        grid: What ``evaluate_grid`` gave.

    Returns:
        The table, with a line that explains it.
    """
    front = grid.front()
    lines = [
        "| layers | ms per text | " + " | ".join(f"{dim} dims" for dim in grid.dims) + " |",
        "| --- " * (2 + len(grid.dims)) + "|",
    ]
    for i, layer in enumerate(grid.layers):
        cells = [f"**{s:.4f}**" if bold else f"{s:.4f}" for s, bold in zip(grid.scores[i], front[i], strict=True)]
        lines.append(f"| {layer} | {grid.ms_per_text[i]:.2f} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{grid.metric}; bold: no other size is as fast and as small, and better.", ""])


def _heat_map(grid: Grid) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 0.7 * len(grid.dims), 1.2 + 0.42 * len(grid.layers)), layout="constrained")
    panel = figure.subplots()
    picture = panel.imshow(grid.scores, aspect="auto", origin="lower", cmap="viridis")
    middle = (grid.scores.min() + grid.scores.max()) / 2
    for i, row in enumerate(grid.scores):
        for j, score in enumerate(row):
            panel.text(
                j, i, f"{score:.3f}", ha="center", va="center", fontsize=7, color="black" if score > middle else "white"
            )
    panel.set_xticks(range(len(grid.dims)), [str(dim) for dim in grid.dims])
    panel.set_yticks(range(len(grid.layers)), [str(layer) for layer in grid.layers])
    panel.set_xlabel("dimensions")
    panel.set_ylabel("layers")
    figure.colorbar(picture, label=grid.metric)
    return figure


def _curve(grid: Grid) -> Any:
    """Score against time, one line per width; sizes worth having are filled."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    front, colours = grid.front(), colormaps["viridis"]
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    panel = figure.subplots()
    for j, dim in enumerate(grid.dims):
        colour = colours(0.9 * j / max(1, len(grid.dims) - 1))
        panel.plot(grid.ms_per_text, grid.scores[:, j], color=colour, linewidth=1, label=f"{dim}")
        for i in range(len(grid.layers)):
            fill = colour if front[i, j] else "white"
            panel.plot(grid.ms_per_text[i], grid.scores[i, j], "o", ms=5, mec=colour, mfc=fill)
    panel.set_xlabel("milliseconds per text")
    panel.set_ylabel(grid.metric)
    figure.legend(title="dimensions", loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _svg(figure: Any) -> str:
    import matplotlib

    picture = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "grid", "svg.fonttype": "none"}):  # the same bytes for the same grid
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
