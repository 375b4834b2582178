"""The side of declared concepts: what else comes with what somebody lists."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from embedlab._core.errors import InputError, unknown_name

Sets: TypeAlias = Literal["co_occurrence", "identity", "dense"]


def co_occurrence(declared: ArrayLike, *, gamma: float = 0.5) -> NDArray[np.float32]:
    r"""Say which concepts come with which: the identity, plus how much more often than by chance two come together.

    With the shares :math:`p_k` of items that declare concept k and :math:`p_{jk}` that declare both,
    :math:`PPMI_{jk} = \max(0, \ln \frac{p_{jk}}{p_j p_k})` for j other than k, each row brought to the sum 1, and
    :math:`P_0 = I + \gamma\,PPMI`.

    Args:
        declared: Declared concepts of the training items; weights count as declared.
        gamma: What a declared concept passes on to all others together, at least 0.

    Shape:
        declared (N, m) -> (m, m) float32

    Returns:
        The matrix; the row of a concept that never comes with another has its 1 alone.

    Raises:
        InputError: ``gamma`` is negative, or ``declared`` is no matrix with a row.

    Example:
        >>> co_occurrence([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).tolist()
        [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]

    References:
        Bogdanova and Yazdani (2017), arXiv:1708.03246v1, on collaborative data; the form is a reconstruction.
    """
    held = np.asarray(declared) > 0
    if gamma < 0 or held.ndim != 2 or not len(held):
        raise InputError(f"gamma={gamma}, declared of shape {held.shape}: gamma at least 0, one row or more (N, m)")
    shares = held.astype(np.float64)
    together, alone = shares.T @ shares / len(held), shares.mean(axis=0)
    expected = np.outer(alone, alone)
    above = np.divide(together, expected, out=np.ones_like(together), where=together > 0)
    found = np.log(np.maximum(above, 1.0))
    np.fill_diagonal(found, 0.0)
    sums = found.sum(axis=1, keepdims=True)
    return np.asarray(np.eye(len(found)) + gamma * found / np.where(sums > 0, sums, 1.0), np.float32)


class ConceptSetEncoder(nn.Module):
    r"""Turn declared concepts into logits over the same concepts: :math:`P^\top s`.

    P starts at ``co_occurrence`` and may move from it, so that axis k keeps meaning concept k. ``"identity"`` freezes
    it at the identity. ``"dense"`` is the profile encoder of the latent twin instead: two layers that may turn the
    axes in any way.

    Args:
        num_concepts: Number of concepts. (paper: m)
        kind: ``"co_occurrence"``, ``"identity"`` or ``"dense"``.
        scale: What the result is multiplied with. Activations other than ReLU need it: half way up a sigmoid is not
            "undeclared".
        shift: What is added to it.
        hidden_dim: Width between the two dense layers.
        seed: Decides the first weights of the dense layers.

    Shape:
        declared (B, m) float -> (B, m) float

    Returns:
        On call, the logits.

    Raises:
        InputError: ``kind`` is unknown.
    """

    start: Tensor

    def __init__(
        self,
        num_concepts: int,
        kind: Sets = "co_occurrence",
        *,
        scale: float = 1.0,
        shift: float = 0.0,
        hidden_dim: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if kind not in get_args(Sets):
            raise unknown_name("sets", str(kind), get_args(Sets))
        self.kind, self.scale, self.shift = kind, scale, shift
        if kind == "dense":
            generator = torch.Generator().manual_seed(seed)
            self.first = nn.Parameter(torch.empty(num_concepts, hidden_dim))
            self.second = nn.Parameter(torch.empty(hidden_dim, num_concepts))
            for weight in (self.first, self.second):
                nn.init.xavier_uniform_(weight, generator=generator)
        else:
            self.matrix = nn.Parameter(torch.eye(num_concepts), requires_grad=kind == "co_occurrence")
            self.register_buffer("start", torch.eye(num_concepts))

    def start_at(self, matrix: ArrayLike) -> None:
        """Set P and what it is held to.

        Args:
            matrix: As from ``co_occurrence``, (m, m).
        """
        if self.kind == "co_occurrence":
            with torch.no_grad():
                for each in (self.matrix, self.start):
                    each.copy_(torch.as_tensor(matrix, dtype=self.matrix.dtype))

    def forward(self, declared: Tensor) -> Tensor:
        dense = self.kind == "dense"
        found = (declared @ self.first).relu() @ self.second if dense else declared @ self.matrix
        return torch.add(self.scale * found, self.shift)

    def drift(self) -> Tensor:
        """Return how far P has moved, the squared Frobenius norm of the difference; 0 for the other kinds."""
        if self.kind != "co_occurrence":
            return torch.zeros(())
        return (self.matrix - self.start).square().sum()
