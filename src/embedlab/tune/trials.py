"""Trying systems frugally: knob after knob, weak ones dropped after few queries, every value kept on disk."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.tune.bench import Bench, System
from embedlab.tune.judgements import Judgements
from embedlab.tune.knob import STAGES, Knob
from embedlab.tune.measures import Goal

_log = logging.getLogger(__name__)
Values = NDArray[np.float64]

_FIRST = 64  # queries that every system is tried on
_BEAM = 3  # systems that go on from knob to knob
_HOPELESS = 2.0  # standard errors below the leader at which a system is dropped before its turn


@dataclass(frozen=True, slots=True)
class Trial:
    """A system with what it reached on the development queries.

    Attributes:
        system: Knob -> setting.
        values: One for each query it was tried on, the first ones of the development queries.
        bytes_per_document: Bytes kept of the vectors of one document, on average.
        seconds: Time the trial took.
    """

    system: dict[str, Any]
    values: Values
    bytes_per_document: float
    seconds: float

    @property
    def score(self) -> float:
        """Mean over the queries it was tried on."""
        return float(self.values.mean())


@dataclass(frozen=True, slots=True)
class Step:
    """How far a search has come.

    Attributes:
        knob: The knob at work.
        number: Which one, from 0.
        total: How many there are.
        best: Best mean so far on all development queries.
        untouched: Mean of the system as it is.
        seconds_left: Of the budget.
    """

    knob: str
    number: int
    total: int
    best: float
    untouched: float
    seconds_left: float


class Ledger:
    """Trials in a file, one JSON object a line, so that an interrupted search does not try anything twice.

    Args:
        path: The file; it is made when the first trial is written.
        key: Names data, queries, goal and seed: lines of other keys are passed over.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.trials: dict[str, Trial] = {}
        self.refused: dict[str, str] = {}  #: system -> why it could not be tried
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                row = json.loads(line)
                if row["key"] == key:
                    trial = Trial(row["system"], np.array(row["values"]), row["bytes"], row["seconds"])
                    self.trials[name_of(trial.system)] = trial
            except (ValueError, KeyError, TypeError):
                continue  # the end of a line that an interruption cut off

    def add(self, trial: Trial) -> None:
        """Keep a trial, in place of one of the same system on fewer queries."""
        self.trials[name_of(trial.system)] = trial
        row = {
            "key": self.key,
            "system": trial.system,
            "values": [round(float(value), 6) for value in trial.values],
            "bytes": trial.bytes_per_document,
            "seconds": round(trial.seconds, 3),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")


def search(
    bench: Bench,
    judgements: Judgements,
    goal: Goal,
    *,
    ledger: Ledger,
    deadline: float,
    max_bytes: float | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> list[Trial]:
    """Try knob after knob, each on the best systems so far, the free ones again at the end.

    Each knob starts from a few systems. All its settings are tried on some queries; the worse half, and what is behind
    the leader by more than chance allows, is dropped, and twice as many queries are asked, until all have been.

    Args:
        bench: Tries systems.
        judgements: The development queries, in random order.
        goal: What is to be large.
        ledger: Keeps the trials.
        deadline: ``time.monotonic()`` at which to stop: no trial is begun that would likely end later.
        max_bytes: Most bytes of vectors per document.
        on_step: Called before each knob.

    Returns:
        The systems tried on all queries that keep to ``max_bytes``, best first; the untouched one is among them if it
        keeps to it.

    Raises:
        InputError: no system keeps to ``max_bytes``.
    """
    runner = _Runner(bench, judgements, goal, ledger, deadline)
    untouched = runner.run({}, len(judgements))
    if untouched is None:
        raise InputError("there was no time to try the collection as it is: give more minutes")
    beam = [untouched]
    plan = _plan(bench.knobs)
    for number, knob in enumerate(plan):
        if on_step is not None:
            left = max(0.0, deadline - time.monotonic())
            on_step(Step(knob.name, number, len(plan), beam[0].score, untouched.score, left))
        if time.monotonic() >= deadline:
            break
        systems = {
            name_of(system := _with(trial.system, knob, setting)): system for trial in beam for setting in knob.settings
        }
        waiting = list(systems.values())
        if knob.stage == "codec" and max_bytes is not None:
            waiting = _small_enough(bench, waiting, max_bytes)
        beam = _halved(runner, waiting, beam, len(judgements))
    whole = [trial for trial in ledger.trials.values() if len(trial.values) == len(judgements)]
    fitting = [trial for trial in whole if max_bytes is None or trial.bytes_per_document <= max_bytes]
    if not fitting:
        least = min(trial.bytes_per_document for trial in whole)
        raise InputError(
            f"max_bytes_per_doc={max_bytes:g}: the smallest system tried keeps {least:.0f} bytes per document; allow "
            "so many, or more minutes"
        )
    return sorted(fitting, key=lambda trial: (-trial.score, len(trial.system)))


def name_of(system: System) -> str:
    """Return a system's name: the same settings, the same name."""
    return json.dumps(dict(sorted(system.items())), sort_keys=True)


class _Runner:
    def __init__(self, bench: Bench, judgements: Judgements, goal: Goal, ledger: Ledger, deadline: float) -> None:
        self._bench, self._judgements, self._goal = bench, judgements, goal
        self._ledger, self._deadline = ledger, deadline
        self._longest: dict[str, float] = {}  # what the first trial of a costly stage took

    def run(self, system: dict[str, Any], count: int) -> Trial | None:
        """Try a system on the first queries; None if there is no time for it, or it cannot be tried."""
        name = name_of(system)
        known = self._ledger.trials.get(name)
        if known is not None and len(known.values) >= count:
            return known
        if name in self._ledger.refused:
            return None
        stage = self._costliest(system)
        began = time.monotonic()
        if system and began + self._longest.get(stage, 0.0) > self._deadline:
            return None
        asked = 0 if known is None else len(known.values)
        rest = self._judgements.part(range(asked, count))
        try:
            values = self._bench.values(system, rest, self._goal)
            size = self._bench.bytes_per_document(system)
        except EmbedlabError as error:
            _log.info("passed over %s: %s", name, error)
            self._ledger.refused[name] = str(error)
            return None
        seconds = time.monotonic() - began
        self._longest[stage] = max(self._longest.get(stage, 0.0), seconds)
        before = () if known is None else known.values
        trial = Trial(system, np.concatenate([before, values]), size, seconds + (known.seconds if known else 0.0))
        self._ledger.add(trial)
        return trial

    def _costliest(self, system: System) -> str:
        stages = {self._bench.knobs[name].stage for name in system}
        return max(stages, key=STAGES.index, default="ranking")


def _small_enough(bench: Bench, systems: Sequence[dict[str, Any]], max_bytes: float) -> list[dict[str, Any]]:
    """Return the systems that keep to a limit; the smallest of all where none does."""
    sizes: dict[int, float] = {}
    for place, system in enumerate(systems):
        try:
            sizes[place] = bench.bytes_per_document(system)
        except EmbedlabError:
            sizes[place] = 0.0  # it cannot be made: the trial will say why
    fitting = [systems[place] for place, size in sizes.items() if size <= max_bytes]
    return fitting or [systems[min(sizes, key=lambda place: sizes[place])]]


def _halved(runner: _Runner, systems: Sequence[dict[str, Any]], before: Sequence[Trial], total: int) -> list[Trial]:
    """Return the best few of some systems on all queries."""
    count = min(_FIRST, total)
    waiting = list(systems)
    while True:
        trials = [trial for system in waiting if (trial := runner.run(system, count)) is not None]
        trials.sort(key=lambda trial: (-float(trial.values[:count].mean()), len(trial.system)))
        if not trials:
            return list(before)
        if count >= total:
            return trials[:_BEAM]
        half = max(_BEAM, math.ceil(len(trials) / 2))
        waiting = [trial.system for trial in trials[:half] if not _hopeless(trial, trials[0], count)]
        count = min(2 * count, total)


def _hopeless(trial: Trial, leader: Trial, count: int) -> bool:
    behind = leader.values[:count] - trial.values[:count]
    error = float(behind.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return bool(behind.mean() > _HOPELESS * error > 0)


def _plan(knobs: Mapping[str, Knob]) -> list[Knob]:
    """Order knobs by stage; those of the ranking cost nothing and come back once the vectors are settled."""
    ordered = sorted(knobs.values(), key=lambda knob: STAGES.index(knob.stage))
    free = [knob for knob in ordered if knob.stage == "ranking"]
    settled = [knob for knob in ordered if knob.stage in ("passages", "model")]
    last = [knob for knob in ordered if knob.stage == "codec"]
    return free + settled + (free if settled else []) + last + (free if last else [])


def _with(system: Mapping[str, Any], knob: Knob, setting: Any) -> dict[str, Any]:
    """Set a knob; the neutral setting takes it out."""
    rest = {name: value for name, value in system.items() if name != knob.name}
    return rest if setting == knob.neutral else {**rest, knob.name: setting}
