"""The codec contract accepts one byte per number, and rejects one broken in each way it looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.testing import ContractViolation, Refusal
from embedlab.testing import codec as kind
from embedlab.testing.codec import CONTRACT, CodecExample
from embedlab.testing.contract import Make

Check = Callable[[Make[CodecExample]], None]
Array = NDArray[Any]


class Bytes:
    """Each number as one of a few equal steps between the smallest and the largest of its column."""

    def __init__(self, levels: int = 256) -> None:
        if not 2 <= levels <= 256:
            raise InputError(f"levels={levels} must be from 2 to 256")
        self.levels = levels
        self.low: Array | None = None
        self.step: Array | None = None

    @property
    def bytes_per_vector(self) -> int:
        return 0 if self.low is None else len(self.low)

    def fit(self, vectors: Array) -> Bytes:
        vectors = self.checked(vectors)
        self.low = vectors.min(axis=0)
        self.step = (vectors.max(axis=0) - self.low) / (self.levels - 1)
        return self

    def encode(self, vectors: Array) -> Array:
        if self.low is None or self.step is None:
            raise InputError("the codec is not fitted: call fit first")
        vectors = self.checked(vectors)
        if vectors.shape[1] != len(self.low):
            raise InputError(f"vectors have width {vectors.shape[1]}, the codec was fitted on {len(self.low)}")
        return np.clip(np.rint((vectors - self.low) / self.step), 0, self.levels - 1).astype(np.uint8)

    def decode(self, codes: Array) -> Array:
        return np.asarray(codes * self.step + self.low)

    def score(self, queries: Array, codes: Array) -> Array:
        return np.asarray(queries @ self.decode(codes).T)

    def scanner(self, codes: Array) -> Scan:
        return Scan(self, codes)

    def save(self, path: Path) -> None:
        np.save(f"{path}.npy", np.stack([self.low, self.step]))

    def checked(self, vectors: Array) -> Array:
        if not np.isfinite(vectors).all():
            raise InputError("vectors hold values that are not finite")
        return vectors.astype(np.float32)


class Scan:
    """The best rows by the codec's own scores."""

    def __init__(self, codec: Bytes, codes: Array) -> None:
        self.codec, self.codes = codec, codes

    def __len__(self) -> int:
        return len(self.codes)

    def add(self, codes: Array) -> None:
        self.codes = np.concatenate([self.codes, codes])

    def search(self, queries: Array, top_k: int, *, allowed: Array | None = None) -> tuple[Array, Array]:
        scores = self.codec.score(queries, self.codes)
        scores = scores if allowed is None else np.where(allowed, scores, -np.inf)
        rows = np.argsort(-scores, axis=1)[:, :top_k]
        best = np.take_along_axis(scores, rows, axis=1)
        return best, np.where(np.isneginf(best), -1, rows)


class Forgetful(Scan):
    def add(self, codes: Array) -> None:
        return


class Open(Scan):
    def search(self, queries: Array, top_k: int, *, allowed: Array | None = None) -> tuple[Array, Array]:
        return super().search(queries, top_k)


class Padded(Scan):
    def search(self, queries: Array, top_k: int, *, allowed: Array | None = None) -> tuple[Array, Array]:
        scores, rows = super().search(queries, top_k, allowed=allowed)
        return scores, np.maximum(rows, 0)


class Wrong(Scan):
    def search(self, queries: Array, top_k: int, *, allowed: Array | None = None) -> tuple[Array, Array]:
        return super().search(-queries, top_k, allowed=allowed)


def load(path: Path) -> Bytes:
    codec = Bytes()
    codec.low, codec.step = np.load(f"{path}.npy")
    return codec


def good(seed: int) -> CodecExample:
    rng = np.random.default_rng(seed)
    return CodecExample(
        codec=Bytes(),
        vectors=rng.normal(size=(32, 8)).astype(np.float32),
        queries=rng.normal(size=(3, 8)).astype(np.float32),
        max_error=0.02,
        load=load,
        refuses=(Refusal(lambda: Bytes(levels=1), says="levels"),),
    )


def instead(**methods: Callable[..., Any]) -> Make[CodecExample]:
    """Make examples of a codec with other methods."""
    changed = type("Changed", (Bytes,), methods)
    return lambda seed: replace(good(seed), codec=changed())


def scanned_by(scan: type[Scan]) -> Make[CodecExample]:
    """Make examples of a codec with another scan."""
    return instead(scanner=lambda self, codes: scan(self, codes))


def spoil(self: Bytes, vectors: Array) -> Array:
    codes = Bytes.encode(self, vectors)
    vectors *= 2
    return codes


def shared(self: Bytes, vectors: Array) -> Array:
    return Bytes.encode(self, vectors - vectors.mean(axis=0))


def exact_type(self: Bytes, vectors: Array) -> Array:
    return Bytes.encode(self, vectors + (vectors.dtype == np.float64))


def repaired(self: Bytes, vectors: Array) -> Array:
    return np.nan_to_num(vectors).astype(np.float32)


def reseeded(self: Bytes, vectors: Array) -> Bytes:
    Bytes.fit(self, vectors)
    self.low = self.low + next(calls)  # type: ignore[operator]
    return self


def other(path: Path) -> Bytes:
    codec = load(path)
    codec.low = codec.low + 1  # type: ignore[operator]
    return codec


calls = iter(range(1000))
BROKEN = [
    (kind.check_bytes, instead(bytes_per_vector=property(lambda self: 4))),
    (kind.check_bytes, instead(encode=lambda self, vectors: vectors, bytes_per_vector=property(lambda self: 32))),
    (kind.check_error, instead(decode=lambda self, codes: Bytes.decode(self, codes) * 0.9)),
    (kind.check_score, instead(score=lambda self, queries, codes: Bytes.score(self, queries, codes).T)),
    (kind.check_score, instead(score=lambda self, queries, codes: -Bytes.score(self, queries, codes))),
    (
        kind.check_score,
        lambda seed: replace(
            instead(score=lambda self, queries, codes: -Bytes.score(self, queries, codes))(seed), score_is_dot=False
        ),
    ),
    (kind.check_scan, scanned_by(Forgetful)),
    (kind.check_scan, scanned_by(Open)),
    (kind.check_scan, scanned_by(Padded)),
    (kind.check_scan, scanned_by(Wrong)),
    (kind.check_row_alone, instead(encode=shared)),
    (kind.check_deterministic, instead(fit=reseeded)),
    (kind.check_inputs_untouched, instead(encode=spoil)),
    (kind.check_float64, instead(encode=exact_type)),
    (kind.check_save_load, lambda seed: replace(good(seed), load=other)),
    (kind.check_bad_vectors_refused, instead(checked=repaired)),
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
