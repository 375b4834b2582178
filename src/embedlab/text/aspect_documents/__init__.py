"""Documents with one vector for each aspect: alike in method, in task or in data set are different questions.

Labels say which documents share a method, a task, a data set. From them come pairs, and from pairs small networks on
the frozen vectors of any model, one for each aspect: nearest neighbours in its space are alike in this aspect.

    pairs = AspectPairs.from_labels(texts, {"method": methods, "task": tasks})
    encoder = AspectEncoder(load_model(), pairs.aspects).fit(pairs)
    encoder.encode(["a text"])                         # {"method": (1, d), "task": (1, d)}
    compare_aspects(pairs, vectors).to_table()         # does it help here? held-out documents, all systems

What is learnt needs torch; what was learnt needs numpy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.text.aspect_documents.comparison import AspectComparison, compare_aspects
from embedlab.text.aspect_documents.encoder import AspectEncoder
from embedlab.text.aspect_documents.heads import AspectHead, AspectHeads, AspectHeadsError
from embedlab.text.aspect_documents.labels import entity_labels, read_entities, read_examples, read_labels
from embedlab.text.aspect_documents.measures import AspectBias, AspectScores, aspect_bias, aspect_scores, nearest
from embedlab.text.aspect_documents.names import GENERIC
from embedlab.text.aspect_documents.pairs import AspectPairs, Pairs, Relation
from embedlab.text.aspect_documents.retrofit import ExplicitRetrofit
from embedlab.text.aspect_documents.training import HeadSettings, train_head

if TYPE_CHECKING:
    from embedlab.testing.loss import LossExample
    from embedlab.testing.probe import ProbeExample
    from embedlab.text.aspect_documents.loss import AspectRankingLoss

__all__ = [
    "GENERIC",
    "AspectBias",
    "AspectComparison",
    "AspectEncoder",
    "AspectHead",
    "AspectHeads",
    "AspectHeadsError",
    "AspectPairs",
    "AspectRankingLoss",
    "AspectScores",
    "ExplicitRetrofit",
    "HeadSettings",
    "Pairs",
    "Relation",
    "aspect_bias",
    "aspect_scores",
    "compare_aspects",
    "entity_labels",
    "example",
    "nearest",
    "read_entities",
    "read_examples",
    "read_labels",
    "train_head",
]

METHOD = {
    "card": 22,
    "title": "Specialized Document Embeddings for Aspect-based Similarity of Research Papers",
    "authors": "Malte Ostendorff, Till Blume, Terry Ruas, Bela Gipp, Georg Rehm",
    "year": 2022,
    "source": "arXiv:2203.14541v1 (JCDL 2022)",
    "kinds": {"loss": "AspectRankingLoss", "probe": "aspect_bias"},
    "extras": ["train"],
    "official_code": "malteos/aspect-document-embeddings, codogogo/explirefit (MIT)",
    "deviations": [
        "The default is a small network on the frozen vectors of any model, one for each aspect; a fine-tuned model "
        "for each aspect, as published, is mode='separate', and one adapter for each is mode='lora'.",
        "Negatives are drawn among documents with a label of the aspect. The official sampler passes over exactly "
        "those; its rule is negatives='unlabelled'.",
        "Documents of one group (a source) lie in one fold, are never a pair and no candidates of each other.",
        "Candidates of a batch that are alike too, or of one group, are no negatives; the official training has no "
        "such rule.",
        "On frozen vectors classification tells pairs by |u - v| and u v, as there is no cross-attention; in mode "
        "'separate' it is the published cross-encoder, whose body then embeds with the mean over real tokens.",
        "The retrofitting network begins near the identity; how the published one begins is not known here.",
        "The continued citation triplets of SPECTER are not here: they need its citation data and margin.",
    ],
    "known_failures": [
        "With a few hundred documents three epochs are enough: longer training learns the documents by heart.",
        "Labels that are mentions in the text (entity lists) teach less than labels that people gave.",
        "A specialised space forgets the other aspects by design; mix in 'generic' to soften that.",
        "Retrofitting gains little over plain vectors, and nothing among the first ten of two aspects of three: it "
        "asks a neighbour to keep its distance also if it is alike.",
    ],
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name != "AspectRankingLoss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from embedlab._core.extras import require

    require("sentence_transformers", extra="train")
    from embedlab.text.aspect_documents.loss import AspectRankingLoss

    return AspectRankingLoss


def example(seed: int = 0) -> dict[str, LossExample | ProbeExample]:
    """Make the smallest ready instances: eight labelled texts with a tiny model, and a cloud with two other spaces.

    Args:
        seed: Decides weights and vectors.

    Returns:
        Kind -> example, for the contract checks.
    """
    import numpy as np
    import torch

    from embedlab.testing.contract import Refusal
    from embedlab.testing.loss import LossExample
    from embedlab.testing.probe import KnownValue, ProbeExample
    from embedlab.testing.tiny import tiny_encoder
    from embedlab.text.aspect_documents.loss import AspectRankingLoss

    texts = [
        "bake bread in the oven", "boil soup in a pot", "bake cake in the oven", "boil rice in a pot",
        "fry fish in a pan", "grill meat on the fire", "fry eggs in a pan", "grill corn on the fire",
    ]  # fmt: skip
    ways = [{text.split()[0]} for text in texts]
    pairs = AspectPairs.from_labels(texts, {"way": ways}, folds=2, seed=seed)
    model = tiny_encoder(texts, seed=seed)
    left, right = pairs.sample("way").positives.T
    loss = AspectRankingLoss(model, pairs.relation("way"))
    rng = np.random.default_rng(seed)
    plain, near, far = rng.normal(size=(3, 12, 5))
    near = plain + 0.3 * near
    line = np.array([[np.cos(a), np.sin(a)] for a in (0.0, 0.1, 0.3, 0.7, 1.5, 3.0)])
    other = line[[0, 5, 1, 4, 2, 3]]
    return {
        "loss": LossExample(
            loss=loss,
            model=model,
            features=[model.preprocess([texts[n] for n in side]) for side in (left, right)],
            labels=torch.from_numpy(np.stack([left, right], axis=1)),
            refuses=(
                Refusal(lambda: AspectRankingLoss(model, pairs.relation("way"), temperature=0.0), "temperature"),
                Refusal(lambda: loss([model.preprocess(texts)] * 2, torch.arange(8)), "labels"),
                Refusal(lambda: pairs.relation("wya"), "did you mean 'way'"),
            ),
        ),
        "probe": ProbeExample(
            compute=lambda x, y, z: aspect_bias(x, {"near": y, "far": z}, top_k=3),
            inputs=(plain, near, far),
            numbers=lambda found: [*found.overlap.values(), *found.missing.values()],
            bounds=(0.0, 1.0),
            known=(KnownValue((plain, 2 * plain, plain), [1.0, 1.0, 0.0, 0.0], "the same directions"),),
            refuses=(
                Refusal(lambda: aspect_bias(plain, {}), "no aspect"),
                Refusal(lambda: aspect_bias(plain, {"near": near[1:]}, top_k=3), "11 rows"),
                Refusal(lambda: aspect_bias(line, {"other": other}, top_k=6), "top_k=6"),
            ),
            rows="together",
            tie_rule="of equally near documents the lower place comes first; equal rows tie in every space alike",
        ),
    }
