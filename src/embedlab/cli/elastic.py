"""One model at every depth and width: elastic eval, truncate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Choose a model's depth and width: see what each costs, and cut it.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Name = Annotated[str, typer.Argument(help="Folder or hub name of a sentence-transformers model.")]


@app.command("eval")
def evaluate(
    model: Name,
    data: Annotated[Path, typer.Argument(help="Scored pairs, or pairs that belong together: a table, as for `train`.")],
    layer: Annotated[list[int] | None, typer.Option(help="A depth, given once for each; all by default.")] = None,
    dim: Annotated[
        list[int] | None, typer.Option(help="A width, given once for each; powers of two from 8 and all by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for table, heat map and curve.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print how good MODEL is on DATA at every depth and width, and how long a text takes at every depth.

    Scored pairs give Spearman's correlation; pairs give the share of first texts whose own second text is nearest.
    """
    from rich.table import Table

    from embedlab.cli.console import err, print_json
    from embedlab.cli.console import out as console
    from embedlab.text.matryoshka_2d import ElasticEncoder, evaluate_grid, measure_for, write_report
    from embedlab.text.training.sources import as_sources, load

    (rows,) = load(as_sources(data))
    measure = measure_for(rows.data)
    grid = evaluate_grid(ElasticEncoder(model).host, measure, layers=layer, dims=dim)
    if out is not None:
        files = write_report(grid, out)
        err.print(f"wrote {', '.join(file.name for file in files)} to {out}", markup=False)
    if as_json:
        print_json({"model": model, "metric": grid.metric, "sizes": grid.frame().to_dict(orient="records")})
        return
    front = grid.front()
    shown = Table("layers", "ms/text", *(f"{d} dims" for d in grid.dims), box=None, pad_edge=False)
    for i, n in enumerate(grid.layers):
        cells = [f"[bold]{s:.4f}[/]" if keep else f"{s:.4f}" for s, keep in zip(grid.scores[i], front[i], strict=True)]
        shown.add_row(str(n), f"{grid.ms_per_text[i]:.2f}", *cells)
    console.print(shown)
    console.print(f"{grid.metric}; bold: no other size is as fast and as small, and better")


@app.command()
def truncate(
    model: Name,
    out: Annotated[Path, typer.Argument(help="Folder for the smaller model; it must not exist.")],
    layers: Annotated[int | None, typer.Option(help="How many layers to keep; all by default.")] = None,
    dim: Annotated[int | None, typer.Option(help="How many dimensions to keep; all by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model of the first layers and dimensions of MODEL, for plain sentence-transformers.

    A model that was not trained for it (recipes matryoshka_2d, espresso) loses much.
    """
    from embedlab._core.errors import InputError
    from embedlab._core.files import atomic_folder
    from embedlab.cli.console import out as console
    from embedlab.cli.console import print_json
    from embedlab.text import matryoshka_2d

    if layers is None and dim is None:
        raise InputError("layers, dim: say how many to keep of at least one of them")
    if out.exists():
        raise InputError(f"out={out}: it exists already; name another folder")
    whole = matryoshka_2d.ElasticEncoder(model).host
    small = matryoshka_2d.truncate(whole, layers=layers, dim=dim)
    with atomic_folder(out) as folder:
        small.save(str(folder))
    before, after = (sum(p.numel() for p in each.parameters()) for each in (whole, small))
    if as_json:
        print_json({"out": str(out), "parameters": after, "parameters_before": before, "dim": dim, "layers": layers})
        return
    console.print(f"wrote {out}: {after:,} parameters of {before:,}", markup=False)
