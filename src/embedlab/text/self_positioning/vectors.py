"""Task vectors: what training added to a model, read tensor by tensor, and the angles between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from embedlab._core.errors import InputError
from embedlab.text.self_positioning.weights import (
    Weights,
    check_fits,
    open_model,
    parameters_of,
    weights_of,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.text.self_positioning.weights import Model

_CHUNK = 1 << 20  # numbers of a vector that are looked at together in double precision


class TaskVector:
    """What training added to a model: ``V = theta_i - theta_0``, over all parameters, tied ones once.

    Nothing is stored: each tensor of V is subtracted when it is asked for, from weights in memory or from the
    safetensors files of a saved model, so many vectors of large models cost no memory beyond one tensor.

    Args:
        name: What to call it in reports.
        base: Weights at the start of training (paper: theta_0).
        model: Weights at its end (paper: theta_i).
        shapes: Parameter -> its shape.

    Attributes:
        name: As given.
        shapes: As given.
    """

    def __init__(self, name: str, base: Weights, model: Weights, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.name, self.shapes = name, dict(shapes)
        self._base, self._model = base, model

    @classmethod
    def from_models(cls, base: Model, model: Model, *, name: str | None = None) -> TaskVector:
        """Make the vector from where a training started to where it ended.

        Args:
            base: The start: a model, a folder or a hub name.
            model: The end, likewise. Weights of a folder stay in their files; a model in memory is referred to and must
                not be trained on while the vector is in use (that is noticed and refused).
            name: What to call it; by default the folder's name, or ``"model"``.

        Returns:
            The vector.

        Raises:
            InputError: the two differ in modules, settings, tokenizer, or in names or shapes of their parameters.
        """
        label = name or (Path(model).name if isinstance(model, str | Path) else "model")
        start, end = open_model(base), open_model(model)
        check_fits(start, end, label=label)
        shapes = {key: tuple(tensor.shape) for key, tensor in parameters_of(start).items()}
        return cls(label, weights_of(base, start, label="base"), weights_of(model, end, label=label), shapes)

    def tensor(self, name: str, *, dtype: torch.dtype | None = None) -> Tensor:
        """Subtract one tensor.

        Args:
            name: Name of the parameter, one of ``shapes``.
            dtype: Precision of the difference; float64 by default, in which differences of float32 are exact.

        Returns:
            The tensor of V, of the parameter's shape.
        """
        base, end = self._base.read(name), self._model.read(name)
        wide = dtype or torch.float64
        return end.to(base.device, wide) - base.to(wide)

    @cached_property
    def changed(self) -> frozenset[str]:
        """Names of the tensors that training changed; frozen ones cost nothing from then on."""
        return frozenset(
            name
            for name in self.shapes
            if not (end := self._model.read(name)).equal(self._base.read(name).to(end.device, end.dtype))
        )

    def norm(self) -> float:
        """Return the Euclidean length of the whole vector."""
        return math.sqrt(float(gram_matrix([self])[0, 0]))

    def angle(self, other: TaskVector) -> float:
        """Return the angle to another vector of the same base, in radians, in [0, pi]."""
        return float(angles(gram_matrix([self, other]))[0, 1])


def gram_matrix(vectors: Sequence[TaskVector], *, per_tensor: bool = False) -> Tensor:
    """Compute all inner products ``G_ij = <V_i, V_j>`` in double precision, in one pass over the vectors.

    Everything the merges on directions need is in this matrix; the vectors themselves are needed again only when the
    merged model is written. Cost: N reads and N^2 multiply-adds a parameter; memory of one tensor of each vector.

    Args:
        vectors: N vectors of the same base.
        per_tensor: Whether to keep the tensors apart.

    Shape:
        -> (N, N) float64, or (number of tensors, N, N) with ``per_tensor``, in the order of ``vectors[0].shapes``

    Returns:
        The matrix.

    Raises:
        InputError: there is no vector, or they are not of one base.
    """
    if not vectors:
        raise InputError("vectors: got none, at least one is needed")
    for vector in vectors[1:]:
        if vector.shapes != vectors[0].shapes:
            raise InputError(f"vectors: {vector.name!r} and {vectors[0].name!r} are not of models of the same shape")
    parts = []
    for name in vectors[0].shapes:
        part = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
        parts.append(part)
        if not any(name in vector.changed for vector in vectors):
            continue
        tensors = [vector.tensor(name, dtype=_exact(vector, name)).reshape(-1) for vector in vectors]
        for start in range(0, tensors[0].numel(), _CHUNK):
            rows = torch.stack([tensor[start : start + _CHUNK].double().cpu() for tensor in tensors])  # (N, chunk)
            part += rows @ rows.T
    stacked = torch.stack(parts)
    return stacked if per_tensor else stacked.sum(dim=0)


def angles(gram: Tensor) -> Tensor:
    """Turn inner products into angles.

    Args:
        gram: Inner products (..., N, N).

    Returns:
        Angles in radians (..., N, N); NaN where a vector is zero.
    """
    norms = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    return (gram / (norms[..., :, None] * norms[..., None, :])).clamp(-1.0, 1.0).arccos()


def vectors_of(
    base: SentenceTransformer, models: Mapping[str, Model] | Sequence[Model | TaskVector]
) -> list[TaskVector]:
    """Make the vectors of several models.

    Args:
        base: Where their trainings started.
        models: Models by name, or in a row; those without a name get a number. Vectors are taken as they are.

    Returns:
        The vectors, in order.
    """
    if isinstance(models, Mapping):
        return [TaskVector.from_models(base, model, name=name) for name, model in models.items()]
    made = []
    for number, model in enumerate(models, start=1):
        if isinstance(model, TaskVector):
            made.append(model)
        else:
            name = Path(model).name if isinstance(model, str | Path) else f"model {number}"
            made.append(TaskVector.from_models(base, model, name=name))
    return made


def _exact(vector: TaskVector, name: str) -> torch.dtype:
    """Single precision for large tensors, whose chunks are widened one by one; double for the rest."""
    return torch.float64 if math.prod(vector.shapes[name]) <= _CHUNK else torch.float32
