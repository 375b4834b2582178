"""Recipes with the host's own losses: for pairs, scored pairs, triples and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn


def _contrastive(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
    from sentence_transformers.sentence_transformer import losses
    from torch import distributed

    scale, chunk = 1 / setting.options["temperature"], setting.options["mini_batch_size"]
    gather = setting.options["gather_across_devices"] and distributed.is_initialized()
    made: nn.Module
    if chunk is None:
        made = losses.MultipleNegativesRankingLoss(model, scale=scale, gather_across_devices=gather)
    else:
        made = losses.CachedMultipleNegativesRankingLoss(
            model, scale=scale, mini_batch_size=chunk, gather_across_devices=gather
        )
    return made


def _host(name: str, **renamed: str) -> Any:
    """Make a recipe's loss out of one of the host's; ``renamed`` maps its words to options of the recipe."""

    def loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
        from sentence_transformers.sentence_transformer import losses

        made: nn.Module = getattr(losses, name)(model, **{key: setting.options[own] for key, own in renamed.items()})
        return made

    return loss


CONTRASTIVE = Recipe(
    name="contrastive",
    summary="Contrast each pair with all other texts of its batch (InfoNCE): for search, and most baselines.",
    takes=("pairs", "tuples"),
    loss=_contrastive,
    options={"temperature": 0.05, "mini_batch_size": None, "gather_across_devices": True},
    describe={
        "temperature": "divides cosines, above 0; lower tells near texts apart more sharply",
        "mini_batch_size": "texts encoded at once (gradient caching): large batches in little memory; none for all",
        "gather_across_devices": "whether texts of all processes serve as negatives",
    },
)
COSENT = Recipe(
    name="cosent",
    summary="Order scored pairs by cosine as their scores do (CoSENT): for similarity judged by people.",
    takes=("scored",),
    loss=_host("CoSENTLoss", scale="scale"),
    baseline="cosine",
    options={"scale": 20.0},
    describe={"scale": "multiplies differences of cosines, above 0"},
)
ANGLE = Recipe(
    name="angle",
    summary="As cosent, on angles in the complex plane (AnglE), whose gradient does not vanish near cosine 1 and -1.",
    takes=("scored",),
    loss=_host("AnglELoss", scale="scale"),
    baseline="cosent",
    options={"scale": 20.0},
    describe={"scale": "multiplies differences of angles, above 0"},
)
COSINE = Recipe(
    name="cosine",
    summary="Pull the cosine of scored pairs towards their score: where the score itself matters, not only the order.",
    takes=("scored",),
    loss=_host("CosineSimilarityLoss"),
    baseline="cosent",
)
TRIPLET = Recipe(
    name="triplet",
    summary="Keep each positive nearer than its negative by a margin: for triples whose negatives are certain.",
    takes=("tuples",),
    loss=_host("TripletLoss", triplet_margin="margin"),
    options={"margin": 5.0},
    describe={"margin": "Euclidean distance that positives must be nearer by, above 0"},
)
CLASSES = Recipe(
    name="classes",
    summary="Part labelled texts by class, on the hardest triples of each batch: for classification and clustering.",
    takes=("labels",),
    loss=_host("BatchHardSoftMarginTripletLoss"),
    arguments={"batch_sampler": "group_by_label"},
)

PLAIN = {each.name: each for each in (CONTRASTIVE, COSENT, ANGLE, COSINE, TRIPLET, CLASSES)}
