"""Kind ``codec``: vectors in few bytes, with ``fit``, ``encode``, ``decode``, ``score`` and a fast ``scanner``.

Promise: the stated bytes are the real bytes; the error is bounded; the scan finds what the scores say; saving and
loading is exact.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.testing.contract import (
    Contract,
    ContractViolation,
    Make,
    Refusal,
    check_refuses,
    demand,
    demand_close,
    frozen_copy,
    random_state_kept,
    same_bits,
)

Array = NDArray[Any]


class Codec(Protocol):
    """What a codec offers. ``codes`` is an array with one row per vector; a row is what would be stored."""

    @property
    def bytes_per_vector(self) -> int: ...

    def fit(self, vectors: Array) -> Any: ...
    def encode(self, vectors: Array) -> Array: ...
    def decode(self, codes: Array) -> Array: ...
    def score(self, queries: Array, codes: Array) -> Array: ...
    def scanner(self, codes: Array) -> Any: ...
    def save(self, path: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class CodecExample:
    """A codec with vectors.

    Attributes:
        codec: The codec, not yet fitted.
        vectors: Vectors (N, D) float32 to fit and to encode, N at least 16.
        queries: Vectors (Q, D) float32 to score them against, Q at least 2.
        max_error: Largest mean of ``|x - decode(encode(x))| / |x|`` that the example allows.
        load: Opens a codec that ``save`` has written.
        refuses: Bad values and what they must raise.
        score_is_dot: Whether ``score`` is the dot product of queries with decoded vectors; False for codecs that score
            in another way (Hamming distance between codes), whose ranking is then only checked for sense.
        scan_atol: Largest difference of the scan's scores from the exact ones that the example allows.
    """

    codec: Codec
    vectors: Array
    queries: Array
    max_error: float
    load: Callable[[Path], Codec]
    refuses: tuple[Refusal, ...]
    score_is_dot: bool = True
    scan_atol: float = 1e-4


def check_bytes(make: Make[CodecExample]) -> None:
    """A code takes as many bytes as stated, and fewer than the vector unless it is the vector to the last bit."""
    example = _fitted(make)
    codes, stated = example.codec.encode(example.vectors), example.codec.bytes_per_vector
    demand(len(codes) == len(example.vectors), f"{len(codes)} codes for {len(example.vectors)} vectors")
    real = codes.nbytes / len(codes)
    demand(real == stated, f"a code takes {real:g} bytes, {stated} are stated")
    smaller = stated < example.vectors.nbytes / len(codes)
    lossless = smaller or same_bits(example.codec.decode(codes), example.vectors)
    demand(lossless, "the codes are no smaller than the vectors, and are not the vectors either")


def check_error(make: Make[CodecExample]) -> None:
    """Decoding gives back the vectors within the stated error."""
    example = _fitted(make)
    decoded = example.codec.decode(example.codec.encode(example.vectors))
    demand(decoded.shape == example.vectors.shape, f"decoding gives shape {decoded.shape}")
    lengths = np.linalg.norm(example.vectors, axis=1)
    error = float(np.mean(np.linalg.norm(decoded - example.vectors, axis=1) / lengths))
    demand(error <= example.max_error, f"mean relative error {error:.4f}, at most {example.max_error} is stated")


def check_score(make: Make[CodecExample]) -> None:
    """Scores have shape (Q, N), larger is nearer: a vector is among the nearest to itself."""
    example = _fitted(make)
    codes = example.codec.encode(example.vectors)
    scores = example.codec.score(example.queries, codes)
    shape = (len(example.queries), len(codes))
    demand(scores.shape == shape, f"scores have shape {scores.shape}, expected {shape}")
    if example.score_is_dot:
        expected = example.queries @ example.codec.decode(codes).T
        demand_close(scores, expected, "scores against the dot product with decoded vectors", atol=1e-4, rtol=1e-4)
    units = example.vectors / np.linalg.norm(example.vectors, axis=1, keepdims=True)
    own = example.codec.score(units, example.codec.encode(units))
    rank = (own > np.diag(own)[:, None]).sum(axis=1).mean()
    demand(rank < len(own) / 4, f"a vector ranks {rank:.1f} others of {len(own)} above itself on average")


def check_scan(make: Make[CodecExample]) -> None:
    """The scan finds the rows with the best scores, among allowed ones too, and says so where there are fewer."""
    example = _fitted(make)
    codes = example.codec.encode(example.vectors)
    exact = example.codec.score(example.queries, codes)
    half = len(codes) // 2
    scanner = example.codec.scanner(codes[:half])
    scanner.add(codes[half:])
    demand(len(scanner) == len(codes), f"the scanner holds {len(scanner)} rows of {len(codes)}")
    odd = np.arange(len(codes)) % 2 == 1
    for allowed in (None, odd):
        among = exact if allowed is None else np.where(allowed, exact, -np.inf)
        scores, rows = scanner.search(example.queries, 5, allowed=allowed)
        demand(scores.shape == rows.shape == (len(exact), 5), f"scores {scores.shape} and rows {rows.shape}")
        demand(bool((np.diff(scores, axis=1) <= 0).all()), "the scan's scores do not fall")
        own = np.take_along_axis(among, rows, axis=1)
        demand_close(scores, own, "scores of the scan against the codec's own", atol=example.scan_atol)
        best = -np.sort(-among, axis=1)[:, :5]
        demand_close(own, best, "scores of the rows found against the best", atol=2 * example.scan_atol)
    scores, rows = scanner.search(example.queries, len(codes), allowed=odd)
    demand(bool((np.sort(rows[:, odd.sum() :]) == -1).all()), "rows beyond the allowed ones must be -1")
    demand(bool(np.isneginf(scores[rows < 0]).all()), "scores where there is no row must be -inf")


def check_row_alone(make: Make[CodecExample]) -> None:
    """One vector alone gives the code it has among many."""
    example = _fitted(make)
    rows = range(len(example.vectors))
    alone = np.concatenate([example.codec.encode(example.vectors[row : row + 1]) for row in rows])
    demand(same_bits(alone, example.codec.encode(example.vectors)), "codes differ when vectors come one by one")


def check_deterministic(make: Make[CodecExample]) -> None:
    """The same seed gives the same codes."""
    first, second = _fitted(make), _fitted(make)
    codes, again = (one.codec.encode(one.vectors) for one in (first, second))
    demand(same_bits(codes, again), "two codecs fitted with one seed give different codes")


def check_inputs_untouched(make: Make[CodecExample]) -> None:
    """Vectors, codes and the global random states are left as they were."""
    example = make(0)
    before = frozen_copy((example.vectors, example.queries))
    with random_state_kept("the codec"):
        example.codec.fit(example.vectors)
        codes = example.codec.encode(example.vectors)
        kept = codes.copy()
        example.codec.decode(codes)
        example.codec.score(example.queries, codes)
    demand(same_bits(before, frozen_copy((example.vectors, example.queries))), "the codec changed its input in place")
    demand(same_bits(kept, codes), "decoding or scoring changed the codes in place")


def check_float64(make: Make[CodecExample]) -> None:
    """Double-precision vectors give the same codes."""
    example = _fitted(make)
    double = example.codec.encode(example.vectors.astype(np.float64))
    demand(same_bits(double, example.codec.encode(example.vectors)), "float64 vectors give other codes than float32")


def check_save_load(make: Make[CodecExample]) -> None:
    """Saved and loaded, it gives the same codes, vectors and scores to the last bit."""
    example = _fitted(make)
    with tempfile.TemporaryDirectory() as folder:
        example.codec.save(Path(folder) / "codec")
        loaded = example.load(Path(folder) / "codec")
    codes, again = example.codec.encode(example.vectors), loaded.encode(example.vectors)
    demand(same_bits(codes, again), "a loaded codec gives other codes")
    demand(same_bits(example.codec.decode(codes), loaded.decode(codes)), "a loaded codec decodes otherwise")
    scores, later = (codec.score(example.queries, codes) for codec in (example.codec, loaded))
    demand(same_bits(scores, later), "a loaded codec scores otherwise")


def check_bad_vectors_refused(make: Make[CodecExample]) -> None:
    """NaN, another width, and encoding before fitting are refused."""
    example = _fitted(make)
    spoiled = example.vectors.copy()
    spoiled[0, 0] = np.nan
    unfitted = make(0).codec
    calls: dict[str, Callable[[], object]] = {
        "NaN": lambda: example.codec.encode(spoiled),
        "NaN in fit": lambda: unfitted.fit(spoiled),
        "another width": lambda: example.codec.encode(example.vectors[:, :-1]),
        "encoding before fit": lambda: make(0).codec.encode(example.vectors),
    }
    for what, call in calls.items():
        try:
            call()
        except InputError:
            continue
        except Exception as error:
            raise ContractViolation(f"{what}: {type(error).__name__} instead of InputError: {error}") from error
        raise ContractViolation(f"{what}: accepted instead of refused with InputError")


def _fitted(make: Make[CodecExample]) -> CodecExample:
    example = make(0)
    example.codec.fit(example.vectors)
    return example


CONTRACT = Contract(
    "codec",
    CodecExample,
    (
        check_bytes,
        check_error,
        check_score,
        check_scan,
        check_row_alone,
        check_deterministic,
        check_inputs_untouched,
        check_float64,
        check_save_load,
        check_bad_vectors_refused,
        check_refuses,
    ),
)
