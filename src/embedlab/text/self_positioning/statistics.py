"""What Fisher and RegMean need to know of each model on its own data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab.text.self_positioning.probe import as_probe, batches, loss_of, losses_for, text_columns
from embedlab.text.self_positioning.weights import open_model

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from embedlab.text.self_positioning.probe import Losses, MakeLoss
    from embedlab.text.self_positioning.weights import Model


def fisher_information(
    model: Model,
    data: Dataset,
    loss: MakeLoss | None = None,
    *,
    batch_size: int = 32,
    max_batches: int | None = 16,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Tell how much a model's loss on its own data depends on each of its parameters.

    ``F[k] = mean over batches of (dL / d theta[k])^2``, the diagonal of the empirical Fisher information, with dropout
    off. Cost: a forward and backward pass a batch; memory of the model, one gradient and the result.

    Args:
        model: A model that was trained on one task; it stays as it is.
        data: Rows of that task.
        loss: What makes the loss it was trained with, such as the class; InfoNCE by default.
        batch_size: Rows in a batch; a contrastive loss is a mean over the batch, so the squares are of such means.
        max_batches: At most so many batches; None for all.
        seed: Decides the batches.

    Returns:
        Parameter -> F, of its shape, float32.

    Raises:
        InputError: no rows, or no text column.
    """
    rows = as_probe(data)["probe"]
    working = copy.deepcopy(open_model(model)).float().eval()
    made = losses_for(loss, working, ["probe"])["probe"]
    cut = batches(rows, batch_size=batch_size, seed=seed)[:max_batches]
    found: dict[str, Tensor] = {}
    for places in cut:
        working.zero_grad(set_to_none=True)
        loss_of(made, working, rows, places).backward()  # type: ignore[no-untyped-call]
        for name, parameter in working.named_parameters():
            if parameter.grad is not None:
                square = parameter.grad.detach().square() / len(cut)
                found[name] = found[name].add_(square) if name in found else square
    return {name: tensor.to(torch.float32) for name, tensor in found.items()}


def input_moments(
    model: Model, data: Dataset, *, batch_size: int = 32, max_batches: int | None = 16, seed: int = 0
) -> dict[str, Tensor]:
    """Gather the second moments of what goes into each linear layer: ``G = X^T X / rows``, padding left out.

    Cost: a forward pass a batch; memory of the model and one square matrix per linear layer, of its input's width.

    Args:
        model: A model that was trained on one task; it stays as it is.
        data: Rows of that task; all text columns count.
        batch_size: Texts in a batch.
        max_batches: At most so many batches; None for all.
        seed: Decides the batches.

    Returns:
        Name of a linear layer's weight -> G (in, in), float64.

    Raises:
        InputError: no rows, no text column, or a model without linear layers.
    """
    rows = as_probe(data)["probe"]
    working = copy.deepcopy(open_model(model)).eval()
    linear = {
        f"{name}.weight": module for name, module in working.named_modules() if isinstance(module, torch.nn.Linear)
    }
    if not linear:
        raise InputError("model: has no linear layer whose inputs could be looked at")
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(linear, 0)
    mask: dict[str, Any] = {}

    def look(name: str, given: Tensor) -> None:
        real = mask.get("attention_mask")
        if real is not None and given.ndim == 3 and given.shape[:2] == real.shape:
            given = given[real.bool()]
        flat = given.reshape(-1, given.shape[-1]).double()  # (tokens, in)
        sums[name] = sums.get(name, 0) + (flat.T @ flat).cpu()
        counts[name] += len(flat)

    with torch.no_grad(), _watched(linear, look):
        for places in batches(rows, batch_size=batch_size, seed=seed)[:max_batches]:
            for column in text_columns(rows):
                features = working.preprocess(list(rows[places][column]))
                moved = {
                    key: value.to(working.device) if hasattr(value, "to") else value for key, value in features.items()
                }
                mask["attention_mask"] = moved.get("attention_mask")
                working(moved)
    return {name: total / counts[name] for name, total in sums.items()}


@contextmanager
def _watched(linear: Mapping[str, nn.Module], look: Any) -> Iterator[None]:
    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: look(name, given[0]))
        for name, module in linear.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def cocktail_weights(
    models: Mapping[str, SentenceTransformer],
    probe: Mapping[str, Dataset] | Dataset,
    loss: Losses | None = None,
    *,
    temperature: float = 1.0,
    batch_size: int = 32,
) -> dict[str, float]:
    """Weigh models by how well each does on a probe by itself: ``softmax(-loss / temperature)`` (LM-Cocktail).

    Nothing is learned: one pass per model. The weights are for ``merge_task_vectors(method="average")``.

    Args:
        models: Name -> model.
        probe: Rows, or several data sets by name, which count alike.
        loss: As in ``SelfPositioning``.
        temperature: Lower trusts the best model more, above 0.
        batch_size: Rows of one data set in a batch.

    Returns:
        Name -> weight; they sum to 1.

    Raises:
        InputError: no model, an empty probe, or ``temperature`` out of range.

    References:
        Xiao et al. (2023), LM-Cocktail: Resilient Tuning of Language Models via Model Merging, arXiv:2311.13534v4.
    """
    if not models or not temperature > 0:
        raise InputError(f"models: {len(models)}, temperature={temperature}: expected at least one, and above 0")
    rows = as_probe(probe)
    means = []
    for model in models.values():
        working = copy.deepcopy(model).eval()
        losses = losses_for(loss, working, list(rows))
        with torch.no_grad():
            found = [
                float(loss_of(losses[name], working, rows[name], places))
                for name in rows
                for places in batches(rows[name], batch_size=batch_size, seed=0)
            ]
        means.append(sum(found) / len(found))
    shares = (-torch.tensor(means, dtype=torch.float64) / temperature).softmax(dim=0)
    return dict(zip(models, shares.tolist(), strict=True))
