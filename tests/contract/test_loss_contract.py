"""The loss contract accepts a plain in-batch softmax, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import loss as kind
from embedlab.testing.contract import Make
from embedlab.testing.loss import CONTRACT, LossExample
from embedlab.testing.tiny import tiny_encoder

Check = Callable[[Make[LossExample]], None]

ANCHORS = ["a cat sat", "rain fell", "stocks rose", "the sea is deep"]
POSITIVES = ["the cat slept", "it is wet", "shares went up", "deep water"]


class InBatch(nn.Module):
    """Cross entropy of each anchor's cosines with all positives."""

    def __init__(self, model: Any, temperature: float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"temperature={temperature} must be above 0")
        self.model, self.temperature = model, temperature

    def forward(self, features: Sequence[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        anchors, positives = (nn.functional.normalize(self.model(c)["sentence_embedding"], dim=1) for c in features)
        logits = anchors @ positives.T / self.temperature  # (B, B)
        return nn.functional.cross_entropy(logits, torch.arange(len(logits)))

    def get_config_dict(self) -> dict[str, Any]:
        return {"temperature": self.temperature}


class WithGuide(InBatch):
    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.guide = nn.Linear(1, 1)

    def forward(self, features: Sequence[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        return super().forward(features) + self.guide.weight.sum()


class Unsaved(InBatch):
    """Keeps something that the state does not hold."""

    made = 0

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        Unsaved.made += 1
        self.temperature = 0.1 * Unsaved.made


def example(seed: int, loss: Callable[[Any], nn.Module] = InBatch) -> LossExample:
    model = tiny_encoder(ANCHORS + POSITIVES, seed=seed)
    return LossExample(
        loss=loss(model),
        model=model,
        features=[model.preprocess(texts) for texts in (ANCHORS, POSITIVES)],
        refuses=(Refusal(lambda: InBatch(model, temperature=0), says="temperature"),),
    )


def good(seed: int) -> LossExample:
    return example(seed)


def forward(change: Callable[[Any, Any], Any]) -> Make[LossExample]:
    """Make examples whose loss is changed after the fact: ``change(loss, features)``."""

    class Changed(InBatch):
        def forward(self, features: Any, labels: Any = None) -> Any:
            return change(super().forward, features)

    return lambda seed: example(seed, Changed)


def spoil(value: Callable[[Any], Any], features: Any) -> Any:
    ids = features[0]["input_ids"]
    result = value(features)
    ids.data.zero_()  # behind the back of autograd, which would notice
    return result


def with_trained_guide(seed: int) -> LossExample:
    made = example(seed, WithGuide)
    return replace(made, frozen=(made.loss.guide,))


def no_config(seed: int) -> LossExample:
    made = good(seed)
    made.loss.get_config_dict = lambda: {"model": made.model}  # type: ignore[assignment]
    return made


calls = iter(range(1000))
BROKEN = [
    (kind.check_finite_scalar, forward(lambda value, f: value(f).repeat(2))),
    (kind.check_finite_scalar, forward(lambda value, f: value(f) / 0)),
    (kind.check_gradient_reaches, forward(lambda value, f: value(f).detach().requires_grad_())),
    (kind.check_gradient_reaches, forward(lambda value, f: value(f) * 0)),
    (kind.check_gradient_reaches, with_trained_guide),
    (kind.check_ten_steps_help, forward(lambda value, f: -value(f))),
    (kind.check_ten_steps_help, lambda seed: replace(good(seed), progress=lambda: 1.0)),
    (kind.check_deterministic, forward(lambda value, f: value(f) + next(calls))),
    (kind.check_inputs_untouched, forward(spoil)),
    (kind.check_inputs_untouched, forward(lambda value, f: value(f) + 0 * torch.rand(()))),
    (kind.check_precision, forward(lambda value, f: value(f).float())),
    (kind.check_row_order, forward(lambda value, f: value(f) * f[0]["input_ids"][0].sum())),
    (kind.check_save_load, lambda seed: example(seed, Unsaved)),
    (kind.check_save_load, no_config),
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
