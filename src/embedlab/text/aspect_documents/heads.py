"""Small networks from a frozen vector to its vector in one aspect: numpy alone, saved with a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import EmbedlabError, InputError, unknown_name
from embedlab.text.aspect_documents.names import check_aspect

Floats = NDArray[np.float32]
Activation = Literal["relu", "tanh"]

FORMAT = 1
_BLOCK = 8192  # rows at once: hidden layers of all documents need not fit in memory
_HEADER = "embedlab"


class AspectHeadsError(EmbedlabError):
    """Saved heads are damaged, of another version, or belong to another model."""


@dataclass(frozen=True, slots=True)
class AspectHead:
    """A network over vectors, and unit length at the end; the zero row stays zero.

    ``f(v) = [v +] W_n act(... act(W_1 v + b_1) ...) + b_n``, with ``v +`` if residual and ``act`` also behind the last
    layer if ``last_activation``.

    Args:
        weights: Matrices W_1 ... W_n, each (out, in).
        biases: Vectors b_1 ... b_n, each (out,).
        activation: ``"relu"`` or ``"tanh"``.
        last_activation: Whether the last layer has it too. (the paper's retrofitting network does)
        residual: Whether the vector itself is added to what the layers give.

    Raises:
        InputError: shapes do not fit each other, or values are not finite.

    Example:
        >>> turn = AspectHead((np.array([[0.0, -1.0], [1.0, 0.0]]),), (np.zeros(2),))
        >>> turn([[3.0, 0.0], [0.0, 0.0]]).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    activation: Activation = "relu"
    last_activation: bool = False
    residual: bool = False

    def __post_init__(self) -> None:
        if self.activation not in get_args(Activation):
            raise unknown_name("activation", self.activation, get_args(Activation))
        widths = [self.weights[0].shape[1], *(len(each) for each in self.weights)] if self.weights else []
        shapes = [(out, into) for into, out in pairwise(widths)]
        found = [np.shape(each) for each in self.weights]
        if not widths or found != shapes or [np.shape(b) for b in self.biases] != [(n,) for n in widths[1:]]:
            raise InputError(f"weights of shapes {found} do not follow each other, or their biases do not fit")
        if self.residual and widths[0] != widths[-1]:
            raise InputError(f"residual: the last layer gives {widths[-1]} numbers, the vector has {widths[0]}")
        if not all(np.isfinite(each).all() for each in (*self.weights, *self.biases)):
            raise InputError("weights: some are not finite, so the training went wrong: lower its learning rate")
        for name in ("weights", "biases"):
            single = tuple(np.asarray(each, np.float32) for each in getattr(self, name))
            object.__setattr__(self, name, single)

    @property
    def dim(self) -> int:
        """Width of the vectors it takes."""
        return int(self.weights[0].shape[1])

    @property
    def dim_out(self) -> int:
        """Width of the vectors it gives."""
        return len(self.biases[-1])

    def __call__(self, vectors: ArrayLike) -> Floats:
        """Return the vectors in this aspect.

        Args:
            vectors: Vectors of the model that the head belongs to.

        Shape:
            vectors (N, D) -> (N, d) float32

        Returns:
            Unit rows; zero rows stay zero.

        Raises:
            InputError: the width is another.
        """
        rows = np.asarray(vectors, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(
                f"vectors of shape {rows.shape} do not fit: (N, {self.dim}) of the head's model are needed"
            )
        found = np.empty((len(rows), self.dim_out), np.float32)
        for start in range(0, len(rows), _BLOCK):
            found[start : start + _BLOCK] = self._block(rows[start : start + _BLOCK])
        return found

    def _block(self, rows: Floats) -> Floats:
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = rows / np.where(lengths > 0, lengths, 1)  # heads were trained on unit rows
        hidden = unit
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), start=1):
            hidden = hidden @ weight.T + bias
            if place < len(self.weights) or self.last_activation:
                hidden = np.tanh(hidden) if self.activation == "tanh" else np.maximum(hidden, 0)
        hidden = hidden + unit if self.residual else hidden
        sizes = np.linalg.norm(hidden, axis=1, keepdims=True)
        return np.asarray(np.where(lengths > 0, hidden / np.where(sizes > 0, sizes, 1), 0), np.float32)


@dataclass(frozen=True, slots=True)
class AspectHeads:
    """The heads of several aspects, all on the vectors of one model.

    Args:
        heads: Head of each aspect.
        fingerprint: Fingerprint of the model.
        about: What is known of each aspect, such as how it was trained and how well it does; ready for JSON.

    Raises:
        InputError: there is no head, a name is not allowed, or heads take vectors of different widths.
    """

    heads: Mapping[str, AspectHead]
    fingerprint: str
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.heads:
            raise InputError("heads: none given; at least one aspect is needed")
        for name in self.heads:
            check_aspect(name)
        if len({head.dim for head in self.heads.values()}) > 1:
            raise InputError("heads: they take vectors of different widths, so they are not of one model")

    @property
    def dim(self) -> int:
        """Width of the vectors they take."""
        return next(iter(self.heads.values())).dim

    def to_bytes(self) -> bytes:
        """Return the heads as one safetensors file, with a checksum over all that is in it."""
        from safetensors.numpy import save

        tensors, shapes = {}, {}
        for name, head in self.heads.items():
            shapes[name] = [head.activation, head.last_activation, head.residual, len(head.weights)]
            for place, (weight, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
                tensors[f"{name}/{place}/weight"] = np.ascontiguousarray(weight)
                tensors[f"{name}/{place}/bias"] = np.ascontiguousarray(bias)
        header = {"format": FORMAT, "fingerprint": self.fingerprint, "heads": shapes, "about": dict(self.about)}
        text = json.dumps(header)
        return bytes(save(tensors, {_HEADER: text, "checksum": _checksum(text, tensors)}))

    @classmethod
    def from_bytes(cls, data: bytes, *, fingerprint: str | None = None, where: str = "these bytes") -> AspectHeads:
        """Read what ``to_bytes`` has written.

        Args:
            data: The file.
            fingerprint: Fingerprint of the model at hand; None takes whatever the heads belong to.
            where: What the file is called in messages.

        Returns:
            The heads.

        Raises:
            AspectHeadsError: the file is damaged, of a newer version, or its heads belong to another model.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            size = int.from_bytes(data[:8], "little")
            meta = json.loads(data[8 : 8 + size])["__metadata__"]
            tensors = load(data)
            header = json.loads(meta[_HEADER])
            if header["format"] > FORMAT:
                raise AspectHeadsError(
                    f"{where} has format {header['format']}, this embedlab knows up to {FORMAT}: upgrade it"
                )
            if meta["checksum"] != _checksum(meta[_HEADER], tensors):
                raise ValueError("the checksum differs")
            heads = {name: _head(name, shape, tensors) for name, shape in header["heads"].items()}
            found = cls(heads, header["fingerprint"], header["about"])
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AspectHeadsError(
                f"{where} is damaged ({error}): train the aspects again with `embedlab aspects`"
            ) from error
        if fingerprint is not None and found.fingerprint != fingerprint:
            raise AspectHeadsError(
                f"{where} belongs to model {found.fingerprint}, but the model is {fingerprint}, and heads fit no other "
                "model's vectors: train the aspects again with `embedlab aspects`"
            )
        return found


def _head(name: str, shape: list[Any], tensors: Mapping[str, Floats]) -> AspectHead:
    activation, last, residual, count = shape
    layers = [(tensors[f"{name}/{n}/weight"], tensors[f"{name}/{n}/bias"]) for n in range(count)]
    return AspectHead(tuple(w for w, _ in layers), tuple(b for _, b in layers), activation, last, residual)


def _checksum(header: str, tensors: Mapping[str, Floats]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} ".encode() + tensors[name].tobytes())
    return digest.hexdigest()
