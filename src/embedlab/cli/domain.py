"""A domain as a benchmark: domain build, synthesize, adapt, report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from embedlab.evaluate.finmteb import DomainSuite
    from embedlab.text.synthesis import Seed

app = typer.Typer(
    help="Make a benchmark of a domain, training texts for it, and models adapted to it.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Tasks = Annotated[str, typer.Option(help="Tasks of the finance suite, parted by commas; all by default.")]
Data = Annotated[
    list[Path] | None, typer.Option(help="Folder with data of a domain of your own, in place of finance; repeatable.")
]
Items = Annotated[int | None, typer.Option(min=10, help="Most items of a finance task, for a quick look.")]
Published = Annotated[
    str, typer.Option("--finmteb", help="Published FinMTEB sets to fetch from the hub, parted by commas.")
]


@app.command()
def build(
    tasks: Tasks = "", data: Data = None, max_items: Items = None, finmteb: Published = "", as_json: AsJson = False
) -> None:
    """Build a domain's suite, and print its tasks: what can be measured with the data at hand."""
    from rich.table import Table

    from embedlab.cli.console import out, print_json

    suite = _suite(tasks, data, max_items, finmteb)
    rows = [
        {
            "task": task.metadata.name,
            "type": suite.types[task.metadata.name],
            "metric": task.metadata.main_score,
            "description": task.metadata.description,
        }
        for task in suite.tasks
    ]
    if as_json:
        print_json({"suite": suite.name, "tasks": rows})
        return
    table = Table("task", "type", "main score", "description", title=suite.name, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row.values()))
    out.print(table)


@app.command()
def synthesize(
    source: Annotated[
        str, typer.Argument(help="A collection, or a file: one passage per line, or JSON lines with 'text'.")
    ],
    rows: Annotated[Path, typer.Option("--rows", help="File of rows; a run that was interrupted goes on in it.")],
    triplets: Annotated[Path | None, typer.Option(help="File for triplets with hard negatives.")] = None,
    llm: Annotated[str | None, typer.Option(help="Language model, URL#MODEL; rules write without one.")] = None,
    judge: Annotated[bool, typer.Option(help="Let the language model judge every row as well.")] = False,
    cast: Annotated[str, typer.Option(help="Who asks: 'finance' or 'general'.")] = "finance",
    questions: Annotated[bool, typer.Option(help="SOURCE holds questions; passages are written too.")] = False,
    avoid: Annotated[
        list[Path] | None, typer.Option(help="File of texts that will be evaluated on, one per line; repeatable.")
    ] = None,
    per_seed: Annotated[int, typer.Option(min=1, help="Queries from each passage.")] = 1,
    negatives: Annotated[int, typer.Option(min=1, help="Hard negatives of each triplet.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Prompts under way at the same time.")] = 4,
    model: Annotated[str, typer.Option(help="Small model that finds negatives and near copies.")] = "default",
    seed: Annotated[int, typer.Option(help="Decides who asks what.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let personas ask for the passages of SOURCE: training pairs without people.

    Rows that overlap with the texts of --avoid, repeat another row, or cannot be read are refused; the file keeps them
    with the reason.
    """
    from dataclasses import asdict

    from embedlab._core.errors import InputError, unknown_name
    from embedlab.cli.console import err, out, print_json
    from embedlab.models import load_model
    from embedlab.models.chat import ChatEndpoint
    from embedlab.text.synthesis import (
        CASTS,
        PersonaSynthesizer,
        QualityFilter,
        balance,
        mine_negatives,
        write_triplets,
    )

    if cast not in CASTS:
        raise unknown_name("cast", cast, CASTS)
    if judge and llm is None:
        raise InputError("--judge needs a language model: give --llm URL#MODEL")
    encoder = load_model(model)
    seeds = list(_seeds(source, "question" if questions else "passage"))
    watched = [line for file in avoid or () for line in _lines(file)]
    chat = ChatEndpoint(llm) if llm is not None else None
    synthesizer = PersonaSynthesizer(
        CASTS[cast].personas,
        CASTS[cast].tasks,
        llm=chat,
        judge=chat if judge else None,
        filters=QualityFilter(watched, encoder=encoder if watched else None),
        per_seed=per_seed,
        workers=workers,
        seed=seed,
    )
    found = synthesizer.run(seeds, rows)
    spread = balance(found.rows)
    if triplets is not None and found.rows:
        pairs = [(row.query, row.positive) for row in found.rows]
        pool = [each.text for each in seeds if each.kind == "passage"] or [row.positive for row in found.rows]
        write_triplets(mine_negatives(pairs, pool, encoder, num_negatives=negatives), triplets)
    usage = None if chat is None else {"prompt": chat.prompt_tokens, "completion": chat.completion_tokens}
    if as_json:
        told = {"rows": len(found.rows), "refused": found.refused, "resumed": found.resumed, "tokens": usage}
        print_json(told | {"balance": asdict(spread)})
        return
    out.print(f"{len(found.rows):,} rows kept, {sum(found.refused.values()):,} refused, {found.resumed:,} done before")
    for reason, count in sorted(found.refused.items()):
        out.print(f"  {reason}: {count:,}")
    out.print(
        f"personas {len(spread.personas)} (evenness {spread.persona_evenness:.2f}), "
        f"tasks {len(spread.tasks)} (evenness {spread.task_evenness:.2f})"
    )
    if usage is not None:
        out.print(f"tokens: {usage['prompt']:,} sent, {usage['completion']:,} received")
    if not watched:
        err.print("nothing was compared with evaluation texts: give them as --avoid", markup=False)


@app.command()
def adapt(
    model: Annotated[str, typer.Argument(help="Model to start from: a folder or hub name.")],
    triplets: Annotated[Path, typer.Argument(help="JSON lines of query, positive and negatives.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the adapted model.")],
    instruction: Annotated[str, typer.Option(help="Put before queries, never before documents.")] = "",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 100,
    batch_size: Annotated[int, typer.Option(min=2, help="Triplets a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-5,
    temperature: Annotated[float, typer.Option(help="Divides cosines in the loss.")] = 0.02,
    lora: Annotated[int | None, typer.Option(min=1, help="Train low-rank matrices of this rank instead.")] = None,
    last_layers: Annotated[int | None, typer.Option(min=1, help="Train only so many of the last layers.")] = None,
    chunk_size: Annotated[int | None, typer.Option(min=1, help="Texts encoded at once, where memory is short.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the order of the data.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train MODEL on TRIPLETS and save it; look at what it brought with `embedlab domain report`."""
    from embedlab._core.errors import InputError
    from embedlab._core.files import atomic_folder
    from embedlab.cli.console import out as console
    from embedlab.cli.console import print_json
    from embedlab.evaluate.finmteb import Lora, domain_adapt
    from embedlab.text.synthesis import read_triplets

    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    found = domain_adapt(
        model,
        read_triplets(triplets),
        instruction=instruction,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        temperature=temperature,
        lora=None if lora is None else Lora(rank=lora, alpha=2 * lora),
        last_layers=last_layers,
        chunk_size=chunk_size,
        seed=seed,
    )
    with atomic_folder(out) as folder:
        found.model.save(str(folder))
    told: dict[str, Any] = {
        "model": str(out),
        "steps": len(found.losses),
        "first_loss": found.losses[0],
        "last_loss": found.losses[-1],
        "seconds": found.seconds,
        "trained_parameters": found.trained_parameters,
    }
    if as_json:
        print_json(told)
        return
    console.print(
        f"{told['steps']} steps in {found.seconds:.1f} s, loss {found.losses[0]:.4f} -> {found.losses[-1]:.4f}, "
        f"{found.trained_parameters:,} parameters trained; saved to {out}",
        markup=False,
    )


@app.command()
def report(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models; the ones that count words are added.", metavar="[MODEL]...")
    ] = None,
    general: Annotated[
        str, typer.Option(help="General tasks to compare with, by the names of `embedlab evaluate --tasks`.")
    ] = "",
    tasks: Tasks = "",
    data: Data = None,
    max_items: Items = None,
    finmteb: Published = "",
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write domain.json and domain.md into.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for vectors and results instead of this user's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score MODELS on general tasks and on a domain's: means by type with intervals, and whether the orders agree."""
    from embedlab.cli.console import err, print_json
    from embedlab.cli.console import out as console
    from embedlab.cli.evaluate import _progress
    from embedlab.evaluate.finmteb import general_suite
    from embedlab.evaluate.finmteb import report as make

    beside = general_suite(_names(general)) if general else general_suite()
    with _progress(hidden=as_json) as show:
        found = make(
            beside, _suite(tasks, data, max_items, finmteb), models or ["default"], cache=cache, on_progress=show
        )
    if as_json:
        print_json(found.to_dict())
    else:
        for table in found.to_tables():
            console.print(table, width=None if console.is_terminal else 240, crop=False)
            console.print()
        for note in found.notes():
            console.print(f"- {note}", markup=False)
    if out is not None:
        err.print(f"written: {', '.join(map(str, found.write(out)))}", markup=False)


def _suite(tasks: str, data: list[Path] | None, max_items: int | None, finmteb: str) -> DomainSuite:
    from embedlab._core.errors import InputError
    from embedlab.evaluate.finmteb import DomainSuite, finance_mteb_suite, finance_suite

    if data and finmteb:
        raise InputError("--data and --finmteb exclude each other: a suite is one or the other")
    if finmteb:
        return finance_mteb_suite(_names(finmteb))
    if data:
        from embedlab.evaluate.folders import tasks_from_folder

        return DomainSuite("your-domain", [task for folder in data for task in tasks_from_folder(folder)])
    return finance_suite(_names(tasks), max_items=max_items) if tasks else finance_suite(max_items=max_items)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _seeds(source: str, kind: Any) -> Iterator[Seed]:
    from embedlab.search import Collection
    from embedlab.text.synthesis import Seed

    path = Path(source)
    if not path.is_file():
        for passage in Collection.open(source).passages():
            if passage.text.strip():
                yield Seed(passage.id, passage.text, passage.title, kind)
        return
    for number, line in enumerate(_lines(path), start=1):
        yield (
            _seed_of(line, f"{path}, line {number}", kind)
            if path.suffix == ".jsonl"
            else Seed(str(number), line, "", kind)
        )


def _seed_of(line: str, where: str, kind: Any) -> Seed:
    import json

    from embedlab._core.errors import InputError
    from embedlab.text.synthesis import Seed

    try:
        row = json.loads(line)
        text = row["text"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{where}: an object with 'text' is needed, got {line[:80]!r}") from error
    return Seed(str(row.get("_id") or row.get("id") or where), str(text), str(row.get("title") or ""), kind)


def _lines(path: Path) -> list[str]:
    from embedlab.cli.text_files import read_utf8

    content = read_utf8(path)
    return [line.strip() for line in content.split("\n") if line.strip()]
