"""Methods and papers: papers, show, new, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from embedlab._core.registry import MethodRecord

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
MethodName = Annotated[str, typer.Argument(metavar="METHOD", help="Name of a method, as `embedlab papers` lists it.")]

_COLOURS = {
    "missing": "dim",
    "not run": "yellow",
    "stale": "yellow",
    "does not hold": "red",
    "holds weaker": "cyan",
    "holds": "green",
}


def papers(
    room: Annotated[str | None, typer.Option(help="Only the papers of one room.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the 52 papers: where each lives and whether its claims hold here.

    States: missing (not written yet), not run, stale (its code changed since), does not hold, holds weaker, holds.
    """
    from embedlab._core.claims import worst
    from embedlab._core.errors import unknown_name
    from embedlab._core.papers import papers as all_papers
    from embedlab._core.registry import ROOMS
    from embedlab._core.results import paper_states
    from embedlab.cli.console import out, print_json

    if room is not None and room not in ROOMS:
        raise unknown_name("room", room, ROOMS)
    rows = [(paper, paper_states(paper)) for paper in all_papers() if room in (None, paper.room)]
    if as_json:
        print_json(
            [
                {
                    "card": paper.card,
                    "slug": paper.slug,
                    "title": paper.title,
                    "room": paper.room,
                    "state": worst(states.values()),
                    "methods": states,
                }
                for paper, states in rows
            ]
        )
        return
    from rich.table import Table
    from rich.text import Text

    # in a pipe nothing is cut off; on a terminal only titles are
    table = Table(box=None, padding=(0, 1), header_style="bold", expand=True, width=None if out.is_terminal else 160)
    table.add_column("#", justify="right", no_wrap=True, min_width=2)
    for column, texts in {
        "state": {state for _, states in rows for state in states.values()},
        "method": {name for _, states in rows for name in states},
        "room": {paper.room for paper, _ in rows},
    }.items():
        table.add_column(column, no_wrap=True, min_width=max(map(len, texts)))
    table.add_column("paper", no_wrap=True, overflow="ellipsis", ratio=1)
    for paper, states in rows:
        shown = Text("\n").join(Text(state, style=_COLOURS[state]) for state in states.values())
        table.add_row(f"{paper.card:02}", shown, "\n".join(states), paper.room, paper.title)
    out.print(table, soft_wrap=False, crop=False)


def show(method: MethodName, as_json: AsJson = False) -> None:
    """Show one method: its paper, how to call it, its documentation, and how its claims stand."""
    from embedlab._core.anatomy import public_faces
    from embedlab._core.papers import papers as all_papers
    from embedlab._core.registry import method as find
    from embedlab._core.registry import methods as written
    from embedlab._core.results import fresh_reports, state_of
    from embedlab.cli.console import out, print_json

    name = method.replace("-", "_")
    planned = next((paper for paper in all_papers() if name in paper.methods), None)
    if planned is not None and name not in written():
        if as_json:
            print_json({"name": name, "state": "missing", "card": planned.card, "room": planned.room})
        else:
            out.print(f"{name} is planned (card {planned.card:02}, {planned.title}) and not written yet.", markup=False)
        return
    record = find(method)
    faces, state, reports = public_faces(*record.sources()), state_of(record.name), fresh_reports(record)
    called = {kind: faces[public] for kind, public in record.kinds.items() if public in faces}
    if as_json:
        objects = {
            kind: {"name": face.name, "signature": face.signature, "docstring": face.docstring}
            for kind, face in called.items()
        }
        print_json({**_record_data(record), "objects": objects, "state": state, "reports": reports})
        return
    for line in _description(record, state):
        out.print(line, markup=False)
    for kind, face in called.items():
        out.rule(f"{kind}: {face.name}", align="left")
        out.print(f"from {record.module} import {face.name}\n{face.signature}\n", style="bold", markup=False)
        out.print(face.docstring, markup=False)
    for level, report in reports.items():
        out.rule(f"reproduction, level {level}: {report['command']}", align="left")
        out.print(_claims_table(report), soft_wrap=False)


def new(
    room: Annotated[str, typer.Argument(help="Room: what its user holds (text, words, graphs, ...).")],
    name: Annotated[str, typer.Argument(help="Name of the method: a Python identifier in lower case.")],
    kind: Annotated[str | None, typer.Option(help="What it promises to be (loss, surgery, probe, ...).")] = None,
    root: Annotated[Path | None, typer.Option(help="Checkout of the source; the current folder by default.")] = None,
) -> None:
    """Start a method: write its two files, which `make check` then guides you to fill."""
    from embedlab._core.stubs import write_stubs
    from embedlab.cli.console import out

    for path in write_stubs(room, name, (root or Path.cwd()).resolve(), kind=kind):
        out.print(f"wrote {path}", markup=False)
    out.print(f"next: pytest tests/contract -k {name}  # names in red what is missing", markup=False)


def reproduce(
    method: Annotated[str | None, typer.Argument(metavar="METHOD", help="Name of a method.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every method that is written.")] = False,
    level: Annotated[str, typer.Option(help="smoke (seconds, writes nothing), cpu (minutes) or gpu.")] = "cpu",
    seeds: Annotated[int | None, typer.Option(help="Number of seeds; what the claims ask for by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what a method's paper claims, on real data, and keep the verdict.

    Finished seeds are kept: an interrupted run goes on where it stopped. A claim that does not hold is a finding,
    not an error.
    """
    from embedlab._core.errors import InputError
    from embedlab._core.registry import method as find
    from embedlab._core.registry import methods as written
    from embedlab._core.reproduce import load_reproduction
    from embedlab._core.reproduce import reproduce as run
    from embedlab.cli.console import err, out, print_json

    if every == (method is not None):
        raise InputError("give the name of one method, or --all")
    records = list(written().values()) if method is None else [find(method)]
    reports = {}
    for record in records:

        def tell(done: dict[str, Any], name: str = record.name) -> None:
            err.print(f"{name}: seed {done['seed']} took {done['seconds']:.1f} s", markup=False)

        report = run(load_reproduction(record), level, seeds=seeds, on_seed=tell)
        reports[record.name] = report
        if not as_json:
            out.print(f"{record.name}, level {level}: {report['verdict']}", style=_COLOURS[report["verdict"]])
            out.print(_claims_table(report), soft_wrap=False)
    if as_json:
        print_json(reports if method is None else reports[records[0].name])


def _record_data(record: MethodRecord) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__ if name != "path"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _description(record: MethodRecord, state: str) -> list[str]:
    needs = f"pip install 'embedlab[{','.join(record.extras)}]'" if record.extras else "nothing beyond the core"
    lines = [
        f"{record.name}: {record.title}",
        f"  {record.authors} ({record.year}), {record.source}; card {record.card:02}, room {record.room}",
        f"  official code: {record.official_code or 'none'}",
        f"  needs: {needs}",
        f"  reproduction: {state}",
    ]
    lines += [f"  differs from the paper: {each}" for each in record.deviations]
    lines += [f"  known to fail: {each}" for each in record.known_failures]
    return lines


def _claims_table(report: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column in ("claim", "metric", "baseline", "gain", "needed", "verdict"):
        table.add_column(column, justify="left" if column in ("claim", "verdict") else "right")
    for claim in report["claims"]:
        table.add_row(
            Text(claim["id"]),
            f"{claim['metric_mean']:.4g}",
            f"{claim['baseline_mean']:.4g}",
            f"{claim['gain_mean']:+.4g} ± {claim['gain_spread']:.2g}",
            f"{claim['margin']:.4g}",
            Text(claim["verdict"], style=_COLOURS[claim["verdict"]]),
        )
    return table
