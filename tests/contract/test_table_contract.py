"""The table contract accepts a plain embedding table, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import table as kind
from embedlab.testing.contract import Make
from embedlab.testing.table import CONTRACT, TableExample

Check = Callable[[Make[TableExample]], None]

NUM_IDS, DIM = 10, 3


class Plain(nn.Module):
    """One row per id."""

    def __init__(self, dim: int = DIM, *, seed: int = 0) -> None:
        super().__init__()
        if dim < 1:
            raise InputError(f"dim={dim} must be at least 1")
        self.rows = nn.Parameter(torch.randn(NUM_IDS, dim, generator=torch.Generator().manual_seed(seed)))

    def forward(self, ids: Tensor) -> Tensor:
        strange = ids[(ids < 0) | (ids >= NUM_IDS)]
        if strange.numel():
            raise InputError(f"ids hold {strange[0].item()}: allowed are 0 to {NUM_IDS - 1}")
        return self.rows[ids]


def example(seed: int, table: Callable[..., nn.Module] = Plain) -> TableExample:
    return TableExample(
        table=table(seed=seed),
        ids=torch.tensor([[0, 3], [7, 7], [9, 1]]),
        unknown=torch.tensor([[0, 3], [NUM_IDS, 7], [9, 1]]),
        dim=DIM,
        stated_parameters=NUM_IDS * DIM,
        rows_per_id={"rows": 1},
        refuses=(Refusal(lambda: Plain(0), says="dim"),),
    )


def good(seed: int) -> TableExample:
    return example(seed)


def lookup(change: Callable[[Any, Tensor], Any]) -> Make[TableExample]:
    """Make examples with another look-up: ``change(usual look-up, ids)``."""

    class Changed(Plain):
        def forward(self, ids: Tensor) -> Tensor:
            rows: Tensor = change(super().forward, ids)
            return rows

    return lambda seed: example(seed, Changed)


class Unsaved(Plain):
    """Keeps a scale that the state does not hold."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.scale = 1.0 + next(calls)

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.scale


def spoil(look: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    rows = look(ids)
    ids.zero_()
    return rows


def crash(look: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    if (ids >= NUM_IDS).any():
        raise IndexError("index out of range")
    return look(ids)


calls = iter(range(1000))
BROKEN = [
    (kind.check_shape, lookup(lambda look, ids: look(ids)[..., :2])),
    (kind.check_shape, lookup(lambda look, ids: look(ids) / 0)),
    (kind.check_parameter_count, lambda seed: replace(good(seed), stated_parameters=10)),
    (kind.check_gradient_sparse, lookup(lambda look, ids: look(ids) + look(torch.arange(NUM_IDS)).mean(0))),
    (kind.check_gradient_sparse, lookup(lambda look, ids: look(ids).detach().requires_grad_())),
    (kind.check_gradient_sparse, lambda seed: replace(good(seed), rows_per_id={"other": 1})),
    (kind.check_unknown_id, lookup(lambda look, ids: look(ids % NUM_IDS))),
    (kind.check_unknown_id, lookup(crash)),
    (kind.check_row_alone, lookup(lambda look, ids: look(ids) - look(ids).mean())),
    (kind.check_deterministic, lookup(lambda look, ids: look(ids) + next(calls))),
    (kind.check_deterministic, lookup(spoil)),
    (kind.check_float64, lookup(lambda look, ids: look(ids).float())),
    (kind.check_save_load, lambda seed: example(seed, Unsaved)),
    (kind.check_refuses, lambda seed: replace(good(seed), refuses=())),
]


@pytest.mark.parametrize("check", CONTRACT.checks, ids=lambda check: check.__name__)
def test_the_reference_passes(check: Check) -> None:
    check(good)


@pytest.mark.parametrize(("check", "broken"), BROKEN, ids=lambda item: getattr(item, "__name__", None))
def test_a_broken_one_is_rejected(check: Check, broken: Make[Any]) -> None:
    with pytest.raises(ContractViolation):
        check(broken)


def test_every_check_can_fail() -> None:
    assert {check for check, _ in BROKEN} == set(CONTRACT.checks)
