"""Explicit semantic analysis, with and without supervision (ESA, SESA): embeddings whose dimensions have names.

Texts are placed in a space with one axis for each concept of a list: skills, facets, product features. The score of two
texts is then a sum over concepts, and says by itself why they match.

    space = ConceptSpace(["Accounting software", "Web page creation software"])
    esa = ESA(space).fit(texts)                                            # numpy alone, no training
    sesa = SESA(space).fit(pairs, labels, concepts=declared_by_text)       # learns from relevant pairs, needs torch
    sesa.explain("bookkeeper for a small firm", Item(concepts=["Accounting software"]))

A saved model is a model for ``load_model``: a collection made with it explains its hits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.text.sesa.esa import ESA
from embedlab.text.sesa.explaining import contributions, decode
from embedlab.text.sesa.measures import AxisFidelity, auc, axis_fidelity, match_axes
from embedlab.text.sesa.negatives import negative_pairs
from embedlab.text.sesa.retrieval import ExplicitIndex
from embedlab.text.sesa.space import ConceptSpace, Item

if TYPE_CHECKING:
    from embedlab.testing.embedder import EmbedderExample
    from embedlab.testing.module import ModuleExample
    from embedlab.text.sesa.layer import ExplicitLayer
    from embedlab.text.sesa.model import SESA
    from embedlab.text.sesa.objective import Objective
    from embedlab.text.sesa.set_side import co_occurrence

__all__ = [
    "ESA",
    "SESA",
    "AxisFidelity",
    "ConceptSpace",
    "ExplicitIndex",
    "ExplicitLayer",
    "Item",
    "Objective",
    "auc",
    "axis_fidelity",
    "co_occurrence",
    "contributions",
    "decode",
    "example",
    "match_axes",
    "negative_pairs",
]

METHOD = {
    "card": 5,
    "title": "SESA: Supervised Explicit Semantic Analysis",
    "authors": "Dasha Bogdanova, Majid Yazdani",
    "year": 2017,
    "source": "arXiv:1708.03246v1",
    "kinds": {"embedder": "ESA", "module": "ExplicitLayer"},
    "extras": ["train"],
    "official_code": None,
    "deviations": [
        "What the abstract leaves open is a reconstruction: the kind of recurrent network, its pooling and sizes, the "
        "objective's form and weights, the start of the co-occurrence matrix.",
        "Weights of the axes scale them by their square root before the length is taken, so that the score stays a "
        "cosine and every index by cosine ranks by it.",
        "An item with a text and declared concepts blends both at length one, since activations of texts grow without "
        "bound and would drown the declared ones.",
        "With sigmoid and softmax the side of declared concepts is scaled and shifted first (8 and -4, 8 and 0): half "
        "way up a sigmoid is not 'undeclared'.",
        "The recurrent network starts from the word vectors of the embedded default model; random ones are an option.",
        "No activation with negative values is offered: two of these would speak for each other.",
    ],
    "known_failures": [
        "ReLU makes sparse vectors and short explanations, but what a text lacks has no order any more; the sigmoid "
        "ranks pairs and concepts better on small data.",
        "To find one item among many, a plain embedding of more dimensions than the list has concepts is better; on "
        "Debian's packages ESA, with long articles, also beats SESA learned from some thousand of them.",
        "Two texts that share no concept of the list are as far apart as any two: the list decides what can be seen.",
        "Concepts that nearly everything declares fill the cosine; axis_weights='idf' holds them down.",
    ],
}

_TORCH = {"SESA": "model", "ExplicitLayer": "layer", "Objective": "objective", "co_occurrence": "set_side"}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name not in _TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from embedlab._core.extras import require

    require("sentence_transformers", extra="train")
    return getattr(import_module(f"{__name__}.{_TORCH[name]}"), name)


def example(seed: int = 0) -> dict[str, EmbedderExample | ModuleExample]:
    """Make the smallest ready instances: three concepts with eight texts, and a layer on a few embeddings.

    Args:
        seed: Decides the weights of the layer and the embeddings.

    Returns:
        Kind -> example, for the contract checks.
    """
    import torch

    from embedlab.testing.contract import Refusal
    from embedlab.testing.embedder import EmbedderExample
    from embedlab.testing.module import ModuleExample
    from embedlab.text.sesa.layer import ExplicitLayer

    space = ConceptSpace(
        ["databases", "carpentry", "cooking"],
        ["queries over tables and rows", "wood, nails, saws and planks", "recipes for the kitchen and its pans"],
    )
    texts = [
        "a query that joins two tables",
        "saw the planks before you nail them",
        "recipes with pans and pots",
        "rows of tables in databases",
        "the wood of a kitchen table",
        "cooking in the kitchen",
        "nails and saws for carpentry",
        "queries and more queries over rows",
    ]
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(5, 4, generator=generator)
    return {
        "embedder": EmbedderExample(
            embedder=ESA(space, top_k=2),
            data=texts,
            num_items=8,
            dim=3,
            unseen=["wood", "unheard of"],
            unseen_rule="zero",
            unseen_rows=(1,),
            refuses=(
                Refusal(lambda: ESA(space, top_k=0), says="top_k=0"),
                Refusal(lambda: ESA(space).fit(texts, [["cooking"]]), says="concepts has 1 entries"),
                Refusal(lambda: ESA(space).fit(texts[:1], [["cookin"]]), says="did you mean 'cooking'"),
                Refusal(lambda: ConceptSpace(["a", "a"]), says="'a' is there twice"),
                Refusal(lambda: ConceptSpace([]), says="names"),
            ),
        ),
        "module": ModuleExample(
            module=ExplicitLayer(4, space.names, learn_weights=True, seed=seed).eval(),
            features={"sentence_embedding": embeddings},
            output="sentence_embedding",
            width=3,
            load=ExplicitLayer.load,
            refuses=(
                Refusal(lambda: ExplicitLayer(0, ["a"]), says="in_features=0"),
                Refusal(lambda: ExplicitLayer(4, ["a", "a"]), says="concepts"),
                Refusal(lambda: ExplicitLayer(4, ["a"], "tanh"), says="activation"),  # type: ignore[arg-type]
                Refusal(lambda: ExplicitLayer(4, ["a"]).set_axis_weights([0.0]), says="weights"),
            ),
            half_atol=0.05,
        ),
    }
