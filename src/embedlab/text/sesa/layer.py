"""The layer whose outputs have names: one weight vector for each concept, and an activation that is never negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias, get_args

import torch
from numpy.typing import ArrayLike
from sentence_transformers.sentence_transformer.modules import Module
from torch import Tensor, nn
from torch.nn import functional

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.sesa.explaining import decode

Activation: TypeAlias = Literal["relu", "sigmoid", "softmax"]
LOGITS = "concept_logits"


class ExplicitLayer(Module):
    r"""Turn the embedding of a text into how much of each named concept is in it; goes after the pooling.

    .. math:: a = \sqrt{w} \odot \phi(W z + b)

    Row :math:`W_k` is the vector of concept k. The activations are never negative, so that what two texts share is a
    sum over concepts. The weights :math:`w_k` of the axes let some count more in every cosine.

    Args:
        in_features: Width of the embedding that comes in.
        concepts: Names of the concepts, in the order of the outputs.
        activation: ``"relu"`` (sparse), ``"sigmoid"`` or ``"softmax"``, in which concepts compete. (paper: phi)
        learn_weights: Whether the weights of the axes are trained.
        seed: Decides the first weights.

    Shape:
        sentence_embedding (B, in_features) float -> sentence_embedding (B, m) float, concept_logits (B, m) float

    Returns:
        On call, the features with the activations as ``sentence_embedding``. The row of a text without any known token
        (all zero, or minus infinity as the host's maximum over nothing gives) is zero.

    Raises:
        InputError: an argument is out of range, or a name is there twice.

    Example:
        >>> layer = ExplicitLayer(2, ["warm", "cold"])
        >>> with torch.no_grad():
        ...     _ = layer.linear.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> found = layer({"sentence_embedding": torch.tensor([[2.0, 5.0]])})["sentence_embedding"]
        >>> layer.decode(found[0])
        [('warm', 2.0)]

    References:
        Bogdanova and Yazdani (2017), SESA: Supervised Explicit Semantic Analysis, arXiv:1708.03246v1.
    """

    config_keys = ["in_features", "concepts", "activation", "learn_weights"]  # noqa: RUF012 - as the host declares it

    def __init__(
        self,
        in_features: int,
        concepts: Sequence[str],
        activation: Activation = "relu",
        *,
        learn_weights: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if in_features < 1:
            raise InputError(f"in_features={in_features}: must be at least 1")
        if isinstance(concepts, str) or not concepts or len(set(concepts)) != len(concepts):
            raise InputError(f"concepts={list(concepts)[:5]!r}: one at least, and each with a name of its own")
        if activation not in get_args(Activation):
            raise unknown_name("activation", str(activation), get_args(Activation))
        self.in_features, self.concepts, self.activation = in_features, list(concepts), activation
        self.learn_weights = learn_weights
        self.linear = nn.Linear(in_features, len(concepts), device="meta").to_empty(device="cpu")
        self.raw_weights = nn.Parameter(torch.full((len(concepts),), _raw(1.0)), requires_grad=learn_weights)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            nn.init.xavier_uniform_(self.linear.weight, generator=generator)
            self.linear.bias.zero_()

    @property
    def axis_weights(self) -> Tensor:
        """Weights of the axes, (m,), above 0. (paper: w)"""
        return functional.softplus(self.raw_weights)

    def set_axis_weights(self, weights: ArrayLike) -> None:
        """Choose the weights of the axes, such as inverse document frequencies.

        Args:
            weights: One number above 0 for each concept.

        Raises:
            InputError: a weight is not above 0, or there are not as many as concepts.
        """
        wanted = torch.as_tensor(weights, dtype=self.raw_weights.dtype)
        if wanted.shape != self.raw_weights.shape or not bool((wanted > 0).all()):
            raise InputError(f"weights of shape {tuple(wanted.shape)}: one above 0 for each of {len(self.concepts)}")
        with torch.no_grad():
            self.raw_weights.copy_(wanted + torch.log(-torch.expm1(-wanted)))  # the inverse of softplus

    def activate(self, logits: Tensor) -> Tensor:
        """Turn logits into weighted activations, which text and declared concepts share.

        Args:
            logits: One number for each concept.

        Shape:
            logits (B, m) -> (B, m)

        Returns:
            Numbers of at least 0.
        """
        return self.axis_weights.sqrt() * _activated(logits, self.activation)

    def forward(self, features: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
        embedding = features["sentence_embedding"]
        known = (embedding != 0).any(-1, keepdim=True) & ~torch.isneginf(embedding).all(-1, keepdim=True)
        logits = self.linear(torch.where(known, embedding, torch.zeros_like(embedding)))  # (B, m)
        features[LOGITS] = logits
        features["sentence_embedding"] = torch.where(known, self.activate(logits), torch.zeros_like(logits))
        return features

    def decode(
        self, embeddings: Tensor, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """Write activations as concepts with their weights, as the host's sparse models do with tokens.

        Args:
            embeddings: One row (m,), or several (B, m).
            top_k: At most so many of each, the largest; None for all that are not 0.

        Returns:
            Concepts and weights, largest first; a list of such lists for several rows.
        """
        return decode(embeddings.detach().cpu().float().numpy(), self.concepts, top_k=top_k)

    def get_embedding_dimension(self) -> int:
        """Return the number of concepts."""
        return len(self.concepts)

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


def _raw(weight: float) -> float:
    """Return what softplus turns into a weight."""
    return float(torch.tensor(weight, dtype=torch.float64).expm1().log())


def _activated(logits: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return logits.relu()
    return logits.sigmoid() if activation == "sigmoid" else logits.softmax(-1)
