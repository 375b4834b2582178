"""The block against the equations, one query at a time; masks, gradients and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from embedlab._core.errors import InputError
from embedlab.ops.cross_attention import CrossAttention
from embedlab.ops.pooling import last_token, masked_mean
from embedlab.testing.slow_attention import slow_block

MASK = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]])


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("head_dim", [2, 3, 6])
@pytest.mark.parametrize("queries", ["tokens", "latents", "self"])
def test_it_equals_the_equations(queries: Any, head_dim: int) -> None:
    block = CrossAttention(6, queries=queries, num_latents=5, num_heads=2, head_dim=head_dim, seed=3).double()
    given = tokens()
    with torch.no_grad():
        fast = block(given, MASK).numpy()
    latents = None if queries == "self" else block.latents.detach().numpy()
    for row, text in enumerate(given.numpy()):
        there = text[MASK[row].bool().numpy()]
        asking = latents if queries == "latents" else text
        keys = latents if queries == "tokens" else there
        slow = np.stack([slow_block(block, query, keys) for query in asking])
        kept = slice(None) if queries == "latents" else MASK[row].bool().numpy()
        np.testing.assert_allclose(fast[row][kept], slow[kept], atol=1e-10)


def test_a_text_without_tokens_adds_nothing() -> None:
    block = CrossAttention(6, queries="latents", num_latents=5, num_heads=2, head_dim=3).double()
    empty = block(tokens(), torch.zeros(3, 4))
    assert empty.isfinite().all()
    assert torch.equal(empty[0], empty[1])
    assert torch.allclose(empty, block(tokens(1), torch.zeros(3, 4)))


def test_every_weight_gets_a_gradient_and_no_global_state_is_drawn() -> None:
    before = torch.get_rng_state()
    block = CrossAttention(6, queries="tokens", num_latents=5, num_heads=2, head_dim=3)
    assert torch.equal(before, torch.get_rng_state())
    block(tokens().float()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
    again, other = (CrossAttention(6, queries="tokens", num_latents=5, num_heads=2, head_dim=3, seed=s) for s in (0, 1))
    assert torch.equal(again.latents, block.latents)
    assert not torch.equal(other.latents, block.latents)


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"num_heads": 0}, {"head_dim": True}, {"ff_mult": -1}, {"queries": "keys"}]
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        CrossAttention(**{"dim": 6, "queries": "tokens", "num_latents": 2, "num_heads": 2, "head_dim": 3, **wrong})


def test_means_and_last_tokens_go_by_the_mask() -> None:
    given = tokens()
    means, last = masked_mean(given, MASK), last_token(given, MASK)
    for row, place in enumerate((3, 3, 1)):
        there = given[row][MASK[row].bool()]
        assert torch.allclose(means[row], there.mean(0))
        assert torch.equal(last[row], given[row, place])
    assert torch.equal(masked_mean(given, torch.zeros(3, 4)), torch.zeros(3, 6, dtype=torch.float64))


def test_a_mean_of_many_half_precision_states_keeps_its_digits() -> None:
    exact = 1 + torch.rand(1, 4096, 4, generator=torch.Generator().manual_seed(0))
    half = exact.to(torch.bfloat16)
    found = masked_mean(half, torch.ones(1, 4096))
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.double(), half.double().mean(1), rtol=2**-8)
