"""What a binariser is trained for: related vectors together, unlike its hardest negatives; neighbours as they were."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SAME = 1 - 1e-5  # cosine from which two vectors are taken for the same item
_NEVER = -1e4


def hard_contrast(
    anchors: Tensor, candidates: Tensor, same: Tensor, *, temperature: float = 0.05, negatives: int = 5
) -> Tensor:
    """Contrast anchors with their positives and each with its hardest negatives alone, in one direction.

    For cosines s and the set H of the ``negatives`` largest s(i, j) among candidates that are not the same item::

        L = mean_i -log exp(s(i, i)/t) / (exp(s(i, i)/t) + sum_{j in H} exp(s(i, j)/t))

    Args:
        anchors: Unit vectors (B, m).
        candidates: Unit vectors (C, m), C at least B; the first B are the anchors' positives.
        same: Which candidates are no negatives of an anchor, (B, C); its own positive among them.
        temperature: (paper: tau)
        negatives: Number of hard negatives kept. (paper: 5)

    Returns:
        The loss, a scalar.
    """
    scores = anchors @ candidates.T / temperature  # (B, C)
    positive = scores.diagonal()[:, None]
    hardest = scores.masked_fill(same, _NEVER).topk(min(negatives, scores.shape[1] - 1), dim=1).values
    return (torch.cat([positive, hardest], dim=1).logsumexp(dim=1) - positive[:, 0]).mean()


def kept_neighbours(rows: Tensor, codes: Tensor, anchors: Tensor | None = None, *, temperature: float = 0.05) -> Tensor:
    """Measure how far the neighbourhoods of codes are from those of the vectors: KL(softmax(S/t) || softmax(T/t)).

    S are the cosines of the vectors with each other, T those of their codes; own cosines are left out.

    Args:
        rows: Unit vectors (B, D).
        codes: Their codes at unit length (B, m).
        anchors: What is compared with the codes, (B, m); the codes themselves by default.
        temperature: Smaller values look at the nearest alone.

    Returns:
        The loss, a scalar.
    """
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    wanted = (rows @ rows.T / temperature).masked_fill(own, _NEVER).log_softmax(dim=1)
    found = (
        ((codes if anchors is None else anchors) @ codes.T / temperature).masked_fill(own, _NEVER).log_softmax(dim=1)
    )
    return nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")


def same_items(rows: Tensor, others: Tensor) -> Tensor:
    """Tell which vectors are the same.

    Args:
        rows: Unit vectors (B, D).
        others: Unit vectors (C, D).

    Returns:
        Truth values (B, C).
    """
    return rows @ others.T > SAME
