"""Directions in the space that task vectors span: every merge on directions is a row of coefficients.

A merged vector is ``U = sum_i c_i V_i``. What decides c are weights a_i and the inner products of the vectors, never
the vectors themselves; with a gradient to the weights, c can be learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from embedlab._core.errors import InputError, unknown_name

PARALLEL = 1e-3  # radians; nearer directions are interpolated linearly, and nearer to opposite ones are refused


def coefficients(gram: Tensor, weights: Tensor, *, method: str = "slerp") -> Tensor:
    """Merge directions: give the coefficients c of ``U = sum_i c_i V_i``.

    ``average``: ``c_i = a_i / sum a``. ``slerp``: spherical interpolation, folded from left to right,
    ``U_k = [sin((1 - b) alpha) U_{k-1} + sin(b alpha) V_k] / sin alpha`` with ``b = a_k / (mean(a_1..a_{k-1}) + a_k)``
    and alpha the angle between U_{k-1} and V_k; the order matters, and with equal weights the last vector gets half
    the angle. ``barycentric``: the weighted sum of the unit vectors, stretched to the weighted mean of the norms; the
    order does not matter. All three give V_i itself when only a_i is above zero. Cost O(N^2).

    Args:
        gram: Inner products of the vectors, float64.
        weights: Weight of each vector, at least 0. (paper: a)
        method: ``"average"``, ``"slerp"`` or ``"barycentric"``.

    Shape:
        gram (..., N, N), weights (N,) -> (..., N)

    Returns:
        The coefficients, with a gradient to ``weights``.

    Raises:
        InputError: an unknown method, weights that are not finite, negative or leave nothing to divide by, or
            vectors that point in opposite directions.

    Example:
        >>> import torch
        >>> gram = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        >>> [round(c, 4) for c in coefficients(gram, torch.ones(2, dtype=torch.float64)).tolist()]
        [0.7071, 0.7071]
    """
    if method not in FOLDS:
        raise unknown_name("method", method, FOLDS)
    if weights.shape != gram.shape[-1:]:
        raise InputError(f"weights: {len(weights)} for {gram.shape[-1]} vectors, expected one for each")
    values = weights.detach()
    if not bool(values.isfinite().all()) or bool((values < 0).any()) or not bool((values > 0).any()):
        raise InputError(f"weights={values.tolist()}: expected finite numbers, at least 0 and not all 0")
    return FOLDS[method](gram, weights)


def _average(gram: Tensor, weights: Tensor) -> Tensor:
    return (weights / weights.sum()).expand(gram.shape[:-1])


def _slerp(gram: Tensor, weights: Tensor) -> Tensor:
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype)
    merged = unit[0].expand(gram.shape[:-1])  # (..., N), coefficients of U_1 = V_1
    for k in range(1, gram.shape[-1]):
        before = weights[:k].mean()
        if not bool((before + weights[k]).detach() > 0):
            raise InputError(f"weights: the first {k + 1} of {weights.detach().tolist()} are all 0")
        b = weights[k] / (before + weights[k])
        across = (merged * gram[..., k]).sum(-1)  # <U, V_k>
        own = (merged * (gram @ merged[..., None])[..., 0]).sum(-1)  # <U, U>
        alpha, curved = _angle(across, own, gram[..., k, k], k)
        left = torch.where(curved, torch.sin((1 - b) * alpha) / torch.sin(alpha), 1 - b)
        right = torch.where(curved, torch.sin(b * alpha) / torch.sin(alpha), b)
        merged = left[..., None] * merged + right[..., None] * unit[k]
    return merged


def _angle(across: Tensor, own: Tensor, other: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Angle between U and V_k, and where it is wide enough to divide by its sine; elsewhere the angle is a stand-in."""
    product = own * other
    known = product > 0  # a tensor that training left alone has no direction
    cosine = across / torch.where(known, product, 1.0).sqrt()
    opposite = known & (cosine < -math.cos(PARALLEL))
    if bool(opposite.any()):
        raise InputError(
            f"vectors: number {k + 1} points against what the vectors before it merge to, so there is no shortest way "
            "between them: leave it out, change the order, or use method='average'"
        )
    curved = known & (cosine < math.cos(PARALLEL))
    return torch.where(curved, cosine, 0.0).arccos(), curved  # the stand-in keeps the gradient finite


def _barycentric(gram: Tensor, weights: Tensor) -> Tensor:
    norms = gram.diagonal(dim1=-2, dim2=-1).sqrt()  # (..., N)
    shares = weights / torch.where(norms > 0, norms, 1.0)  # (..., N)
    squared = (shares * (gram @ shares[..., None])[..., 0]).sum(-1)  # |sum_i a_i V_i / |V_i||^2
    if bool((squared <= (PARALLEL * weights.sum()) ** 2).logical_and((norms > 0).any(-1)).any()):
        raise InputError("vectors: their directions cancel out, so there is no middle: use method='average'")
    radius = (weights * norms).sum(-1) / weights.sum()
    return shares * (radius / torch.where(squared > 0, squared, 1.0).sqrt())[..., None]


FOLDS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "average": _average,
    "slerp": _slerp,
    "barycentric": _barycentric,
}
