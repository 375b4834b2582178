"""Relative representations: describe every item by its similarities to the same anchors, and spaces can be joined.

Encoders trained apart put the same texts at different places, but agree on which are alike. Similarities to a fixed
list of anchor texts therefore mean the same in both spaces: a classifier trained on one works on the other, an index
made by one can be searched with the other, and two spaces can be compared.

    anchors = AnchorSet.select(texts, 300)
    one = RelativeEmbedder().fit(vectors_by_one, anchors=anchors)
    other = RelativeEmbedder().fit(vectors_by_other, anchors=anchors)
    head.fit(one.transform(vectors_by_one), labels).score(other.transform(vectors_by_other), labels)

Vectors that are there already need numpy alone; modules for models under training need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.understand.relative.alignment import Alignment, align
from embedlab.understand.relative.anchors import AnchorSet
from embedlab.understand.relative.bridge import MigratedIndex, Recall, migrate_index
from embedlab.understand.relative.comparison import SpaceComparison, compare_spaces, linear_cka
from embedlab.understand.relative.coordinates import RelativeEmbedder, relative_coordinates
from embedlab.understand.relative.stitching import StitchMatrix, StitchReport, stitch, stitch_vectors

if TYPE_CHECKING:
    from embedlab.testing.embedder import EmbedderExample
    from embedlab.testing.module import ModuleExample
    from embedlab.testing.probe import ProbeExample
    from embedlab.understand.relative.end_to_end import RelativeEncoder, make_relative
    from embedlab.understand.relative.projection import RelativeProjection

__all__ = [
    "Alignment",
    "AnchorSet",
    "MigratedIndex",
    "Recall",
    "RelativeEmbedder",
    "RelativeEncoder",
    "RelativeProjection",
    "SpaceComparison",
    "StitchMatrix",
    "StitchReport",
    "align",
    "compare_spaces",
    "example",
    "linear_cka",
    "make_relative",
    "migrate_index",
    "relative_coordinates",
    "stitch",
    "stitch_vectors",
]

METHOD = {
    "card": 35,
    "title": "Relative Representations Enable Zero-Shot Latent Space Communication",
    "authors": "Luca Moschella, Valentino Maiorca, Marco Fumero, Antonio Norelli, Francesco Locatello, Emanuele Rodola",
    "year": 2022,
    "source": "arXiv:2209.15430v4 (ICLR 2023)",
    "kinds": {"embedder": "RelativeEmbedder", "module": "RelativeProjection", "probe": "compare_spaces"},
    "extras": ["train"],
    "official_code": "lucmos/relreps (MIT)",
    "deviations": [
        "The official text head normalises over the batch at hand, also in evaluation. Here that needs "
        "transductive=True; 'layer' and 'batch' (running statistics) do without.",
        "Output normalisation has no weights of its own: the head that follows has them.",
        "Anchors are chosen by a keyed hash of each item, so that the order of the data does not matter.",
        "Self-attention over similarities and the smooth steps are written from their description, as the official "
        "module leaves details open; clusters are those of single linkage.",
        "Basis change uses the vectors without normalising them first, so it is invariant to any linear map.",
        "Centring is an option; neighbours that tie with the k-th count as neighbours.",
    ],
    "known_failures": [
        "Encoders that really differ (word counts and a transformer) are joined in part only; what is exact holds for "
        "spaces that differ by rotation, reflection and scale.",
        "Where hundreds of pairs can be embedded by both encoders, a fitted linear map often does as well or better: "
        "align and migrate_index offer both, and migrate_index measures them.",
        "Anisotropic encoders squeeze relative vectors into a narrow cone: use center=True.",
        "SVCCA is near 1 for any two spaces when items are not many times as many as directions.",
    ],
}

_TORCH = {"RelativeProjection": "projection", "RelativeEncoder": "end_to_end", "make_relative": "end_to_end"}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name not in _TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from embedlab._core.extras import require

    require("sentence_transformers", extra="train")
    return getattr(import_module(f"{__name__}.{_TORCH[name]}"), name)


def example(seed: int = 0) -> dict[str, EmbedderExample | ModuleExample | ProbeExample]:
    """Make the smallest ready instances: a cloud with four anchors, a projection, and a space with its turned copy.

    Args:
        seed: Decides the vectors.

    Returns:
        Kind -> example, for the contract checks.
    """
    import numpy as np
    import torch

    from embedlab.testing.contract import Refusal
    from embedlab.testing.embedder import EmbedderExample
    from embedlab.testing.module import ModuleExample
    from embedlab.testing.probe import KnownValue, ProbeExample
    from embedlab.understand.relative.projection import RelativeProjection

    rng = np.random.default_rng(seed)
    rows, noise = rng.normal(size=(24, 6)) + 0.5, rng.normal(size=(24, 6))
    turned = 2.0 * (rows + 0.5 * noise) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    anchors = rows[:5]
    axes, square = np.eye(4), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    return {
        "embedder": EmbedderExample(
            embedder=RelativeEmbedder(4, strategy="fps", center=True, seed=seed),
            data=rows,
            num_items=24,
            dim=4,
            unseen=noise,
            unseen_rule="embedded",
            unseen_rows=tuple(range(24)),
            refuses=(
                Refusal(lambda: RelativeEmbedder(0), says="num_anchors=0"),
                Refusal(lambda: RelativeEmbedder(strategy="random"), says="strategy"),  # type: ignore[arg-type]
                Refusal(lambda: RelativeEmbedder(25).fit(rows), says="k=25"),
                Refusal(lambda: RelativeEmbedder(4, strategy="stratified").fit(rows), says="labels"),
                Refusal(lambda: RelativeEmbedder(4).fit(rows).transform(rows[:, :3]), says="expected 6"),
                Refusal(lambda: RelativeEmbedder(4, subspaces=4).fit(rows), says="subspaces"),
            ),
        ),
        "module": ModuleExample(
            module=RelativeProjection(
                anchors.astype(np.float32), center=True, subspaces=2, subspace_pooling="linear", normalization="layer"
            ).eval(),
            features={"sentence_embedding": torch.from_numpy(rows.astype(np.float32))},
            output="sentence_embedding",
            width=5,
            load=RelativeProjection.load,
            refuses=(
                Refusal(lambda: RelativeProjection(np.zeros((2, 3))), says="anchor 0 is zero"),
                Refusal(lambda: RelativeProjection(np.ones((2, 3))), says="anchors 0 and 1 are equal"),
                Refusal(lambda: RelativeProjection(anchors, similarity="cosin"), says="similarity"),  # type: ignore[arg-type]
                Refusal(lambda: RelativeProjection(anchors, normalization="instance"), says="transductive"),
                Refusal(lambda: RelativeProjection(anchors, quantize=0.0), says="quantize"),
                Refusal(lambda: RelativeProjection(anchors, groups=["a"]), says="groups"),
            ),
            half_atol=0.2,
        ),
        "probe": ProbeExample(
            compute=lambda x, y: compare_spaces(x, y, 4, k=3),
            inputs=(rows, turned),
            numbers=lambda found: [found.jaccard, found.mrr, found.cosine, found.overlap, found.cka, found.svcca],
            bounds=(-1.0, 1.0),
            known=(
                KnownValue(
                    (rows, 3 * rows @ np.linalg.qr(rows[:6])[0]), [1.0] * 6, "turned and scaled: the same space"
                ),
                KnownValue(
                    (axes, square),
                    [3 / 4, 1.0, 0.5**0.5, 1.0, 4 / 24**0.5, 1.0],
                    "all others tie in the one; in the other opposites are farther than right angles",
                ),
            ),
            refuses=(
                Refusal(lambda: compare_spaces(rows, turned[1:], 4), says="x has 24 rows"),
                Refusal(lambda: compare_spaces(rows, turned, 4, k=24), says="k=24"),
                Refusal(lambda: compare_spaces(rows, turned, 25), says="k=25"),
                Refusal(lambda: compare_spaces(axes, np.ones((4, 3)), (axes, axes[:, :3] + 1), k=2), says="equal"),
            ),
            rows="together",
            tie_rule="all that tie with the k-th neighbour are neighbours; among equals an item has the middle rank",
        ),
    }
