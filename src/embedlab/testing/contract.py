"""What every contract is made of: the violation, the refusal of bad values, and the states that must stay untouched."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require


class ContractViolation(AssertionError):
    """An object does not do what its kind promises; the text says what was expected and what was seen."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call with a bad value, and the error that the documentation promises for it.

    Attributes:
        call: Makes the call; takes nothing.
        says: A piece of the error's text: the argument's name, so that the message can be acted on.
        error: The type of error.
    """

    call: Callable[[], object]
    says: str
    error: type[Exception] = InputError


class Refusing(Protocol):
    """Any example: each states the bad values that its object must refuse."""

    @property
    def refuses(self) -> tuple[Refusal, ...]: ...


ExampleT = TypeVar("ExampleT", bound=Refusing)
Make = Callable[[int], ExampleT]  # seed -> a fresh example: checks may train, change or break what they get


@dataclass(frozen=True, slots=True)
class Contract(Generic[ExampleT]):
    """The checks that every object of one kind must pass.

    Attributes:
        kind: Name of the kind.
        example: Type of the example that a method of this kind gives.
        checks: Functions of a maker of examples; each raises ``ContractViolation`` when the promise is broken.
    """

    kind: str
    example: type[ExampleT]
    checks: tuple[Callable[[Make[ExampleT]], None], ...]


def demand(condition: object, message: str) -> None:
    """Raise ``ContractViolation(message)`` unless the condition is true."""
    if not condition:
        raise ContractViolation(message)


def demand_close(got: ArrayLike, expected: ArrayLike, what: str, *, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    """Demand that two arrays have the same shape and, within tolerance, the same values.

    Args:
        got: The values under test.
        expected: The values they must have.
        what: What is compared, for the message.
        atol: Largest absolute difference allowed.
        rtol: Largest difference allowed, relative to the expected value.

    Raises:
        ContractViolation: they differ; the message tells the largest difference.
    """
    left, right = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    demand(left.shape == right.shape, f"{what}: shape {left.shape}, expected {right.shape}")
    if not np.allclose(left, right, atol=atol, rtol=rtol, equal_nan=True):
        gap = np.max(np.abs(left - right))
        raise ContractViolation(f"{what}: values differ by up to {gap:.3g} (allowed {atol:g} + {rtol:g} * |expected|)")


def check_refuses(make: Make[ExampleT]) -> None:
    """Bad values raise the documented error, whose message names the argument."""
    refusals = make(0).refuses
    demand(refusals, "the example states no bad value: give at least one Refusal")
    for number, refusal in enumerate(refusals):
        try:
            refusal.call()
        except refusal.error as error:
            demand(refusal.says in str(error), f"refusal {number}: the message lacks {refusal.says!r}: {error}")
        except Exception as error:
            kind = type(error).__name__
            raise ContractViolation(f"refusal {number}: {kind} instead of {refusal.error.__name__}: {error}") from error
        else:
            raise ContractViolation(f"refusal {number} ({refusal.says}): the bad value was accepted")


@contextmanager
def random_state_kept(what: str) -> Iterator[None]:
    """Demand that the block leaves the global random states of Python, NumPy and torch as they were.

    Args:
        what: What runs in the block, for the message.

    Raises:
        ContractViolation: a global random state was drawn from or seeded.
    """
    before = _random_states()
    yield
    after = _random_states()
    for name in before:
        demand(before[name] == after[name], f"{what} changed the global random state of {name}: use a generator")


@contextmanager
def no_network() -> Iterator[None]:
    """Make every attempt to reach another machine raise ``ContractViolation`` inside the block."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ContractViolation(f"a network connection was attempted: {args[1:] or args}")

    kept = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
    lookup = socket.getaddrinfo
    try:
        for name in kept:
            setattr(socket.socket, name, refuse)
        socket.getaddrinfo = refuse
        yield
    finally:
        for name, original in kept.items():
            setattr(socket.socket, name, original)
        socket.getaddrinfo = lookup


def frozen_copy(value: Any) -> Any:
    """Copy tensors and arrays inside dicts, lists and tuples, to compare with ``same_bits`` later."""
    if isinstance(value, Mapping):  # the host's tokenised columns are mappings, but no dicts
        return {key: frozen_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [frozen_copy(item) for item in value]
    if hasattr(value, "detach"):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def same_bits(left: Any, right: Any) -> bool:
    """Tell whether two nested values of ``frozen_copy`` are equal to the last bit."""
    if (left is None) != (right is None):
        return False
    if isinstance(left, Mapping):
        return (
            isinstance(right, dict) and left.keys() == right.keys() and all(same_bits(left[k], right[k]) for k in left)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_bits, left, right))
    if hasattr(left, "detach"):
        return bool(left.shape == right.shape and left.dtype == right.dtype and left.equal(right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
    return bool(left == right)


def precisions(half_atol: float | None) -> list[tuple[Any, float]]:
    """Return the floating-point types to try beside float32, each with its absolute tolerance.

    Args:
        half_atol: Tolerance in bfloat16, or None where half precision is not claimed.

    Returns:
        Pairs of torch dtype and tolerance.
    """
    torch = require("torch", extra="train")
    return [(torch.float64, 1e-4)] + ([] if half_atol is None else [(torch.bfloat16, half_atol)])


def as_array(value: Any) -> NDArray[Any]:
    """Turn a tensor, array or number into a NumPy array, outside any gradient graph."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    return np.asarray(tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy())


def _random_states() -> dict[str, object]:
    states: dict[str, object] = {"random": random.getstate()}
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - read, to see that nobody touched it
    states["numpy"] = str(numpy_state["state"]["key"].tolist()) + str(numpy_state["state"]["pos"])
    if "torch" in sys.modules:
        states["torch"] = bytes(sys.modules["torch"].get_rng_state().numpy())
    return states
