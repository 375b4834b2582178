"""The binariser as a torch network, for training: signs whose gradient passes, hidden units with batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedlab.search.bebr.recurrence import Map, Recurrence


class Network(nn.Module):
    """A recurrence that can be trained.

    Args:
        start: The recurrence to start from; its own hidden units are trained on.
        hidden: Hidden units to add to every map that has none, so that nothing changes at first.
        random: Forget ``start``'s weights and draw all, as published, with no way past the hidden units.
        seed: Decides the weights that are drawn.
    """

    def __init__(self, start: Recurrence, *, hidden: int = 0, random: bool = False, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def trainable(each: Map) -> _Map:
            return _Map(each, hidden=hidden, random=random, generator=generator)

        self.first = trainable(start.first)
        self.back = nn.ModuleList(map(trainable, start.back))
        self.residual = nn.ModuleList(map(trainable, start.residual))
        self.gains = nn.Parameter(torch.tensor(np.ones_like(start.gains) if random else start.gains))
        self.register_buffer("decoder", torch.tensor(start.decoder))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Encode unit vectors (B, D): codes (B, m) and what their first signs are taken of (B, m), at unit length."""
        before, sums = self.sums(rows)
        return nn.functional.normalize(sums, dim=1), nn.functional.normalize(before, dim=1)

    def sums(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Run the recurrence on unit vectors.

        Args:
            rows: Unit vectors (B, D).

        Returns:
            What the first signs are taken of, and the sums of signs, (B, m) each.
        """
        before = self.first(rows)
        sums = sign(before)
        for number, (back, residual) in enumerate(zip(self.back, self.residual, strict=True)):
            rebuilt = self.gains[number] * nn.functional.normalize(back(sums), dim=1)
            sums = sums + 2.0 ** -(number + 1) * sign(residual(rows - rebuilt))
        return before, sums

    def recurrence(self) -> Recurrence:
        """Return the network as it is in evaluation, in numpy."""
        back, residual = (tuple(_folded(each) for each in maps) for maps in (self.back, self.residual))
        return Recurrence(_folded(self.first), back, residual, _array(self.gains), _array(self.decoder))


class _Map(nn.Module):
    """The trainable form of ``Map``; new hidden units get a batch norm and, unless ``random``, no say at first."""

    def __init__(self, start: Map, *, hidden: int, random: bool, generator: torch.Generator) -> None:
        super().__init__()
        wide, narrow = start.direct.shape
        fresh = random or not len(start.inner_bias)
        if fresh:
            inner, outer = _drawn(wide, hidden, generator), _drawn(hidden, narrow, generator) * random
            direct = torch.tensor(start.direct)
            if random:
                direct = torch.zeros(wide, narrow) if hidden else _drawn(wide, narrow, generator)
            weights = {"direct": direct, "inner": inner, "inner_bias": torch.zeros(hidden), "outer": outer}
        else:
            weights = {part: torch.tensor(getattr(start, part)) for part in ("direct", "inner", "inner_bias", "outer")}
        self.weights = nn.ParameterDict({"bias": torch.tensor(start.bias), **weights})
        self.norm = nn.BatchNorm1d(hidden) if fresh and hidden else nn.Identity()

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows (B, I) -> (B, O)."""
        each = self.weights
        units = torch.relu(self.norm(rows @ each["inner"] + each["inner_bias"]))  # (B, H)
        out: Tensor = rows @ each["direct"] + each["bias"] + units @ each["outer"]
        return out

    def folded(self) -> Map:
        """Return the map in numpy, with the batch norm folded into the weights before it."""
        each = {part: _array(weight) for part, weight in self.weights.items()}
        if isinstance(self.norm, nn.BatchNorm1d):
            mean, variance, weight, bias = (
                _array(part)
                for part in (self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
            )
            scale = weight / np.sqrt(variance + self.norm.eps)
            each["inner"] = each["inner"] * scale
            each["inner_bias"] = (each["inner_bias"] - mean) * scale + bias
        return Map(**each)


class _Sign(torch.autograd.Function):
    """Sign with sign(0) = +1; the gradient passes where the input is within [-1, 1]."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.save_for_backward(rows)
        return torch.where(rows >= 0, 1.0, -1.0).to(rows.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (rows,) = context.saved_tensors
        passed: Tensor = gradient * (rows.abs() <= 1)
        return passed


def sign(rows: Tensor) -> Tensor:
    """Return signs, +1 for zero, whose gradient passes where the input is within [-1, 1].

    Args:
        rows: Any tensor.

    Returns:
        +1 and -1 in the same shape.
    """
    signs: Tensor = _Sign.apply(rows)  # type: ignore[no-untyped-call]
    return signs


def _drawn(wide: int, narrow: int, generator: torch.Generator) -> Tensor:
    """Weights as torch's own linear layer draws them."""
    weights: Tensor = (2 * torch.rand(wide, narrow, generator=generator) - 1) / wide**0.5
    return weights


def _folded(module: nn.Module) -> Map:
    folded: Map = module.folded()  # type: ignore[operator]
    return folded


def _array(tensor: Any) -> Any:
    return tensor.detach().cpu().float().numpy().copy()
