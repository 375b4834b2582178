"""Draw the figure and write the tables of docs/false-negatives.md from the result file of the reproduction.

python docs/make_negatives_figure.py
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "reproductions" / "results" / "gist.json"
PAGE, PICTURE = ROOT / "docs" / "false-negatives.md", ROOT / "docs" / "images" / "false-negatives.svg"
ARMS = {
    "untrained": "before training",
    "plain": "everything else in the batch is a negative (InfoNCE)",
    "unguided": "the same in four blocks, no guide",
    "random": "a guide of random vectors",
    "guided": "a guide: MiniLM-L6",
    "margin": "the same guide, bar lowered by 5 %",
    "oracle": "a guide that knows the intents",
}
_BEGIN, _END = "<!-- table {}: made by make_negatives_figure.py -->\n", "<!-- end of table {} -->"


def level(result: Path = RESULT) -> dict[str, Any]:
    """Read the level that was measured at home.

    Args:
        result: The result file.

    Returns:
        The report of its ``cpu`` level.
    """
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))["levels"]["cpu"]
    return found


def numbers(report: dict[str, Any], key: str) -> np.ndarray:
    """Gather one number over the seeds."""
    return np.array([run["numbers"][key] for run in report["runs"]])


def tables(report: dict[str, Any]) -> dict[str, str]:
    """Write the scores of all arms, what each guide drops, and what came out, as Markdown."""
    scores = [
        "| Which texts of the batch are negatives | MAP | Against no guide | Right intent by ten nearest |",
        "| --- | ---: | ---: | ---: |",
    ]
    for arm, words in ARMS.items():
        found, gains = numbers(report, f"map_{arm}"), numbers(report, f"map_{arm}") - numbers(report, "map_unguided")
        against = (
            "" if arm in ("untrained", "unguided") else f"{100 * gains.mean():+.1f} ± {100 * gains.std(ddof=1):.1f}"
        )
        row = f"| {words} | {100 * found.mean():.1f} | {against} | {100 * numbers(report, f'knn_{arm}').mean():.1f} % |"
        scores.append(row.replace(words, f"**{words}**") if arm == "guided" else row)
    masks = [
        "| Guide | Drops of all candidates | Catches of the false negatives | Right when it drops |",
        "| --- | ---: | ---: | ---: |",
    ]
    for arm in ("random", "guided", "margin", "oracle"):
        rate, recall, precision = (100 * numbers(report, f"mask_{key}_{arm}").mean() for key in _RATES)
        masks.append(f"| {ARMS[arm]} | {rate:.1f} % | {recall:.0f} % | {precision:.0f} % |")
    return {"1": "\n".join(scores) + "\n", "2": "\n".join(masks) + "\n", "3": headline(report)}


def headline(report: dict[str, Any]) -> str:
    """Say in one sentence what came out."""
    gains = {arm: 100 * (numbers(report, f"map_{arm}") - numbers(report, "map_unguided")).mean() for arm in ARMS}
    caught = 100 * numbers(report, "mask_recall_guided").mean()
    return (
        f"**The guide catches {caught:.0f} % of the false negatives and wins {gains['guided']:.1f} of the\n"
        f"{gains['oracle']:.1f} points of MAP that dropping all of them wins; a random one {gains['random']:+.1f}.**\n"
    )


_RATES = ("rate", "recall", "precision")


def with_tables(page: str, made: dict[str, str]) -> str:
    """Put the tables between their marks."""
    for name, text in made.items():
        begin, end = _BEGIN.format(name), _END.format(name)
        page = re.sub(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", lambda _, t=text: t, page, flags=re.DOTALL)
    return page


def picture(report: dict[str, Any]) -> str:
    """Draw the arms, seed by seed, and what guides catch against what they drop, as SVG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    style = {"svg.fonttype": "none", "svg.hashsalt": "false-negatives", "font.size": 9, "axes.spines.top": False}
    colours = {"guided": "#c2410c", "margin": "#c2410c", "oracle": "#15803d", "unguided": "#1d4ed8"}
    with mpl.rc_context({**style, "axes.spines.right": False, "figure.constrained_layout.use": True}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(3, 2))
        trained = [arm for arm in ARMS if arm != "untrained"]
        for row, arm in enumerate(reversed(trained)):
            found, colour = 100 * numbers(report, f"map_{arm}"), colours.get(arm, "#6b7280")
            left.barh(row, found.mean(), color=colour, alpha=0.35, height=0.7)
            left.plot(found, [row] * len(found), "o", color=colour, markersize=3.5)
        left.set_yticks(range(len(trained)), [ARMS[arm] for arm in reversed(trained)])
        left.set_xlim(100 * min(numbers(report, f"map_{arm}").min() for arm in trained) - 1, None)
        left.set_xlabel("MAP of finding the same intent (points of 100, axis cut); dots are seeds")
        for arm in ("random", "guided", "margin", "oracle"):
            rate, recall = (100 * numbers(report, f"mask_{key}_{arm}").mean() for key in ("rate", "recall"))
            right.plot(rate, recall, "o", color=colours.get(arm, "#6b7280"))
            right.annotate(arm, (rate, recall), xytext=(5, 4), textcoords="offset points")
        right.set_xscale("log")
        right.set_xlim(0.2, 200)
        right.set_ylim(0, 110)
        right.set_xlabel("candidates dropped (%)")
        right.set_ylabel("false negatives caught (%)")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
    return re.sub(r"[ \t]+$", "", buffer.getvalue(), flags=re.MULTILINE)


def main() -> None:
    """Write both."""
    report = level()
    PICTURE.write_text(picture(report), encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), tables(report)), encoding="utf-8")


if __name__ == "__main__":
    main()
