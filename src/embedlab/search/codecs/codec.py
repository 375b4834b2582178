"""The one contract of all codecs: vectors to rows of bytes and back, their scores, and an exhaustive scan over them.

A codec is a subclass of ``Codec`` with a ``name``. It says what it learns (``_learn``), how it stores (``_encode``) and
reads (``_decode``); checks, scores, a plain scan, fingerprints and files are here. A subclass is known by name once its
module is imported; the modules beside this one and the methods of kind ``codec`` are imported when asked for.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import EmbedlabError, InputError

Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.uint8]
Rows: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Parameters: TypeAlias = dict[str, NDArray[Any]]


class CodecError(EmbedlabError):
    """A codec or its codes are damaged, of another kind, version or setting, or were made by another codec."""


class Scanner(Protocol):
    """An exhaustive scan over codes held in memory; rows are numbered in the order of adding."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def add(self, codes: Codes) -> None:
        """Append rows.

        Args:
            codes: Codes (N, B) of the same codec.
        """
        ...

    def search(
        self, queries: ArrayLike, top_k: int, *, allowed: Mask | None = None, threads: int | None = None
    ) -> tuple[Floats, Rows]:
        """Find the nearest rows of each query.

        Args:
            queries: Vectors (Q, D).
            top_k: Number of rows to return, at least 1.
            allowed: Which rows may be returned (N,); all by default.
            threads: Most threads to use; as many as the process may by default.

        Returns:
            Scores (Q, top_k), larger is nearer, in falling order, and their rows (Q, top_k). Where fewer rows are
            allowed the rest is -inf and -1.
        """
        ...


class Codec(ABC):
    """Stores vectors as rows of bytes.

    A subclass gives ``name``, passes its own settings (all of them keywords of its constructor, of types that JSON
    keeps) to this constructor, and writes ``_learn``, ``_encode`` and ``_decode``. What ``_learn`` returns is all that
    is learned: it becomes ``parameters``, is saved, and decides the fingerprint; ``_prepare`` runs whenever it is set.

    Args:
        dim: Width D of the vectors, at least 1.
        bytes_per_vector: Bytes B of one row of codes.
        seed: Decides everything random.
        settings: The other keywords of the subclass's constructor, as it needs them again.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1  # of the stored form: raise it when old codes or parameters would mean something else
    learns_from_pairs: ClassVar[bool] = False  # whether fitting uses pairs, which must be made first

    def __init__(self, dim: int, *, bytes_per_vector: int, seed: int = 0, **settings: Any) -> None:
        if not isinstance(dim, int | np.integer) or dim < 1:
            raise InputError(f"dim={dim!r} must be a whole number from 1 on: the width of the vectors")
        self.dim = int(dim)
        self.bytes_per_vector = bytes_per_vector
        self.seed = seed
        self.settings: dict[str, Any] = {"seed": seed, **settings}
        self.parameters: Parameters = {}
        self.fingerprint = ""

    def fit(
        self,
        vectors: ArrayLike,
        *,
        pairs: tuple[ArrayLike, ArrayLike] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Learn from vectors what encoding needs.

        Args:
            vectors: Vectors (N, D) like those to encode.
            pairs: Vectors of related items, row by row, two times (P, D); plain codecs ignore them.
            on_progress: Called with the share done, in [0, 1].

        Returns:
            The codec.

        Raises:
            InputError: vectors are no finite matrix of width D, or too few.
        """
        rows = self._checked("vectors", vectors)
        both = None if pairs is None else (self._checked("pairs[0]", pairs[0]), self._checked("pairs[1]", pairs[1]))
        if both is not None and len(both[0]) != len(both[1]):
            raise InputError(f"pairs have {len(both[0])} and {len(both[1])} rows: row i of both must belong together")
        self._adopt(self._learn(rows, both, on_progress))
        return self

    def encode(self, vectors: ArrayLike) -> Codes:
        """Turn vectors into codes.

        Args:
            vectors: Vectors (N, D).

        Returns:
            Codes (N, B); a row depends on its own vector alone.

        Raises:
            InputError: the codec is not fitted, or vectors are no finite matrix of width D.
        """
        self._demand_fitted()
        rows = self._checked("vectors", vectors)
        codes = np.empty((len(rows), self.bytes_per_vector), np.uint8)
        for part in blocks(len(rows), 4 * self.dim):
            codes[part] = self._encode(rows[part])
        return codes

    def decode(self, codes: Codes) -> Floats:
        """Turn codes back into vectors.

        Args:
            codes: Codes (N, B).

        Returns:
            The nearest vectors (N, D) that the codes can express.

        Raises:
            InputError: the codec is not fitted.
            CodecError: these are no codes of this codec.
        """
        return self._decode(self.checked_codes(codes))

    def score(self, queries: ArrayLike, codes: Codes) -> Floats:
        """Score every query with every code, exactly and slowly.

        Args:
            queries: Vectors (Q, D).
            codes: Codes (N, B).

        Returns:
            Scores (Q, N), larger is nearer: the dot product with the decoded vectors, unless the codec says otherwise.

        Raises:
            InputError: the codec is not fitted, or queries are no finite matrix of width D.
            CodecError: these are no codes of this codec.
        """
        codes, rows = self.checked_codes(codes), self._checked("queries", queries)
        scores = np.empty((len(rows), len(codes)), np.float32)
        for part in blocks(len(codes), 4 * self.dim):
            scores[:, part] = self._score(rows, codes[part])
        return scores

    def scanner(self, codes: Codes) -> Scanner:
        """Make the fast exhaustive scan over codes.

        Args:
            codes: Codes (N, B), also memory-mapped.

        Returns:
            The scanner, which holds about N * B bytes.

        Raises:
            InputError: the codec is not fitted.
            CodecError: these are no codes of this codec.
        """
        from embedlab.search.codecs.scanning import DecodingScanner

        return DecodingScanner(self, self.checked_codes(codes))

    def save(self, folder: str | Path) -> None:
        """Write settings and parameters to a folder, in one step.

        Args:
            folder: The folder; one that is there is replaced.

        Raises:
            InputError: the codec is not fitted.
        """
        from embedlab.search.codecs.files import write_codec

        self._demand_fitted()
        write_codec(self, Path(folder))

    def checked_codes(self, codes: Codes) -> Codes:
        """Return codes if they can be this codec's.

        Args:
            codes: What should be codes.

        Returns:
            The same array.

        Raises:
            InputError: the codec is not fitted.
            CodecError: they are no bytes, or rows of another length.
        """
        self._demand_fitted()
        array = np.asanyarray(codes)
        if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != self.bytes_per_vector:
            raise CodecError(
                f"codes are {array.dtype} of shape {array.shape}: the {self.name} codec for {self.dim} dimensions "
                f"stores uint8 of shape (N, {self.bytes_per_vector}); were they made by a codec with other settings?"
            )
        return array

    def checked_queries(self, queries: ArrayLike) -> Floats:
        """Return queries as float32.

        Args:
            queries: Vectors (Q, D).

        Returns:
            The same numbers.

        Raises:
            InputError: they are no finite matrix of width D.
        """
        return self._checked("queries", queries)

    @abstractmethod
    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        """Return what encoding needs; an empty dict if nothing is learned."""

    @abstractmethod
    def _encode(self, vectors: Floats) -> Codes:
        """Encode one block (n, D) of checked vectors."""

    @abstractmethod
    def _decode(self, codes: Codes) -> Floats:
        """Decode checked codes (n, B)."""

    def _score(self, queries: Floats, codes: Codes) -> Floats:
        """Score checked queries (Q, D) with checked codes (n, B)."""
        return queries @ self._decode(codes).T

    def _prepare(self) -> None:  # noqa: B027 - most codecs need nothing beside their parameters
        """Make what follows from ``parameters``; called after fitting and after loading."""

    def _adopt(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        self.parameters = {key: np.ascontiguousarray(array) for key, array in sorted(parameters.items())}
        self._prepare()
        digest = hashlib.sha256(json.dumps([self.name, self.version, self.dim, self.settings], sort_keys=True).encode())
        for key, array in self.parameters.items():
            digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
        self.fingerprint = f"{self.name}:{digest.hexdigest()[:16]}"

    def _checked(self, what: str, vectors: ArrayLike) -> Floats:
        rows = np.asarray(vectors)
        if rows.ndim != 2 or rows.shape[1] != self.dim or rows.dtype.kind not in "fiu":
            raise InputError(f"{what} of shape {rows.shape} ({rows.dtype}) must be numbers of shape (N, {self.dim})")
        rows = np.ascontiguousarray(rows, np.float32)
        if not np.isfinite(rows).all():
            raise InputError(f"{what} hold values that are not finite (NaN or too large): remove those rows")
        return rows

    def _demand_fitted(self) -> None:
        if not self.fingerprint:
            raise InputError(f"the {self.name} codec is not fitted: call fit(vectors) first")


def blocks(count: int, bytes_each: int, *, budget_bytes: int = 1 << 24) -> list[slice]:
    """Cut rows into blocks that fit into a budget of memory.

    Args:
        count: Number of rows.
        bytes_each: Bytes that one row takes while worked on.
        budget_bytes: Bytes that one block may take.

    Returns:
        Slices that cover all rows in order.

    Example:
        >>> blocks(5, 10, budget_bytes=20)
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, budget_bytes // max(1, bytes_each))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def load_codec(folder: str | Path) -> Codec:
    """Open a codec that ``save`` has written.

    Args:
        folder: The folder.

    Returns:
        The codec, the same to the last bit.

    Raises:
        CodecError: the folder is missing, damaged, of a later version, or of a codec that is not known here.
    """
    from embedlab.search.codecs.files import read_codec

    return read_codec(Path(folder))


def make_codec(name: str, dim: int, *, bits: float | None = None, **settings: Any) -> Codec:
    """Make a codec by name.

    Args:
        name: One of ``codec_names()``.
        dim: Width of the vectors.
        bits: Bits per dimension, for codecs that let one choose; their own default otherwise.
        settings: Other settings of that codec.

    Returns:
        The codec, not yet fitted.

    Raises:
        InputError: there is no such codec (the message suggests the nearest), or it has no such setting.

    Example:
        >>> make_codec("int8", 384).bytes_per_vector
        384
    """
    from embedlab.search.codecs.registry import build

    return build(name, dim, settings if bits is None else {"bits": bits, **settings})


def codec_names() -> list[str]:
    """List the codecs that ``make_codec`` knows.

    Returns:
        Their names, sorted.
    """
    from embedlab.search.codecs.registry import known

    return sorted(known())
