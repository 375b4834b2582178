"""Collections in fewer bytes, and with another model for queries: compress, upgrade."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embedlab.search.compression.reports import CompressionReport, UpgradeReport

Collection = Annotated[str, typer.Argument(metavar="COLLECTION", help="Name or path of the collection.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def compress(
    collection: Collection,
    codec: Annotated[
        str, typer.Option(help="How vectors are encoded: rotation, bebr, pq, opq, rabitq, binary, int8, float16, ...")
    ] = "rotation",
    bits: Annotated[
        float | None, typer.Option(help="Bits per dimension of the code, where the codec has them.")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Dimensions of the code, where the codec lets one choose.")] = None,
    verify: Annotated[
        int | None,
        typer.Option(help="Candidates of a search to score again by their vectors on disk; 0 for none. Default: 100."),
    ] = None,
    drop_vectors: Annotated[
        bool, typer.Option("--drop-vectors", help="Take the vectors away: undoing it embeds everything again.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Search vectors again, as before it was compressed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hold short codes in memory instead of vectors, and print what that costs and saves.

    Nothing changes until all codes are written and measured; then one commit switches. Ctrl-C leaves the collection as
    it was. Documents that are added later are encoded as they come.
    """
    from embedlab.cli.console import err, print_json
    from embedlab.search import compress_collection, undo_compression

    with _phases(hidden=as_json) as on_progress, _unchanged_if_interrupted(collection):
        if undo:
            undone = undo_compression(collection, on_progress=on_progress)
        else:
            report = compress_collection(
                collection,
                codec=codec,
                bits=bits,
                dim=dim,
                verify=verify,
                drop_vectors=drop_vectors,
                on_progress=on_progress,
            )
    if as_json:
        print_json(undone if undo else report)
    elif undo:
        again = f"; {undone.embedded:,} passages were embedded again" if undone.embedded else ""
        err.print(f"{undone.collection} searches its vectors again{again} ({undone.seconds:.1f} s)")
    else:
        _print_compression(report)


def upgrade(
    collection: Collection,
    model: Annotated[
        str, typer.Option(help="The new model: 'default', a path or hub name, or an endpoint's URL#MODEL.")
    ],
    max_loss: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Most recall that may be lost; with more, nothing changes.")
    ] = 0.02,
    force: Annotated[bool, typer.Option("--force", help="Take the new model whatever is lost.")] = False,
    sample: Annotated[int, typer.Option(min=20, help="Passages that the new model embeds to learn the map.")] = 4000,
    as_json: AsJson = False,
) -> None:
    """Search with another model and keep the index: a map to the old vectors is learned from the collection's texts.

    Exit status 1 if it would lose more than --max-loss; the collection is then as it was.
    """
    from embedlab.cli.console import print_json
    from embedlab.search import upgrade_collection

    with _phases(hidden=as_json) as on_progress, _unchanged_if_interrupted(collection):
        report = upgrade_collection(
            collection, model=model, max_loss=max_loss, force=force, sample=sample, on_progress=on_progress
        )
    if as_json:
        print_json(report)
    else:
        _print_upgrade(report, max_loss)
    if not report.kept:
        raise typer.Exit(1)


def _print_compression(report: CompressionReport) -> None:
    from rich.table import Table

    from embedlab.cli.console import err, format_bytes, out

    table = Table("", "before", "after", box=None, pad_edge=False)
    before, after = report.before, report.after
    for label, left, right in (
        ("recall@10 of exact search", f"{before.recall:.3f}", f"{after.recall:.3f}"),
        ("  by codes alone", "", f"{report.recall_of_codes:.3f}"),
        ("bytes per passage in memory", f"{before.bytes_per_passage:,}", f"{after.bytes_per_passage:,}"),
        ("all passages in memory", format_bytes(before.bytes_in_memory), format_bytes(after.bytes_in_memory)),
        ("table on disk", format_bytes(before.bytes_on_disk), format_bytes(after.bytes_on_disk)),
        ("time per look-up, median", f"{before.p50_ms:.1f} ms", f"{after.p50_ms:.1f} ms"),
        ("time per look-up, 95 %", f"{before.p95_ms:.1f} ms", f"{after.p95_ms:.1f} ms"),
    ):
        table.add_row(label, left, right)
    out.print(table)
    verified = f"{report.verify} candidates verified" if report.verify else "codes alone"
    kept = "" if report.vectors_kept else ", vectors dropped"
    err.print(
        f"{report.collection}: {report.passages:,} passages encoded by {report.codec}, {verified}{kept}, measured with "
        f"{report.queries} queries made of its texts ({report.seconds:.1f} s). "
        f"Back: embedlab compress {report.collection} --undo"
    )


def _print_upgrade(report: UpgradeReport, max_loss: float) -> None:
    from rich.table import Table

    from embedlab.cli.console import err, out

    table = Table(box=None, show_header=False, pad_edge=False)
    for label, value in (
        (f"recall@10 with {report.before}", _figure(report.recall_before)),
        (f"recall@10 with {report.after}, same index", f"{report.recall_after:.3f}"),
        ("loss", _figure(report.loss)),
        ("overlap of the first ten", _figure(report.overlap)),
    ):
        table.add_row(label, value)
    out.print(table)
    about = (
        f"measured with {report.queries} queries made of its texts, map learned from {report.trained_on:,} passages "
        f"({report.seconds:.1f} s)"
    )
    if report.kept:
        err.print(f"{report.collection} is searched with {report.after} now; the index is as it was; {about}")
    else:
        err.print(
            f"[yellow]{report.collection} stays as it was:[/] {_figure(report.loss)} of recall would be lost, at most "
            f"{max_loss:g} is allowed; {about}. --max-loss or --force allow more; indexing anew with it loses nothing"
        )


def _figure(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


@contextmanager
def _phases(*, hidden: bool) -> Iterator[Callable[[str, float], None]]:
    """Show a bar for the phase at hand; yields the function to hand over as ``on_progress``."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from embedlab.cli.console import err

    columns = (TextColumn("{task.description:<11}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=hidden or not err.is_terminal, transient=True) as bar:
        task = bar.add_task("opening", total=1.0)
        yield lambda phase, share: bar.update(task, description=phase, completed=share)


@contextmanager
def _unchanged_if_interrupted(name: str) -> Iterator[None]:
    from embedlab.cli.console import complain

    try:
        yield
    except KeyboardInterrupt:
        complain(f"interrupted: {name} is as it was")
        raise typer.Exit(130) from None
