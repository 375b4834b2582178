"""Kind ``table``: an embedding layer for ids.

Promise: shape; the stated number of parameters is the true one; only rows that were looked up get a gradient; an
unknown id is a clear error.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.testing.contract import (
    Contract,
    ContractViolation,
    Make,
    Refusal,
    as_array,
    check_refuses,
    demand,
    demand_close,
    frozen_copy,
    random_state_kept,
    same_bits,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TableExample:
    """A table with ids to look up.

    Attributes:
        table: The layer: ``table(ids)`` gives ``ids.shape + (dim,)``.
        ids: Known ids, shape (B,) or (B, F), long; at least four different ones.
        unknown: Ids of the same shape with at least one that the table does not know, or None if every id is known
            (hashing).
        dim: Width of a row.
        stated_parameters: How many numbers the table says it stores.
        rows_per_id: Name of a parameter -> how many of its rows one id may use. Parameters not named are shared by all
            ids (a network over the rows, for example).
        refuses: Bad values and what they must raise.
    """

    table: nn.Module
    ids: Tensor
    unknown: Tensor | None
    dim: int
    stated_parameters: int
    rows_per_id: dict[str, int]
    refuses: tuple[Refusal, ...]


def check_shape(make: Make[TableExample]) -> None:
    """Looking ids up gives finite rows of the stated width."""
    example = make(0)
    rows = example.table(example.ids)
    shape = (*example.ids.shape, example.dim)
    demand(tuple(rows.shape) == shape, f"the rows have shape {tuple(rows.shape)}, expected {shape}")
    demand(rows.isfinite().all(), "the rows hold values that are not finite")


def check_parameter_count(make: Make[TableExample]) -> None:
    """The table stores exactly as many numbers as it says, buffers included."""
    example = make(0)
    stored = {t.data_ptr(): t.numel() for t in (*example.table.parameters(), *example.table.buffers())}
    total = sum(stored.values())
    demand(total == example.stated_parameters, f"the table states {example.stated_parameters} numbers, stores {total}")


def check_gradient_sparse(make: Make[TableExample]) -> None:
    """Looking one id up moves at most the rows that belong to it."""
    example = make(0)
    parameters = dict(example.table.named_parameters())
    lost = example.rows_per_id.keys() - parameters.keys()
    demand(not lost, f"rows_per_id names parameters that are not there: {', '.join(lost)}")
    first = example.ids[:1] if example.ids.ndim == 1 else example.ids[:1, :1]
    example.table(first).pow(2).sum().backward()
    moved = 0
    for name, allowed in example.rows_per_id.items():
        gradient = parameters[name].grad
        touched = 0 if gradient is None else int((gradient.to_dense().flatten(1) != 0).any(dim=1).sum())
        demand(touched <= allowed, f"one id moves {touched} rows of {name}, at most {allowed} are its own")
        moved += touched
    demand(moved > 0, "looking an id up moves no row at all")


def check_unknown_id(make: Make[TableExample]) -> None:
    """An id that the table does not know is refused with a message that shows it."""
    example = make(0)
    if example.unknown is None:
        return
    known = set(example.ids.flatten().tolist())
    strange = [each for each in example.unknown.flatten().tolist() if each not in known]
    try:
        example.table(example.unknown)
    except InputError as error:
        demand(any(str(each) in str(error) for each in strange), f"the message does not show the unknown id: {error}")
    except Exception as error:
        raise ContractViolation(f"unknown id: {type(error).__name__} instead of InputError: {error}") from error
    else:
        raise ContractViolation(f"unknown ids {strange[:3]} were accepted")


def check_row_alone(make: Make[TableExample]) -> None:
    """One id alone gives the row it has among many."""
    torch = require("torch", extra="train")
    example = make(0)
    alone = torch.cat([example.table(example.ids[row : row + 1]) for row in range(len(example.ids))])
    demand_close(as_array(alone), as_array(example.table(example.ids)), "ids looked up one by one", atol=1e-6)


def check_deterministic(make: Make[TableExample]) -> None:
    """One seed gives one table, and looking up leaves the ids and the global random states alone."""
    first, second = make(0), make(0)
    before = frozen_copy(first.ids)
    with random_state_kept("looking up"):
        rows = as_array(first.table(first.ids))
    demand(same_bits(before, frozen_copy(first.ids)), "looking up changed the ids")
    demand(same_bits(rows, as_array(second.table(second.ids))), "two tables of one seed differ")


def check_float64(make: Make[TableExample]) -> None:
    """A double-precision table gives double-precision rows of the same values."""
    example = make(0)
    single = as_array(example.table(example.ids)).copy()
    rows: Any = example.table.double()(example.ids)
    demand(str(rows.dtype) == "torch.float64", f"a double-precision table gives {rows.dtype} rows")
    demand_close(as_array(rows), single, "rows in float64 against float32")


def check_save_load(make: Make[TableExample]) -> None:
    """The state holds all there is: a changed table that loads it gives the old rows, to the last bit."""
    torch = require("torch", extra="train")
    example, other = make(0), make(0)
    with torch.no_grad():
        for parameter in other.table.parameters():
            parameter.add_(1.0)
    other.table.load_state_dict(copy.deepcopy(example.table.state_dict()))
    rows, loaded = as_array(example.table(example.ids)), as_array(other.table(example.ids))
    demand(same_bits(rows, loaded), "the table differs after loading its saved state")


CONTRACT = Contract(
    "table",
    TableExample,
    (
        check_shape,
        check_parameter_count,
        check_gradient_sparse,
        check_unknown_id,
        check_row_alone,
        check_deterministic,
        check_float64,
        check_save_load,
        check_refuses,
    ),
)
