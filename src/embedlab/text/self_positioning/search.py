"""Self Positioning: the place in the space of task vectors where a small balanced probe has the lowest loss."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.files import atomic_write
from embedlab.text.self_positioning.fold import FOLDS, coefficients
from embedlab.text.self_positioning.merging import (
    check_granularity,
    check_vectors,
    checked_weights,
    finite_gram,
    write,
)
from embedlab.text.self_positioning.probe import as_probe, each_batch, loss_of, losses_for
from embedlab.text.self_positioning.vectors import TaskVector, vectors_of
from embedlab.text.self_positioning.weights import open_model, parameters_of

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from embedlab.text.self_positioning.probe import Losses
    from embedlab.text.self_positioning.weights import Model

log = logging.getLogger(__name__)

PARAMETRISATIONS = ("clamp", "softplus")
LEAST = 1e-3  # what a weight is held above, so that no ratio of weights blows up
_STATE = "search.json"


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a search found.

    Attributes:
        model: The merged model.
        names: Names of the merged models, in the order of the fold.
        weights: Learned weight of each. (paper: a)
        scale: Learned factor on the merged vector. (paper: lambda)
        coefficients: Share of each task vector in the result, before ``scale``: (N,), or (tensors, N) with
            ``"per_tensor"``.
        loss_before: Mean loss on the whole probe at the start of the search.
        loss_after: The same at its end.
        history: Step by step: loss, weights and scale before the step.
        resumed: How many of these steps an earlier call had made.
        method: How directions were merged.
        granularity: ``"global"`` or ``"per_tensor"``.
    """

    model: SentenceTransformer
    names: tuple[str, ...]
    weights: NDArray[np.float64]
    scale: float
    coefficients: NDArray[np.float64]
    loss_before: float
    loss_after: float
    history: tuple[dict[str, Any], ...]
    resumed: int
    method: str
    granularity: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the model, for JSON; of the history only its length."""
        return {
            "method": self.method,
            "granularity": self.granularity,
            "models": list(self.names),
            "weights": self.weights.tolist(),
            "scale": self.scale,
            "coefficients": self.coefficients.tolist(),
            "loss_before": self.loss_before,
            "loss_after": self.loss_after,
            "steps": len(self.history),
        }


class SelfPositioning:
    """Learn how to merge models: one weight per task vector and one scale, by SGD on a small probe.

    Each model was trained from the same base on its own task, and gives a task vector V_i. The weights a decide where
    between the vectors to go (the fold of ``coefficients``), lambda how far:

        minimise over a, lambda:   mean over the probe of L(theta_0 + lambda U(a)) + mu lambda

    All inner products of the vectors are computed once. A step then is: write theta into one working model; an ordinary
    forward and backward pass of each data set's batch, with dropout off; take the inner products ``g_i`` of the
    gradient with every V_i; and send ``lambda g_i`` and ``sum_i c_i g_i + mu`` back through the fold. So any loss of
    sentence-transformers works as it is, gradient caching included, and a loss's own parameters stay as they are.

    Cost of a step: the passes, and 2 N reads of all parameters (from files, if the models are folders). Memory: base,
    working model, one gradient, and one tensor of each vector; the models themselves only if they are given in memory.

    Args:
        base: The start of all trainings. (paper: theta_0)
        models: At least two models trained from it, as models, folders or task vectors, best with names. Their order is
            the order of the fold. (paper: theta_i)
        loss: What makes a loss for a model, such as a loss's class, for all data sets or by name; InfoNCE with in-batch
            and hard negatives by default. (paper: L_CL)
        mu: Weight of the norm, at least 0; published runs are best below about 0.05.
        method: ``"slerp"`` (published), ``"average"`` or ``"barycentric"``.
        granularity: ``"global"`` or ``"per_tensor"``, see ``merge_task_vectors``.
        parametrisation: ``"clamp"``: SGD on a and lambda, held above 0.001 and 0; ``"softplus"``: SGD on what softplus
            turns into them, which can never reach 0.
        weights: Where a starts; 1 for each by default.
        scale: Where lambda starts.

    Raises:
        InputError: fewer than two models, models that do not fit the base, or an option out of range.

    Example:
        >>> from datasets import Dataset
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> texts = ["a cat", "the dog", "rain fell", "stocks rose"]
        >>> base, one, two = (tiny_encoder(texts, seed=seed) for seed in (0, 1, 2))
        >>> probe = Dataset.from_dict({"anchor": texts, "positive": ["cat a", "dog the", "fell rain", "rose stocks"]})
        >>> result = SelfPositioning(base, {"one": one, "two": two}).fit(probe, epochs=5)
        >>> result.names, len(result.history), result.loss_after < result.loss_before
        (('one', 'two'), 5, True)

    References:
        Li et al. (2024), Improving General Text Embedding Model: Tackling Task Conflict and Data Imbalance through
        Model Merging, arXiv:2410.15035v1, section 4.3. No official code.
    """

    def __init__(
        self,
        base: Model,
        models: Mapping[str, Model] | Sequence[Model | TaskVector],
        loss: Losses | None = None,
        *,
        mu: float = 0.01,
        method: str = "slerp",
        granularity: str = "global",
        parametrisation: str = "clamp",
        weights: Sequence[float] | None = None,
        scale: float = 1.0,
    ) -> None:
        if len(models) < 2:
            raise InputError(f"models: got {len(models)}, a merge needs at least two")
        for name, given, known in (
            ("method", method, FOLDS),
            ("parametrisation", parametrisation, PARAMETRISATIONS),
        ):
            if given not in known:
                raise unknown_name(name, given, known)
        check_granularity(granularity)
        if not (math.isfinite(mu) and mu >= 0):
            raise InputError(f"mu={mu}: expected a finite number, at least 0; published runs are best below 0.05")
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"scale={scale}: the search starts from a finite number above 0")
        self.base = open_model(base)
        self.vectors = vectors_of(self.base, models)
        check_vectors(self.base, self.vectors)
        self.loss, self.mu, self.method, self.granularity = loss, mu, method, granularity
        self.parametrisation = parametrisation
        start = [max(share, LEAST) for share in checked_weights(weights, len(self.vectors))]
        self._start = torch.tensor([*start, scale], dtype=torch.float64)
        parts = finite_gram(self.vectors, per_tensor=True)
        self._moved = frozenset().union(*(vector.changed for vector in self.vectors))
        self._gram = parts if granularity == "per_tensor" else parts.sum(dim=0)
        coefficients(self._gram, self._start[:-1], method=method)  # refuses opposite directions now, not in the search

    def fit(
        self,
        probe: Mapping[str, Dataset] | Dataset,
        *,
        lr: float = 0.05,
        epochs: int = 1,
        batch_size: int = 32,
        max_steps: int | None = None,
        seed: int = 0,
        folder: Path | None = None,
    ) -> MergeResult:
        """Search.

        Args:
            probe: Rows to judge by, or several data sets by name, of which each step takes one batch each; see
                ``balanced_probe``.
            lr: Learning rate of SGD, above 0; useful are 0.01 to 0.1 for a thousand steps, 0.3 to 1 for a dozen.
            epochs: How often the probe is gone through, at least 1.
            batch_size: Rows of one data set in a batch, at least 2.
            max_steps: Stop after so many steps; None for all.
            seed: Decides the batches.
            folder: Keeps the state of the search, N + 1 numbers; called again with it, an interrupted search goes on.

        Returns:
            The merged model with what was learned; base and models are left as they were.

        Raises:
            InputError: an empty probe, a data set without its loss, an option out of range, a loss that is not finite,
                or a folder with the state of another search.
        """
        rows = as_probe(probe)
        if not (math.isfinite(lr) and lr > 0):
            raise InputError(f"lr={lr}: expected a finite number above 0")
        if epochs < 1 or batch_size < 2:
            raise InputError(f"epochs={epochs}, batch_size={batch_size}: expected at least 1, and at least 2")
        working = self._working_model()
        losses = losses_for(self.loss, working, list(rows))
        settings = {**self._settings(), "lr": lr, "batch_size": batch_size, "seed": seed, "probe": sorted(rows)}
        first = self._probe_loss(self._raw(), working, losses, rows, batch_size)
        raw, history = self._resume(folder, settings)
        before, steps = len(history), 0
        for epoch in range(epochs):
            for places in each_batch(rows, batch_size=batch_size, seed=seed, epoch=epoch):
                steps += 1
                if steps <= before:
                    continue
                if max_steps is not None and steps > max_steps:
                    break
                history.append(self._step(raw, working, losses, rows, places, lr))
                if folder is not None:
                    state = {"settings": settings, "raw": raw.tolist(), "history": history}
                    atomic_write(folder / _STATE, json.dumps(state))
        last = self._probe_loss(raw, working, losses, rows, batch_size)
        if last > first:
            log.warning("the search raised the probe's loss from %.4f to %.4f: try a lower lr than %g", first, last, lr)
        return self._result(raw, history, before, first, last)

    def gradient(self, model: nn.Module, weights: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the gradients on a model's parameters into those of the weights and the scale (mu included).

        Args:
            model: The working model, after ``backward``.
            weights: Weights a that its parameters were written from.
            scale: The scale lambda that they were written with.

        Shape:
            weights (N,), scale () -> (N,), ()

        Returns:
            The two gradients.
        """
        a, by = weights.detach().requires_grad_(), scale.detach().requires_grad_()
        shares = coefficients(self._gram, a, method=self.method)
        value = by * (shares * self._along(model)).sum() + self.mu * by
        value.backward()  # type: ignore[no-untyped-call]
        return _grad(a), _grad(by)

    def _along(self, model: nn.Module) -> Tensor:
        """Inner products of the gradient with every vector: (N,), or (tensors, N)."""
        parameters = dict(model.named_parameters())
        found = torch.zeros(len(self.vectors[0].shapes), len(self.vectors), dtype=torch.float64)
        for row, name in enumerate(self.vectors[0].shapes):
            slope = parameters[name].grad
            if slope is not None:
                for column, vector in enumerate(self.vectors):
                    found[row, column] = (slope * vector.tensor(name, dtype=slope.dtype).to(slope.device)).sum(
                        dtype=torch.float64
                    )
        return found if self.granularity == "per_tensor" else found.sum(dim=0)

    def place(self, model: SentenceTransformer, weights: Tensor, scale: Tensor) -> None:
        """Write ``theta_0 + lambda U(a)`` into a working model, in its precision.

        Args:
            model: A copy of the base; its parameters are overwritten.
            weights: The weights a.
            scale: The scale lambda.
        """
        with torch.no_grad():
            shares = coefficients(self._gram, weights, method=self.method).expand(len(self.vectors[0].shapes), -1)
            row = dict(zip(self.vectors[0].shapes, (scale * shares).tolist(), strict=True))
            start, parameters = parameters_of(self.base), dict(model.named_parameters())
            for name in self._moved:
                parameters[name].copy_(start[name])
                for share, vector in zip(row[name], self.vectors, strict=True):
                    change = vector.tensor(name, dtype=parameters[name].dtype)
                    parameters[name].add_(change.to(parameters[name].device), alpha=share)

    def _working_model(self) -> SentenceTransformer:
        working = copy.deepcopy(self.base)
        if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in working.parameters()):
            working = working.float()  # task vectors are tiny next to weights
        for name, parameter in working.named_parameters():
            parameter.requires_grad_(name in self._moved)
        return working.eval()  # with dropout, the gradients of so few numbers would drown

    def _step(
        self,
        raw: Tensor,
        working: SentenceTransformer,
        losses: Mapping[str, nn.Module],
        rows: Mapping[str, Dataset],
        places: Mapping[str, list[int]],
        lr: float,
    ) -> dict[str, Any]:
        """Make one step of SGD in place; tell the loss it started from."""
        lever = raw.clone().requires_grad_()
        position = self._position(lever)
        weights, scale = position[:-1], position[-1]
        self.place(working, weights.detach(), scale.detach())
        working.zero_grad(set_to_none=True)
        total = 0.0
        for name, batch in places.items():
            value = loss_of(losses[name], working, rows[name], batch) / len(places)
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
        if not math.isfinite(total):
            raise InputError(f"lr={lr}: the probe's loss became {total}; try a lower learning rate")
        slopes = self.gradient(working, weights, scale)
        position.backward(torch.cat([slopes[0], slopes[1][None]]))  # type: ignore[no-untyped-call]
        raw.sub_(_grad(lever), alpha=lr)
        if self.parametrisation == "clamp":
            raw[:-1].clamp_(min=LEAST)
            raw[-1:].clamp_(min=0.0)
        return {"loss": total, "weights": weights.detach().tolist(), "scale": float(scale.detach())}

    def _position(self, raw: Tensor) -> Tensor:
        """Weights and scale, (N + 1,), from the numbers that SGD moves."""
        position: Tensor = torch.nn.functional.softplus(raw) if self.parametrisation == "softplus" else raw * 1.0
        return position

    def _raw(self) -> Tensor:
        """Where SGD starts: the inverse of ``_position`` at the start."""
        start = self._start.clone()
        return start.expm1().log() if self.parametrisation == "softplus" else start

    def _probe_loss(
        self,
        raw: Tensor,
        working: SentenceTransformer,
        losses: Mapping[str, nn.Module],
        rows: Mapping[str, Dataset],
        batch_size: int,
    ) -> float:
        """Mean loss over one fixed pass through the probe."""
        position = self._position(raw)
        self.place(working, position[:-1], position[-1])
        with torch.no_grad():
            found = [
                float(loss_of(losses[name], working, rows[name], batch))
                for places in each_batch(rows, batch_size=batch_size, seed=0)
                for name, batch in places.items()
            ]
        return math.fsum(found) / len(found)

    def _result(
        self, raw: Tensor, history: list[dict[str, Any]], resumed: int, first: float, last: float
    ) -> MergeResult:
        position = self._position(raw).detach()
        shares = coefficients(self._gram, position[:-1], method=self.method)
        return MergeResult(
            model=write(self.base, self.vectors, shares, float(position[-1])),
            names=tuple(vector.name for vector in self.vectors),
            weights=position[:-1].numpy().copy(),
            scale=float(position[-1]),
            coefficients=shares.detach().numpy().copy(),
            loss_before=first,
            loss_after=last,
            history=tuple(history),
            resumed=resumed,
            method=self.method,
            granularity=self.granularity,
        )

    def _settings(self) -> dict[str, Any]:
        return {
            "models": [vector.name for vector in self.vectors],
            "method": self.method,
            "granularity": self.granularity,
            "parametrisation": self.parametrisation,
            "mu": self.mu,
            "start": self._start.tolist(),
        }

    def _resume(self, folder: Path | None, settings: dict[str, Any]) -> tuple[Tensor, list[dict[str, Any]]]:
        if folder is None or not (folder / _STATE).is_file():
            return self._raw(), []
        kept = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if kept["settings"] != settings:
            wrong = next(key for key in settings if settings[key] != kept["settings"].get(key))
            raise InputError(
                f"folder: {folder} holds a search with {wrong}={kept['settings'].get(wrong)!r}, "
                f"not {settings[wrong]!r}: empty it or choose another"
            )
        return torch.tensor(kept["raw"], dtype=torch.float64), kept["history"]


def _grad(tensor: Tensor) -> Tensor:
    return tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)
