"""The recurrence that turns vectors into codes, in numpy: all that searching needs once training is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.search.codecs.uniform import STEPS, dequantise

Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.uint8]

RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Map:
    """A map ``x -> x direct + bias + relu(x inner + inner_bias) outer``; without hidden units, an affine one.

    Attributes:
        direct: Weights past the hidden units, (I, O).
        bias: Added at the end, (O,).
        inner: Weights into the H hidden units, (I, H); H may be 0.
        inner_bias: Added to the hidden units, (H,).
        outer: Weights out of the hidden units, (H, O).
    """

    direct: Floats
    bias: Floats
    inner: Floats
    inner_bias: Floats
    outer: Floats

    @classmethod
    def linear(cls, direct: NDArray[Any]) -> Map:
        """Make a map of weights alone.

        Args:
            direct: The weights (I, O).

        Returns:
            The map, without hidden units.
        """
        wide, narrow = direct.shape
        none = np.zeros((wide, 0), np.float32), np.zeros(0, np.float32), np.zeros((0, narrow), np.float32)
        return cls(np.ascontiguousarray(direct, np.float32), np.zeros(narrow, np.float32), *none)

    def __call__(self, rows: Floats) -> Floats:
        """Map rows (N, I) -> (N, O)."""
        out: Floats = rows @ self.direct + self.bias
        if len(self.inner_bias):
            out += np.maximum(rows @ self.inner + self.inner_bias, 0) @ self.outer
        return out


@dataclass(frozen=True, slots=True)
class Recurrence:
    """What a binariser has learned, and how it encodes.

    Attributes:
        first: From vectors to what the first signs are taken of. (paper: W)
        back: From the accumulated code back to vectors, one for each further round. (paper: B)
        residual: From what that reconstruction misses to what the next signs are taken of. (paper: R)
        gains: Length of the reconstruction in each further round (u,); 1 in the paper.
        decoder: The linear map from codes to the vectors they stand for, (m, D).
    """

    first: Map
    back: tuple[Map, ...]
    residual: tuple[Map, ...]
    gains: Floats
    decoder: Floats

    @property
    def bits(self) -> int:
        """Bits per dimension of the code, u + 1."""
        return 1 + len(self.back)

    @property
    def code_dim(self) -> int:
        """Dimensions m of the code."""
        return len(self.decoder)

    @classmethod
    def blank(cls, in_dim: int, code_dim: int, rounds: int, hidden: int) -> Recurrence:
        """Make a recurrence of zeros, to be filled.

        Args:
            in_dim: Width D of the vectors.
            code_dim: Dimensions m of the code.
            rounds: Signs per dimension beyond the first.
            hidden: Hidden units of every map.

        Returns:
            The recurrence.
        """

        def zeros(*shape: int) -> Floats:
            return np.zeros(shape, np.float32)

        def of(wide: int, narrow: int) -> Map:
            return Map(zeros(wide, narrow), zeros(narrow), zeros(wide, hidden), zeros(hidden), zeros(hidden, narrow))

        forth, back = of(in_dim, code_dim), of(code_dim, in_dim)
        return cls(forth, (back,) * rounds, (forth,) * rounds, zeros(rounds), zeros(code_dim, in_dim))

    def codes(self, rows: Floats) -> Codes:
        """Run the recurrence::

            b = sign(W f)
            b <- b + 2^-i sign(R_i(f - g_i normalize(B_i(b))))      for i = 1..u, with sign(0) = +1

        Args:
            rows: Unit vectors (N, D); in double precision a row has the same code in any company.

        Returns:
            Integers (N, m) in 0..2^(u+1)-1 whose bits are the signs, the first sign highest.
        """
        codes = (self.first(rows) >= 0).astype(np.uint8)
        for done, (back, residual, gain) in enumerate(zip(self.back, self.residual, self.gains, strict=True), 1):
            rebuilt = unit(back(values(codes, done).astype(rows.dtype)))
            codes = 2 * codes + (residual(rows - gain * rebuilt) >= 0)
        return codes

    def floats(self, rows: Floats) -> Floats:
        """Return what the first signs are taken of, at unit length: a query that is compared without binarising it.

        Args:
            rows: Unit vectors (N, D).

        Returns:
            Unit vectors (N, m) in the space of the codes.
        """
        return unit(self.first(rows))

    def decode(self, codes: Codes) -> Floats:
        """Return the vectors that codes stand for.

        Args:
            codes: Integers (N, m).

        Returns:
            Vectors (N, D).
        """
        return values(codes, self.bits) @ self.decoder

    def with_decoder(self, rows: Floats) -> Recurrence:
        """Fit the decoder to vectors by least squares.

        Args:
            rows: Unit vectors (N, D).

        Returns:
            The same recurrence with that decoder.
        """
        code = values(self.codes(rows), self.bits).astype(np.float64)
        gram = code.T @ code + RIDGE * len(rows) * np.eye(self.code_dim)
        decoder = np.linalg.solve(gram, code.T @ rows).astype(np.float32)
        return Recurrence(self.first, self.back, self.residual, self.gains, decoder)

    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays, for files and fingerprints."""
        maps = {"first": self.first}
        maps |= {f"back{i}": each for i, each in enumerate(self.back)}
        maps |= {f"residual{i}": each for i, each in enumerate(self.residual)}
        named = {f"{name}.{part.name}": getattr(each, part.name) for name, each in maps.items() for part in fields(Map)}
        return {**named, "gains": self.gains, "decoder": self.decoder}

    @classmethod
    def of(cls, parameters: Mapping[str, NDArray[Any]]) -> Recurrence:
        """Make a recurrence of what ``parameters`` has given.

        Args:
            parameters: Named arrays; others may be among them.

        Returns:
            The recurrence.

        Raises:
            KeyError: an array is missing.
        """

        def read(name: str) -> Map:
            return Map(*(parameters[f"{name}.{part.name}"] for part in fields(Map)))

        rounds = range(len(parameters["gains"]))
        back, residual = (tuple(read(f"{name}{i}") for i in rounds) for name in ("back", "residual"))
        return cls(read("first"), back, residual, parameters["gains"], parameters["decoder"])


def rotation_start(
    vectors: Floats, code_dim: int, rounds: int, *, seed: int = 0, old: Floats | None = None
) -> Recurrence:
    """Make the binariser that needs no training: a rotation, and the best uniform quantiser of its coordinates.

    For unit vectors ``normalize(Q^T sign(Q f))`` has coordinates of about +-sigma, the spread of a coordinate, which is
    just the threshold that two bits want. With fewer dimensions than the vectors have, it keeps their principal
    directions. The rotation is random, or the one that comes nearest to codes that are there already.

    Args:
        vectors: Unit vectors (N, D) like those to encode.
        code_dim: Dimensions m of the code.
        rounds: Signs per dimension beyond the first, 0 to 3. (paper: u)
        seed: Decides the rotation.
        old: Codes of the same items by another binariser, as sums of signs (N, m') with m' up to m.

    Returns:
        The recurrence.
    """
    q = _rotation(vectors, code_dim, np.random.default_rng(seed), old)  # (m, D)
    spread = float(np.sqrt(np.mean((vectors @ q.T) ** 2)))
    step = STEPS[rounds + 1] * 2 ** (rounds - 1)  # weight of the first sign in the best uniform quantiser
    maps = [Map.linear(q.T * 2**i / spread) for i in range(rounds + 1)]
    start = Recurrence(maps[0], (), (), np.zeros(0, np.float32), np.zeros((code_dim, vectors.shape[1]), np.float32))
    for done in range(1, rounds + 1):  # each gain puts the next threshold where that quantiser has it
        code = values(start.codes(vectors), done)
        rebuilt = np.sqrt(np.mean(np.sum((code @ q) ** 2, axis=1)))
        gain = step * spread * np.mean(np.sum(code**2, axis=1)) / rebuilt
        gains = np.append(start.gains, np.float32(gain))
        start = Recurrence(maps[0], (Map.linear(q),) * done, tuple(maps[1 : done + 1]), gains, start.decoder)
    return start.with_decoder(vectors)


def values(codes: Codes, bits: int) -> Floats:
    """Return the sums of signs that integers stand for, ``(2c - (L-1)) / 2^u`` with L = 2^bits.

    Args:
        codes: Integers (N, m) in 0..L-1.
        bits: Bits per dimension, u + 1.

    Returns:
        Sums (N, m), odd multiples of 2^-u below 2.

    Example:
        >>> values(np.arange(4, dtype=np.uint8), bits=2).tolist()
        [-1.5, -0.5, 0.5, 1.5]
    """
    return dequantise(codes, bits) / np.float32(2 ** (bits - 1))


def checked(name: str, vectors: ArrayLike, width: int) -> Floats:
    """Refuse what is no finite matrix of a width.

    Args:
        name: Name of the argument, for the message.
        vectors: What should be vectors (N, D).
        width: D.

    Returns:
        The vectors as float32.

    Raises:
        InputError: they are not.
    """
    rows = np.asarray(vectors)
    if rows.ndim != 2 or rows.shape[1] != width or rows.dtype.kind not in "fiu" or not len(rows):
        raise InputError(f"{name} of shape {rows.shape} must be numbers of shape (N, {width}), N at least 1")
    if not np.isfinite(rows).all():
        raise InputError(f"{name} hold values that are not finite: remove those rows")
    return np.asarray(rows, np.float32)


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    """Scale rows to unit length; zero rows stay zero.

    Args:
        rows: Vectors (N, D).

    Returns:
        Unit vectors (N, D).
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[Any] = rows / np.where(lengths > 0, lengths, 1)
    return scaled


def _rotation(vectors: Floats, code_dim: int, draw: np.random.Generator, old: Floats | None) -> NDArray[np.float64]:
    """Return Q (m, D) with orthonormal rows or, where m > D, columns."""
    dim = vectors.shape[1]
    square = np.linalg.qr(draw.standard_normal((max(code_dim, dim),) * 2))[0]
    if old is not None:
        left, _, right = np.linalg.svd(vectors.T.astype(np.float64) @ old, full_matrices=False)
        near = (left @ right).T  # (m', D): the rotation that brings the vectors nearest to the old codes
        rest = square[: code_dim - len(near), :dim]
        if code_dim <= dim and len(rest):
            rest = np.linalg.qr((rest - rest @ near.T @ near).T)[0].T
        return np.concatenate([near, rest])
    if code_dim < dim:
        principal = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)[1][:, ::-1][:, :code_dim]  # (D, m)
        return np.asarray(np.linalg.qr(draw.standard_normal((code_dim, code_dim)))[0] @ principal.T)
    return square[:, :dim]
