"""The module contract accepts a mean pooling with a projection, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import module as kind
from embedlab.testing.contract import Make
from embedlab.testing.module import CONTRACT, ModuleExample

Check = Callable[[Make[ModuleExample]], None]


class Projected(nn.Module):
    """Mean over the tokens, then a linear map."""

    def __init__(self, width: int = 3, *, seed: int = 0) -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"width={width} must be at least 1")
        self.weight = nn.Parameter(torch.randn(4, width, generator=torch.Generator().manual_seed(seed)))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**features, "sentence_embedding": self.result(features)}

    def result(self, features: dict[str, Tensor]) -> Tensor:
        mask = features["attention_mask"].unsqueeze(-1)  # (B, T, 1)
        return (features["token_embeddings"] * mask).sum(1) / mask.sum(1) @ self.weight

    def save(self, folder: str) -> None:
        save_model(self, f"{folder}/model.safetensors")


def load(folder: str) -> Projected:
    module = Projected()
    load_model(module, Path(folder) / "model.safetensors")
    return module


def example(seed: int, module: type[Projected] = Projected) -> ModuleExample:
    tokens = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    return ModuleExample(
        module=module(seed=seed),
        features={"token_embeddings": tokens, "attention_mask": mask},
        output="sentence_embedding",
        width=3,
        load=load,
        refuses=(Refusal(lambda: Projected(0), says="width"),),
    )


def good(seed: int) -> ModuleExample:
    return replace(example(seed), half_atol=0.1)


def result(change: Callable[[Any, dict[str, Tensor]], Any]) -> Make[ModuleExample]:
    """Make examples with another result: ``change(usual result, features)``."""

    class Changed(Projected):
        def result(self, features: dict[str, Tensor]) -> Tensor:
            value: Tensor = change(super().result, features)
            return value

    return lambda seed: example(seed, Changed)


class Dropping(Projected):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": self.result(features)}


def spoil(value: Callable[[Any], Tensor], features: dict[str, Tensor]) -> Tensor:
    features["token_embeddings"].mul_(2)
    return value(features)


calls = iter(range(1000))
BROKEN = [
    (kind.check_output, lambda seed: example(seed, Dropping)),
    (kind.check_output, result(lambda value, f: value(f)[:, :2])),
    (kind.check_output, result(lambda value, f: value(f) / 0)),
    (kind.check_padding, result(lambda value, f: value({**f, "attention_mask": torch.ones_like(f["attention_mask"])}))),
    (kind.check_row_alone, result(lambda value, f: value(f) - value(f).mean(0))),
    (kind.check_gradient_flows, result(lambda value, f: value(f).detach().requires_grad_())),
    (kind.check_deterministic, result(lambda value, f: value(f) + next(calls))),
    (kind.check_inputs_untouched, result(spoil)),
    (kind.check_inputs_untouched, result(lambda value, f: value(f) + torch.rand(()))),
    (kind.check_precision, result(lambda value, f: value(f).float())),
    (kind.check_precision, lambda seed: replace(good(seed), half_atol=1e-9)),
    (kind.check_save_load, lambda seed: replace(good(seed), load=lambda folder: Projected(seed=seed + 1))),
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
