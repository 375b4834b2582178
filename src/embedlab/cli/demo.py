"""The demo: Python's own standard library as a collection, five questions, the page."""

from __future__ import annotations

from typing import Annotated

import typer

DEMO_NAME = "python-stdlib"

QUESTIONS = (
    "how do I read a zip file without unpacking it",
    "run a function in parallel on several processes",
    "compare two lists of lines and show the differences",
    "temporary folder that is deleted afterwards",
    "parse dates written in ISO format",
)


def demo(
    serve: Annotated[bool, typer.Option(help="Serve the page when the questions are answered.")] = True,
    port: Annotated[int, typer.Option(help="Port of the page.", min=1, max=65535)] = 8080,
) -> None:
    """Index the documentation in Python's standard library, answer five questions, and serve the page."""
    from embedlab.cli.collection import print_hit
    from embedlab.cli.console import err, indexing_progress, out
    from embedlab.data.loaders import STDLIB_EXCLUDE, stdlib_folder
    from embedlab.search import Collection

    err.print(f"indexing the documentation of Python's standard library as [bold]{DEMO_NAME}[/]")
    collection = Collection.create(DEMO_NAME, exist_ok=True)
    with indexing_progress(hidden=False) as on_progress:
        report = collection.index(stdlib_folder(), exclude=STDLIB_EXCLUDE, on_progress=on_progress)
    passages = collection.info().passages
    err.print(f"{passages:,} passages of {report.files:,} modules; indexed in {report.seconds:.1f} s\n")
    for question in QUESTIONS:
        out.print(f"[bold green]? {question}[/]")
        for rank, hit in enumerate(collection.search(question, top_k=2), start=1):
            print_hit(rank, hit)
    if serve:
        from embedlab.cli.serve import serve as serve_page

        serve_page(port=port)
