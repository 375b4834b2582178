"""From one state per token to one per text, by the attention mask alone: which side is padded, and with what, is one.

Never by token ids: in many decoders the padding token is the end mark, and the real end would go with it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Average the states that the mask keeps, summed in single precision at least; zero where it keeps none.

    Args:
        states: One state per token.
        mask: 1 for the tokens that count, 0 for the rest.

    Shape:
        states (B, T, D) float, mask (B, T) -> (B, D) of the states' type

    Returns:
        The means.
    """
    exact = torch.promote_types(states.dtype, torch.float32)
    weights = mask.unsqueeze(-1).to(exact)  # (B, T, 1)
    total = (states.to(exact) * weights).sum(1)
    return (total / weights.sum(1).clamp(min=1)).to(states.dtype)


def last_token(states: Tensor, mask: Tensor) -> Tensor:
    """Take the state of the last token that the mask keeps; of the last column where it keeps none.

    Args:
        states: One state per token.
        mask: 1 for the tokens that count, 0 for the rest, which may stand on either side.

    Shape:
        states (B, T, D) float, mask (B, T) -> (B, D)

    Returns:
        The states.
    """
    place = mask.shape[1] - 1 - mask.flip(1).to(torch.int32).argmax(1)  # argmax: the first of the largest
    return states[torch.arange(len(states), device=states.device), place]
