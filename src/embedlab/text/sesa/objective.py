"""What SESA is trained for: relevance, concepts that are true of the text, and few of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from embedlab._core.errors import InputError, unknown_name

Relevance: TypeAlias = Literal["bce", "margin", "infonce"]
MAX_POSITIVE_WEIGHT = 10.0


@dataclass(frozen=True, slots=True)
class Objective:
    r"""Weigh the parts of the loss.

    .. math:: L = L_{rel} + \lambda_c L_{concept} + \lambda_1\,mean|a| + \lambda_P \|P - P_0\|_F^2

    ``"bce"``: binary cross entropy of :math:`\sigma(\alpha s + \beta)` with trained scalars. ``"margin"``:
    :math:`\max(0, margin - s^+ + s^-)` over the pairs of one text. ``"infonce"``: cross entropy of the positive among
    the text's own negatives and the items of all other texts of the batch, at ``temperature``.

    Without ``concept`` and with a dense side of declared concepts nothing makes axis k mean concept k: that is the
    latent twin, not SESA.

    Args:
        relevance: Form of the first part.
        concept: Weight of the second: which concepts does the text declare? (paper: lambda_c)
        sparsity: Weight of the mean activation. (paper: lambda_1)
        sets: Weight of how far the co-occurrence matrix may move from its start.
        margin: For ``"margin"``, above 0.
        temperature: For ``"infonce"``, above 0.

    Raises:
        InputError: a number is out of range, or ``relevance`` is unknown.
    """

    relevance: Relevance = "bce"
    concept: float = 1.0
    sparsity: float = 1e-4
    sets: float = 1e-2
    margin: float = 0.2
    temperature: float = 0.05

    def __post_init__(self) -> None:
        if self.relevance not in get_args(Relevance):
            raise unknown_name("relevance", str(self.relevance), get_args(Relevance))
        if min(self.concept, self.sparsity, self.sets) < 0 or min(self.margin, self.temperature) <= 0:
            raise InputError(f"{self}: weights must be at least 0, margin and temperature above 0")


def relevance_loss(
    objective: Objective,
    texts: Tensor,
    items: Tensor,
    rows: Tensor,
    labels: Tensor,
    scale: tuple[Tensor, Tensor],
    *,
    normalize: bool = True,
) -> Tensor:
    """Score the pairs of a batch and compare with their labels.

    Args:
        objective: Which form.
        texts: Activations of the texts of the batch.
        items: Activations of the items, one for each pair.
        rows: The text of each pair.
        labels: 1 for relevant pairs, 0 for others.
        scale: alpha and beta of the binary cross entropy.
        normalize: Whether the score is the cosine; otherwise the dot product.

    Shape:
        texts (B, m), items (P, m), rows (P,) long, labels (P,) float, scalars () -> ()

    Returns:
        The loss; 0 if there is nothing to compare.
    """
    if normalize:
        texts, items = unit(texts), unit(items)
    scores = (texts[rows] * items).sum(-1)  # (P,)
    if objective.relevance == "bce":
        return binary_cross_entropy_with_logits(scale[0] * scores + scale[1], labels)
    good, bad = labels > 0.5, labels <= 0.5
    if objective.relevance == "margin":
        same = (rows[good][:, None] == rows[bad][None]).to(scores.dtype)  # (P+, P-)
        short = (objective.margin - scores[good][:, None] + scores[bad][None]).relu()
        return (short * same).sum() / same.sum().clamp(min=1)
    logits = texts[rows[good]] @ items.T / objective.temperature  # (P+, P)
    places = good.nonzero()[:, 0]
    own = rows[good][:, None] == rows[None]
    also_right = own & good[None]
    also_right[torch.arange(len(places), device=rows.device), places] = False
    losses = torch.nn.functional.cross_entropy(logits.masked_fill(also_right, -torch.inf), places, reduction="sum")
    return losses / max(1, len(places))


def concept_loss(logits: Tensor, declared: Tensor, positive_weight: Tensor) -> Tensor:
    """Ask the text which concepts it declares: binary cross entropy over all concepts.

    Args:
        logits: Before the activation.
        declared: 1 where a concept is declared, 0 elsewhere.
        positive_weight: Weight of each concept's positives.

    Shape:
        logits (B, m), declared (B, m), positive_weight (m,) -> ()

    Returns:
        The loss, a mean over texts and concepts.
    """
    return binary_cross_entropy_with_logits(logits, declared, pos_weight=positive_weight)


def unit(rows: Tensor) -> Tensor:
    """Bring rows to length one; rows of zeros stay zero, and their gradient stays finite.

    Args:
        rows: The rows.

    Shape:
        rows (N, m) -> (N, m)

    Returns:
        Unit rows.
    """
    return rows / rows.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
