"""What an encoder makes of tables: inspect tables."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embedlab.understand.observatory import Report


class Readout(StrEnum):
    """Where in a transformer's text an object is read."""

    mark = "mark"
    mean = "mean"
    alone = "alone"


def tables(
    source: Annotated[Path, typer.Argument(help="Folder of CSV, TSV or SQLite files, or one such file.")],
    model: Annotated[
        str, typer.Option(help="Embedding model: 'default', a path or hub name, or URL#MODEL.")
    ] = "default",
    readout: Annotated[
        Readout | None,
        typer.Option(
            help="Of a transformer that reads the whole table: a column is read at its mark (CLS) or as the mean of "
            "its tokens; or each column is a text alone. By default the mark, where the model has one."
        ),
    ] = None,
    other: Annotated[
        list[str] | None, typer.Option(help="Another model, to compare the neighbours of entities; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--property", help="Only this property; may be repeated. All eight by default.")
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option(help="What to compare when rows or columns are reordered: column, row, table; may be repeated."),
    ] = None,
    variants: Annotated[int, typer.Option(min=1, help="Permutations and samples per table.")] = 20,
    max_tables: Annotated[int, typer.Option(min=1, help="Tables to use, drawn at random from more.")] = 50,
    max_length: Annotated[
        int | None, typer.Option(min=3, help="Longest text in tokens; the model's own limit by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and report.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Measure what a model makes of the tables in SOURCE.

    Eight properties: does the order of rows or columns matter, are columns nearer the more values they share, are
    functional dependencies reflected, does a sample stand for the whole, do models agree on neighbours, do reworded
    headers matter, does context hide a column's type.
    """
    from embedlab.cli.console import err, print_json
    from embedlab.data.tables import read_tables
    from embedlab.understand.observatory import characterize, load_table_encoder

    read = read_tables(source)
    encoder = load_table_encoder(model, readout=None if readout is None else readout.value, max_length=max_length)
    options = {"entity_stability": {"others": [load_table_encoder(name) for name in other]}} if other else None
    with err.status("reading", spinner="dots") as status:
        report = characterize(
            encoder,
            read,
            properties=only,
            levels=level or ("column",),
            options=options,
            num_variants=variants,
            max_tables=max_tables,
            seed=seed,
            on_progress=lambda name: status.update(name.replace("_", " ")),
        )
    if out is not None:
        for path in report.write(out):
            err.print(f"wrote {path}", markup=False)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)


def _show(report: Report) -> None:
    import math

    from rich.table import Table

    from embedlab.cli.console import err, out

    rows = sum(size for _, size, _ in report.tables)
    out.print(f"{report.encoder}: {len(report.tables)} tables, {rows:,} rows", markup=False)
    shown = Table("property", "measure", "mean", "95 %", "objects", box=None, pad_edge=False)
    before = ""
    for name, measure, estimate, low, high, count in report.lines():
        interval = f"{low:.4f} to {high:.4f}" if math.isfinite(low) and math.isfinite(high) else "unknown"
        label = "" if name == before else name.replace("_", " ")
        shown.add_row(label, measure.replace("_", " "), f"{estimate:.4f}", interval, f"{count:,}")
        before = name
    out.print(shown)
    for remark in report.remarks():
        out.print(f"- {remark}", markup=False)
    for name, reason in report.failed.items():
        err.print(f"not measured: {name.replace('_', ' ')}: {reason}", markup=False)
