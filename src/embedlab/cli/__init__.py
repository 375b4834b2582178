"""The command line: one file per group of verbs; each verb imports what it needs when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from embedlab import __version__
from embedlab.cli import (
    aspects,
    collection,
    compress,
    concepts,
    demo,
    depth,
    domain,
    domain_gap,
    elastic,
    evaluate,
    inspect,
    invert,
    language_models,
    merge,
    methods,
    relative,
    serve,
    synth,
    tasks,
    train,
    tune,
)

app = typer.Typer(
    name="embedlab",
    help="Index, search and serve your documents offline; make, compress, evaluate and understand embeddings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"embedlab {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


# The order here is the order in `embedlab --help`.
for _panel, _verbs in {
    "Your documents": (
        collection.index,
        collection.search,
        serve.serve,
        collection.list_,
        collection.info,
        collection.remove,
        collection.export,
        collection.doctor,
        tune.tune,
        compress.compress,
        compress.upgrade,
        aspects.aspects,
        demo.demo,
    ),
    "Models": (
        synth.synth,
        synth.judge,
        train.train,
        merge.merge,
        language_models.prompt,
        language_models.efficiency,
        language_models.stress,
        evaluate.evaluate,
        domain_gap.complexity,
        domain_gap.domain_gap,
    ),
    "Methods": (invert.invert, methods.papers, methods.show, methods.reproduce, methods.new),
}.items():
    for _verb in _verbs:
        app.command(_verb.__name__.rstrip("_").replace("_", "-"), rich_help_panel=_panel)(_verb)
app.add_typer(concepts.app, name="concepts", rich_help_panel="Models")
app.add_typer(depth.app, name="depth", rich_help_panel="Methods")
app.add_typer(domain.app, name="domain", rich_help_panel="Models")
app.add_typer(elastic.app, name="elastic", rich_help_panel="Models")
app.add_typer(relative.app, name="relative", rich_help_panel="Methods")
app.add_typer(inspect.app, name="inspect", rich_help_panel="Methods")
app.add_typer(tasks.app, name="tasks", rich_help_panel="Methods")


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit status 2."""
    from embedlab._core.errors import EmbedlabError

    try:
        app()
    except EmbedlabError as error:
        from embedlab.cli.console import complain

        complain(str(error))
        sys.exit(2)
