"""Draw the figure and write the table of docs/merging.md from the result file of the reproduction.

python docs/make_merging_figure.py
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "reproductions" / "results" / "self_positioning.json"
PAGE, PICTURE = ROOT / "docs" / "merging.md", ROOT / "docs" / "images" / "merging.svg"
TASKS = {"similarity": "similarity (STS-B)", "intents": "intents (Banking77)", "packages": "packages (Debian)"}
ARMS = {
    "base": "no training",
    "only_similarity": "trained on similarity alone",
    "only_intents": "trained on intents alone",
    "only_packages": "trained on packages alone",
    "joint": "joint training, 1 : 1 : 10",
    "resampled": "joint training, resampled to 1 : 1 : 1",
    "plain": "merge: plain average",
    "average": "merge: average, length tuned",
    "slerp": "merge: SLERP, length tuned",
    "ties": "merge: TIES, length tuned",
    "fisher": "merge: Fisher, length tuned",
    "regmean": "merge: RegMean, length tuned",
    "cocktail": "merge: LM-Cocktail, length tuned",
    "search": "merge: Self Positioning",
}
_BEGIN, _END = "<!-- table: made by make_merging_figure.py -->\n", "<!-- end of table -->"


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


def table(report: dict[str, Any]) -> str:
    """Write the scores of all arms as Markdown: means over the seeds, and the spread of the mean's gain."""
    lines = [
        f"| Model | {' | '.join(TASKS.values())} | Mean | Against joint training |",
        f"| --- |{' ---: |' * (len(TASKS) + 2)}",
    ]
    for arm, words in ARMS.items():
        cells = [f"{numbers(report, f'{arm}_{task}').mean():.1f}" for task in (*TASKS, "mean")]
        gains = numbers(report, f"{arm}_mean") - numbers(report, "joint_mean")
        against = "" if arm == "joint" else f"{gains.mean():+.1f} ± {gains.std(ddof=1):.1f}"
        row = f"| {words} | {' | '.join(cells)} | {against} |"
        lines.append(row.replace(words, f"**{words}**") if arm in ("joint", "search") else row)
    return "\n".join(lines) + "\n"


def with_table(page: str, made: str) -> str:
    """Put the table between its marks."""
    return re.sub(f"(?<={re.escape(_BEGIN)}).*?(?={re.escape(_END)})", lambda _: made, page, flags=re.DOTALL)


def picture(report: dict[str, Any]) -> str:
    """Draw means of all arms, seed by seed, and the length of a task vector against its data, as SVG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    style = {"svg.fonttype": "none", "svg.hashsalt": "merging", "font.size": 9, "axes.spines.top": False}
    with mpl.rc_context({**style, "axes.spines.right": False, "figure.constrained_layout.use": True}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(3, 2))
        for row, arm in enumerate(reversed(ARMS)):
            means = numbers(report, f"{arm}_mean")
            colour = {"search": "#c2410c", "joint": "#1d4ed8", "resampled": "#1d4ed8"}.get(arm, "#6b7280")
            left.barh(row, means.mean(), color=colour, alpha=0.35, height=0.7)
            left.plot(means, [row] * len(means), "o", color=colour, markersize=3.5)
        left.set_yticks(range(len(ARMS)), list(reversed(ARMS.values())))
        left.set_xlim(min(numbers(report, f"{arm}_mean").min() for arm in ARMS) - 2, None)
        left.set_xlabel("mean of the three tasks (points of 100); dots are seeds")
        count = sum(key.startswith("norm_size_") for key in report["runs"][0]["numbers"])
        for seed, run in enumerate(report["runs"]):
            sizes = [run["numbers"][f"norm_size_{place}"] for place in range(count)]
            norms = [run["numbers"][f"norm_{place}"] for place in range(count)]
            right.plot(sizes, norms, "o-", color="#1d4ed8", alpha=0.4 + 0.2 * seed, markersize=4)
        right.set_xlabel("pairs of the packages task trained on")
        right.set_ylabel("length of the task vector")
        right.set_ylim(0, None)
        right.set_xlim(0, None)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
    return re.sub(r"[ \t]+$", "", buffer.getvalue(), flags=re.MULTILINE)


def main() -> None:
    """Write both."""
    report = level()
    PICTURE.write_text(picture(report), encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table(report)), encoding="utf-8")


if __name__ == "__main__":
    main()
