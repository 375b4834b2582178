"""The model card: what the model was made of, how, and whether it is better than what it began with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from embedlab.text.training.recipe import Recipe
from embedlab.text.training.report import WORSE, TrainingReport


def model_card(report: TrainingReport, recipe: Recipe) -> str:
    """Write the ``README.md`` of a result folder.

    Args:
        report: What the run gave.
        recipe: By which it was made.

    Returns:
        Markdown with the header that model hubs read.
    """
    plan, worse = report.plan, report.verdict == "worse"
    base = str(plan["model"])
    head = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "feature-extraction", "embedlab", recipe.name],
    }
    if "/" in base and not base.startswith(("/", "(", ".")):
        head["base_model"] = base
    steps = report.arm
    place = f'"{WORSE}"' if worse else '"."'
    blocks = [
        "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items()) + "\n---",
        f"# {report.folder.name}",
        ("> **Do not use this model without reading on.** " if worse else "") + report.assessment.sentence,
        f"Trained from {_shown(base)} by the recipe `{recipe.name}`: {recipe.summary}",
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        f"model = SentenceTransformer({place})  # in this folder\n```",
        *(_table(title, heads, rows) for title, heads, rows in report.sheets()),
        "\n".join(f"- {note}" for note in report.remarks()),
        f"## Training\n\n{steps.steps:,} steps, {steps.trained_parameters:,} trained parameters, "
        f"{steps.seconds:,.0f} s; last loss {_last(steps.losses)}."
        + (f" Baseline: `{report.baseline.recipe}`, on the same data in the same order." if report.baseline else ""),
        _settings("Options", plan["options"], recipe.describe),
        _settings("Training arguments", plan["arguments"], {}),
        "To make it again, with `recipe.yaml` of this folder:\n\n```\nembedlab train recipe.yaml --out FOLDER\n```",
        "Made with " + ", ".join(f"{name} {version}" for name, version in report.versions.items()) + ".",
        "## Licence\n\nThe licences of the start model and of the data apply to this model as far as they reach; "
        "this card grants nothing beyond them. Check both before passing the model on.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _shown(base: str) -> str:
    return f"`{base.rsplit('/', 1)[-1] if base.startswith('/') else base}`"


def _last(losses: Mapping[int, float]) -> str:
    return f"{losses[max(losses)]:.4f}" if losses else "not recorded"


def _settings(title: str, values: Mapping[str, Any], described: Mapping[str, str]) -> str:
    if not values:
        return ""
    lines = [f"| {name} | `{value}` | {described.get(name, '')} |" for name, value in values.items()]
    return f"### {title}\n\n| name | value | meaning |\n| --- | --- | --- |\n" + "\n".join(lines)


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"## {title}\n\n{body}"
