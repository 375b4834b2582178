"""Taking away what all vectors of a language model share: their mean, their unequal spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Dense

Fix = Literal["centre", "standardise", "whiten"]


def whitening(
    vectors: ArrayLike, *, fix: Fix = "whiten", floor: float = 1e-3
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Learn the linear map that takes away what vectors share.

    y = W (x - m), with m the mean; ``"centre"``: W is the identity; ``"standardise"``: the diagonal of 1 / deviation;
    ``"whiten"``: the eigenvectors of the covariance, each divided by the root of its eigenvalue.

    Args:
        vectors: Vectors of many texts, as they come from the model.
        fix: What to take away.
        floor: Variances below this share of the largest count as that share: directions without data are not blown up.

    Shape:
        vectors (N, D) -> W (D, D), m (D,)

    Returns:
        W and m.

    Raises:
        InputError: there are fewer than two vectors, one is not finite, or ``fix`` is unknown.

    References:
        Su et al. (2021), Whitening Sentence Representations, arXiv:2103.15316v1.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
        raise InputError(f"vectors of shape {rows.shape}: expected at least two rows (N, D) of finite numbers")
    if fix not in get_args(Fix):
        raise InputError(f"fix={fix!r}: expected one of {', '.join(get_args(Fix))}")
    mean = rows.mean(0)
    if fix == "centre":
        return np.eye(rows.shape[1]), mean
    if fix == "standardise":
        return np.diag(_inverse_root(rows.var(0), floor)), mean
    values, axes = np.linalg.eigh(np.cov(rows.T, bias=True))
    return _inverse_root(values, floor)[:, None] * axes.T, mean


def whitening_module(vectors: ArrayLike, *, fix: Fix = "whiten") -> Dense:
    """Make the learned map a module of the host, to append to a model: it is then saved and loaded with it.

    Args:
        vectors: As in ``whitening``.
        fix: As in ``whitening``.

    Returns:
        The host's ``Dense`` without activation, frozen.

    Raises:
        InputError: as in ``whitening``.
    """
    torch = require("torch", extra="train")
    modules = require("sentence_transformers.base.modules", extra="train")
    matrix, mean = whitening(vectors, fix=fix)
    weight, bias = torch.from_numpy(matrix).float(), torch.from_numpy(-matrix @ mean).float()
    dense: Dense = modules.Dense(
        len(mean), len(matrix), activation_function=torch.nn.Identity(), init_weight=weight, init_bias=bias
    )
    return dense.requires_grad_(False)


def _inverse_root(variances: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    largest = float(variances.max())
    return 1 / np.sqrt(np.maximum(variances, floor * largest if largest > 0 else 1.0))
