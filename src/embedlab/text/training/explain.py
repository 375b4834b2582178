"""What a run would do, said before it does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from embedlab._core.extras import require
from embedlab._core.quiet import quiet_host
from embedlab.text.training.arguments import SHORT, num_steps
from embedlab.text.training.catalogue import PARTS, find_recipe, recipe_names
from embedlab.text.training.plan import Plan
from embedlab.text.training.queries import OFFLINE
from embedlab.text.training.recipe import Recipe
from embedlab.text.training.sources import Source


@dataclass(frozen=True, slots=True)
class Explanation:
    """A run that was not made.

    Attributes:
        recipe: Name of the recipe, with the parts taken from others.
        summary: What it does.
        takes: Kinds of data its loss takes.
        parts: Part -> what does it.
        baseline: What ``compare`` would train beside it.
        options: Option -> value and meaning.
        arguments: Training argument -> value and meaning.
        data: For each data set its name, kind, columns, and rows for training, development and test.
        steps: Optimiser steps; None where a preparation of the data decides.
        notes: What a reader must know beside the numbers.
        plan: The whole, as a recipe file holds it.
    """

    recipe: str
    summary: str
    takes: tuple[str, ...]
    parts: Mapping[str, str]
    baseline: str
    options: Mapping[str, tuple[Any, str]]
    arguments: Mapping[str, tuple[Any, str]]
    data: tuple[Mapping[str, Any], ...]
    steps: int | None
    notes: tuple[str, ...]
    plan: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def explain(plan: Plan) -> Explanation:
    """Say what a run would do: read the data and split them, train nothing, write nothing.

    Args:
        plan: The run.

    Returns:
        The recipe's parts, all settings with their meaning, and what there is to train on.

    Raises:
        InputError: the data are missing or wrong, as in the run itself.
    """
    require("sentence_transformers", extra="train")
    from embedlab.text.training.kinds import suited
    from embedlab.text.training.run import load_data
    from embedlab.text.training.split import hold_out

    recipe = plan.recipe
    with quiet_host(), TemporaryDirectory() as folder:
        loaded = load_data(replace(plan, sources=_free(plan)), Path(folder), seed=plan.seed)
        share = 0.0 if plan.judging is None else plan.judging.held_out
        parts = hold_out(loaded, share=share, seed=plan.seed)
        rows = list(parts.train)
        if recipe.data is None:
            rows = suited(rows, recipe, seed=plan.seed)
    held = [{each.name: len(each.rows) for each in part} for part in (parts.development, parts.test)]
    data = tuple(
        {
            "name": each.name,
            "kind": each.kind,
            "columns": each.rows.column_names,
            "rows": len(each.rows),
            "development": held[0].get(each.name, 0),
            "test": held[1].get(each.name, 0),
        }
        for each in rows
    )
    return Explanation(
        recipe=recipe.name,
        summary=recipe.summary,
        takes=tuple(recipe.takes),
        parts=_parts(recipe, plan),
        baseline=recipe.baseline,
        options={name: (value, recipe.describe.get(name, "")) for name, value in plan.options.items()},
        arguments={name: (value, SHORT.get(name, "")) for name, value in plan.arguments.items()},
        data=data,
        steps=num_steps(plan.arguments, [len(each.rows) for each in rows])
        if recipe.data is None
        else plan.arguments["steps"],
        notes=parts.notes,
        plan=plan.to_dict(),
    )


def _free(plan: Plan) -> tuple[Source, ...]:
    """Let nobody pay for an explanation: queries that an endpoint would write are counted as if made offline."""
    return tuple(replace(each, queries=OFFLINE) for each in plan.sources)


def list_recipes() -> list[Recipe]:
    """Return all recipes, the plain ones first, then by method."""
    return [find_recipe(name) for name in recipe_names()]


def _parts(recipe: Recipe, plan: Plan) -> dict[str, str]:
    found = {
        part: f"of {plan.parts.get(part, plan.base)}"
        for part, field in PARTS.items()
        if getattr(recipe, field) is not None
    }
    if recipe.fit is not None:
        found["fit"] = f"of {plan.base}, in place of the sentence-level trainer"
    return found
