"""One factory for decoders as embedders: the pooling and the direction of attention, everything else alike."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.models.decoder import Attention

PoolingName: TypeAlias = Literal["eos", "mean", "last_trainable", "multi_layer", "latent_attention", "self_attention"]
Design: TypeAlias = "tuple[PoolingName, Attention]"

#: The paper's five designs by number: pooling, attention.
DESIGNS: dict[int, Design] = {
    1: ("eos", "causal"),
    2: ("last_trainable", "causal"),
    3: ("multi_layer", "causal"),
    4: ("last_trainable", "bidirectional"),
    5: ("multi_layer", "bidirectional"),
}
#: The eight of NV-Embed's ablation.
VARIANTS: tuple[Design, ...] = tuple(
    (pooling, attention)
    for pooling in ("eos", "mean", "latent_attention", "self_attention")
    for attention in ("causal", "bidirectional")
)
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "c_attn", "c_proj", "c_fc")


def build_llm_embedder(
    base: str | Path | SentenceTransformer,
    *,
    pooling: PoolingName = "multi_layer",
    attention: Attention = "bidirectional",
    lora: bool | Mapping[str, Any] = False,
    num_latents: int | None = None,
    num_heads: int | None = None,
    head_dim: int | None = None,
    max_seq_length: int | None = None,
    device: str | None = None,
    seed: int = 0,
) -> SentenceTransformer:
    """Build a sentence-transformers model from a decoder, a pooling and a direction of attention.

    The modules are ``DecoderTransformer``, the pooling and the host's ``Normalize``. Every text ends with the end mark;
    instructions (``Instruct: ...``, ``Query: ...``) are left out of means over tokens, and seen by everything else.

    Args:
        base: Folder or hub name of the decoder, or a sentence-transformers model that begins with one; its own pooling
            is replaced, and it is not changed.
        pooling: ``"eos"``: the last token. ``"mean"``: the tokens. ``"last_trainable"``: ``LatentPooling`` of the last
            layer, over the last token if causal and over all tokens if bidirectional. ``"multi_layer"``:
            ``LatentPooling`` over all layers, each summed up by its last token if causal, by its mean if bidirectional.
            ``"latent_attention"``, ``"self_attention"``: of NV-Embed.
        attention: ``"causal"`` or ``"bidirectional"``.
        lora: Whether to train the decoder by low-rank adapters only (rank 16, alpha 32, dropout 0.1 on the projections,
            as published), or other fields of peft's ``LoraConfig``. The pooling is trained in full.
        num_latents: Latents of the pooling; None for the published number.
        num_heads: Heads of the pooling; None for the published number.
        head_dim: Width of a head; None for the pooling's own rule.
        max_seq_length: Longest text in tokens; None for the decoder's own limit.
        device: Where it runs, e.g. ``"cpu"``; None lets the library choose.
        seed: Decides the pooling's first weights, and the adapters'.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: an argument has a value that is not allowed, or the tokenizer has no end mark.
        EmbedlabError: the architecture does not heed the switch of attention.
        MissingExtraError: the packages of the extra ``train`` are missing.

    Example:
        >>> from embedlab.testing.tiny_decoder import tiny_decoder
        >>> model = build_llm_embedder(tiny_decoder(["a cat sat"]), num_latents=4, num_heads=2)
        >>> model.encode(["a cat"]).shape, parameter_counts(model)["pooling"] > 0
        ((1, 32), True)

    References:
        Tang and Yang (2024), arXiv:2409.02727v2, sections 3 and 4.
    """
    host = require("sentence_transformers", extra="train")
    modules = require("sentence_transformers.sentence_transformer.modules", extra="train")
    from embedlab.models.bidirectional import sees_later_tokens
    from embedlab.models.decoder import Attention, DecoderTransformer, as_decoder

    if pooling not in get_args(PoolingName):
        raise unknown_name("pooling", str(pooling), get_args(PoolingName))
    if attention not in get_args(Attention):
        raise unknown_name("attention", str(attention), get_args(Attention))
    summary: Any = {"causal": "last_token", "bidirectional": "mean"}[attention] if pooling == "multi_layer" else None
    if isinstance(base, host.SentenceTransformer):
        if not isinstance(base[0], modules.Transformer):
            raise InputError(f"base: the model begins with {type(base[0]).__name__}, not with a transformer")
        body = as_decoder(copy.deepcopy(base[0]), attention=attention, layer_summary=summary)
        if max_seq_length is not None:
            body.max_seq_length = max_seq_length
    else:
        body = DecoderTransformer(
            str(base), attention=attention, layer_summary=summary, max_seq_length=max_seq_length or None
        )
    if sees_later_tokens(body.model) != (attention == "bidirectional"):
        raise InputError(f"base: {type(body.model).__name__} cannot be made {attention}: is it a decoder?")
    head = _pooling(
        body, pooling, attention, _given(num_latents=num_latents, num_heads=num_heads, head_dim=head_dim), seed
    )
    made: SentenceTransformer = host.SentenceTransformer(modules=[body, *head, modules.Normalize()], device=device)
    if lora:
        _add_lora(made, {} if lora is True else dict(lora), seed)
    return made.eval()


def parameter_counts(model: SentenceTransformer) -> dict[str, int]:
    """Count the parameters of an embedder.

    Args:
        model: A model of ``build_llm_embedder``.

    Returns:
        ``decoder`` (adapters apart), ``adapters``, ``pooling`` (all other modules), ``trainable`` and ``total``.
    """
    adapters = sum(p.numel() for name, p in model[0].named_parameters() if "lora_" in name)
    body = sum(p.numel() for p in model[0].parameters())
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "decoder": body - adapters,
        "adapters": adapters,
        "pooling": total - body,
        "trainable": trainable,
        "total": total,
    }


def _given(**options: int | None) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _pooling(body: Any, pooling: PoolingName, attention: Attention, options: dict[str, Any], seed: int) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    from embedlab.models.bidirectional import decoder_layers
    from embedlab.text.nv_embed.pooling import InstructionMask, LatentAttentionPooling, SelfAttentionPooling
    from embedlab.text.pooling_attention.pooling import LatentPooling

    dim = body.get_embedding_dimension()
    if pooling in ("eos", "mean"):
        if options:
            raise InputError(f"{next(iter(options))}: pooling={pooling!r} has no parameters")
        return [Pooling(dim, "lasttoken")] if pooling == "eos" else [InstructionMask(), Pooling(dim, "mean")]
    if pooling == "latent_attention":
        return [LatentAttentionPooling(dim, seed=seed, **options)]
    if pooling == "self_attention":
        options.pop("num_latents", None)
        return [SelfAttentionPooling(dim, seed=seed, **options)]
    if pooling == "multi_layer":
        count = len(decoder_layers(body.model))
        return [LatentPooling(dim, layers="all", num_layers=count, seed=seed, **options)]
    summary: Any = "last_token" if attention == "causal" else "tokens"
    return [LatentPooling(dim, token_summary=summary, seed=seed, **options)]


def _add_lora(model: SentenceTransformer, fields: dict[str, Any], seed: int) -> None:
    torch = require("torch", extra="train")
    peft = require("peft", extra="train")
    body: Any = model[0].model
    names = {name.rsplit(".", 1)[-1] for name, _ in body.named_modules()}
    published = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.1, "target_modules": sorted(names & set(PROJECTIONS))}
    config = peft.LoraConfig(task_type=peft.TaskType.FEATURE_EXTRACTION, **{**published, **fields})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body.add_adapter(config)
