"""The contracts: what an object of each kind promises, as checks that anyone can run on a method of their own.

A method gives ``example(seed) -> {kind: example}``; ``contracts()[kind].checks`` are
functions of a maker of such examples.

Example:
    >>> sorted(contracts()["probe"].example.__annotations__)[:3]
    ['atol', 'bounds', 'compute']
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from embedlab._core.claims import Claim
from embedlab._core.hashes import data_hash
from embedlab.testing.contract import Contract, ContractViolation, Refusal, demand, demand_close

__all__ = ["Claim", "Contract", "ContractViolation", "Refusal", "contracts", "data_hash", "demand", "demand_close"]


@cache
def contracts() -> dict[str, Contract[Any]]:
    """Gather the contracts, one per module of this package that states one.

    Returns:
        Kind -> its contract.
    """
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    stated = (module.CONTRACT for module in modules if hasattr(module, "CONTRACT"))
    return {contract.kind: contract for contract in stated}
