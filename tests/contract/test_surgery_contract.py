"""The surgery contract accepts a scaling of token vectors, and rejects one broken in each way it looks for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import surgery as kind
from embedlab.testing.contract import Make
from embedlab.testing.surgery import CONTRACT, SurgeryExample
from embedlab.testing.tiny import tiny_encoder

Check = Callable[[Make[SurgeryExample]], None]

TEXTS = ["a cat", "rain fell on the sea", "stocks rose", "the cat sat on the deep blue mat"]


def scaled(model: Any, factor: float = 0.5) -> Any:
    """Return a copy of the model whose word vectors are scaled; a power of two loses no bit."""
    if factor <= 0:
        raise InputError(f"factor={factor} must be above 0")
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed[0].model.embeddings.word_embeddings.weight.mul_(factor)
    return changed


def good(seed: int) -> SurgeryExample:
    model = tiny_encoder(TEXTS, seed=seed)
    return SurgeryExample(
        model=model,
        apply=scaled,
        texts=TEXTS,
        refuses=(Refusal(lambda: scaled(model, factor=0), says="factor"),),
        neutral=lambda model: scaled(model, 1.0),
        restore=lambda model: scaled(model, 2.0),
    )


def instead(apply: Callable[[Any], Any], **changes: Any) -> Make[SurgeryExample]:
    return lambda seed: replace(good(seed), apply=apply, **changes)


def in_place(model: Any) -> Any:
    with torch.no_grad():
        model[0].model.embeddings.word_embeddings.weight.mul_(0.5)
    return model


def drawing(model: Any) -> Any:
    torch.rand(())
    return scaled(model)


def exploding(model: Any) -> Any:
    return scaled(model, float("inf"))


def restarted(model: Any) -> Any:
    return scaled(model, 1.0 + next(calls))


def hooked(model: Any, change: Callable[[Any], Any]) -> Any:
    changed = copy.deepcopy(model)

    def rewrite(module: Any, inputs: Any, features: dict[str, Any]) -> None:
        features["sentence_embedding"] = change(features["sentence_embedding"])

    changed[1].register_forward_hook(rewrite)
    return changed


def forgetful(model: Any) -> Any:
    """Change something that saving leaves out."""
    return hooked(model, lambda rows: rows * 2)


def batch_wise(model: Any) -> Any:
    """Centre the vectors of a batch, so that a text's vector depends on its company."""
    return hooked(model, lambda rows: rows - rows.mean(dim=0))


calls = iter(range(1000))
BROKEN = [
    (kind.check_input_untouched, instead(in_place)),
    (kind.check_input_untouched, instead(drawing)),
    (kind.check_encodes, instead(copy.deepcopy)),
    (kind.check_encodes, instead(exploding)),
    (kind.check_encodes, lambda seed: replace(good(seed), changes_vectors=False)),
    (kind.check_neutral_is_identity, lambda seed: replace(good(seed), neutral=scaled)),
    (kind.check_restorable, lambda seed: replace(good(seed), restore=scaled)),
    (kind.check_save_load, instead(forgetful)),
    (kind.check_row_alone, instead(batch_wise)),
    (kind.check_deterministic, instead(restarted)),
    (kind.check_precision, instead(lambda model: scaled(model).float())),
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
