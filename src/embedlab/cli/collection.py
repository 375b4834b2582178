"""The main job: index, search, list, info, remove, export, doctor."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from embedlab.search.records import CollectionInfo, Hit, IndexReport

DEFAULT_NAME = "default"

Name = Annotated[str | None, typer.Argument(help="Collection; the default one, or the only one, if not given.")]
In = Annotated[str | None, typer.Option("--in", "-c", help="Collection; the default one, or the only one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class SearchMode(StrEnum):
    """How passages are ranked."""

    hybrid = "hybrid"
    dense = "dense"
    lexical = "lexical"


def index(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders of documents.")],
    into: Annotated[str, typer.Option(help="Collection to make or to bring up to date.")] = DEFAULT_NAME,
    model: Annotated[
        str | None,
        typer.Option(help="Embedding model: 'default', a path or hub name, or the URL of an endpoint, as URL#MODEL."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of files or folders to leave out, e.g. 'drafts' or '*.min.html'; can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a collection of your documents searchable, or bring it up to date.

    Only what is new or changed is embedded; documents that are gone from PATHS are removed. You can interrupt it at any
    moment: the same command goes on where it stopped.
    """
    from embedlab.cli.console import complain, indexing_progress, print_json
    from embedlab.search import Collection

    collection = Collection.create(into, model=model, exist_ok=True)
    with indexing_progress(hidden=as_json) as on_progress:
        try:
            report = collection.index(paths, exclude=exclude or (), on_progress=on_progress)
        except KeyboardInterrupt:
            complain("interrupted; what was committed is kept and searchable, run the same command again to go on")
            raise typer.Exit(130) from None
    if as_json:
        print_json(report)
    else:
        _print_report(report, collection.name)


def search(
    query: Annotated[str, typer.Argument(help="What you look for, in plain words.")],
    name: In = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=1000, help="Number of passages.")] = 5,
    where: Annotated[
        str | None, typer.Option("--filter", help="SQL condition on columns and metadata, e.g. 'lang = \"en\"'.")
    ] = None,
    mode: Annotated[SearchMode, typer.Option(help="Rank by words and meaning, meaning alone or words alone.")] = (
        SearchMode.hybrid
    ),
    aspect: Annotated[
        list[str] | None,
        typer.Option(help="Compare in this aspect, as NAME=WEIGHT; can be repeated. `embedlab aspects` makes them."),
    ] = None,
    explain: Annotated[bool, typer.Option(help="Show each part of the score.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the passages that answer QUERY."""
    from embedlab.cli.console import err, print_json
    from embedlab.search import Collection
    from embedlab.text.aspect_documents.names import parse_weights

    collection = Collection.open(choose_collection(name))
    weights = parse_weights(aspect) if aspect else None
    hits = collection.search(query, top_k=top_k, mode=mode.value, filter=where, explain=explain, aspects=weights)
    if as_json:
        print_json(hits)
        return
    if not hits:
        err.print("nothing found" + (": try without --filter" if where else ""))
    for rank, hit in enumerate(hits, start=1):
        print_hit(rank, hit)


def list_(as_json: AsJson = False) -> None:
    """List the collections."""
    from rich.table import Table

    from embedlab.cli.console import err, format_bytes, out, print_json
    from embedlab.search import list_collections

    collections = list_collections()
    if as_json:
        print_json(collections)
        return
    if not collections:
        err.print("no collections yet: make one with `embedlab index FOLDER`")
        return
    table = Table("collection", "documents", "passages", "model", "size", "updated", box=None, pad_edge=False)
    for info in collections:
        table.add_row(
            info.name,
            f"{info.documents:,}",
            f"{info.passages:,}",
            info.model,
            format_bytes(info.bytes_on_disk),
            info.updated_at[:16].replace("T", " "),
        )
    out.print(table)


def info(name: Name = None, as_json: AsJson = False) -> None:
    """Show what a collection holds and how it is set."""
    from rich.table import Table

    from embedlab.cli.console import format_bytes, out, print_json
    from embedlab.search import Collection

    about = Collection.open(choose_collection(name)).info()
    if as_json:
        print_json(about)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    for label, value in (
        ("collection", about.name),
        ("stored in", about.path),
        ("size on disk", format_bytes(about.bytes_on_disk)),
        ("documents", f"{about.documents:,}"),
        ("passages", f"{about.passages:,}"),
        ("formats", ", ".join(f"{name} {count:,}" for name, count in about.formats.items())),
        ("folders", "\n".join(about.roots)),
        ("model", f"{about.model} ({about.fingerprint}, {about.dim} dimensions)"),
        ("searched by", _searched_by(about)),
        ("filter columns", ", ".join(f"{column} ({kind})" for column, kind in about.columns.items())),
        ("fusion weight", f"{about.settings.weight:g} (share of the dense part)"),
        ("created", about.created_at),
        ("updated", about.updated_at),
    ):
        table.add_row(label, value)
    out.print(table)


def _searched_by(about: CollectionInfo) -> str:
    bridged = f"; queries pass {about.bridge} to the index of an earlier model" if about.bridge else ""
    if not about.codec:
        return f"vectors of {about.settings.vector_type}{bridged}"
    verified = f", {about.verify} candidates verified by vectors" if about.verify else ""
    dropped = "" if about.vectors_kept else ", vectors dropped"
    return f"codes of {about.bytes_per_code} bytes ({about.codec}{verified}{dropped}){bridged}"


def remove(
    name: Annotated[str, typer.Argument(help="Collection to delete, or to delete documents from.")],
    source: Annotated[list[str] | None, typer.Option(help="Delete only this document; can be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a collection, or documents of it. The indexed files themselves are never touched."""
    from embedlab.cli.console import err, print_json
    from embedlab.search import Collection, remove_collection

    collection = Collection.open(name)
    if source:
        count = collection.delete(source)
        if as_json:
            print_json({"removed_documents": count})
        else:
            err.print(f"removed {count:,} document{'s' * (count != 1)} from {collection.name}")
        return
    passages = collection.info().passages
    if not yes and not typer.confirm(f"Delete the collection {collection.name} with {passages:,} passages?"):
        raise typer.Exit(1)
    remove_collection(name)
    if as_json:
        print_json({"removed_collection": name, "passages": passages})
    else:
        err.print(f"removed {name}")


def export(
    to: Annotated[Path, typer.Argument(help="File to write, *.parquet.")],
    name: In = None,
    as_json: AsJson = False,
) -> None:
    """Write passages, metadata and vectors to a parquet file."""
    from embedlab.cli.console import err, format_bytes, print_json
    from embedlab.search import Collection

    rows = Collection.open(choose_collection(name)).export(to)
    if as_json:
        print_json({"path": str(to), "rows": rows, "bytes": to.stat().st_size})
    else:
        err.print(f"wrote {rows:,} passages to {to} ({format_bytes(to.stat().st_size)})")


def doctor(
    name: Name = None,
    repair: Annotated[bool, typer.Option(help="Put right what can be put right without loss.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the installation and the collections; exit status 1 if something is broken."""
    from embedlab.cli.console import out, print_json
    from embedlab.search import doctor as examine

    findings = examine(name, repair=repair)
    if as_json:
        print_json(findings)
    else:
        colours = {"ok": "green", "warn": "yellow", "error": "red"}
        for finding in findings:
            out.print(f"[{colours[finding.level]}]{finding.level:<5}[/]", end=" ")
            where = f"{finding.collection}: " if finding.collection else ""
            done = " (repaired)" if finding.repaired else ""
            action = f" -> {finding.action}" if finding.action and not finding.repaired else ""
            out.print(f"{where}{finding.check}: {finding.message}{done}{action}", markup=False)
    if any(finding.level == "error" and not finding.repaired for finding in findings):
        raise typer.Exit(1)


def choose_collection(name: str | None) -> str:
    """Return the collection meant: the one named, else the default one, else the only one there is."""
    if name is not None:
        return name
    from embedlab._core.errors import InputError
    from embedlab.search import list_collections

    names: list[str] = [info.name for info in list_collections()]
    if DEFAULT_NAME in names:
        return DEFAULT_NAME
    if len(names) == 1:
        return names[0]
    if not names:
        raise InputError("there is no collection yet: make one with `embedlab index FOLDER`")
    raise InputError(f"there are several collections: name one of {', '.join(names)}")


def print_hit(rank: int, hit: Hit) -> None:
    """Print a passage with its source, place, highlights and, if asked for, the parts of its score."""
    from rich.text import Text

    from embedlab.cli.console import out, print_indented

    head = Text(f"{rank}. ", style="dim")
    head.append(hit.source, style="bold")
    place = f"page {hit.page}" if hit.page is not None else f"{hit.start:,}-{hit.end:,}"
    head.append(f"  {place}  {hit.score:.3f}", style="dim")
    out.print(head)
    if hit.headings:
        print_indented(Text(" › ".join(hit.headings), style="cyan"))
    print_indented(_snippet(hit))
    if hit.parts:
        print_indented(Text("  ".join(f"{name} {value:.3f}" for name, value in hit.parts.items()), style="magenta"))
        if hit.matched:
            print_indented(Text(f"matched: {', '.join(hit.matched)}", style="magenta"))
    if hit.shared:
        print_indented(Text(f"shared: {_shared(hit.shared)}", style="magenta"))
    out.print()


def _shared(shared: tuple[tuple[str, float], ...], *, shown: int = 6) -> str:
    said = [f"{name} {added:.3f}" for name, added in shared[:shown]]
    if len(shared) > shown:
        said.append(f"{len(shared) - shown} more {sum(added for _, added in shared[shown:]):.3f}")
    return ", ".join(said)


def _snippet(hit: Hit, *, max_chars: int = 400) -> Text:
    """Cut the passage around its best sentence and mark the words that match."""
    from rich.text import Text

    text = Text(hit.text)
    for start, end in hit.highlights:
        text.stylize("bold yellow", start, end)
    first = 0
    if hit.best_sentence is not None and hit.best_sentence[1] > max_chars:
        first = max(0, hit.best_sentence[0])
    piece = text[first : first + max_chars]
    lines = [line for line in piece.split("\n", allow_blank=False) if line.plain.strip()]
    joined = Text(" ").join([_trim(line) for line in lines])
    if first > 0:
        joined = Text("… ") + joined
    if first + max_chars < len(hit.text):
        joined.append(" …")
    return joined


def _trim(line: Text) -> Text:
    line.rstrip()
    return line[len(line.plain) - len(line.plain.lstrip()) :]


def _print_report(report: IndexReport, name: str) -> None:
    from embedlab.cli.console import err

    err.print(
        f"[bold]{name}[/]: {report.added:,} added, {report.changed:,} changed, {report.removed:,} removed, "
        f"{report.unchanged + report.files_skipped:,} unchanged; {report.passages:,} passages written "
        f"in {report.seconds:.1f} s ({report.documents_per_s:,.0f} documents/s)"
    )
    if report.unreadable:
        err.print(f"[yellow]{len(report.unreadable):,} could not be read:[/]")
        for failure in report.unreadable[:20]:
            err.print(f"  {failure.source}: {failure.reason}", markup=False)
        if len(report.unreadable) > 20:
            err.print(f"  and {len(report.unreadable) - 20:,} more; --json lists them all")
    if report.added + report.changed + report.unchanged + report.files_skipped:
        err.print(f'search it with: embedlab search "YOUR QUESTION"{"" if name == DEFAULT_NAME else f" --in {name}"}')
