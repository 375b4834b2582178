"""Aspects of a collection: aspects."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedlab.cli.collection import AsJson

if TYPE_CHECKING:
    from embedlab.search import Collection


class Way(StrEnum):
    """How an aspect is learnt."""

    siamese = "siamese"
    classification = "classification"
    retrofitting = "retrofitting"


def aspects(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Collection, made with any model.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels of documents, CSV or JSON lines: 'source', and a column for each aspect."),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Key of the documents' metadata that is an aspect; can be repeated.")
    ] = None,
    entities: Annotated[
        Path | None,
        typer.Option(help="Names to look for in the texts, CSV or JSON lines: 'aspect', 'name', 'aliases'."),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Documents that are alike, CSV or JSON lines: 'aspect', 'first', 'second'.")
    ] = None,
    separator: Annotated[str, typer.Option(help="What stands between two labels of one cell.")] = ";",
    way: Annotated[Way, typer.Option(help="How to learn: by ranking, by classifying pairs, or by moving vectors.")] = (
        Way.siamese
    ),
    compare: Annotated[bool, typer.Option(help="Measure on documents held out whether it helps.")] = True,
    remove: Annotated[list[str] | None, typer.Option(help="Forget this aspect; can be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Learn aspects of COLLECTION, such as method and data set, to search by; without options, list those it has.

    Documents that share a label are taken to be alike in that aspect. The model stays as it is: a small network on the
    stored vectors is learnt for each aspect. Search with `embedlab search QUERY --aspect method=1 --aspect task=0.3`.
    """
    from embedlab.cli.console import err, out, print_json
    from embedlab.search import Collection

    collection = Collection.open(name)
    if remove:
        count = collection.aspects.remove(remove)
        if as_json:
            print_json({"removed_aspects": count})
        else:
            err.print(f"removed {count} aspect{'s' * (count != 1)} from {collection.name}")
        return
    if labels is None and not column and entities is None and pairs is None:
        _list(collection, as_json)
        return
    from embedlab.search.aspects.learning import learn_aspects
    from embedlab.text.aspect_documents.labels import read_entities, read_examples, read_labels

    with err.status("learning" + (" and comparing on documents held out" if compare else "")):
        learnt = learn_aspects(
            collection,
            labels=read_labels(labels, separator=separator) if labels is not None else None,
            columns=column or (),
            separator=separator,
            entities=read_entities(entities) if entities is not None else None,
            examples=read_examples(pairs) if pairs is not None else None,
            way=way.value,
            folds=4 if compare else None,
        )
    if as_json:
        print_json(learnt.to_dict())
        return
    if learnt.comparison is not None:
        out.print(learnt.comparison.to_table(), markup=False, highlight=False, soft_wrap=True)
        out.print()
        for aspect in learnt.aspects:
            if not learnt.comparison.helps(aspect):
                err.print(
                    f"[yellow]{aspect}[/]: not better than the plain vectors in every fold of documents held out; more "
                    f"labels may help, or `embedlab aspects {name} --remove {aspect}`"
                )
    err.print(
        f"[bold]{collection.name}[/]: learnt {', '.join(learnt.aspects)}; search by it with: "
        f'embedlab search "YOUR QUESTION" --in {name} --aspect {learnt.aspects[0]}=1'
    )


def _list(collection: Collection, as_json: bool) -> None:
    from rich.table import Table

    from embedlab.cli.console import err, out, print_json

    about = collection.aspects.about
    if as_json:
        print_json(about)
        return
    if not about:
        err.print(
            f"{collection.name} has no aspects yet: `embedlab aspects {collection.name} --labels FILE` learns some"
        )
        return
    table = Table("aspect", "learnt by", "documents", "precision", "plain vectors", "learnt", box=None, pad_edge=False)
    for aspect, known in about.items():
        table.add_row(
            aspect,
            *(_shown(known.get(key)) for key in ("way", "documents", "precision", "generic_precision")),
            _shown(known.get("learnt_at"))[:16].replace("T", " "),
        )
    out.print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
