"""The contrastive loss of both stages: hard negatives of one's own, and the rest of the batch or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from embedlab._core.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class HardNegativesRankingLoss(MultipleNegativesRankingLoss):
    """Rank each query's positive above its own hard negatives and, if wanted, above the texts of the other queries.

    With cosine ``s`` and temperature ``tau = 1 / scale``, for each query::

        L = - log( e^{s(q, d+) / tau} / ( e^{s(q, d+) / tau} + sum_k e^{s(q, d_k-) / tau} + N ) )

    ``N`` sums over the positives and negatives of the other queries where ``in_batch_negatives`` is on, and is 0 where
    it is off: when texts of one batch share a class, its other texts are false negatives. On, it is the host's loss.

    Args:
        model: The model to train.
        scale: Multiplies the cosines, above 0. (paper: 1 / tau) 50 is the temperature 0.02.
        in_batch_negatives: Whether the texts of other queries count: on for retrieval (stage 1), off for blends (2).
        gather_across_devices: Whether the texts of all processes do, if those of the batch do.

    Shape:
        two or more columns of B texts, embedded as (B, D) -> loss () float; off needs a third column

    Returns:
        On call, the mean over the batch; 0 or more.

    Raises:
        InputError: ``scale`` is not above 0; on call, there is no column of negatives and those of the batch are off.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> columns = ["a cat", "a dog"], ["cats", "dogs"], ["a dog ran", "a cat ran"]
        >>> model = tiny_encoder([text for column in columns for text in column])
        >>> features = [model.preprocess(column) for column in columns]
        >>> off, on = (HardNegativesRankingLoss(model, in_batch_negatives=given) for given in (False, True))
        >>> off([dict(f) for f in features], None).item() < on([dict(f) for f in features], None).item()
        True

    References:
        Lee et al. (2024), NV-Embed, arXiv:2405.17428v3, section 3.2.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        scale: float = 50.0,
        in_batch_negatives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        _check(scale)
        super().__init__(model, scale=scale, gather_across_devices=gather_across_devices)
        self.in_batch_negatives = in_batch_negatives

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """Compute the loss of embedded columns: anchors, positives, and any number of negatives."""
        if self.in_batch_negatives:
            value: Tensor = super().compute_loss_from_embeddings(embeddings, labels)
            return value
        return _own_candidates(embeddings, self.scale)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments, for the model card."""
        gather = self.gather_across_devices
        return {"scale": self.scale, "in_batch_negatives": self.in_batch_negatives, "gather_across_devices": gather}


class CachedHardNegativesRankingLoss(CachedMultipleNegativesRankingLoss):
    """Take ``HardNegativesRankingLoss`` of batches larger than memory: same value, same gradient, in mini-batches.

    Args:
        model: The model to train.
        scale: Multiplies the cosines, above 0.
        in_batch_negatives: Whether the texts of other queries count.
        mini_batch_size: Texts embedded at once; decides memory, not the value.
        gather_across_devices: Whether the texts of all processes do, if those of the batch do.
        show_progress_bar: Whether to show the progress over mini-batches.

    Raises:
        InputError: as for ``HardNegativesRankingLoss``.

    References:
        Gao, Zhang, Han, Callan (2021), Scaling deep contrastive learning batch size under memory limited setup,
        arXiv:2101.06983v2.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        scale: float = 50.0,
        in_batch_negatives: bool = True,
        mini_batch_size: int = 32,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        _check(scale)
        super().__init__(
            model,
            scale=scale,
            mini_batch_size=mini_batch_size,
            gather_across_devices=gather_across_devices,
            show_progress_bar=show_progress_bar,
        )
        self.in_batch_negatives = in_batch_negatives

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss of columns embedded in parts and, if asked, take it back to the embeddings."""
        if self.in_batch_negatives:
            value: Tensor = super().calculate_loss(reps, labels, with_backward=with_backward)
            return value
        loss = _own_candidates([torch.cat(parts) for parts in reps], self.scale)
        if with_backward:
            torch.autograd.backward(loss)
            loss = loss.detach()
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments, for the model card."""
        gather, chunk = self.gather_across_devices, self.mini_batch_size
        return {
            "scale": self.scale,
            "in_batch_negatives": self.in_batch_negatives,
            "mini_batch_size": chunk,
            "gather_across_devices": gather,
        }


def _own_candidates(embeddings: list[Tensor], scale: float) -> Tensor:
    if len(embeddings) < 3:
        raise InputError(
            f"sentence_features: {len(embeddings)} columns, but without in_batch_negatives each query needs a negative "
            "of its own: mine some, or turn in_batch_negatives on"
        )
    queries, candidates = embeddings[0], torch.stack(embeddings[1:], dim=1)  # (B, D), (B, 1 + K, D)
    logits = scale * cosine_similarity(queries[:, None], candidates, dim=-1)  # (B, 1 + K)
    return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def _check(scale: float) -> None:
    if not scale > 0:
        raise InputError(f"scale={scale}: must be above 0; 50 is the temperature 0.02")
