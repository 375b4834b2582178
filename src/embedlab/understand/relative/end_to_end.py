"""Whole models with relative output: a sentence-transformers model, or any network under training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from embedlab._core.errors import InputError, unknown_name
from embedlab.understand.relative.anchors import AnchorSet
from embedlab.understand.relative.live_anchors import embed_anchors, fingerprint
from embedlab.understand.relative.projection import RelativeProjection
from embedlab.understand.relative.rows import Floats, keys, list_hash

_RESAMPLING = ("none", "stratified", "gaussian")


def make_relative(
    model: SentenceTransformer, anchors: AnchorSet | Sequence[str], **options: Any
) -> SentenceTransformer:
    """Make a sentence-transformers model whose embeddings are relative to anchor texts.

    The result holds the same modules and a ``RelativeProjection`` behind them. It trains, saves and loads like any
    model of the host; anchors are embedded anew when the modules before have changed. ``model`` itself stays as it is,
    but shares its modules with the result: training the one trains the other.

    Args:
        model: A model without ``truncate_dim``.
        anchors: Anchor texts, or a set of them; for parallel anchors the side of this model's domain. They are embedded
            as they are given, without a prompt.
        options: Further settings of ``RelativeProjection``.

    Returns:
        The relative model, in evaluation mode.

    Raises:
        InputError: there are no anchor texts, or their embeddings are zero or equal, or the model truncates.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> texts = ["a cat sat", "a dog ran", "it rained"]
        >>> model = make_relative(tiny_encoder(texts), texts)
        >>> model.encode(texts).diagonal().round(4).tolist()
        [1.0, 1.0, 1.0]
    """
    listed = anchors if isinstance(anchors, AnchorSet) else AnchorSet.of(list(anchors))
    if not listed.texts:
        raise InputError(
            "anchors hold no texts: select them from texts, or append RelativeProjection(vectors) yourself"
        )
    if model.truncate_dim is not None:
        raise InputError(f"truncate_dim={model.truncate_dim} would cut the relative vectors: make the model without it")
    before = list(model)
    vectors = embed_anchors(model, before, listed.texts)
    projection = RelativeProjection(
        vectors,
        texts=listed.texts,
        anchors_hash=listed.hash,
        encoder_id=fingerprint(before),
        **options,
    )
    relative = SentenceTransformer(
        modules=[*before, projection.to(vectors)],
        device=str(model.device),
        prompts={name: prompt for name, prompt in model.prompts.items() if prompt is not None},
        default_prompt_name=model.default_prompt_name,
    )
    return relative.eval()


class RelativeEncoder(nn.Module):
    """Put a relative projection behind any network and train both, the anchors being embedded at every step.

    At each training step the anchors go through the encoder as it is then, in evaluation mode and without gradient;
    evaluation keeps their embeddings until weights change. A decoder or classifier follows.

    Args:
        encoder: Network from inputs to embeddings (B, D).
        anchors: Inputs of the anchors, (K, ...), in order; with ``per_class`` the pool they are drawn from.
        labels: Class of each of them, needed for ``per_class``.
        per_class: Anchors of each class at a time; in evaluation the first ones of each class. None takes all.
        resample: What training steps take: ``"none"`` the same anchors as evaluation, ``"stratified"`` others of the
            same classes each time, ``"gaussian"`` draws from a normal distribution fitted to each class's embeddings.
        anchors_hash: Fingerprint of the anchor list, to keep unlike spaces from being stitched; None takes that of the
            inputs.
        seed: Decides what is drawn.
        options: Further settings of ``RelativeProjection``.

    Shape:
        inputs (B, ...) -> (B, W)

    Raises:
        InputError: ``resample`` is unknown or lacks ``per_class``, or a class has fewer anchors than that.

    Example:
        >>> inputs = torch.eye(4)
        >>> model = RelativeEncoder(nn.Linear(4, 3), inputs)
        >>> model(inputs).shape
        torch.Size([4, 4])
    """

    inputs: Tensor
    slots: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        anchors: Tensor,
        *,
        labels: Sequence[Any] | None = None,
        per_class: int | None = None,
        resample: Literal["none", "stratified", "gaussian"] = "none",
        anchors_hash: str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if resample not in _RESAMPLING:
            raise unknown_name("resample", resample, _RESAMPLING)
        if resample != "none" and per_class is None:
            raise InputError(f"per_class is needed for resample={resample!r}: say how many anchors of each class")
        self.encoder, self.resample = encoder, resample
        self._members = _members(labels, len(anchors), per_class)  # one (pool of a class) for each class
        self.per_class = per_class
        slots = torch.arange(len(anchors)) if per_class is None else torch.cat([m[:per_class] for m in self._members])
        self.register_buffer("inputs", anchors.detach().clone())
        self.register_buffer("slots", slots)
        self._generator = torch.Generator().manual_seed(seed)
        self.projection = RelativeProjection(
            self._embed(self.inputs[slots]),
            anchors_hash=anchors_hash or list_hash(keys(_numbers(self.inputs[slots]))),
            seed=seed,
            **options,
        )
        self._seen: tuple[Any, ...] | None = None

    @property
    def anchors_hash(self) -> str:
        """Fingerprint of the anchors."""
        return self.projection.anchors_hash

    def forward(self, inputs: Tensor) -> Tensor:
        """Embed inputs (B, ...) and return their relative vectors (B, W)."""
        return self.projection.project(self.encoder(inputs), self.anchor_embeddings())

    def train(self, mode: bool = True) -> RelativeEncoder:
        """Switch between training and evaluation, after which anchors are embedded anew."""
        self._seen = None
        super().train(mode)
        return self

    def anchor_embeddings(self) -> Tensor:
        """Return the anchors' embeddings for this step, (K, D), without gradient."""
        if self.training:
            if self.resample == "stratified":
                return self._embed(self.inputs[self._drawn()])
            if self.resample == "gaussian":
                return self._gaussian(self._embed(self.inputs))
            return self._embed(self.inputs[self.slots])
        weights = tuple((id(t), t._version) for t in (*self.encoder.parameters(), *self.encoder.buffers()))
        if weights != self._seen:
            self.projection.anchors = self._embed(self.inputs[self.slots])
            self._seen = weights
        return self.projection.anchors

    def _embed(self, inputs: Tensor) -> Tensor:
        modes = [(part, part.training) for part in self.encoder.modules()]
        try:
            self.encoder.eval()
            with torch.inference_mode(False), torch.no_grad():
                found: Tensor = self.encoder(inputs)
        finally:
            for part, mode in modes:
                part.training = mode
        return found

    def _drawn(self) -> Tensor:
        chosen = [m[torch.randperm(len(m), generator=self._generator)[: self.per_class]] for m in self._members]
        return torch.cat(chosen).to(self.inputs.device)

    def _gaussian(self, embeddings: Tensor) -> Tensor:
        drawn = []
        for members in self._members:
            own = embeddings[members.to(embeddings.device)]
            noise = torch.randn((self.per_class or len(own), own.shape[1]), generator=self._generator).to(own)
            drawn.append(own.mean(dim=0) + own.std(dim=0, correction=0) * noise)
        return torch.cat(drawn)


def _numbers(inputs: Tensor) -> Floats:
    return np.asarray(inputs.detach().cpu().float().flatten(1).numpy())


def _members(labels: Sequence[Any] | None, num: int, per_class: int | None) -> list[Tensor]:
    if per_class is None:
        return [torch.arange(num)]
    if labels is None or len(labels) != num:
        raise InputError(f"labels must give one class for each of the {num} anchors when per_class={per_class}")
    classes = list(dict.fromkeys(labels))
    found = [torch.tensor([i for i, label in enumerate(labels) if label == name]) for name in classes]
    smallest = min(map(len, found))
    if not 1 <= per_class <= smallest:
        raise InputError(f"per_class={per_class} must be from 1 to the size of the smallest class, {smallest}")
    return found
