"""The block of ``embedlab.ops.cross_attention`` written out for one query at a time: an oracle, not for use."""

from __future__ import annotations

from math import erf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]


def slow_block(block: nn.Module, query: Floats, keys: Floats) -> Floats:
    """Attend from one query to keys, then apply the feed-forward net: the equations, head by head, in numpy.

    Args:
        block: A ``CrossAttention``, whose weights are read.
        query: The token or latent that asks.
        keys: The rows it looks up in.

    Shape:
        query (D,), keys (K, D) -> (D,)

    Returns:
        The query's row of the block's output.
    """
    weights: dict[str, Any] = {name: value.detach().double().numpy() for name, value in block.named_parameters()}
    num_heads: Any = block.num_heads

    def norm(row: Any, name: str) -> Any:
        return (row - row.mean()) / np.sqrt(row.var() + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    asked = weights["to_queries.weight"] @ norm(query, "norm_queries")
    inner = len(asked)
    offered = [weights["to_keys_values.weight"] @ norm(row, "norm_keys") for row in keys]
    found = np.zeros(inner)
    for part in np.split(np.arange(inner), num_heads):
        logits = [float(asked[part] @ row[:inner][part]) / sqrt(len(part)) for row in offered]
        shares = np.exp(np.array(logits) - max(logits))
        for share, row in zip(shares / shares.sum(), offered, strict=True):
            found[part] += share * row[inner:][part]
    attended = query + weights["to_output.weight"] @ found
    value, gate = np.split(weights["ff_in.weight"] @ norm(attended, "norm_ff") + weights["ff_in.bias"], 2)
    gated = value * np.array([x * (1 + erf(x / sqrt(2))) / 2 for x in gate])
    return np.asarray(attended + weights["ff_out.weight"] @ gated + weights["ff_out.bias"])
