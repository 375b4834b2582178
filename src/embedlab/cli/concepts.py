"""Models whose dimensions have names: concepts train, explain."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embedlab.models import Encoder

app = typer.Typer(
    help="Make models whose dimensions are concepts of a list, and ask why texts match.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Method(StrEnum):
    """How a text gets its concepts."""

    esa = "esa"
    sesa = "sesa"


class Activation(StrEnum):
    """What follows a concept's logit."""

    relu = "relu"
    sigmoid = "sigmoid"


@app.command()
def train(
    concepts: Annotated[Path, typer.Argument(help="The concepts: CSV, TSV or JSON lines with name and description.")],
    out: Annotated[Path, typer.Argument(help="Folder for the model; it must not exist.")],
    texts: Annotated[
        Path, typer.Option(help="Table of texts: 'text', 'concepts' (names with ';' between); or any documents.")
    ],
    method: Annotated[
        Method, typer.Option(help="By the words of the concepts' articles, or learned from what texts declare.")
    ] = Method.esa,
    pairs: Annotated[
        Path | None, typer.Option(help="With sesa: table of relevant texts, 'first', 'second' and perhaps 'label'.")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="With sesa: 'default', 'lstm', or a folder or hub name; all but 'lstm' stay as they are."),
    ] = "default",
    activation: Annotated[
        Activation, typer.Option(help="With sesa: 'sigmoid' ranks better, 'relu' explains in fewer concepts.")
    ] = Activation.relu,
    keep: Annotated[int, typer.Option(min=1, help="With esa: concepts that a text keeps, its strongest.")] = 20,
    epochs: Annotated[int, typer.Option(min=1, help="With sesa: passes over the pairs, at most.")] = 30,
    seed: Annotated[int, typer.Option(help="With sesa: decides what is drawn and held out.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a model whose dimensions are CONCEPTS, for `embedlab index --model OUT` and `embedlab search --explain`."""
    from embedlab._core.errors import InputError
    from embedlab.cli.console import err, print_json
    from embedlab.text.sesa.esa import ESA
    from embedlab.text.sesa.tables import learn, read_concepts, read_declaring, read_pairs

    if out.exists():
        raise InputError(f"out={out}: it exists already; name another folder")
    if pairs is not None and method is not Method.sesa:
        raise InputError("pairs: only --method sesa learns from pairs")
    space = read_concepts(concepts)
    items = read_declaring(texts, space)
    about: dict[str, object] = {"out": str(out), "method": method.value, "concepts": len(space)}
    about |= {"texts": len(items.texts), "declaring": sum(map(bool, items.concepts))}
    if method is Method.esa:
        ESA(space, top_k=keep).fit(items.texts, items.concepts).save(out)
    else:
        learned = learn(
            space,
            items,
            pairs=None if pairs is None else read_pairs(pairs),
            epochs=epochs,
            learning_rate=0.003 if encoder == "lstm" else {"relu": 0.01, "sigmoid": 0.03}[activation.value],
            seed=seed,
            encoder=encoder,
            activation=activation.value,
            axis_weights="idf",
            freeze=encoder != "lstm",
        )
        learned.model.save(out)
        about |= {"pairs": learned.pairs, "auc": learned.auc, "auc_esa": learned.auc_esa}
    if as_json:
        print_json(about)
        return
    err.print(f"wrote {out}: {len(space)} concepts, from {len(items.texts):,} texts", markup=False)
    if "auc" in about:
        err.print(f"AUC of pairs held out: {about['auc']:.3f}; ESA on the same pairs: {about['auc_esa']:.3f}")
    err.print(f"use it: embedlab index DOCS --model {out}", markup=False)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="Folder of a model with named dimensions.")],
    text: Annotated[str, typer.Argument(help="A text.")],
    other: Annotated[str | None, typer.Argument(help="Another; without it, the concepts of TEXT are shown.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Most concepts to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show which concepts two texts share and what each adds to their cosine; or what concepts one text is about."""
    from rich.table import Table

    from embedlab.cli.console import out, print_json
    from embedlab.models import load_model
    from embedlab.text.sesa.explaining import contributions, decode

    encoder = load_model(model)
    names = _dimensions(encoder)
    rows = encoder.encode_query([text] if other is None else [text, other])
    found = rows[0] if other is None else contributions(rows[0], rows[1])
    every: list[tuple[str, float]] = decode(found, names)  # type: ignore[assignment]
    score = None if other is None else float(found.sum())
    if as_json:
        print_json({"score": score, "concepts": [{"name": name, "weight": weight} for name, weight in every]})
        return
    table = Table("concept", "weight" if other is None else "adds", box=None, pad_edge=False)
    for name, weight in every[:top_k]:
        table.add_row(str(name), f"{weight:.3f}")
    if other is not None and len(every) > top_k:
        table.add_row(f"{len(every) - top_k} more", f"{sum(weight for _, weight in every[top_k:]):.3f}")
    if score is not None:
        table.add_row("[bold]cosine[/]", f"[bold]{score:.3f}[/]")
    out.print(table)


def _dimensions(encoder: Encoder) -> tuple[str, ...]:
    from embedlab._core.errors import InputError

    names: tuple[str, ...] = getattr(encoder, "dimensions", ())
    if not names:
        raise InputError(
            f"model={encoder.name!r}: its dimensions have no names; make one with `embedlab concepts train`"
        )
    return names
