"""Two models, one collection: relative search, relative compare."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embedlab.search import Collection, PassageInfo

app = typer.Typer(help="Join the spaces of two models: search across, and compare.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Method(StrEnum):
    """How queries of one model are carried to the vectors of another."""

    best = "best"
    relative = "relative"
    procrustes = "procrustes"
    least_squares = "least-squares"


@app.command()
def search(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Collection, made with any model.")],
    query: Annotated[str, typer.Argument(help="What you look for, in plain words.")],
    model: Annotated[str, typer.Option(help="The other model: 'default', a path or hub name, or URL#MODEL.")],
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=1000, help="Number of passages.")] = 5,
    anchors: Annotated[int, typer.Option(min=2, help="Passages that both models are tied together by.")] = 300,
    check: Annotated[int, typer.Option(min=12, help="Further passages embedded to estimate what is lost.")] = 500,
    method: Annotated[
        Method, typer.Option(help="Carry queries over by similarity to the anchors, by a fitted map, or what is best.")
    ] = Method.best,
    as_json: AsJson = False,
) -> None:
    """Search COLLECTION with the queries of another model, without embedding its passages again.

    Only the anchors and the passages of the check are embedded by the other model. The check says which share of that
    model's own nearest passages is found this way, and which share the collection's own model finds; if the latter is
    as high, there is nothing to gain.
    """
    from embedlab.cli.console import err, out, print_indented, print_json
    from embedlab.models import load_model
    from embedlab.search import Collection
    from embedlab.understand.relative.bridge import describe, migrate_index

    collection = Collection.open(name)
    passages, vectors = _aligned(collection)
    index = migrate_index(
        vectors,
        [passage.text for passage in passages],
        load_model(model),
        num_anchors=anchors,
        num_checked=check,
        method=method.value.replace("-", "_"),  # type: ignore[arg-type]
    )
    rows, scores = index.search([query], top_k=top_k)
    found = [(passages[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True)]
    if as_json:
        hits = [{"id": p.id, "source": p.source, "title": p.title, "text": p.text, "score": s} for p, s in found]
        print_json({"hits": hits, "method": index.method, "anchors": len(index.anchors)} | describe(index.recall))
        return
    from rich.text import Text

    for rank, (passage, score) in enumerate(found, start=1):
        out.print(f"{rank}. {passage.title}  ({passage.source})  {score:.3f}", markup=False)
        print_indented(Text(" ".join(passage.text.split())[:300]))
    recall = index.recall
    by_method = ", ".join(f"{each.replace('_', '-')} {share:.2f}" for each, share in recall.by_method.items())
    err.print(
        f"estimated on {recall.num_texts} passages: of the {recall.k} nearest by {model}, this finds "
        f"{recall.by_method[index.method]:.0%} ({by_method}); the collection's own model finds "
        f"{recall.old_encoder:.0%}, chance {recall.chance:.1%}. Among all {len(passages):,} passages expect less.",
        markup=False,
    )


@app.command()
def compare(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Collection whose passages are compared.")],
    model: Annotated[str, typer.Option(help="The other model: 'default', a path or hub name, or URL#MODEL.")],
    num_passages: Annotated[int, typer.Option("--passages", min=20, help="Passages to embed with it.")] = 1000,
    anchors: Annotated[int, typer.Option(min=2, help="Of these, how many are anchors.")] = 300,
    as_json: AsJson = False,
) -> None:
    """Say how alike the spaces of a collection's model and another are, on passages of COLLECTION."""
    from rich.table import Table

    from embedlab.cli.console import out, print_json
    from embedlab.models import load_model
    from embedlab.search import Collection
    from embedlab.understand.relative import AnchorSet, compare_spaces

    passages, vectors = _aligned(Collection.open(name))
    texts = [passage.text for passage in passages]
    drawn = AnchorSet.select(texts, min(num_passages, len(set(texts))), vectors=vectors)
    new = load_model(model).encode_document(list(drawn.texts))
    known = new.any(axis=1)
    count = int(known.sum())
    found = compare_spaces(vectors[drawn.indices][known], new[known], min(anchors, count // 2), center=True)
    if as_json:
        print_json(found.to_dict())
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for label, value in (
        ("neighbours shared within both spaces", f"{found.overlap:.3f}"),
        ("neighbours shared across, by anchors (Jaccard)", f"{found.jaccard:.3f}"),
        ("rank of the same passage across (MRR)", f"{found.mrr:.3f}"),
        ("mean cosine of relative vectors", f"{found.cosine:.3f}"),
        ("linear CKA", f"{found.cka:.3f}"),
        ("SVCCA", f"{found.svcca:.3f}"),
        ("passages, anchors, neighbours", f"{found.num_items:,}, {found.num_anchors:,}, {found.k}"),
    ):
        table.add_row(label, value)
    out.print(table)


def _aligned(collection: Collection) -> tuple[list[PassageInfo], NDArray[np.float32]]:
    """Passages and their vectors, row by row; those without a vector are left out."""
    import numpy as np

    ids, vectors = collection.vectors()
    rows = {passage_id: row for row, passage_id in enumerate(ids)}
    passages = [passage for passage in collection.passages() if passage.id in rows]
    return passages, vectors[np.array([rows[passage.id] for passage in passages], dtype=np.intp)]
