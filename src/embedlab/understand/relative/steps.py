"""The steps of the projection in torch: quantisation that lets the gradient through, similarities, normalisation."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from embedlab._core.errors import InputError
from embedlab.understand.relative.coordinates import LAYER_EPSILON

Quantization: TypeAlias = Literal["round", "smooth", "cluster"]
OutputNormalization: TypeAlias = Literal["none", "l2", "layer", "batch", "instance"]
Values: TypeAlias = Literal["similarities", "trainable", "anchors", "attention"]
SubspacePooling: TypeAlias = Literal["concat", "sum", "mean", "max", "linear"]


def quantized(values: Tensor, width: float, mode: Quantization = "round") -> Tensor:
    """Bring values to few levels.

    Args:
        values: What to quantise.
        width: Width of a bin; for ``"cluster"`` the largest gap inside a cluster.
        mode: ``"round"`` to the nearest multiple of the width; ``"smooth"``, a staircase x - w/2pi sin(2pi x/w), whose
            gradient is its own; ``"cluster"`` to the mean of the row's values that lie within gaps of the width
            (single linkage).

    Shape:
        values (..., K) -> (..., K)

    Returns:
        The levels; under ``"round"`` and ``"cluster"`` the gradient passes straight through.
    """
    if mode == "smooth":
        turn = 2 * torch.pi / width
        return values - torch.sin(turn * values) / turn
    levels = torch.round(values / width) * width if mode == "round" else _cluster_means(values.detach(), width)
    return values + (levels - values).detach()


def _cluster_means(values: Tensor, gap: float) -> Tensor:
    # in one dimension single linkage cuts the sorted values where neighbours are further apart than the gap
    ordered, order = values.sort(dim=-1)
    cuts = nn.functional.pad((ordered.diff(dim=-1) > gap).long(), (1, 0))
    cluster = cuts.cumsum(dim=-1)  # (..., K)
    sums = torch.zeros_like(values).scatter_add_(-1, cluster, ordered)
    sizes = torch.zeros_like(values).scatter_add_(-1, cluster, torch.ones_like(ordered))
    means = (sums / sizes.clamp_min(1)).gather(-1, cluster)
    return torch.empty_like(values).scatter_(-1, order, means)


def similarities(rows: Tensor, anchors: Tensor, kind: str) -> Tensor:
    """Compare rows with anchors, subspace by subspace.

    Args:
        rows: What to express.
        anchors: The anchors.
        kind: ``"cosine"``, ``"dot"``, ``"euclidean"`` or ``"basis_change"``.

    Shape:
        rows (B, M, D/M), anchors (K, M, D/M) -> (B, M, K)

    Returns:
        Similarities, larger is nearer; under ``"basis_change"`` least-squares coordinates.
    """
    if kind == "cosine":
        return torch.einsum("bmd,kmd->bmk", _unit(rows), _unit(anchors)).clamp(-1, 1)
    if kind == "dot":
        return torch.einsum("bmd,kmd->bmk", rows, anchors / rows.shape[-1] ** 0.5)
    if kind == "euclidean":
        # rounding of |x|^2 - 2xa + |a|^2 is of the size of the squares; differences have none, in as little memory
        distances: Tensor = torch.cdist(rows.transpose(0, 1), anchors.transpose(0, 1), compute_mode=_EXACT)
        return -distances.transpose(0, 1)
    inverse = torch.linalg.pinv(anchors.permute(1, 2, 0).double()).to(rows.dtype)  # (M, K, D/M)
    return torch.einsum("bmd,mkd->bmk", rows, inverse)


_EXACT = "donot_use_mm_for_euclid_dist"


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows, dim=-1, eps=torch.finfo(rows.dtype).tiny)


def normalized(rows: Tensor, kind: OutputNormalization, batch_norm: nn.Module | None) -> Tensor:
    """Normalise relative vectors.

    Args:
        rows: Relative vectors.
        kind: ``"none"``, ``"l2"``, ``"layer"`` (each row), ``"batch"`` (running statistics of each coordinate) or
            ``"instance"`` (each coordinate over the rows at hand).
        batch_norm: The module that keeps the running statistics.

    Shape:
        rows (B, W) -> (B, W)

    Returns:
        The normalised rows.

    Raises:
        InputError: ``"instance"`` on a single row, which has no statistics.
    """
    if kind == "l2":
        return _unit(rows)
    if kind == "layer":
        return nn.functional.layer_norm(rows, rows.shape[-1:], eps=LAYER_EPSILON)
    if kind == "batch" and batch_norm is not None:
        result: Tensor = batch_norm(rows)
        return result
    if kind == "instance":
        if len(rows) < 2:
            raise InputError("normalization='instance' takes the statistics of the batch: give at least 2 rows at once")
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        return (rows - mean) / torch.sqrt(variance + LAYER_EPSILON)
    return rows


class SimilarityAttention(nn.Module):
    """Self-attention over the similarities of a row: every coordinate is a token, scaled by its similarity.

    Args:
        width: Number of similarities.
        dim: Width of queries, keys and values.
        generator: Source of the first weights.
    """

    def __init__(self, width: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.tokens = nn.ParameterList(
            nn.Parameter(torch.randn(width, dim, generator=generator) / dim**0.5) for _ in range(4)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Mix the similarities (B, W) -> (B, W)."""
        queries, keys, values, out = (rows[..., None] * token for token in self.tokens)  # (B, W, H)
        mixed: Tensor = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return torch.sum(mixed * out, dim=-1)


def group_matrix(groups: list[Any]) -> Tensor:
    """Return the matrix that averages similarities over the anchors of each group.

    Args:
        groups: Group of each of the K anchors.

    Returns:
        Weights (K, C), groups in order of appearance.
    """
    names = list(dict.fromkeys(groups))
    members = torch.zeros(len(groups), len(names))
    members[range(len(groups)), [names.index(group) for group in groups]] = 1.0
    return members / members.sum(dim=0)
