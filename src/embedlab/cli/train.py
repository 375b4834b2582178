"""Make an embedding model better on your data, and know whether it got better: train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from embedlab.text.training.explain import Explanation
    from embedlab.text.training.fitting import Step
    from embedlab.text.training.report import TrainingReport

_WORSE, _STOPPED = 3, 130  # exit statuses, beside 0 and the 2 of errors
_PIPED = 240  # columns of a table that goes into a file or another program


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file (.yaml), or the name of a recipe; see --list.", metavar="RECIPE")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Start model: a folder, a hub name, or 'minilm'.", show_default="minilm")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A table (csv, tsv, jsonl, parquet) or a folder of documents. May be given several times."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the model, its card and the report.")] = None,
    compare: Annotated[
        bool | None, typer.Option("--compare/--no-compare", help="Train the recipe's baseline too, on equal terms.")
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="Tasks to evaluate on beside held-out data, parted by commas, e.g. scifact,stsb.")
    ] = "",
    held_out: Annotated[
        float | None, typer.Option(help="Share of the data held out to judge by.", min=0.0, max=0.5)
    ] = None,
    evaluation: Annotated[
        bool, typer.Option("--evaluation/--no-evaluation", help="Whether to judge the model at the end.")
    ] = True,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data, where no steps are given.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of a batch, over all processes.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    lora: Annotated[
        int | None, typer.Option(help="Train low-rank matrices of this rank instead of all weights.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any option of the recipe or training argument: --set temperature=0.02."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides the order of the data and all that is drawn.")] = None,
    fresh: Annotated[bool, typer.Option(help="Begin anew instead of going on with an interrupted run.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes with their options, and stop.")] = False,
    explain: Annotated[bool, typer.Option(help="Say what would be done, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train an embedding model by a recipe, and say whether it is better than the one it began with.

    Ctrl-C stops after the step at hand; the same command goes on. Exit status 3: the model got worse.
    """
    if list_:
        _list(as_json)
        return
    from embedlab._core.errors import InputError

    if recipe is None:
        raise InputError("no recipe: name a recipe file or a recipe; embedlab train --list shows them")
    given: dict[str, Any] = {
        "steps": steps,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": lr,
        "lora": lora,
    }
    overrides = {**{name: value for name, value in given.items() if value is not None}, **_settings(set_ or [])}
    judging: Any = {"held_out": held_out, "tasks": tasks or None}
    judging = {name: value for name, value in judging.items() if value is not None} or None
    chosen: dict[str, Any] = {
        "model": model,
        "data": data or None,
        "out": out,
        "compare": compare,
        "evaluate": judging if evaluation else False,
        "seed": seed,
    }
    if explain:
        from embedlab.text.training.explain import explain as explained
        from embedlab.text.training.plan import read_plan

        place = {**chosen, "out": out or Path("not-written")}
        _show_plan(explained(read_plan(recipe, **place, overrides=overrides)), as_json)
        return
    _run(recipe, chosen, overrides, resume=not fresh, as_json=as_json)


def _run(recipe: str, chosen: dict[str, Any], overrides: dict[str, Any], *, resume: bool, as_json: bool) -> None:
    from embedlab.cli.console import complain, print_json
    from embedlab.text.training.fitting import TrainingStopped
    from embedlab.text.training.run import train as run

    try:
        with _progress(hidden=as_json) as show:
            report = run(recipe, **chosen, resume=resume, on_progress=show, **overrides)
    except TrainingStopped as stopped:
        complain(str(stopped))
        raise typer.Exit(_STOPPED) from None
    if as_json:
        print_json({**report.to_dict(), "folder": str(report.folder), "model_folder": str(report.model_folder)})
    else:
        _show(report)
    if report.verdict == "worse":
        complain(
            f"{report.assessment.sentence} It is kept in {report.model_folder}, so that nobody takes it by accident."
        )
        raise typer.Exit(_WORSE)


def _settings(pairs: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE, values as in a recipe file."""
    from embedlab._core.errors import InputError
    from embedlab.text.training.plan import parse_value

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {pair}: expected NAME=VALUE, such as --set temperature=0.02")
        found[name.strip().replace("-", "_")] = parse_value(value, f"--set {pair}")
    return found


def _list(as_json: bool) -> None:
    from embedlab.cli.console import out, print_json
    from embedlab.text.training.catalogue import recipe_names
    from embedlab.text.training.explain import list_recipes

    methods = recipe_names()
    recipes = list_recipes()
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "summary": each.summary,
                    "takes": each.takes,
                    "method": methods[each.name] or None,
                    "baseline": each.baseline,
                    "options": each.options,
                    "describe": each.describe,
                }
                for each in recipes
            ]
        )
        return
    for each in recipes:
        method = f", of {methods[each.name]}" if methods[each.name] else ""
        out.print(f"[bold]{each.name}[/]  ({', '.join(each.takes)}{method})")
        out.print(f"   {each.summary}", markup=False)
        for name, value in each.options.items():
            out.print(f"   - {name} = {value}: {each.describe.get(name, '')}", markup=False)


def _show_plan(found: Explanation, as_json: bool) -> None:
    from embedlab.cli.console import out, print_json

    if as_json:
        print_json(found.to_dict())
        return
    out.print(f"[bold]{found.recipe}[/]: {found.summary}")
    for part, what in found.parts.items():
        out.print(f"   {part}: {what}", markup=False)
    for each in found.data:
        counts = (
            f"{each['rows']:,} rows to train on, {each['development']:,} for development, {each['test']:,} for the test"
        )
        out.print(f"   data {each['name']}: {each['kind']} ({', '.join(each['columns'])}), {counts}", markup=False)
    out.print(f"   steps: {found.steps if found.steps is not None else 'known once the data are prepared'}")
    out.print(f"   baseline (--compare): {found.baseline}")
    for title, values in (("options", found.options), ("training arguments", found.arguments)):
        out.print(f"   {title}:")
        for name, (value, meaning) in values.items():
            out.print(f"      {name} = {value}{f': {meaning}' if meaning else ''}", markup=False)
    for note in found.notes:
        out.print(f"   - {note}", markup=False)


def _show(report: TrainingReport) -> None:
    from embedlab.cli.console import out

    for table in report.to_tables():
        out.print(table, width=None if out.is_terminal else _PIPED, crop=False)
        out.print()
    for note in report.remarks():
        out.print(f"- {note}", markup=False)
    if report.verdict != "worse":
        style = "green" if report.verdict == "better" else "yellow"
        out.print(f"[{style}]{report.assessment.sentence}[/]")
        out.print(f'the model: SentenceTransformer("{report.model_folder}")', markup=False)


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Callable[[Step], None]]:
    """Show a bar for each arm, with the loss and the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from embedlab.cli.console import err

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=hidden or not err.is_terminal, transient=True) as bar:
        shown: dict[str, Any] = {}

        def show(step: Step) -> None:
            if step.arm not in shown:
                shown[step.arm] = bar.add_task(step.arm, total=None, loss="")
            loss = "" if step.loss is None else f"loss {step.loss:.4f}"
            bar.update(shown[step.arm], completed=step.step, total=step.total or None, loss=loss)

        yield show
