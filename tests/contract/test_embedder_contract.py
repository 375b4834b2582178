"""The embedder contract accepts a seeded projection of words, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import embedder as kind
from embedlab.testing.contract import Make
from embedlab.testing.embedder import CONTRACT, EmbedderExample

Check = Callable[[Make[EmbedderExample]], None]
Array = NDArray[Any]

WORDS = [
    ["a", "cat"],
    ["the", "sea"],
    ["rain"],
    ["deep", "sea"],
    ["a", "dog"],
    ["cat", "dog"],
    ["red"],
    ["the", "rain"],
]


class RandomWords:
    """The mean of one random vector per known word."""

    def __init__(self, dim: int = 4, seed: int = 0) -> None:
        if dim < 1:
            raise InputError(f"dim={dim} must be at least 1")
        self.dim, self.seed = dim, seed

    def get_params(self) -> dict[str, Any]:
        return {"dim": self.dim, "seed": self.seed}

    def fit(self, data: Sequence[Sequence[str]]) -> RandomWords:
        words = sorted({word for item in data for word in item})
        rows = np.random.default_rng(self.seed).normal(size=(len(words), self.dim))
        self.table = dict(zip(words, rows, strict=True))
        return self

    def transform(self, data: Sequence[Sequence[str]]) -> Array:
        if not hasattr(self, "table"):
            raise InputError("not fitted yet: call fit first")
        return np.stack([self.row(item) for item in data])

    def fit_transform(self, data: Sequence[Sequence[str]]) -> Array:
        return self.fit(data).transform(data)

    def row(self, item: Sequence[str]) -> Array:
        return np.mean([self.table.get(word, np.zeros(self.dim)) for word in item], axis=0)


def good(seed: int) -> EmbedderExample:
    return EmbedderExample(
        embedder=RandomWords(seed=seed),
        data=WORDS,
        num_items=len(WORDS),
        dim=4,
        refuses=(Refusal(lambda: RandomWords(0), says="dim"),),
        unseen=[["cat"], ["zebra"]],
        unseen_rule="zero",
        unseen_rows=(1,),
    )


def instead(**methods: Callable[..., Any]) -> Make[EmbedderExample]:
    """Make examples of an embedder with other methods."""
    changed = type("Changed", (RandomWords,), methods)
    return lambda seed: replace(good(seed), embedder=changed(seed=seed))


def forgetful(self: RandomWords, data: Any) -> RandomWords:
    RandomWords.fit(self, data)
    self.seed += 1
    return self


def first_come(self: RandomWords, data: Any) -> RandomWords:
    words = list(dict.fromkeys(word for item in data for word in item))
    rows = np.random.default_rng(self.seed).normal(size=(len(words), self.dim))
    self.table = dict(zip(words, rows, strict=True))
    return self


def restless(self: RandomWords, data: Any) -> RandomWords:
    self.table = {word: np.full(self.dim, float(next(calls))) for item in data for word in item}
    return self


def drawing(self: RandomWords, data: Any) -> RandomWords:
    np.random.random()  # noqa: NPY002 - what must not be done
    return RandomWords.fit(self, data)


def spoiling(seed: int) -> EmbedderExample:
    def fit(self: RandomWords, data: Any) -> RandomWords:
        RandomWords.fit(self, data)
        data[0] = data[1]
        return self

    return replace(instead(fit=fit)(seed), data=list(WORDS))


calls = iter(range(10_000))
BROKEN = [
    (kind.check_fit_transform, instead(fit=lambda self, data: RandomWords.fit(self, data) and None)),
    (kind.check_fit_transform, lambda seed: replace(good(seed), dim=5)),
    (kind.check_fit_transform, instead(row=lambda self, item: np.full(4, np.nan))),
    (kind.check_fit_transform, instead(fit_transform=lambda self, data: RandomWords(4, 9).fit(data).transform(data))),
    (kind.check_order, instead(fit=first_come)),
    (kind.check_seeded, instead(fit=restless)),
    (kind.check_settings, instead(fit=forgetful)),
    (kind.check_settings, instead(get_params=lambda self: {"dim": self.dim, "seed": self.seed + 1})),
    (kind.check_inputs_untouched, instead(fit=drawing)),
    (kind.check_inputs_untouched, spoiling),
    (kind.check_unseen, lambda seed: replace(good(seed), unseen_rule="refused")),
    (kind.check_unseen, lambda seed: replace(good(seed), unseen_rule="embedded")),
    (kind.check_unfitted, instead(transform=lambda self, data: np.zeros((len(data), 4)))),
    (kind.check_unfitted, instead(transform=lambda self, data: self.table)),
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
