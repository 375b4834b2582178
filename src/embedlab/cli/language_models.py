"""Embedders from language models by prompts; what models cost, and whether they keep their word."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Fix(StrEnum):
    """What is taken away from the vectors."""

    none = "none"
    centre = "centre"
    standardise = "standardise"
    whiten = "whiten"


def prompt(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a causal language model.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write: an embedding model like any other.")],
    method: Annotated[
        str, typer.Option(help="eol, cot, knowledge, echo, echo_last, meta, token_prepend, promptreps, mean, last, ...")
    ] = "eol",
    layer: Annotated[int, typer.Option(help="Which layer's states: -1 the last, -2 the one before, ...")] = -1,
    contrast: Annotated[
        str | None, typer.Option(help="Template whose vector is subtracted, such as 'auxiliary'.")
    ] = None,
    templates: Annotated[Path | None, typer.Option(help="TOML file with templates of your own.")] = None,
    fix: Annotated[Fix, typer.Option(help="What all vectors share is taken away; learned from --texts.")] = Fix.none,
    texts: Annotated[Path | None, typer.Option(help="Text file for --fix, one text per line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an embedding model of a language MODEL by a prompt, without training, and save it to FOLDER.

    The folder can be evaluated, indexed with and trained further: give it wherever a model is asked for.
    """
    from embedlab._core.errors import InputError
    from embedlab._core.files import atomic_folder
    from embedlab.cli.console import err, print_json
    from embedlab.text.prompting import PromptEmbedder

    if (fix is Fix.none) != (texts is None):
        raise InputError(f"fix={fix.value}, texts={texts}: give both, --fix and the --texts to learn it from, or none")
    if folder.exists():
        raise InputError(f"{folder} exists already: remove it or choose another folder")
    encoder = PromptEmbedder(model, method=method, layer=layer, contrast=contrast, templates=templates)
    if texts is not None:
        encoder.fit(_lines(texts), fix=fix.value)  # type: ignore[arg-type]  # its values are those of the enumeration
    with atomic_folder(folder) as fresh:
        encoder.host.save(str(fresh))
    if as_json:
        print_json({"folder": str(folder), "method": method, "dim": encoder.dim, "fingerprint": encoder.fingerprint})
    else:
        err.print(f"wrote {folder}: vectors of {encoder.dim} by {method}", markup=False)


def efficiency(
    texts: Annotated[Path, typer.Argument(help="Text file whose words fill the batches.")],
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="A model; say it once per model.")] = None,
    quality: Annotated[
        list[float] | None, typer.Option("--quality", "-q", help="Score of each model in that order, for the front.")
    ] = None,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Texts per call; may be said again.")] = None,
    length: Annotated[list[int] | None, typer.Option(min=1, help="Words per text; may be said again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what models cost: parameters, operations, latency by batch and length, memory, index bytes."""
    from rich.markdown import Markdown

    from embedlab._core.errors import InputError
    from embedlab.cli.console import out, print_json
    from embedlab.evaluate.efficiency import measure_efficiency
    from embedlab.models import load_model

    names = model or ["default"]
    if quality is not None and len(quality) != len(names):
        raise InputError(f"{len(quality)} scores for {len(names)} models: give one --quality per --model, or none")
    report = measure_efficiency(
        {name: load_model(name) for name in names},
        _lines(texts),
        quality=None if quality is None else dict(zip(names, quality, strict=True)),
        batch_sizes=batch_size or (1, 32),
        lengths=length or (16, 128),
    )
    if as_json:
        print_json(report.as_dict())
    else:
        out.print(Markdown(report.markdown()))


def stress(
    pairs: Annotated[Path, typer.Argument(help="Text file: query, tab, the document that answers it; one per line.")],
    outside: Annotated[Path | None, typer.Option(help="Pairs of another domain, in the same form.")] = None,
    model: Annotated[
        str, typer.Option(help="Embedding model: 'default', a path or hub name, or URL#MODEL.")
    ] = "default",
    strict: Annotated[bool, typer.Option(help="End with status 1 if a check fails.")] = False,
    seed: Annotated[int, typer.Option(help="Decides the spoiled letters.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check whether a model still finds when texts are long, moved, misspelt, in capitals, or prompts are reworded."""
    from rich.table import Table

    from embedlab.cli.console import out, print_json
    from embedlab.evaluate.robustness import check_robustness
    from embedlab.models import load_model

    queries, documents = _pairs(pairs)
    report = check_robustness(
        load_model(model), queries, documents, outside=None if outside is None else _pairs(outside), seed=seed
    )
    if as_json:
        print_json(report.as_dict())
    else:
        out.print(f"MRR {report.mrr:.3f} on {len(queries):,} pairs")
        table = Table("check", "value", "at most", "", box=None, pad_edge=False)
        for check in report.checks:
            table.add_row(check.name, f"{check.value:.3f}", f"{check.threshold:.2f}", "ok" if check.passed else "FAILS")
        out.print(table)
    if strict and not report.passed:
        raise typer.Exit(1)


def _lines(path: Path) -> list[str]:
    from embedlab._core.errors import InputError
    from embedlab.cli.text_files import read_utf8

    lines = [line.strip() for line in read_utf8(path).split("\n") if line.strip()]
    if not lines:
        raise InputError(f"{path} holds no text: give one text per line")
    return lines


def _pairs(path: Path) -> tuple[list[str], list[str]]:
    from embedlab._core.errors import InputError

    rows = [line.split("\t") for line in _lines(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise InputError(f"{path}, text {number}: expected query, tab, document; found {len(row)} columns")
    return [row[0] for row in rows], [row[1] for row in rows]
