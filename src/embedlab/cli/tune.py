"""Finding what makes a collection's search better, with proof: tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from embedlab.tune.study import TuningReport

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def tune(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Name or path of the collection.")],
    queries: Annotated[
        Path | None, typer.Option(help="Queries of people: JSON lines with _id and text, or id, tab and query.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Which documents answer them: query, document (its source) and grade.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.05, help="Time to take.")] = 10.0,
    goal: Annotated[str, typer.Option(help="What is to be large: ndcg@10, recall@100 or map.")] = "ndcg@10",
    max_bytes_per_doc: Annotated[
        float | None, typer.Option(min=1, help="Most bytes of vectors in memory per document, on average.")
    ] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Longest median time of a search.")] = None,
    max_encode_ms: Annotated[float | None, typer.Option(help="Longest median time to encode a query.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Another model to try: a path, hub name or URL#MODEL; repeatable.")
    ] = None,
    knob: Annotated[list[str] | None, typer.Option(help="Turn this knob only; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html and tune.json.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Let the collection search as the winner does, if there is one.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was applied, and do nothing else.")] = False,
    seed: Annotated[int, typer.Option(help="Decides queries, halves and what is random in models and codecs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Find settings that make a collection's search better, and prove it on queries that no choice has seen.

    Without --queries and --qrels, queries are made from the documents. An interrupted run goes on where it stopped.
    That nothing beats the collection as it is, is an answer too.
    """
    import json

    from embedlab._core.errors import InputError
    from embedlab._core.files import atomic_write
    from embedlab.cli.console import err, print_json
    from embedlab.data.loaders.beir import read_qrels, read_queries
    from embedlab.search import Collection
    from embedlab.tune import applying, page, study
    from embedlab.tune.knob import chosen

    opened = Collection.open(collection)
    if undo:
        err.print(f"{opened.name} searches as before: {applying.undo(opened)}", markup=False)
        return
    if (queries is None) != (qrels is None):
        raise InputError("--queries and --qrels belong together: give both, or neither to have queries made")
    every = chosen(knob)
    if apply:
        every = {name: each for name, each in every.items() if applying.can_apply(each)}
        if model:
            raise InputError("--apply cannot change the model of a collection: leave out --model, or --apply")
    with _progress(hidden=as_json) as on_step:
        report = study.tune(
            opened,
            queries=None if queries is None else read_queries(queries),
            qrels=None if qrels is None else read_qrels(qrels),
            minutes=minutes,
            goal=goal,
            limits=study.Limits(max_bytes_per_doc, max_latency_ms, max_encode_ms),
            knobs=list(every),
            own_knobs=[study.model_knob(model)] if model else [],
            seed=seed,
            on_step=on_step,
        )
    folder = out or report.folder
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "tune.json", json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    atomic_write(folder / "report.html", page.page_of(report))
    if apply and report.winner is not None:
        applying.apply(opened, report.winner.system, every)
    if as_json:
        print_json(report.to_dict() | {"applied": bool(apply and report.winner is not None)})
        return
    _print(report)
    err.print(f"the report: {folder / 'report.html'}", markup=False)
    if apply and report.winner is not None:
        err.print(
            f"{opened.name} searches so from now on; `embedlab tune {collection} --undo` takes it back", markup=False
        )


def _print(report: TuningReport) -> None:
    from rich.table import Table

    from embedlab.cli.console import out
    from embedlab.tune.page import name_of, verdict_of

    table = Table(title=f"{report.goal} on {report.queries[1]} test queries", title_justify="left")
    for head in ("system", "score", "95% interval" if report.level == 0.05 else "interval", "gain", "p"):
        table.add_column(head, overflow="fold")
    for head in ("won/lost", "search ms", "bytes/document"):
        table.add_column(head, justify="right", overflow="fold")
    for each in (report.untouched, *report.finalists):
        there = bool(each.system)
        table.add_row(
            name_of(each.system),
            f"{each.test.estimate:.3f}",
            f"{each.test.low:.3f}-{each.test.high:.3f}",
            f"{each.gain.estimate:+.3f}" if there else "",
            f"{each.pvalue:.2g}" if there else "",
            f"{each.won}/{each.lost}" if there else "",
            f"{each.costs.p50_ms:.1f}",
            f"{each.costs.bytes_per_document:,.0f}",
            style="bold green" if each is report.winner else None,
        )
    out.print(table)
    out.print(verdict_of(report), markup=False)
    if report.made:
        out.print("The queries were made from the documents: they stand in for those of people.", markup=False)


def _progress(*, hidden: bool) -> Any:
    from contextlib import contextmanager

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from embedlab.cli.console import err

    @contextmanager
    def shown() -> Any:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=err, disable=hidden or not err.is_terminal, transient=True) as bar:
            task = bar.add_task("making queries", total=None, told="")

            def on_step(step: Any) -> None:
                told = f"best {step.best:.3f}, as it is {step.untouched:.3f}, at most {step.seconds_left:.0f} s left"
                bar.update(task, description=step.knob, completed=step.number, total=step.total, told=told)

            yield on_step

    return shown()
