"""Which model is better on your data: evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from embedlab.evaluate.report import Evaluation
    from embedlab.evaluate.run import Step


_PIPED = 240  # columns of a table that goes into a file or another program


class Queries(StrEnum):
    """What serves as query where a collection is the data."""

    TITLE = "title"
    FIRST_SENTENCE = "first-sentence"


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Models: 'default', paths or hub names, URL#MODEL, or 'bow', 'tfidf', 'lsa', 'bm25' to compare with.",
            metavar="MODEL...",
        ),
    ],
    tasks: Annotated[
        str, typer.Option(help="Tasks, parted by commas: sets on this machine, or mteb's names (fetched by mteb).")
    ] = "",
    data: Annotated[
        list[str] | None,
        typer.Option(help="A folder with data of your own, or the name of a collection. May be given several times."),
    ] = None,
    queries: Annotated[
        Queries, typer.Option(help="For a collection: find documents by title, or passages by first sentence.")
    ] = Queries.TITLE,
    language: Annotated[str, typer.Option(help="Language and script of the data given with --data.")] = "eng-Latn",
    out: Annotated[Path | None, typer.Option(help="Folder to write evaluation.json and evaluation.md into.")] = None,
    slices: Annotated[bool, typer.Option(help="Show scores by length of text and by language too.")] = False,
    costs: Annotated[bool, typer.Option(help="Measure size, speed and memory of each model.")] = True,
    fresh: Annotated[bool, typer.Option(help="Measure anew what was measured before.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder for vectors and results instead of this user's.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the order of ties.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Evaluate models on tasks with mteb's own evaluators, and say which differences are real.

    What was measured is kept: an interrupted run goes on where it stopped, and no text is embedded twice.
    """
    from embedlab._core.errors import InputError
    from embedlab.cli.console import print_json
    from embedlab.evaluate.run import evaluate as run

    if not tasks and not data:
        raise InputError("nothing to evaluate on: give --tasks (e.g. --tasks scifact,stsb) or --data FOLDER")
    chosen = _tasks(tasks, data or [], queries, language)
    with _progress(hidden=as_json) as show:
        result = run(models, chosen, cache=cache, seed=seed, fresh=fresh, costs=costs, on_progress=show)
    if as_json:
        print_json(result.to_dict(items=False))
    else:
        _show(result, slices)
    if out is not None:
        from embedlab.cli.console import err

        err.print(f"written: {', '.join(map(str, result.write(out)))}", markup=False)


def _tasks(names: str, data: list[str], queries: Queries, language: str) -> list[AbsTask]:
    """Gather tasks by name, from folders and from collections."""
    from embedlab.cli.console import err
    from embedlab.evaluate.naming import find_tasks, needs_network

    found = find_tasks(name.strip() for name in names.split(",") if name.strip())
    remote = [task.metadata.name for task in found if needs_network(task)]
    if remote:
        err.print(f"from the network, through mteb: {', '.join(remote)}", markup=False)
    for place in data:
        found += _from_place(place, queries, language)
    return found


def _from_place(place: str, queries: Queries, language: str) -> list[AbsTask]:
    from embedlab._core.errors import InputError
    from embedlab.evaluate.tasks import from_collection
    from embedlab.search import Collection, list_collections

    if Path(place).is_dir() and not (Path(place) / "collection.json").is_file():
        from embedlab.evaluate.folders import tasks_from_folder

        return tasks_from_folder(Path(place), language=language)
    names = [info.name for info in list_collections()]
    if place in names or Path(place).is_dir():
        collection = Collection.open(place)
        kind: Literal["title", "first_sentence"] = "title" if queries is Queries.TITLE else "first_sentence"
        return [from_collection(collection, queries=kind, language=language)]
    raise InputError(f"--data {place}: there is no such folder, and no such collection ({', '.join(names) or 'none'})")


def _show(result: Evaluation, slices: bool) -> None:
    from embedlab.cli.console import out

    for table in result.to_tables(slices=slices):
        out.print(table, width=None if out.is_terminal else _PIPED, crop=False)
        out.print()
    comparison = result.comparison()
    for note in [*(comparison.notes() if comparison is not None else ()), *result.notes()]:
        out.print(f"- {note}", markup=False)


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Callable[[Step], None]]:
    """Show a bar over all pairs of model and task, with the time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from embedlab.cli.console import err

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[texts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=hidden or not err.is_terminal, transient=True) as bar:
        shown = bar.add_task("loading", total=None, texts="")

        def show(step: Step) -> None:
            part = step.texts_done / step.texts_total if step.texts_total else 0.0
            bar.update(
                shown,
                description=f"{step.model} on {step.task}",
                completed=step.number + 0.95 * part,
                total=step.total,
                texts=f"{step.texts_done:,}/{step.texts_total:,} texts",
            )

        yield show
