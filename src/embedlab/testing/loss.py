"""Kind ``loss``: a sentence-transformers loss.

Promise: a finite scalar; the gradient reaches what it should and nothing that is frozen; ten optimiser steps move pairs
the right way.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.extras import require
from embedlab.testing.contract import (
    Contract,
    Make,
    Refusal,
    as_array,
    check_refuses,
    demand,
    demand_close,
    frozen_copy,
    precisions,
    random_state_kept,
    same_bits,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LossExample:
    """A loss on its model, with one batch.

    Attributes:
        loss: The loss, called as ``loss(features, labels)`` like any loss of the host.
        model: The model it trains, in evaluation mode and without dropout (``embedlab.testing.tiny``).
        features: One tokenised column per text column, as ``model.preprocess(texts)`` gives them, at least four rows.
            The first two columns are anchors and their positives, row by row, unless ``progress`` says otherwise.
        labels: Labels of the batch, or None for losses that take none.
        refuses: Bad values and what they must raise.
        frozen: Modules that must get no gradient, such as a guide.
        progress: A number that training must raise, measured on the model as it is now; by default the mean cosine of
            anchors with their own positives less the mean with the others'.
        learning_rate: For the ten steps.
        row_order_matters: True when the value depends on the order of the rows.
        half_atol: Absolute tolerance of the value in bfloat16, or None where half precision is not claimed.
    """

    loss: nn.Module
    model: SentenceTransformer
    features: list[dict[str, Tensor]]
    refuses: tuple[Refusal, ...]
    labels: Tensor | None = None
    frozen: Sequence[nn.Module] = field(default=())
    progress: Callable[[], float] | None = None
    learning_rate: float = 1e-3
    row_order_matters: bool = False
    half_atol: float | None = None


def check_finite_scalar(make: Make[LossExample]) -> None:
    """The value is one finite floating-point number."""
    value = _value(make(0))
    demand(value.ndim == 0, f"the loss must be a scalar, got shape {tuple(value.shape)}")
    demand(value.dtype.is_floating_point, f"the loss must be floating point, got {value.dtype}")
    demand(np.isfinite(value.item()), f"the loss must be finite, got {value.item()}")


def check_gradient_reaches(make: Make[LossExample]) -> None:
    """Every parameter that decides the embeddings gets a finite gradient; frozen modules get none."""
    example = make(0)
    sum(example.model(dict(column))["sentence_embedding"].sum() for column in example.features).backward()
    reached = {name for name, p in example.model.named_parameters() if p.grad is not None and p.grad.abs().any()}
    example.model.zero_grad(set_to_none=True)
    _value(example).backward()
    gradients = {name: p.grad for name, p in example.model.named_parameters() if name in reached}
    missing = [name for name, gradient in gradients.items() if gradient is None]
    demand(not missing, f"no gradient reaches {', '.join(missing[:3])}, on which the embeddings depend")
    broken = [name for name, gradient in gradients.items() if gradient is not None and not gradient.isfinite().all()]
    demand(not broken, f"the gradient is not finite in {', '.join(broken[:3])}")
    demand(any(g.abs().any() for g in gradients.values() if g is not None), "the gradient is zero everywhere")
    for module in example.frozen:
        for name, parameter in module.named_parameters():
            demand(parameter.grad is None, f"the frozen {type(module).__name__} got a gradient in {name}")


def check_ten_steps_help(make: Make[LossExample]) -> None:
    """Ten optimiser steps on one batch lower the loss and move the pairs the right way."""
    torch = require("torch", extra="train")
    example = make(0)
    progress = example.progress or (lambda: _separation(example))
    first, before = _value(example).item(), progress()
    trained = {id(p): p for p in (*example.model.parameters(), *example.loss.parameters()) if p.requires_grad}
    optimiser = torch.optim.Adam(trained.values(), lr=example.learning_rate)
    for _ in range(10):
        optimiser.zero_grad()
        _value(example).backward()
        optimiser.step()
    last, after = _value(example).item(), progress()
    demand(last < first, f"ten steps did not lower the loss: {first:.6g} -> {last:.6g}")
    demand(after > before, f"ten steps moved the pairs the wrong way: {before:.6g} -> {after:.6g}")


def check_deterministic(make: Make[LossExample]) -> None:
    """The same seed gives the same value, call after call and example after example."""
    example = make(0)
    first, again, fresh = _value(example).item(), _value(example).item(), _value(make(0)).item()
    demand(first == again, f"two calls on one batch differ: {first!r}, {again!r}")
    demand(first == fresh, f"two examples of one seed differ: {first!r}, {fresh!r}")


def check_inputs_untouched(make: Make[LossExample]) -> None:
    """Features, labels, weights and the global random states are left as they were."""
    example = make(0)
    features, labels = frozen_copy(example.features), frozen_copy(example.labels)
    weights = frozen_copy(dict(example.model.state_dict()))
    with random_state_kept("the loss"):
        example.loss([dict(column) for column in example.features], example.labels).backward()
    demand(same_bits(features, frozen_copy(example.features)), "the loss changed its features in place")
    demand(same_bits(labels, frozen_copy(example.labels)), "the loss changed its labels in place")
    demand(same_bits(weights, dict(example.model.state_dict())), "computing the loss changed the model's weights")


def check_precision(make: Make[LossExample]) -> None:
    """In double precision, and in half where claimed, the value is the same within the lesser precision's error."""
    single = _value(make(0)).item()
    for dtype, atol in precisions(make(0).half_atol):
        example = make(0)
        example.loss.to(dtype)
        example.model.to(dtype)
        value = _value(example)
        demand(value.dtype == dtype or atol > 1e-4, f"a {dtype} model gives a {value.dtype} loss")
        demand_close(value.item(), single, f"loss in {dtype} against float32", atol=atol, rtol=1e-3)


def check_row_order(make: Make[LossExample]) -> None:
    """Reordering the rows of the batch leaves the value, unless the example says that order matters."""
    torch = require("torch", extra="train")
    example = make(0)
    if example.row_order_matters:
        return
    value = _value(example).item()
    order = torch.arange(len(example.features[0]["input_ids"])).flip(0)
    features = [
        {k: v[order] if torch.is_tensor(v) and len(v) == len(order) else v for k, v in column.items()}
        for column in example.features
    ]
    turned = example.loss(features, None if example.labels is None else example.labels[order]).item()
    demand_close(turned, value, "loss with the rows reversed", atol=1e-5, rtol=1e-4)


def check_save_load(make: Make[LossExample]) -> None:
    """The state and the configuration hold all there is: a changed loss that loads them gives the old value."""
    torch = require("torch", extra="train")
    example, other = make(0), make(0)
    value = _value(example).item()
    with torch.no_grad():
        for parameter in other.loss.parameters():
            parameter.mul_(1.5)
    other.loss.load_state_dict(copy.deepcopy(example.loss.state_dict()))
    demand_close(_value(other).item(), value, "loss after loading the saved state", atol=1e-7, rtol=1e-7)
    describe: Any = getattr(example.loss, "get_config_dict", None)
    if describe is not None:
        try:
            json.dumps(describe())
        except TypeError as error:
            demand(False, f"get_config_dict() must be plain data for the model card: {error}")


def _value(example: LossExample) -> Any:
    return example.loss([dict(column) for column in example.features], example.labels)


def _separation(example: LossExample) -> float:
    columns = [as_array(example.model(dict(column))["sentence_embedding"]) for column in example.features[:2]]
    anchors, positives = (c / np.linalg.norm(c, axis=1, keepdims=True) for c in columns)
    cosines = anchors @ positives.T  # (B, B)
    own = np.eye(len(cosines), dtype=bool)
    return float(cosines[own].mean() - cosines[~own].mean())


CONTRACT = Contract(
    "loss",
    LossExample,
    (
        check_finite_scalar,
        check_gradient_reaches,
        check_ten_steps_help,
        check_deterministic,
        check_inputs_untouched,
        check_precision,
        check_row_order,
        check_save_load,
        check_refuses,
    ),
)
