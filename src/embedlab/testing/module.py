"""Kind ``module``: a sentence-transformers module, features in and features out.

Promise: padding and the company in a batch change nothing; saving and loading is exact; the gradient flows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class ModuleExample:
    """A module with one batch of features.

    Attributes:
        module: The module, called as ``module(features)``; in evaluation mode.
        features: What the host hands it: ``token_embeddings`` (B, T, D) and ``attention_mask`` (B, T), or
            ``sentence_embedding`` (B, D), at least three rows, with padding in at least one row if there are tokens.
        output: Key of the result in the features that come back, one row per text.
        width: Width of that result.
        load: Opens the module from a folder that its own ``save(folder)`` has written.
        refuses: Bad values and what they must raise.
        half_atol: Absolute tolerance of the result in bfloat16, or None where half precision is not claimed.
    """

    module: nn.Module
    features: dict[str, Tensor]
    output: str
    width: int
    load: Callable[[str], nn.Module]
    refuses: tuple[Refusal, ...]
    half_atol: float | None = None


def check_output(make: Make[ModuleExample]) -> None:
    """The result is finite, of the stated width, and joins the features that were there."""
    example = make(0)
    returned = example.module(dict(example.features))
    demand(example.output in returned, f"the features that come back lack {example.output!r}")
    lost = example.features.keys() - returned.keys()
    demand(not lost, f"the module dropped features that later modules may need: {', '.join(lost)}")
    result = returned[example.output]
    shape = (_rows(example), example.width)
    demand(tuple(result.shape) == shape, f"{example.output} has shape {tuple(result.shape)}, expected {shape}")
    demand(result.isfinite().all(), f"{example.output} holds values that are not finite")


def check_padding(make: Make[ModuleExample]) -> None:
    """More padding, whatever it holds, changes nothing."""
    torch = require("torch", extra="train")
    example = make(0)
    if "attention_mask" in example.features:
        mask = example.features["attention_mask"]
        padded = {}
        for key, value in example.features.items():
            tail = value.new_full((len(value), 3, *value.shape[2:]), 0 if key == "attention_mask" else 7)
            has_tokens = value.ndim > 1 and value.shape[:2] == mask.shape
            padded[key] = torch.cat([value, tail], dim=1) if has_tokens else value
        result = example.module(padded)[example.output]
        demand_close(as_array(result), _result(example.module, example), "output with more padding")


def check_row_alone(make: Make[ModuleExample]) -> None:
    """One row alone gives what it gives among many."""
    torch = require("torch", extra="train")
    example = make(0)
    rows = _rows(example)
    alone = [example.module(_take(example, [row]))[example.output] for row in range(rows)]
    demand_close(as_array(torch.cat(alone)), _result(example.module, example), "rows passed one by one")


def check_gradient_flows(make: Make[ModuleExample]) -> None:
    """Every trainable parameter gets a finite gradient from the result."""
    example = make(0)
    result = example.module(dict(example.features))[example.output]
    (result * result.detach().cos()).sum().backward()
    for name, parameter in example.module.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            demand(gradient is not None and gradient.isfinite().all(), f"no finite gradient reaches {name}")


def check_deterministic(make: Make[ModuleExample]) -> None:
    """The same seed gives the same result to the last bit."""
    first, second = make(0), make(0)
    same = same_bits(_result(first.module, first), _result(second.module, second))
    demand(same, "two examples of one seed give different results")


def check_inputs_untouched(make: Make[ModuleExample]) -> None:
    """The tensors handed in, and the global random states, are left as they were."""
    example = make(0)
    before = frozen_copy(example.features)
    with random_state_kept("the module"):
        example.module(dict(example.features))
    demand(same_bits(before, frozen_copy(example.features)), "the module changed its features in place")


def check_precision(make: Make[ModuleExample]) -> None:
    """In double precision, and in half where claimed, the result is the same within the lesser precision's error."""
    example = make(0)
    single = _result(example.module, example)
    for dtype, atol in precisions(example.half_atol):
        features = {k: v.to(dtype) if v.dtype.is_floating_point else v for k, v in example.features.items()}
        result = make(0).module.to(dtype)(features)[example.output]
        demand(result.dtype == dtype, f"{dtype} features give a {result.dtype} result")
        demand_close(as_array(result), single, f"result in {dtype} against float32", atol=atol, rtol=1e-3)


def check_save_load(make: Make[ModuleExample]) -> None:
    """Saved and loaded, it gives the same result to the last bit."""
    example = make(0)
    save: Any = example.module.save
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        loaded = example.load(folder).eval()
    demand(same_bits(_result(loaded, example), _result(example.module, example)), "the loaded module differs")


def _rows(example: ModuleExample) -> int:
    return len(next(iter(example.features.values())))


def _take(example: ModuleExample, rows: list[int]) -> dict[str, Tensor]:
    return {key: value[rows] for key, value in example.features.items()}


def _result(module: nn.Module, example: ModuleExample) -> Any:
    return as_array(module(dict(example.features))[example.output]).copy()


CONTRACT = Contract(
    "module",
    ModuleExample,
    (
        check_output,
        check_padding,
        check_row_alone,
        check_gradient_flows,
        check_deterministic,
        check_inputs_untouched,
        check_precision,
        check_save_load,
        check_refuses,
    ),
)
