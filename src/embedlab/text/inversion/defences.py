"""What can be done to vectors before they are stored, so that less can be read from them, and at what price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.text.inversion.measures import Inverter, Leakage, checked, leakage

Vectors = NDArray[np.float64]


class Defence(Protocol):
    """Changes stored vectors, and queries so that search still works."""

    @property
    def name(self) -> str:
        """What it is called in reports, with its setting."""
        ...

    def protect(self, vectors: Vectors) -> Vectors:
        """Change vectors that will be stored, shape (N, D) -> (N, D)."""
        ...

    def query(self, vectors: Vectors) -> Vectors:
        """Change vectors that search among protected ones, shape (N, D) -> (N, D)."""
        ...


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Add normal noise to every number of a stored vector; queries stay as they are.

    Attributes:
        sigma: Standard deviation, at least 0. Unit vectors of D numbers get noise of length about ``sigma * sqrt(D)``.
        seed: Decides the noise.
    """

    sigma: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < np.inf:
            raise InputError(f"sigma={self.sigma}: must be at least 0")

    @property
    def name(self) -> str:
        """Name with the setting."""
        return f"noise {self.sigma:g}"

    def protect(self, vectors: Vectors) -> Vectors:
        """Add the noise, shape (N, D) -> (N, D)."""
        return vectors + self.sigma * np.random.default_rng(self.seed).normal(size=vectors.shape)

    def query(self, vectors: Vectors) -> Vectors:
        """Leave queries as they are."""
        return vectors


@dataclass(frozen=True, slots=True)
class Rounding:
    """Keep so many bits of each number, between the smallest and the largest number of its vector.

    Attributes:
        bits: Bits a number, 1 to 16.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise InputError(f"bits={self.bits}: must be from 1 to 16")

    @property
    def name(self) -> str:
        """Name with the setting."""
        return f"{self.bits} bits"

    def protect(self, vectors: Vectors) -> Vectors:
        """Round, shape (N, D) -> (N, D)."""
        low, high = vectors.min(axis=1, keepdims=True), vectors.max(axis=1, keepdims=True)
        step = np.maximum(high - low, 1e-12) / (2**self.bits - 1)
        rounded: Vectors = low + np.round((vectors - low) / step) * step
        return rounded

    def query(self, vectors: Vectors) -> Vectors:
        """Leave queries as they are."""
        return vectors


@dataclass(frozen=True, slots=True)
class Truncation:
    """Keep the first numbers of a vector and put 0 for the others.

    Attributes:
        dim: How many to keep, at least 1.
    """

    dim: int

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise InputError(f"dim={self.dim}: must be at least 1")

    @property
    def name(self) -> str:
        """Name with the setting."""
        return f"first {self.dim}"

    def protect(self, vectors: Vectors) -> Vectors:
        """Cut, shape (N, D) -> (N, D)."""
        return np.where(np.arange(vectors.shape[1]) < self.dim, vectors, 0.0)

    def query(self, vectors: Vectors) -> Vectors:
        """Cut queries the same way."""
        return self.protect(vectors)


@dataclass(frozen=True, slots=True)
class SecretRotation:
    """Turn all vectors by a rotation that only the key's owner can make: cosines stay, the axes are lost.

    An attacker who learns on unturned vectors gets nothing; one who can have texts of his own embedded and turned
    learns as if there were no rotation.

    Attributes:
        key: The secret.
    """

    key: int

    @property
    def name(self) -> str:
        """Name; the key stays secret."""
        return "secret rotation"

    def protect(self, vectors: Vectors) -> Vectors:
        """Turn, shape (N, D) -> (N, D)."""
        size = vectors.shape[1]
        axes, upper = np.linalg.qr(np.random.default_rng(self.key).normal(size=(size, size)))
        turned: Vectors = vectors @ (axes * np.sign(np.diag(upper)))  # signs make the rotation uniform
        return turned

    def query(self, vectors: Vectors) -> Vectors:
        """Turn queries the same way."""
        return self.protect(vectors)


@dataclass(frozen=True, slots=True)
class DefendedLeakage:
    """What leaks, and what search is worth, under one defence.

    Attributes:
        defence: Its name; ``"none"`` for vectors as they are.
        leakage: What the attacker recovered.
        utility: Share of the ten nearest protected vectors that are relevant, in [0, 1]; NaN without labels.
    """

    defence: str
    leakage: Leakage
    utility: float


def leakage_report(
    vectors: ArrayLike,
    texts: Sequence[str],
    *,
    inverter: Inverter,
    defences: Sequence[Defence] = (),
    labels: Sequence[Any] | None = None,
    encode: Callable[[Sequence[str]], NDArray[Any]] | None = None,
    top_k: int = 10,
) -> list[DefendedLeakage]:
    """Measure leakage and usefulness of vectors as they are and under each defence.

    The attacker has learnt on vectors without defence. Usefulness is search among the protected vectors with every text
    as a query: the share of the ``top_k`` nearest others that have the query's label.

    Args:
        vectors: Vectors of the texts.
        texts: What was embedded; none of them may have been learnt on.
        inverter: The fitted attack.
        defences: What to try.
        labels: For each text its class, which says what is relevant; None for no usefulness.
        encode: Embeds guesses, to compare them with ``vectors``; None for no cosine.
        top_k: How many nearest texts are looked at, from 1 to N - 1.

    Shape:
        vectors (N, D)

    Returns:
        One entry without defence, then one for each defence. Memory is O(N²) with labels.

    Raises:
        InputError: ``vectors`` do not fit the texts, labels have another length, or ``top_k`` is out of range.
    """
    rows = checked(vectors, texts)
    if labels is not None and len(labels) != len(rows):
        raise InputError(f"{len(labels)} labels for {len(rows)} texts: give one each")
    if labels is not None and not 1 <= top_k < len(rows):
        raise InputError(f"top_k={top_k}: must be from 1 to {len(rows) - 1}, one less than there are texts")
    classes = None if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
    report = []
    for defence in (None, *defences):
        stored = rows if defence is None else defence.protect(rows)
        queries = rows if defence is None else defence.query(rows)
        found = leakage(stored, texts, inverter=inverter, encode=encode)
        worth = float("nan") if classes is None else _precision(queries, stored, classes, top_k)
        report.append(DefendedLeakage("none" if defence is None else defence.name, found, worth))
    return report


def _precision(queries: Vectors, stored: Vectors, classes: NDArray[np.int64], top_k: int) -> float:
    scores = queries @ (stored / np.maximum(np.linalg.norm(stored, axis=1, keepdims=True), 1e-12)).T  # (N, N)
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]
    return float((classes[nearest] == classes[:, None]).mean())
