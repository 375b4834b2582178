"""Which tasks are worth running, how models rank over them, and smaller retrieval tasks: tasks select, rank, subset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Choose benchmark tasks, rank models over them, shrink retrieval tasks.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ScoreFile = Annotated[Path, typer.Argument(help="CSV file: a row per model, its name first, then a column per task.")]
TypeFile = Annotated[
    Path | None,
    typer.Option(help="CSV file with columns task, type and, if coverage matters, languages (parted by blanks)."),
]
DropIncomplete = Annotated[bool, typer.Option(help="Leave out models that lack a score.")]


class Points(StrEnum):
    """How models are ranked."""

    borda = "borda"
    mean = "mean"
    mean_type = "mean-type"


_METHODS: dict[Points, Literal["borda", "mean", "mean_type"]] = {
    Points.borda: "borda",
    Points.mean: "mean",
    Points.mean_type: "mean_type",
}


@app.command()
def select(
    scores: ScoreFile,
    types: TypeFile = None,
    rho: Annotated[float, typer.Option(min=-1, max=1, help="Least rank correlation with the prediction.")] = 0.95,
    nmse: Annotated[float, typer.Option(min=0, help="Largest error of the prediction, in variances.")] = 0.2,
    keep: Annotated[list[str] | None, typer.Option(help="Task that must stay; may be given again.")] = None,
    min_tasks: Annotated[int, typer.Option(min=1, help="Stop when so many tasks are left.")] = 1,
    drop_incomplete: DropIncomplete = False,
    as_json: AsJson = False,
) -> None:
    """Print which tasks of SCORES can go, because the other tasks predict their scores.

    Task types come from --types, or else from mteb's own list by the names of the tasks. The last task of a type stays.
    """
    from rich.table import Table

    from embedlab.cli.console import err, out, print_json
    from embedlab.evaluate.mmteb import read_scores, select_tasks

    table = read_scores(scores, drop_incomplete=drop_incomplete)
    kinds, languages = _types_of(types, table.tasks)
    found = select_tasks(
        table, types=kinds, languages=languages, rho=rho, nmse=nmse, keep=keep or (), min_tasks=min_tasks
    )
    if as_json:
        removed = [{name: getattr(each, name) for name in each.__dataclass_fields__} for each in found.removed]
        print_json({"kept": found.kept, "removed": removed, "protected": found.protected, "copies": found.copies})
        return
    if found.removed:
        shown = Table("goes", "rank correlation", "correlation", "error", box=None, pad_edge=False)
        for each in found.removed:
            shown.add_row(each.task, *(f"{x:.3f}" for x in (each.spearman, each.pearson, each.nmse)))
        out.print(shown)
    out.print(f"{len(found.removed)} of {len(table.tasks)} tasks can go; these {len(found.kept)} stay:")
    out.print(", ".join(found.kept), markup=False)
    for task, reason in found.protected.items():
        err.print(f"{task} is predictable too, and stays: {reason}", markup=False)
    for copy, original in found.copies.items():
        err.print(f"{copy} was left out: it scores like {original} everywhere", markup=False)


@app.command()
def rank(
    scores: ScoreFile,
    method: Annotated[Points, typer.Option(help="Borda count, mean score, or mean over the means of types.")] = (
        Points.borda
    ),
    types: TypeFile = None,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, help="Only the first models.")] = None,
    confidence: Annotated[float, typer.Option(help="Level of the intervals, between 0 and 1.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Decides how tasks are drawn anew.")] = 0,
    drop_incomplete: DropIncomplete = False,
    as_json: AsJson = False,
) -> None:
    """Print the models of SCORES in order, each with the interval of places it could have had with other tasks."""
    import numpy as np
    from rich.table import Table
    from rich.text import Text

    from embedlab.cli.console import err, out, print_json
    from embedlab.evaluate.mmteb import rank_intervals, read_scores

    table = read_scores(scores, drop_incomplete=drop_incomplete)
    kinds = _types_of(types, table.tasks)[0] if method is Points.mean_type else None
    firm = rank_intervals(
        table,
        method=_METHODS[method],
        types=kinds,
        confidence=confidence,
        seed=seed,
    )
    order = [int(i) for i in np.argsort(firm.ranking.ranks, kind="stable")]
    rows = [
        {
            "model": table.models[i],
            "rank": float(firm.ranking.ranks[i]),
            "low": float(firm.low[i]),
            "high": float(firm.high[i]),
            "points": float(firm.ranking.points[i]),
            "told_apart_from_next": bool(firm.separated[i, after]) if after is not None else None,
        }
        for i, after in zip(order, [*order[1:], None], strict=True)
    ]
    copies = table.copies()
    if as_json:
        summary: dict[str, Any] = {"method": method.value, "confidence": confidence, "tasks": len(table.tasks)}
        summary |= {"pairs_told_apart": firm.share_separated(), "neighbours_told_apart": firm.neighbours_separated()}
        print_json(summary | {"models": rows[:top_k], "copies": copies})
        return
    shown = Table(
        "rank", f"{confidence:.0%} interval", method.value, "model", "from the next", box=None, pad_edge=False
    )
    for row in rows[:top_k]:
        same = row["told_apart_from_next"] is False
        points = f"{row['points']:g}" if method is Points.borda else f"{row['points']:.3f}"
        remark = Text("not distinguishable" if same else "", style="dim", no_wrap=True)
        name = Text(str(row["model"]), overflow="fold")
        shown.add_row(f"{row['rank']:g}", f"{row['low']:g}-{row['high']:g}", points, name, remark)
    out.print(shown)
    out.print(
        f"{firm.share_separated():.0%} of all pairs of models are told apart, and {firm.neighbours_separated()} of "
        f"{len(order) - 1} pairs of neighbours."
    )
    for copy, original in copies.items():
        err.print(f"{copy} scores like {original} everywhere: one model under two names?", markup=False)


@app.command()
def subset(
    folder: Annotated[Path, typer.Argument(help="Folder in BEIR's form: corpus.jsonl, queries.jsonl, qrels/.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist.")],
    retriever: Annotated[
        list[str] | None,
        typer.Option(help="Who builds the pools: bm25, tfidf, lsa, bow, or a model; may be given again."),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Documents from each retriever and query.")] = 250,
    max_queries: Annotated[int, typer.Option(min=1, help="Most queries; beyond, a random sample.")] = 1000,
    check: Annotated[
        list[str] | None,
        typer.Option(help="Model whose place must not change; given three times or more, the order is measured."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the sample and equal scores.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Shrink the retrieval task in FOLDER to the documents that are hard to tell from answers.

    Retrievers are BM25 and the default model unless given. Which of them found a document is kept in provenance.json.
    """
    from embedlab._core.errors import InputError
    from embedlab.cli.console import out, print_json
    from embedlab.data import RetrievalData, load_beir
    from embedlab.evaluate.mmteb import hard_negative_subset, rank_agreement

    if out_folder.exists():
        raise InputError(f"--out {out_folder} exists already: choose another folder, or remove it first")
    data, pooling = load_beir(folder), retriever or ["bm25", "default"]
    found = hard_negative_subset(data, pooling, depth=depth, max_queries=max_queries, seed=seed)
    agreement = None
    if check:
        asked = found.data.queries  # the sample of queries, on all documents
        whole = RetrievalData(data.name, data.corpus, asked, {query: data.qrels[query] for query in asked})
        agreement = rank_agreement(whole, check, pooling, depths=[depth], seed=seed)
    found.write(out_folder)
    if as_json:
        summary = {name: value for name, value in found.provenance().items() if name != "pools"}
        if agreement is not None:
            entry = agreement.depths[0]
            summary["agreement"] = {
                "models": dict(zip(agreement.models, agreement.full.tolist(), strict=True)),
                "spearman": entry.spearman,
                "gap": entry.gap,
                "random_spearman": entry.random_spearman,
                "own_pool": agreement.own_pool,
            }
        print_json(summary | {"folder": str(out_folder)})
        return
    out.print(found.words(), markup=False)
    if agreement is not None:
        entry = agreement.depths[0]
        out.print(
            f"Order of {len(agreement.models)} models against the full task: rank correlation {entry.spearman:.3f}, "
            f"mean difference in nDCG@10 {entry.gap:.4f}; with as many random documents {entry.random_spearman:.3f} "
            f"and {entry.random_gap:.4f}."
        )
        for name in agreement.own_pool:
            out.print(f"{name} built the pools itself: its score on them is too low beside others.", markup=False)
    out.print(f"written to {out_folder}", markup=False)


def _types_of(path: Path | None, tasks: tuple[str, ...]) -> tuple[dict[str, str], dict[str, list[str]] | None]:
    """Types by task, and languages where the file has them."""
    from embedlab._core.errors import InputError
    from embedlab.data import csv_rows

    if path is None:
        return _types_by_name(tasks), None
    try:
        rows = list(csv_rows(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--types {path} cannot be read as a CSV file: {error}") from error
    if not rows or not {"task", "type"} <= set(rows[0]):
        raise InputError(f"--types {path} needs the columns task and type, and a row per task")
    kinds = {row["task"]: row["type"] for row in rows}
    return kinds, {row["task"]: row["languages"].split() for row in rows} if "languages" in rows[0] else None


def _types_by_name(tasks: tuple[str, ...]) -> dict[str, str]:
    import sys

    from embedlab._core.errors import InputError
    from embedlab._core.extras import require

    require("mteb", extra="evaluate")
    registry = sys.modules["mteb.get_tasks"]._TASKS_REGISTRY
    found = {}
    for task in tasks:
        known = registry.get(task) or registry.get(task.rpartition(" (")[0])  # "STS17 (en-en)" is a part of STS17
        if known is None:
            raise InputError(f"mteb knows no task {task!r}: give the types of all tasks with --types FILE")
        found[task] = str(known.metadata.type)
    return found
