"""Several models of one base become one: merge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.text.self_positioning import TaskVector
    from embedlab.text.training import TrainingData

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Method(StrEnum):
    """How models are merged."""

    search = "search"
    average = "average"
    slerp = "slerp"
    barycentric = "barycentric"
    ties = "ties"
    fisher = "fisher"
    regmean = "regmean"


class Fold(StrEnum):
    """How directions are merged while the search learns their weights."""

    slerp = "slerp"
    average = "average"
    barycentric = "barycentric"


def merge(
    models: Annotated[list[str], typer.Argument(metavar="MODELS...", help="Folders of models trained from BASE.")],
    base: Annotated[str, typer.Option(help="Where their trainings started: a folder or hub name.")],
    out: Annotated[Path, typer.Option(help="Folder for the merged model; an existing one is replaced.")],
    method: Annotated[Method, typer.Option(help="search learns the merge; the others are fixed.")] = Method.search,
    probe: Annotated[
        list[Path] | None,
        typer.Option(
            help="Rows of one task, as for `train`; give it once per task for search, once per model (in their order) "
            "for fisher and regmean."
        ),
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Weight of a model, once per model in their order; 1 each by default.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Factor on the merged vector; the search starts from it.")] = 1.0,
    per_tensor: Annotated[bool, typer.Option("--per-tensor", help="One angle per tensor, not one in all.")] = False,
    density: Annotated[float, typer.Option(help="Fraction of entries that ties keeps, in (0, 1].")] = 0.2,
    fold: Annotated[Fold, typer.Option(help="How the search merges directions.")] = Fold.slerp,
    mu: Annotated[float, typer.Option(min=0.0, help="How much the search holds the vector short.")] = 0.01,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the search, above 0.")] = 0.3,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of the search over the probe.")] = 4,
    rows: Annotated[int, typer.Option(min=2, help="Most rows of each task that are looked at.")] = 256,
    batch_size: Annotated[int, typer.Option(min=2, help="Rows of a task in a batch.")] = 32,
    seed: Annotated[int, typer.Option(help="Decides rows and batches.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Merge MODELS, all trained from BASE, into one model that does what each of them does.

    With --method search, one weight per model and one scale are learned on small samples of the tasks; every task gets
    the same number of rows. The order of MODELS matters for slerp.
    """
    import json

    from embedlab._core.extras import require
    from embedlab._core.files import atomic_folder, atomic_write
    from embedlab._core.quiet import quiet_host
    from embedlab.cli.console import print_json

    require("sentence_transformers", extra="train")
    with quiet_host("sentence_transformers", "transformers", "datasets"):
        from embedlab.text.self_positioning.vectors import TaskVector, vectors_of
        from embedlab.text.self_positioning.weights import open_model

        start = open_model(base)
        vectors = vectors_of(start, _named(models))
        tasks = _tasks(probe or [], limit=rows, seed=seed)
        chosen: dict[str, Any] = {"granularity": "per_tensor" if per_tensor else "global"}
        if method is Method.search:
            chosen |= {"mu": mu, "method": fold.value, "scale": scale, "weights": weight}
            merged, record = _search(start, vectors, tasks, chosen, learning_rate, epochs, batch_size, seed)
        else:
            chosen |= {"scale": scale, "weights": weight, "density": density}
            merged, record = _fixed(start, vectors, tasks, method.value, chosen, batch_size)
        moved = TaskVector.from_models(start, merged, name="merged")
        record |= {"base": base, "norms": [v.norm() for v in vectors], "angles": [v.angle(moved) for v in vectors]}
        record["norm"] = moved.norm()
        with atomic_folder(out) as fresh:
            merged.save_pretrained(str(fresh), create_model_card=False)
            atomic_write(fresh / "merge.json", json.dumps(record, indent=2))
            atomic_write(fresh / "README.md", _card(record))
    if as_json:
        print_json({"out": str(out), **record})
    else:
        _show(record, out)


def _named(models: list[str]) -> dict[str, str]:
    from embedlab._core.errors import InputError

    if len(models) < 2:
        raise InputError(f"MODELS: got {len(models)}, a merge needs at least two")
    names = [Path(model).name or model for model in models]
    if len(set(names)) < len(names):  # folders of one name in different places
        names = [str(Path(model)) for model in models]
    if len(set(names)) < len(names):
        raise InputError(f"MODELS: {', '.join(names)} names a model twice")
    return dict(zip(names, models, strict=True))


def _tasks(paths: list[Path], *, limit: int, seed: int) -> list[TrainingData]:
    """Read the rows of each task, and draw at most so many of each."""
    from dataclasses import replace

    from embedlab.text.training.sources import as_sources, load

    read = [each.data for path in paths for each in load(as_sources(path))]
    return [replace(each, rows=each.rows.shuffle(seed=seed).select(range(min(limit, len(each.rows))))) for each in read]


def _losses(tasks: list[TrainingData]) -> dict[str, Any]:
    from embedlab.text.self_positioning.recipes import loss_maker

    return {each.name: loss_maker(each) for each in tasks}


def _search(
    start: SentenceTransformer,
    vectors: list[TaskVector],
    tasks: list[TrainingData],
    chosen: dict[str, Any],
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
) -> tuple[SentenceTransformer, dict[str, Any]]:
    from embedlab._core.errors import InputError
    from embedlab.text.self_positioning import SelfPositioning, balanced_probe

    if not tasks:
        raise InputError(
            "--probe: the search needs rows to judge by; give a file for each task, or choose --method slerp"
        )
    rows = {each.name: each.rows for each in tasks}
    if len(rows) < len(tasks):
        raise InputError(f"--probe: {', '.join(each.name for each in tasks)} gives two tasks one name: rename a file")
    least = min(len(each) for each in rows.values())
    found = SelfPositioning(start, vectors, _losses(tasks), **chosen).fit(
        balanced_probe(rows, per_task=least, seed=seed),
        lr=learning_rate,
        epochs=epochs,
        batch_size=min(batch_size, least),
        seed=seed,
    )
    record = found.to_dict()
    return found.model, {**record, "method": "search", "fold": record["method"], "rows": least}


def _fixed(
    start: SentenceTransformer,
    vectors: list[TaskVector],
    tasks: list[TrainingData],
    method: str,
    chosen: dict[str, Any],
    batch_size: int,
) -> tuple[SentenceTransformer, dict[str, Any]]:
    from embedlab._core.errors import InputError
    from embedlab.text.self_positioning import fisher_information, input_moments, merge_task_vectors
    from embedlab.text.self_positioning.recipes import loss_maker

    statistics = None
    if method in ("fisher", "regmean"):
        if len(tasks) != len(vectors):
            raise InputError(f"--probe: {method} needs one file per model, {len(vectors)} in all, got {len(tasks)}")
        models = [merge_task_vectors(start, [vector], method="average") for vector in vectors]
        statistics = [
            fisher_information(model, task.rows, loss_maker(task), batch_size=batch_size)
            if method == "fisher"
            else input_moments(model, task.rows, batch_size=batch_size)
            for model, task in zip(models, tasks, strict=True)
        ]
    merged = merge_task_vectors(start, vectors, method=method, statistics=statistics, **chosen)
    names = [vector.name for vector in vectors]
    weights = chosen["weights"] or [1.0] * len(names)
    return merged, {"method": method, "models": names, **chosen, "weights": weights}


def _show(record: dict[str, Any], out: Path) -> None:
    from math import degrees

    from rich.table import Table

    from embedlab.cli.console import err
    from embedlab.cli.console import out as console

    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    for title in ("weight", "length", "angle to the merged"):
        table.add_column(title, justify="right")
    for name, weight, norm, angle in zip(
        record["models"], record["weights"], record["norms"], record["angles"], strict=True
    ):
        table.add_row(name, f"{weight:.3f}", f"{norm:.3f}", f"{degrees(angle):.1f}°")
    table.add_row("merged", "", f"{record['norm']:.3f}", f"scale {record['scale']:.3f}")
    console.print(table)
    if "loss_before" in record:
        console.print(f"loss on the probe: {record['loss_before']:.4f} -> {record['loss_after']:.4f}")
    err.print(f"wrote {out}", markup=False)


def _card(record: dict[str, Any]) -> str:
    """What a reader of the folder must know, in the form that model hubs read."""
    lines = [
        "---",
        "library_name: sentence-transformers",
        "tags: [sentence-transformers, merge]",
        "---",
        "",
        "# A merged text embedding model",
        "",
        f"Merged by `embedlab merge` (method {record['method']}) from models trained from `{record['base']}`; it loads",
        "with sentence-transformers alone.",
        "",
        "| Model | Weight | Length of its task vector |",
        "| --- | --- | --- |",
    ]
    rows = zip(record["models"], record["weights"], record["norms"], strict=True)
    lines += [f"| {name} | {weight:.4f} | {norm:.4f} |" for name, weight, norm in rows]
    lines += ["", f"Scale of the merged vector: {record['scale']:.4f}. All settings are in `merge.json`.", ""]
    return "\n".join(lines)
