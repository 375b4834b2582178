"""Training a linear map of queries against documents that stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from embedlab.search.bebr.objectives import hard_contrast, same_items
from embedlab.search.bebr.recurrence import Floats

_BATCH, _LEARNING_RATE, _DECAY_AT = 512, 0.3, 0.6


def trained_weights(
    weights: Floats,
    queries: Floats,
    documents: Floats,
    *,
    steps: int,
    seed: int,
    on_progress: Callable[[float], None] | None = None,
) -> Floats:
    """Train a map by contrast, queries against documents and documents against queries.

    Args:
        weights: What to start from (D', D).
        queries: Unit vectors (P, D') to map.
        documents: Unit vectors (P, D) of their documents, left as they are.
        steps: Steps of gradient descent.
        seed: Decides the order.
        on_progress: Called with the share done, in [0, 1].

    Returns:
        The weights after training.
    """
    draw = np.random.default_rng(seed)
    learned = nn.Parameter(torch.tensor(weights))
    optimiser = torch.optim.SGD([learned], lr=_LEARNING_RATE, momentum=0.9, nesterov=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * (1.0 if step < _DECAY_AT * steps else 0.1)
        batch = draw.permutation(len(queries))[:_BATCH]
        asked, stored = torch.from_numpy(queries[batch]), torch.from_numpy(documents[batch])
        mapped = nn.functional.normalize(asked @ learned, dim=1)
        same = same_items(stored, stored) | same_items(asked, asked)
        loss = hard_contrast(mapped, stored, same) + hard_contrast(stored, mapped, same.T)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if on_progress is not None:
            on_progress((step + 1) / steps)
    return np.asarray(learned.detach().numpy())
