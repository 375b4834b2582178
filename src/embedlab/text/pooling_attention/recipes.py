"""The recipe of the paper: one of the designs, contrastive tuning on triples, in mini-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedlab._core.errors import InputError
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn


def with_design(model: SentenceTransformer, setting: Setting) -> SentenceTransformer:
    """Give a model the pooling and attention that the options name.

    Args:
        model: A model that begins with a decoder.
        setting: With the options ``pooling`` (None leaves the model as it is), ``attention``, ``num_latents`` and
            ``num_heads``; ``design`` stands for the first two.

    Returns:
        The model of that design.

    Raises:
        InputError: there is no such design.
    """
    from embedlab.text.pooling_attention.factory import DESIGNS, build_llm_embedder

    options = setting.options
    pooling, attention = options["pooling"], options["attention"]
    if options.get("design") is not None:
        if options["design"] not in DESIGNS:
            raise InputError(f"design={options['design']!r}: expected one of {', '.join(map(str, DESIGNS))}, or none")
        pooling, attention = DESIGNS[options["design"]]
    if pooling is None:
        return model
    sizes = {name: options[name] for name in ("num_latents", "num_heads")} if pooling not in ("eos", "mean") else {}
    return build_llm_embedder(
        model, pooling=pooling, attention=attention, device=str(model.device), seed=setting.seed, **sizes
    )


def _loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
    from embedlab.text.nv_embed.loss import CachedHardNegativesRankingLoss, HardNegativesRankingLoss

    scale, chunk = 1 / setting.options["temperature"], setting.options["mini_batch_size"]
    if chunk is None:
        return HardNegativesRankingLoss(model, scale=scale)
    return CachedHardNegativesRankingLoss(model, scale=scale, mini_batch_size=chunk)


POOLING_ATTENTION = Recipe(
    name="pooling_attention",
    summary="Tune a decoder as an embedder in one of the five designs of pooling and attention.",
    takes=("pairs", "tuples"),
    modules=with_design,
    loss=_loss,
    arguments={"learning_rate": 1e-5, "warmup_steps": 100, "weight_decay": 0.01, "lr_scheduler_type": "linear"},
    options={
        "design": 5,
        "pooling": None,
        "attention": "bidirectional",
        "num_latents": None,
        "num_heads": None,
        "temperature": 0.05,
        "mini_batch_size": 32,
    },
    describe={
        "design": "1 to 5 as in the paper; none for what pooling and attention say",
        "pooling": "eos, mean, last_trainable, multi_layer, latent_attention or self_attention; none leaves the model",
        "attention": "causal or bidirectional",
        "num_latents": "latents of the pooling; none for the published number",
        "num_heads": "attention heads of the pooling; none for the published number",
        "temperature": "divides cosines, above 0",
        "mini_batch_size": "texts encoded at once (gradient caching): large batches in little memory; none for all",
    },
)
