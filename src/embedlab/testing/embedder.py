"""Kind ``embedder``: data in, a matrix out, with scikit-learn's ``fit`` and ``transform``.

Promise: the order of the items does not matter; one seed, one result; unseen items are handled as documented.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.testing.contract import (
    Contract,
    ContractViolation,
    Make,
    Refusal,
    check_refuses,
    demand,
    demand_close,
    frozen_copy,
    random_state_kept,
    same_bits,
)

Array = NDArray[Any]


def _by_index(data: Any, order: Array) -> Any:
    return data[order] if isinstance(data, np.ndarray) else [data[row] for row in order]


@dataclass(frozen=True, slots=True)
class EmbedderExample:
    """An embedder with data.

    Attributes:
        embedder: The embedder, not yet fitted; its settings are what ``get_params()`` gives.
        data: What ``fit`` and ``transform`` take, at least eight items.
        num_items: Number of items, and so of rows.
        dim: Width of a row.
        reorder: Puts the items of the data in another order; by default indexes an array or a list.
        unseen: Data with items that were not there at ``fit``, or None where the data are always one closed set.
        unseen_rule: What ``transform`` does with such items: ``"refused"`` (InputError), ``"zero"`` (the zero row) or
            ``"embedded"`` (a finite row that is not zero).
        unseen_rows: Rows of ``transform(unseen)`` that are unseen.
        refuses: Bad values and what they must raise.
        atol: Tolerance for reordered data; sums in another order round otherwise.
    """

    embedder: Any
    data: Any
    num_items: int
    dim: int
    refuses: tuple[Refusal, ...]
    unseen: Any = None
    unseen_rule: Literal["refused", "zero", "embedded"] = "refused"
    unseen_rows: tuple[int, ...] = ()
    reorder: Callable[[Any, Array], Any] = field(default=_by_index)
    atol: float = 1e-5


def check_fit_transform(make: Make[EmbedderExample]) -> None:
    """``fit`` returns the embedder; ``transform`` gives one finite row per item; ``fit_transform`` gives the same."""
    example = make(0)
    demand(example.embedder.fit(example.data) is example.embedder, "fit must return the embedder itself")
    rows = np.asarray(example.embedder.transform(example.data))
    shape = (example.num_items, example.dim)
    demand(rows.shape == shape, f"transform gives shape {rows.shape}, expected {shape}")
    demand(np.isfinite(rows).all(), "transform gives values that are not finite")
    demand_close(make(0).embedder.fit_transform(example.data), rows, "fit_transform against fit, then transform")


def check_order(make: Make[EmbedderExample]) -> None:
    """Reordering the items reorders the rows and changes nothing else."""
    example, twin = make(0), make(0)
    order = np.random.default_rng(1).permutation(example.num_items)
    rows = np.asarray(example.embedder.fit(example.data).transform(example.data))
    turned = twin.reorder(twin.data, order)
    demand_close(twin.embedder.fit(turned).transform(turned), rows[order], "rows of reordered items", atol=example.atol)


def check_seeded(make: Make[EmbedderExample]) -> None:
    """One seed gives one result, to the last bit."""
    rows = [np.asarray(one.embedder.fit(one.data).transform(one.data)) for one in (make(0), make(0))]
    demand(same_bits(*rows), "two fits with one seed differ")


def check_settings(make: Make[EmbedderExample]) -> None:
    """``get_params`` gives the settings, untouched by ``fit``, and another embedder made of them does the same."""
    example = make(0)
    before = copy.deepcopy(example.embedder.get_params())
    rows = example.embedder.fit(example.data).transform(example.data)
    demand(example.embedder.get_params() == before, "fit changed the settings that get_params gives")
    twin = type(example.embedder)(**before)
    demand_close(twin.fit(example.data).transform(example.data), rows, "an embedder made of the same settings")


def check_inputs_untouched(make: Make[EmbedderExample]) -> None:
    """The data and the global random states are left as they were."""
    example = make(0)
    before = copy.deepcopy(example.data) if not isinstance(example.data, np.ndarray) else frozen_copy(example.data)
    with random_state_kept("the embedder"):
        example.embedder.fit(example.data).transform(example.data)
    demand(same_bits(before, example.data), "the embedder changed its data in place")


def check_unseen(make: Make[EmbedderExample]) -> None:
    """Items that were not there at ``fit`` are handled as documented."""
    example = make(0)
    if example.unseen is None:
        return
    fitted = example.embedder.fit(example.data)
    try:
        rows = np.asarray(fitted.transform(example.unseen))[list(example.unseen_rows)]
    except InputError as error:
        demand(example.unseen_rule == "refused", f"unseen items are {example.unseen_rule}, says the example: {error}")
        return
    demand(example.unseen_rule != "refused", "unseen items were accepted though the rule says refused")
    zero = not rows.any(axis=1).any()
    demand(zero == (example.unseen_rule == "zero"), f"unseen items do not follow the rule {example.unseen_rule!r}")
    demand(np.isfinite(rows).all(), "unseen items give values that are not finite")


def check_unfitted(make: Make[EmbedderExample]) -> None:
    """``transform`` before ``fit`` is refused with a message that names ``fit``."""
    example = make(0)
    try:
        example.embedder.transform(example.data)
    except (InputError, ValueError) as error:  # scikit-learn's NotFittedError is a ValueError
        demand("fit" in str(error), f"the message does not tell to call fit: {error}")
    except Exception as error:
        raise ContractViolation(f"transform before fit: {type(error).__name__}: {error}") from error
    else:
        raise ContractViolation("transform before fit was accepted")


CONTRACT = Contract(
    "embedder",
    EmbedderExample,
    (
        check_fit_transform,
        check_order,
        check_seeded,
        check_settings,
        check_inputs_untouched,
        check_unseen,
        check_unfitted,
        check_refuses,
    ),
)
