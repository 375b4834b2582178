"""Writing a merged model: the start plus one vector made of several, tensor by tensor."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab.text.self_positioning.fold import FOLDS, coefficients
from embedlab.text.self_positioning.vectors import TaskVector, gram_matrix
from embedlab.text.self_positioning.weights import parameters_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    Combine = Callable[[str, list[Tensor]], Tensor]  # name, one tensor of each vector -> merged tensor

METHODS = (*FOLDS, "ties", "fisher", "regmean")
GRANULARITIES = ("global", "per_tensor")


def merge_task_vectors(
    base: SentenceTransformer,
    vectors: Sequence[TaskVector],
    *,
    method: str = "slerp",
    weights: Sequence[float] | None = None,
    scale: float = 1.0,
    granularity: str = "global",
    density: float = 0.2,
    statistics: Sequence[Mapping[str, Tensor]] | None = None,
    shrinkage: float = 0.9,
) -> SentenceTransformer:
    """Merge what several trainings added to one model into one model that can do all of it.

    Each training from the same start theta_0 gives a task vector V_i. They are merged into one, V_m, and

        theta = theta_0 + lambda V_m

    * ``average``, ``slerp``, ``barycentric``: see ``coefficients``. Only ``slerp`` depends on the order of the vectors.
    * ``ties``: of each vector the largest ``density`` of all entries stay; each entry's sign is elected by the sum;
      entries of that sign are averaged.
    * ``fisher``: ``V_m[k] = sum_i a_i F_i[k] V_i[k] / sum_i a_i F_i[k]``; F_i from ``fisher_information``.
    * ``regmean``: per linear layer ``(sum_i a_i G_i)^-1 sum_i a_i G_i V_i``, whose outputs are nearest to those of all
      models on their own inputs; everything else is averaged. G_i from ``input_moments``.

    Memory: the base, the result and one tensor of each vector in double precision; ``ties`` also one whole vector in
    single precision, one after the other. Buffers are the base's.

    Args:
        base: The start; it stays as it is. (paper: theta_0)
        vectors: Task vectors of models trained from it; one is allowed and comes back as its model. (paper: V_i)
        method: ``"average"``, ``"slerp"``, ``"barycentric"``, ``"ties"``, ``"fisher"`` or ``"regmean"``.
        weights: Weight of each vector, at least 0; all 1 by default. (paper: a)
        scale: Multiplies the merged vector; 1 leaves its length, 0 gives the base. (paper: lambda)
        granularity: ``"global"``: one angle over all parameters; ``"per_tensor"``: an angle for each tensor. For slerp
            and barycentric.
        density: Fraction of entries that ``ties`` keeps, in (0, 1].
        statistics: What ``fisher_information`` or ``input_moments`` gave for each model, in the order of the vectors.
        shrinkage: Factor on the off-diagonal of G_i in ``regmean``, in [0, 1]; below 1 keeps it solvable.

    Returns:
        A new model of the base's precision, on its device, in evaluation mode, which saves and loads like any other.

    Raises:
        InputError: no vector, a vector that is not of this base's shape or is zero, statistics missing, or an option
            out of range.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> base, one, two = (tiny_encoder(["a cat sat"], seed=seed) for seed in (0, 1, 2))
        >>> vectors = [TaskVector.from_models(base, one), TaskVector.from_models(base, two)]
        >>> merge_task_vectors(base, vectors, method="slerp", weights=[3, 1]).encode("a cat").shape
        (32,)

    References:
        Li et al. (2024), Improving General Text Embedding Model: Tackling Task Conflict and Data Imbalance through
        Model Merging, arXiv:2410.15035v1, section 4. TIES: Yadav et al. (2023), arXiv:2306.01708v2. Fisher: Matena and
        Raffel (2022), arXiv:2111.09832v2. RegMean: Jin et al. (2023), arXiv:2212.09849v4.
        No official code; ``METHOD["deviations"]`` says where this differs.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if not math.isfinite(scale):
        raise InputError(f"scale={scale}: expected a finite number; 0 gives the base")
    check_vectors(base, vectors)
    shares = checked_weights(weights, len(vectors))
    if method in FOLDS:
        check_granularity(granularity)
        gram = finite_gram(vectors, per_tensor=granularity == "per_tensor")
        return write(base, vectors, coefficients(gram, torch.tensor(shares, dtype=torch.float64), method=method), scale)
    if method == "ties":
        return _write(base, vectors, _ties(vectors, shares, density), scale)
    given = _checked_statistics(method, vectors, statistics)
    return _write(
        base, vectors, _fisher(given, shares) if method == "fisher" else _regmean(given, shares, shrinkage), scale
    )


def write(
    base: SentenceTransformer, vectors: Sequence[TaskVector], shares: Tensor, scale: float
) -> SentenceTransformer:
    """Write ``theta_0 + lambda sum_i c_i V_i`` into a copy of the base.

    Args:
        base: The base; it stays as it is.
        vectors: N vectors.
        shares: Coefficients c, (N,) or (tensors, N).
        scale: Lambda.

    Returns:
        The merged model.
    """
    rows = shares.detach().expand(len(vectors[0].shapes), -1)
    row = dict(zip(vectors[0].shapes, rows.tolist(), strict=True))

    def combine(name: str, tensors: list[Tensor]) -> Tensor:
        merged: Tensor = row[name][0] * tensors[0]
        for share, tensor in zip(row[name][1:], tensors[1:], strict=True):
            merged.add_(tensor, alpha=share)
        return merged

    return _write(base, vectors, combine, scale)


def check_vectors(base: SentenceTransformer, vectors: Sequence[TaskVector]) -> None:
    """Refuse what cannot be merged: no vector, one of a model of another shape, or one that is zero.

    Args:
        base: The base.
        vectors: The vectors.

    Raises:
        InputError: as said above.
    """
    if not vectors:
        raise InputError("vectors: got none, at least one is needed")
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters_of(base).items()}
    for vector in vectors:
        if vector.shapes != shapes:
            wrong = sorted({name for name, _ in vector.shapes.items() ^ shapes.items()})
            raise InputError(f"vectors: {vector.name!r} was not made from this base: {wrong[0]} differs")
        if not vector.changed:
            raise InputError(f"vectors: {vector.name!r} is zero: its model equals the base, so leave it out")


def checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Return one weight per vector.

    Args:
        weights: As given; None for 1 each.
        count: Number of vectors.

    Returns:
        The weights.

    Raises:
        InputError: another number of weights, or one that is negative or not finite, or all are 0.
    """
    shares = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(shares) != count or not all(math.isfinite(share) and share >= 0 for share in shares) or not sum(shares) > 0:
        raise InputError(f"weights={shares}: expected {count} finite numbers, at least 0 and not all 0")
    return shares


def check_granularity(granularity: str) -> None:
    """Refuse an unknown granularity.

    Args:
        granularity: As given.

    Raises:
        InputError: it is unknown.
    """
    if granularity not in GRANULARITIES:
        raise unknown_name("granularity", granularity, GRANULARITIES)


def finite_gram(vectors: Sequence[TaskVector], *, per_tensor: bool) -> Tensor:
    """Compute inner products, and refuse a vector that holds what is not a number.

    Args:
        vectors: N vectors.
        per_tensor: Whether to keep the tensors apart.

    Returns:
        As ``gram_matrix``.

    Raises:
        InputError: a vector holds NaN or infinite numbers.
    """
    gram = gram_matrix(vectors, per_tensor=per_tensor)
    lengths = gram.diagonal(dim1=-2, dim2=-1).reshape(-1, len(vectors)).sum(dim=0)
    for vector, length in zip(vectors, lengths.tolist(), strict=True):
        if not math.isfinite(length):
            raise InputError(f"vectors: {vector.name!r} holds NaN or infinite numbers: its training went astray")
    return gram


def _write(
    base: SentenceTransformer, vectors: Sequence[TaskVector], combine: Combine, scale: float
) -> SentenceTransformer:
    merged = copy.deepcopy(base)
    with torch.no_grad():
        for name, parameter in parameters_of(merged).items():
            if not any(name in vector.changed for vector in vectors):
                continue
            change = combine(name, [vector.tensor(name).to(parameter.device) for vector in vectors])
            # in double precision, and rounded once: one vector with weight 1 gives back its model to the last bit
            parameter.copy_(parameter.double() + scale * change)
    return merged.eval()


def _ties(vectors: Sequence[TaskVector], shares: Sequence[float], density: float) -> Combine:
    """Trim each vector as a whole, then elect signs and average what agrees, by the host's functions."""
    host = require("peft.utils.merge_utils", extra="train")
    if not 0 < density <= 1:
        raise InputError(f"density={density}: expected a fraction in (0, 1]; published 0.2")
    bars = []
    for vector in vectors:
        sizes = torch.cat([vector.tensor(name, dtype=torch.float32).abs().flatten() for name in sorted(vector.changed)])
        kept = max(1, math.ceil(density * len(sizes)))
        bars.append(float(sizes.kthvalue(len(sizes) - kept + 1).values))

    def combine(name: str, tensors: list[Tensor]) -> Tensor:
        large = [
            torch.where(tensor.float().abs() >= bar, tensor, 0.0) for tensor, bar in zip(tensors, bars, strict=True)
        ]
        trimmed = torch.stack([share * tensor for share, tensor in zip(shares, large, strict=True)])
        agreeing = host.calculate_majority_sign_mask(trimmed, method="total")
        merged: Tensor = host.disjoint_merge(trimmed, agreeing)
        return merged

    return combine


def _fisher(statistics: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> Combine:

    def combine(name: str, tensors: list[Tensor]) -> Tensor:
        above = torch.zeros_like(tensors[0])
        below, plain = torch.zeros_like(above), torch.zeros_like(above)
        for share, found, tensor in zip(shares, statistics, tensors, strict=True):
            information = found[name].to(tensor) if name in found else torch.zeros_like(tensor)
            above += share * information * tensor
            below += share * information
            plain += share * tensor / sum(shares)
        # where no model's loss depends on an entry there is nothing to weigh by
        return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), plain)

    return combine


def _regmean(statistics: Sequence[Mapping[str, Tensor]], shares: Sequence[float], shrinkage: float) -> Combine:
    if not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage={shrinkage}: expected a factor in [0, 1]; published 0.9")

    def combine(name: str, tensors: list[Tensor]) -> Tensor:
        if not all(name in found for found in statistics):  # not the weight of a linear layer
            parts = [share * tensor for share, tensor in zip(shares, tensors, strict=True)]
            return torch.stack(parts).sum(dim=0) / sum(shares)
        below = torch.zeros(tensors[0].shape[1], tensors[0].shape[1], dtype=torch.float64)  # (in, in)
        above = torch.zeros(tensors[0].shape[::-1], dtype=torch.float64)  # (in, out)
        for share, found, tensor in zip(shares, statistics, tensors, strict=True):
            moment = found[name].double().cpu()
            moment = shrinkage * moment + (1 - shrinkage) * moment.diagonal().diag()
            below += share * moment
            above += share * moment @ tensor.cpu().T
        # inputs that never fire would leave it singular: a trace of the average decides them
        trace = 1e-8 * below.diagonal().mean().clamp(min=1e-30)
        mean = sum((share * t.cpu().T for share, t in zip(shares, tensors, strict=True)), torch.zeros_like(above))
        below += trace * torch.eye(len(below), dtype=torch.float64)
        above += trace * mean / sum(shares)
        merged: Tensor = torch.linalg.solve(below, above).T.to(tensors[0].device)
        return merged

    return combine


def _checked_statistics(
    method: str, vectors: Sequence[TaskVector], statistics: Sequence[Mapping[str, Tensor]] | None
) -> Sequence[Mapping[str, Tensor]]:
    source = "fisher_information" if method == "fisher" else "input_moments"
    if statistics is None or len(statistics) != len(vectors):
        got = "none" if statistics is None else str(len(statistics))
        raise InputError(f"statistics: {method!r} needs one per vector ({len(vectors)}), got {got}: see {source}")
    for vector, found in zip(vectors, statistics, strict=True):
        shapes = {key: tuple(value.shape) for key, value in found.items()}
        wanted = {
            key: shape if method == "fisher" else (shape[-1],) * 2
            for key, shape in vector.shapes.items()
            if key in shapes
        }
        if not shapes or shapes != wanted:
            raise InputError(f"statistics: those for {vector.name!r} do not fit its parameters: make them by {source}")
    return statistics
