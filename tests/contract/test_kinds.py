"""Every method x every kind it claims x every check of that kind. Nobody adds a row: the registry does."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedlab._core.registry import KINDS, MethodRecord, methods
from embedlab.testing import contracts
from embedlab.testing.contract import no_network

CASES = [
    pytest.param(record, kind, check, id=f"{record.name}-{kind}-{check.__name__.removeprefix('check_')}")
    for record in methods().values()
    for kind in record.kinds
    for check in contracts()[kind].checks
]


@pytest.mark.parametrize(("record", "kind", "check"), CASES)
def test_the_contract_is_kept(record: MethodRecord, kind: str, check: Callable[[Any], None]) -> None:
    example = record.load().example
    with no_network():
        check(lambda seed: example(seed)[kind])


def test_every_kind_has_a_contract() -> None:
    assert contracts().keys() == set(KINDS)
    for kind, contract in contracts().items():
        assert len(contract.checks) >= 5, f"{kind} promises too little to be worth a name"
        for check in contract.checks:
            assert (check.__doc__ or "").strip(), f"{kind}: {check.__name__} does not say what it checks"


def test_every_method_runs_all_checks_of_its_kinds() -> None:
    """Count the cases as pytest collects them, so that a slip in the list above cannot hide a method."""
    ask = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    listing = subprocess.run(ask, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    names = [line.partition("[")[2] for line in listing.stdout.splitlines() if "test_the_contract_is_kept[" in line]
    counted = Counter(name.split("-")[0] for name in names)
    for record in methods().values():
        wanted = sum(len(contracts()[kind].checks) for kind in record.kinds)
        assert counted[record.name] >= wanted, f"{record.name}: {counted[record.name]} of {wanted} checks are run"
