"""Trainable pooling that asks with latents: over the tokens of the last layer, or over one state per layer."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from embedlab._core.errors import InputError, unknown_name
from embedlab.models.decoder import LAYERS
from embedlab.ops.cross_attention import CrossAttention, default_head_dim
from embedlab.ops.pooling import last_token, masked_mean
from embedlab.text.nv_embed.pooling import TrainablePooling

Source: TypeAlias = Literal["last", "all"]
TokenSummary: TypeAlias = Literal["auto", "tokens", "last_token", "mean"]


class LatentPooling(TrainablePooling):
    """Sum up what a decoder says in trainable latents, which look it up by cross-attention, and average these.

    The latents ``Z`` ask; what they look up in, ``X``, is the tokens of the last layer, or one state for each layer,
    told apart by a trainable row per layer. One key leaves nothing to choose: with ``layers="last"`` and
    ``token_summary="last_token"`` every latent is given the same vector, and the pooling is a feed-forward net of the
    last token's state, as in the paper's second design::

        X' = X + W_layer (all layers only);   A = Attn(LN(Z), LN(X')) + Z;   Y = A + FF(LN(A));   embedding = mean_r Y_r

    Put the host's ``Normalize`` after it.

    Args:
        embedding_dimension: Width of the states. (paper: d)
        num_latents: Latents. (paper: r) Published 768.
        num_heads: Attention heads, published 32.
        head_dim: Width of a head; None for ``embedding_dimension / num_heads``. Published 2048 for d = 4096, which
            makes a billion parameters.
        ff_mult: Width of the feed-forward net in multiples of ``embedding_dimension``. Published 4.
        layers: ``"last"`` or ``"all"``; the embedding layer is never among them.
        num_layers: Number of layers; needed with ``layers="all"``.
        token_summary: How a layer's tokens enter. ``"tokens"`` all of them (last layer only), ``"last_token"``,
            ``"mean"`` over the real ones; ``"auto"``: tokens for the last layer, and for all layers what
            ``DecoderTransformer(layer_summary=...)`` has made.
        seed: Decides the first weights.

    Shape:
        token_embeddings (B, T, D) float, attention_mask (B, T); or layer_summaries (B, L, D) float
        -> sentence_embedding (B, D) float

    Returns:
        On call, the features with ``sentence_embedding``.

    Raises:
        InputError: an argument is out of range; on call, the features lack the layers.

    Example:
        >>> pooling = LatentPooling(8, num_latents=4, num_heads=2, layers="all", num_layers=3)
        >>> tuple(pooling({"layer_summaries": torch.ones(5, 3, 8)})["sentence_embedding"].shape)
        (5, 8)

    References:
        Tang and Yang (2024), Pooling And Attention: What Are Effective Designs For LLM-Based Embedding Models?,
        arXiv:2409.02727v2, section 3. Official code yixuantt/PoolingAndAttn (read, not copied). Differs from it:
        padding is never looked up, and the last token is found by the attention mask.
    """

    config_keys = [  # noqa: RUF012 - as the host declares it
        "embedding_dimension",
        "num_latents",
        "num_heads",
        "head_dim",
        "ff_mult",
        "layers",
        "num_layers",
        "token_summary",
    ]

    def __init__(
        self,
        embedding_dimension: int,
        *,
        num_latents: int = 768,
        num_heads: int = 32,
        head_dim: int | None = None,
        ff_mult: int = 4,
        layers: Source = "last",
        num_layers: int | None = None,
        token_summary: TokenSummary = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if layers not in get_args(Source):
            raise unknown_name("layers", str(layers), get_args(Source))
        if token_summary not in get_args(TokenSummary):
            raise unknown_name("token_summary", str(token_summary), get_args(TokenSummary))
        if layers == "all" and token_summary == "tokens":
            raise InputError(
                "token_summary='tokens': with layers='all' each layer is one state; 'last_token' or 'mean'"
            )
        if layers == "all" and (num_layers is None or num_layers < 1):
            raise InputError(f"num_layers={num_layers}: layers='all' needs their number, from 1")
        self.embedding_dimension, self.num_latents, self.num_heads = embedding_dimension, num_latents, num_heads
        self.head_dim, self.ff_mult = head_dim, ff_mult
        self.layers, self.num_layers, self.token_summary = layers, num_layers, token_summary
        self.block = CrossAttention(
            embedding_dimension,
            queries="latents",
            num_latents=num_latents,
            num_heads=num_heads,
            head_dim=default_head_dim(embedding_dimension, num_heads) if head_dim is None else head_dim,
            ff_mult=ff_mult,
            seed=seed,
        )
        if layers == "all" and num_layers is not None:
            generator = torch.Generator().manual_seed(seed + 1)
            self.layer_rows = nn.Parameter(torch.randn(num_layers, embedding_dimension, generator=generator))  # W_layer

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        states, mask = self._looked_up(features)
        pooled = self.block(states, mask).mean(1)  # (B, r, D) -> (B, D)
        return {**features, "sentence_embedding": pooled}

    def _looked_up(self, features: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the states that the latents look up in, and which of them are there."""
        if self.layers == "all":
            if LAYERS in features:
                states = features[LAYERS]
            elif "all_layer_embeddings" in features:  # of the host, with output_hidden_states; the words come first
                each = features["all_layer_embeddings"][1:]
                states = torch.stack([self._sum_up(layer, features["attention_mask"]) for layer in each], dim=1)
            else:
                raise InputError(
                    f"features lack {LAYERS!r}: begin the model with DecoderTransformer(layer_summary=...)"
                )
            if states.shape[1] != self.num_layers:
                raise InputError(f"features: {states.shape[1]} layers, but num_layers={self.num_layers}")
            return states + self.layer_rows.to(states.dtype), None  # added before the norm: depths differ in scale
        tokens, mask = features["token_embeddings"], features["attention_mask"]
        if self.token_summary in ("auto", "tokens"):
            return tokens, mask
        return self._sum_up(tokens, mask)[:, None], None  # (B, 1, D)

    def _sum_up(self, states: Tensor, mask: Tensor) -> Tensor:
        return (last_token if self.token_summary == "last_token" else masked_mean)(states, mask)  # (B, D)
