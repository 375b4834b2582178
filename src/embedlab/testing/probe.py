"""Kind ``probe``: vectors in, a typed result out.

Promise: a known-value example; every number in its range; the order of the rows does not matter; the tie rule is
stated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


@dataclass(frozen=True, slots=True)
class KnownValue:
    """Inputs small enough to work the result out by hand.

    Attributes:
        inputs: Arguments for ``compute``.
        expected: The numbers that must come out, as ``numbers`` gives them.
        why: How they are known, in a few words: ``"all vectors equal: every cosine is 1"``.
    """

    inputs: tuple[Array, ...]
    expected: ArrayLike
    why: str


@dataclass(frozen=True, slots=True)
class ProbeExample:
    """A probe with data.

    Attributes:
        compute: The probe as a function of ``inputs``; every other argument is bound already.
        inputs: Row-aligned arrays, at least eight rows; the first are the vectors (N, D) in float64. A second may hold
            lengths or labels.
        numbers: Turns a result into an array of floats; NaN where a number is documented to be undefined.
        bounds: Smallest and largest value a number may have; use infinities for an open end.
        known: At least one known value.
        refuses: Bad values and what they must raise. Vectors with NaN and empty input are checked without being listed.
        rows: ``"each"`` when there is one number per row, which must move with the row; ``"together"`` when the result
            describes all rows at once and must not depend on their order.
        tie_rule: What happens to equal values, in a few words, or why there can be no ties.
        atol: Tolerance for reordered and for float32 input (the latter is compared at a thousand times this).
    """

    compute: Callable[..., Any]
    inputs: tuple[Array, ...]
    numbers: Callable[[Any], ArrayLike]
    bounds: tuple[float, float]
    known: Sequence[KnownValue]
    refuses: tuple[Refusal, ...]
    rows: Literal["each", "together"]
    tie_rule: str
    atol: float = 1e-9


def check_known_values(make: Make[ProbeExample]) -> None:
    """Every known-value example comes out as worked out by hand."""
    example = make(0)
    demand(example.known, "the example has no known value: give at least one KnownValue")
    for known in example.known:
        numbers = _numbers(example, known.inputs)
        demand_close(numbers, np.atleast_1d(known.expected), f"known value ({known.why})", atol=1e-6, rtol=1e-6)


def check_range(make: Make[ProbeExample]) -> None:
    """There are numbers, and each is NaN or inside the stated bounds."""
    example = make(0)
    low, high = example.bounds
    numbers = _numbers(example, example.inputs)
    demand(np.isfinite(numbers).any(), "the probe gives no finite number on its own example")
    outside = numbers[(numbers < low) | (numbers > high)]
    demand(outside.size == 0, f"numbers outside the stated bounds [{low}, {high}]: {outside[:3]}")


def check_typed(make: Make[ProbeExample]) -> None:
    """The result has a type that says what it is: an array, a number or a class of its own, not a bare container."""
    example = make(0)
    result = example.compute(*example.inputs)
    bare = type(result) in (dict, list, tuple, set, type(None))
    demand(not bare, f"the result is a bare {type(result).__name__}: return an array or a dataclass")


def check_row_order(make: Make[ProbeExample]) -> None:
    """Reordering the rows reorders one number per row, or changes nothing."""
    example = make(0)
    order = np.random.default_rng(1).permutation(len(example.inputs[0]))
    numbers = _numbers(example, example.inputs)
    turned = _numbers(example, tuple(column[order] for column in example.inputs))
    if example.rows == "each":
        demand(len(numbers) == len(order), f"rows='each' but {len(numbers)} numbers for {len(order)} rows")
        numbers = numbers[order]
    demand_close(turned, numbers, "numbers after reordering the rows", atol=example.atol, rtol=example.atol)


def check_deterministic(make: Make[ProbeExample]) -> None:
    """The same input gives the same numbers to the last bit."""
    first, second = (_numbers(example, example.inputs) for example in (make(0), make(0)))
    demand(same_bits(first, second), "two runs with one seed give different numbers")


def check_inputs_untouched(make: Make[ProbeExample]) -> None:
    """Inputs and global random states are left as they were."""
    example = make(0)
    before = frozen_copy(example.inputs)
    with random_state_kept("the probe"):
        example.compute(*example.inputs)
    demand(same_bits(before, frozen_copy(example.inputs)), "the probe changed its inputs in place")


def check_float32_agrees(make: Make[ProbeExample]) -> None:
    """Vectors in single precision give the same numbers within its error."""
    example = make(0)
    vectors, *others = example.inputs
    single = _numbers(example, (vectors.astype(np.float32), *others))
    numbers = _numbers(example, example.inputs)
    tolerance = max(1e3 * example.atol, 1e-5)
    demand_close(single, numbers, "numbers from float32 vectors", atol=tolerance, rtol=1e-3)


def check_bad_vectors_refused(make: Make[ProbeExample]) -> None:
    """Vectors with NaN or infinity, no rows at all, and a shape that is not (N, D) are refused."""
    example = make(0)
    vectors, *others = example.inputs
    broken = {"NaN": np.nan, "infinity": np.inf}
    for name, value in broken.items():
        spoiled = vectors.copy()
        spoiled[1, 0] = value
        _demand_refused(example, (spoiled, *others), f"vectors with {name}")
    _demand_refused(example, tuple(column[:0] for column in example.inputs), "no vectors")
    _demand_refused(example, (vectors.ravel(), *others), "a flat array of vectors")


def check_tie_rule(make: Make[ProbeExample]) -> None:
    """The tie rule is stated, and rows that are the same get the same number where each row has one."""
    example = make(0)
    demand(example.tie_rule.strip(), "the example states no tie rule")
    if example.rows == "each":
        inputs = tuple(column.copy() for column in example.inputs)
        for column in inputs:
            column[1] = column[0]
        numbers = _numbers(example, inputs)
        demand_close(numbers[1], numbers[0], "numbers of two equal rows", atol=example.atol, rtol=example.atol)


def _numbers(example: ProbeExample, inputs: tuple[Array, ...]) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(example.numbers(example.compute(*inputs)), dtype=np.float64))


def _demand_refused(example: ProbeExample, inputs: tuple[Array, ...], what: str) -> None:
    try:
        example.compute(*inputs)
    except InputError:
        return
    except Exception as error:
        raise ContractViolation(f"{what}: {type(error).__name__} instead of InputError: {error}") from error
    demand(False, f"{what}: accepted instead of refused with InputError")


CONTRACT = Contract(
    "probe",
    ProbeExample,
    (
        check_known_values,
        check_range,
        check_typed,
        check_row_order,
        check_deterministic,
        check_inputs_untouched,
        check_float32_agrees,
        check_bad_vectors_refused,
        check_tie_rule,
        check_refuses,
    ),
)
