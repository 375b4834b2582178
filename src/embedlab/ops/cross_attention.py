"""One block of cross-attention and a gated feed-forward net, between tokens and a trainable array of latents.

NV-Embed asks with the tokens and looks up in the latents, token by token; a Perceiver asks with the latents and looks
up in the tokens. The parameters are the same, so the arrangement is one argument.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from embedlab._core.errors import InputError, unknown_name

Queries: TypeAlias = Literal["tokens", "latents", "self"]


class CrossAttention(nn.Module):
    """Let tokens and latents attend to each other: pre-norm, residual on the queries, then a gated feed-forward net.

    With queries ``X`` and keys ``Y``, ``r`` latents ``Z`` drawn from N(0, 1)::

        A = X + concat_h( softmax(q_h k_h^T / sqrt(c)) v_h ) Wo,   q = LN(X) Wq,  [k, v] = LN(Y) Wkv
        O = A + (a * gelu(g)) W2,                                  [a, g] = LN(A) W1

    Args:
        dim: Width of tokens and latents. (D)
        queries: ``"tokens"``: X = tokens, Y = Z; each token is mapped alone. ``"latents"``: X = Z, Y = tokens.
            ``"self"``: X = Y = tokens, and there are no latents.
        num_latents: Rows of the trainable array. (r)
        num_heads: Attention heads. (h)
        head_dim: Width of a head, which need not divide ``dim``. (c)
        ff_mult: Width of the feed-forward net, in multiples of ``dim``.
        seed: Decides the first weights.

    Shape:
        tokens (B, T, D) float, mask (B, T) -> (B, T, D), or (B, r, D) with ``queries="latents"``

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> block = CrossAttention(8, queries="latents", num_latents=3, num_heads=2, head_dim=4)
        >>> tuple(block(torch.zeros(5, 7, 8)).shape)
        (5, 3, 8)
    """

    def __init__(
        self,
        dim: int,
        *,
        queries: Queries,
        num_latents: int = 512,
        num_heads: int = 8,
        head_dim: int = 64,
        ff_mult: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if queries not in get_args(Queries):
            raise unknown_name("queries", queries, get_args(Queries))
        sizes = {"dim": dim, "num_latents": num_latents, "num_heads": num_heads, "head_dim": head_dim}
        for name, size in {**sizes, "ff_mult": ff_mult}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise InputError(f"{name}={size!r}: expected a whole number from 1")
        self.queries, self.num_heads, inner = queries, num_heads, num_heads * head_dim
        with torch.random.fork_rng(devices=[]):  # the host's layers draw from the global state; give it back
            self.norm_queries = nn.LayerNorm(dim)
            self.norm_keys = nn.LayerNorm(dim)
            self.to_queries = nn.Linear(dim, inner, bias=False)
            self.to_keys_values = nn.Linear(dim, 2 * inner, bias=False)
            self.to_output = nn.Linear(inner, dim, bias=False)
            self.norm_ff = nn.LayerNorm(dim)
            self.ff_in = nn.Linear(dim, 2 * ff_mult * dim)
            self.ff_out = nn.Linear(ff_mult * dim, dim)
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.to_queries, self.to_keys_values, self.to_output, self.ff_in, self.ff_out):
            for weight in layer.parameters():  # the host's own range: 1 / sqrt(inputs) either way
                nn.init.uniform_(weight, -(reach := layer.in_features**-0.5), reach, generator=generator)
        if queries != "self":
            self.latents = nn.Parameter(torch.randn(num_latents, dim, generator=generator))  # (r, D)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map the tokens, or sum them up in the latents.

        Args:
            tokens: The tokens' states.
            mask: 1 for the tokens that are there, 0 for padding; no token is looked up that is not there. None: all.

        Returns:
            One row per token (those of padding mean nothing), or one per latent.
        """
        if self.queries == "tokens":
            given, seen, mask = tokens, self.latents.expand(len(tokens), -1, -1), None  # (B, T, D), (B, r, D)
        elif self.queries == "latents":
            given, seen = self.latents.expand(len(tokens), -1, -1), tokens
        else:
            given, seen = tokens, tokens
        attended = given + self._attend(self.norm_queries(given), self.norm_keys(seen), mask)
        value, gate = self.ff_in(self.norm_ff(attended)).chunk(2, dim=-1)
        mapped: Tensor = attended + self.ff_out(value * gelu(gate))
        return mapped

    def _attend(self, given: Tensor, seen: Tensor, mask: Tensor | None) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)  # (B, h, ., c)

        keys, values = self.to_keys_values(seen).chunk(2, dim=-1)
        allowed = None
        if mask is not None:
            some = mask.any(1)[:, None, None]
            allowed = (mask.bool()[:, None] | ~some)[:, None]  # (B, 1, 1, T); a text without tokens looks at padding...
        found = scaled_dot_product_attention(split(self.to_queries(given)), split(keys), split(values), allowed)
        found = found.transpose(1, 2).flatten(2)  # (B, ., h c)
        if mask is not None:
            found = torch.where(some, found, found.new_zeros(()))  # ... and is told that it saw nothing
        output: Tensor = self.to_output(found)
        return output


def default_head_dim(dim: int, num_heads: int) -> int:
    """Return the width of a head that makes all heads together about as wide as a token.

    Args:
        dim: Width of a token.
        num_heads: Attention heads.

    Returns:
        ``dim / num_heads``, rounded up.
    """
    return math.ceil(dim / max(num_heads, 1))
