"""The search: frugal, resumable, in time, and it finds what is better."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.tune.judgements import Judgements
from embedlab.tune.knob import Knob
from embedlab.tune.measures import Goal
from embedlab.tune.trials import Ledger, search

GOAL = Goal.of("ndcg@10")
KNOBS = {
    "colour": Knob("colour", "ranking", (None, "red", "green", "blue"), "", dict),
    "size": Knob("size", "passages", (None, 1, 2, 3, 4), "", dict),
    "store": Knob("store", "codec", (None, "small"), "", dict),
}
WORTH = {"red": -0.2, "green": 0.1, "blue": 0.02, 1: -0.1, 2: 0.05, 3: 0.15, 4: 0.0, "small": -0.05}


class FakeBench:
    """Scores are a sum of the settings' worth, with noise that belongs to the query."""

    def __init__(self) -> None:
        self.knobs = KNOBS
        self.asked: list[tuple[dict[str, Any], int]] = []

    def values(self, system: dict[str, Any], judgements: Judgements, goal: Goal) -> np.ndarray:
        self.asked.append((dict(system), len(judgements)))
        name = repr(sorted(system.items()))
        noise = np.array([crc32(f"{query} {name}".encode()) % 1000 for query in judgements.queries]) / 1000
        return np.clip(0.5 + sum(WORTH[each] for each in system.values()) + 0.2 * (noise - 0.5), 0, 1)

    def bytes_per_document(self, system: dict[str, Any]) -> float:
        return 50.0 if "store" in system else 500.0


def asked(count: int = 256) -> Judgements:
    return Judgements(
        tuple(f"query {n}" for n in range(count)), tuple({f"d{n}": 1.0} for n in range(count)), made=False
    )


def run(path: Path, bench: FakeBench, **options: Any) -> Any:
    options.setdefault("deadline", time.monotonic() + 60)
    return search(bench, asked(), GOAL, ledger=Ledger(path, "key"), **options)  # type: ignore[arg-type]


def test_it_finds_the_best_and_drops_the_worst_early(tmp_path: Path) -> None:
    bench = FakeBench()
    found = run(tmp_path / "trials.jsonl", bench)
    assert found[0].system == {"colour": "green", "size": 3}
    whole = {repr(trial.system) for trial in found}
    assert repr({"colour": "red"}) not in whole  # far behind after the first queries
    assert {} in [trial.system for trial in found]
    assert max(count for _, count in bench.asked if count < 256) <= 128


def test_limits_are_kept(tmp_path: Path) -> None:
    found = run(tmp_path / "trials.jsonl", FakeBench(), max_bytes=100)
    assert found[0].system == {"colour": "green", "size": 3, "store": "small"}
    assert all(trial.bytes_per_document <= 100 for trial in found)
    with pytest.raises(InputError, match="the smallest system tried keeps 50 bytes"):
        run(tmp_path / "others.jsonl", FakeBench(), max_bytes=10)


def test_an_interrupted_search_goes_on(tmp_path: Path) -> None:
    class Interrupted(FakeBench):
        def values(self, system: dict[str, Any], judgements: Judgements, goal: Goal) -> np.ndarray:
            if len(self.asked) == 12:
                raise KeyboardInterrupt
            return super().values(system, judgements, goal)

    path, first, second, whole = tmp_path / "trials.jsonl", Interrupted(), FakeBench(), FakeBench()
    with pytest.raises(KeyboardInterrupt):
        run(path, first)
    with path.open("a") as out:
        out.write('{"key": "key", "system": {"colour": "re')  # the end of a line that was cut off
        out.write("\n")
    resumed = run(path, second)
    fresh = run(tmp_path / "fresh.jsonl", whole)
    assert [trial.system for trial in resumed] == [trial.system for trial in fresh]
    assert len(first.asked) + len(second.asked) == len(whole.asked)


def test_trials_of_other_data_do_not_count(tmp_path: Path) -> None:
    run(tmp_path / "trials.jsonl", FakeBench())
    assert Ledger(tmp_path / "trials.jsonl", "another key").trials == {}


def test_time_is_kept(tmp_path: Path) -> None:
    class Slow(FakeBench):
        def values(self, system: dict[str, Any], judgements: Judgements, goal: Goal) -> np.ndarray:
            time.sleep(0.1)
            return super().values(system, judgements, goal)

    began = time.monotonic()
    found = run(tmp_path / "trials.jsonl", Slow(), deadline=began + 0.5)
    assert time.monotonic() - began < 0.9
    assert {} in [trial.system for trial in found]


def test_what_cannot_be_tried_is_passed_over(tmp_path: Path) -> None:
    class Picky(FakeBench):
        def values(self, system: dict[str, Any], judgements: Judgements, goal: Goal) -> np.ndarray:
            if system.get("size") == 3:
                raise InputError("no threes")
            return super().values(system, judgements, goal)

    ledger = Ledger(tmp_path / "trials.jsonl", "key")
    found = search(Picky(), asked(), GOAL, ledger=ledger, deadline=time.monotonic() + 60)  # type: ignore[arg-type]
    assert found[0].system == {"colour": "green", "size": 2}
    assert set(ledger.refused.values()) == {"no threes"}
