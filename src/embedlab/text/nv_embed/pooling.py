"""Poolings of NV-Embed: every token is mapped, then the tokens after the instruction are averaged."""

from __future__ import annotations

from typing import Any, Self

import torch
from sentence_transformers.sentence_transformer.modules import Module
from torch import Tensor

from embedlab.models.decoder import INSTRUCTION_MASK
from embedlab.ops.cross_attention import CrossAttention, default_head_dim
from embedlab.ops.pooling import masked_mean


class TrainablePooling(Module):
    """A pooling with weights: what it has to do to be saved and loaded by the host."""

    embedding_dimension: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def get_embedding_dimension(self) -> int:
        """Return the width of the result."""
        return self.embedding_dimension

    def save(self, output_path: str, *arguments: Any, safe_serialization: bool = True, **options: Any) -> None:
        """Write configuration and weights to a folder."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> Self:  # type: ignore[override]
        """Open what ``save`` has written, from a folder or the hub."""
        keys = ("token", "cache_folder", "revision", "local_files_only")
        place = {"subfolder": subfolder, **{key: options[key] for key in keys if key in options}}
        made = cls(**cls.load_config(model_name_or_path, **place))
        loaded: Self = cls.load_torch_weights(model_name_or_path, model=made, **place)
        return loaded


class LatentAttentionPooling(TrainablePooling):
    """Map each token by attention to a trainable dictionary, then average the tokens of the text.

    The decoder's states ``H`` are the queries, a trainable array ``Z`` gives keys and values, so that a token is
    rewritten by what it resembles in the dictionary; no token sees another here, and order does not matter::

        X = H + Attn(LN(H), LN(Z));   Y = X + FF(LN(X));   embedding = sum_t m_t Y_t / sum_t m_t

    ``m`` leaves out padding and, row by row, the instruction (``features["instruction_mask"]`` of
    ``DecoderTransformer``, or the host's ``prompt_length``). Put the host's ``Normalize`` after it.

    Args:
        embedding_dimension: Width of the tokens. (paper: d)
        num_latents: Rows of the dictionary. (paper: r) Published 512.
        num_heads: Attention heads. Published 8.
        head_dim: Width of a head; None for ``embedding_dimension``, as published: the heads together are then
            ``num_heads`` times as wide as a token.
        ff_mult: Width of the feed-forward net in multiples of ``embedding_dimension``. Published 4.
        include_prompt: Whether the instruction is averaged too. Published no.
        seed: Decides the first weights.

    Shape:
        token_embeddings (B, T, D) float, attention_mask (B, T) -> sentence_embedding (B, D) float

    Returns:
        On call, the features with ``sentence_embedding``; the zero row where nothing is left to average.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> features = {"token_embeddings": torch.ones(2, 5, 8), "attention_mask": torch.ones(2, 5)}
        >>> tuple(LatentAttentionPooling(8, num_latents=4)(features)["sentence_embedding"].shape)
        (2, 8)

    References:
        Lee et al. (2024), NV-Embed: Improved Techniques for Training LLMs as Generalist Embedding Models,
        arXiv:2405.17428v3, section 3.1, and the modelling file of the released checkpoint (read, not copied). Differs
        from it: instructions are counted on the tokens of each row, the mark of the beginning included, and padding may
        stand on the left.
    """

    config_keys = ["embedding_dimension", "num_latents", "num_heads", "head_dim", "ff_mult", "include_prompt"]  # noqa: RUF012

    def __init__(
        self,
        embedding_dimension: int,
        *,
        num_latents: int = 512,
        num_heads: int = 8,
        head_dim: int | None = None,
        ff_mult: int = 4,
        include_prompt: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.embedding_dimension, self.num_latents, self.num_heads = embedding_dimension, num_latents, num_heads
        self.head_dim, self.ff_mult, self.include_prompt = head_dim, ff_mult, include_prompt
        self.block = CrossAttention(
            embedding_dimension,
            queries="tokens",
            num_latents=num_latents,
            num_heads=num_heads,
            head_dim=embedding_dimension if head_dim is None else head_dim,
            ff_mult=ff_mult,
            seed=seed,
        )

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        mapped = self.block(features["token_embeddings"])  # (B, T, D)
        mask = features["attention_mask"] if self.include_prompt else text_mask(features)
        return {**features, "sentence_embedding": masked_mean(mapped, mask)}


class SelfAttentionPooling(TrainablePooling):
    """Let the tokens attend to each other once more, then average the tokens of the text: the paper's ablation.

    The same block as in ``LatentAttentionPooling``, with the tokens in place of the dictionary.

    Args:
        embedding_dimension: Width of the tokens.
        num_heads: Attention heads.
        head_dim: Width of a head; None for ``embedding_dimension / num_heads``.
        ff_mult: Width of the feed-forward net in multiples of ``embedding_dimension``.
        include_prompt: Whether the instruction is averaged too; it is attended to in either case.
        seed: Decides the first weights.
    """

    config_keys = ["embedding_dimension", "num_heads", "head_dim", "ff_mult", "include_prompt"]  # noqa: RUF012

    def __init__(
        self,
        embedding_dimension: int,
        *,
        num_heads: int = 8,
        head_dim: int | None = None,
        ff_mult: int = 4,
        include_prompt: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.embedding_dimension, self.num_heads, self.head_dim = embedding_dimension, num_heads, head_dim
        self.ff_mult, self.include_prompt = ff_mult, include_prompt
        self.block = CrossAttention(
            embedding_dimension,
            queries="self",
            num_heads=num_heads,
            head_dim=default_head_dim(embedding_dimension, num_heads) if head_dim is None else head_dim,
            ff_mult=ff_mult,
            seed=seed,
        )

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        mapped = self.block(features["token_embeddings"], features["attention_mask"])
        mask = features["attention_mask"] if self.include_prompt else text_mask(features)
        return {**features, "sentence_embedding": masked_mean(mapped, mask)}


class InstructionMask(Module):
    """Hide the instructions from the modules that follow, such as the host's ``Pooling``; the decoder has seen them.

    The attention mask that goes on leaves out each row's instruction. It is a new one: the features handed in are
    embedded a second time by losses that cache gradients.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        return {**features, "attention_mask": text_mask(features)}

    def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
        """Write the configuration, which is empty."""
        self.save_config(output_path)


def text_mask(features: dict[str, Any]) -> Tensor:
    """Find the tokens of the texts: neither padding nor, in any row, of the instruction.

    Args:
        features: With ``attention_mask`` (B, T), and ``instruction_mask`` (B, T) or the host's ``prompt_length``: one
            number, or one for each row, counted from the first real token.

    Returns:
        1 for tokens of the text, 0 for the rest, (B, T).
    """
    mask: Tensor = features["attention_mask"]
    if INSTRUCTION_MASK in features:
        left: Tensor = mask * (1 - features[INSTRUCTION_MASK])
        return left
    length = features.get("prompt_length")
    if length is None:
        return mask
    first = torch.as_tensor(length, device=mask.device).view(-1, 1)  # (1, 1) or (B, 1)
    kept: Tensor = mask * (mask.cumsum(1) > first)
    return kept
