"""The proof: finalists against the untouched system on queries that no choice has seen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab.ops.significance import Interval, bootstrap_interval, holm, paired_test
from embedlab.tune.bench import Bench, System
from embedlab.tune.judgements import Judgements
from embedlab.tune.measures import Goal
from embedlab.tune.trials import Trial, name_of

_TIMED = 60  # queries whose time is taken
_EXAMPLES = 5  # queries shown on each side
_SHOWN = 5  # documents of a ranking that are shown


@dataclass(frozen=True, slots=True)
class Example:
    """One query under both systems.

    Attributes:
        query: The query.
        before: First documents of the untouched system.
        after: First documents of the finalist.
        relevant: What answers it.
        gain: Value after less value before.
    """

    query: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    relevant: tuple[str, ...]
    gain: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What a system costs where it was measured.

    Attributes:
        p50_ms: Median time of a search, with one search at a time.
        p95_ms: The 95th percentile.
        encode_ms: Median time to encode one query.
        bytes_per_document: Bytes of the vectors of one document, on average.
    """

    p50_ms: float
    p95_ms: float
    encode_ms: float
    bytes_per_document: float


@dataclass(frozen=True, slots=True)
class Finalist:
    """A system with the proof of what it is worth.

    Attributes:
        system: Knob -> setting; empty for the untouched one.
        development: Mean on the development queries, by which it was chosen.
        test: Mean on the test queries, with its interval.
        gain: Test mean less that of the untouched system, with its interval.
        pvalue: Chance of such a difference if both were alike, corrected for the number of finalists (Holm).
        better: Whether the gain is above 0 and the p-value at most the level.
        worse: Whether the gain is below 0 and the p-value at most the level.
        won: Test queries it does better.
        lost: Test queries it does worse.
        tied: The others.
        costs: What it costs.
        examples: Where it gains and where it loses most.
    """

    system: dict[str, Any]
    development: float
    test: Interval
    gain: Interval
    pvalue: float
    better: bool
    worse: bool
    won: int
    lost: int
    tied: int
    costs: Costs
    examples: tuple[Example, ...]


def prove(
    bench: Bench,
    trials: Sequence[Trial],
    untouched: Trial,
    judgements: Judgements,
    goal: Goal,
    *,
    level: float = 0.05,
    seed: int = 0,
) -> tuple[Finalist, list[Finalist]]:
    """Test finalists on the test queries, all at once, and correct for their number.

    Args:
        bench: Tries systems.
        trials: The finalists, best on development first.
        untouched: The trial of the system as it is.
        judgements: The test queries.
        goal: What is measured.
        level: Chance of calling anything better or worse that is not, over all finalists.
        seed: Decides resamples.

    Returns:
        The untouched system, and the finalists in the order given.
    """
    base = bench.values({}, judgements, goal)
    values = [bench.values(trial.system, judgements, goal) for trial in trials]
    tests = [
        paired_test(each, base, confidence=1 - level, num_resamples=10_000, seed=seed)  # (Q,), (Q,)
        for each in values
    ]
    adjusted = holm([test.pvalue for test in tests]) if tests else np.empty(0)
    first = _finalist(bench, untouched, base, base, None, 1.0, judgements, level, seed)
    return first, [
        _finalist(bench, trial, each, base, test.difference, float(pvalue), judgements, level, seed)
        for trial, each, test, pvalue in zip(trials, values, tests, adjusted, strict=True)
    ]


def finalists_of(trials: Sequence[Trial], *, most: int = 3) -> list[Trial]:
    """Choose what is worth a proof: the best on development, then others that differ in what they return.

    Args:
        trials: Trials on all development queries, best first.
        most: Largest number of finalists; each more of them makes the correction harder.

    Returns:
        The finalists, best first, none of them the untouched system.
    """
    chosen: list[Trial] = []
    for trial in trials:
        alike = any(np.array_equal(trial.values, other.values) for other in chosen)
        if name_of(trial.system) != name_of({}) and not alike:
            chosen.append(trial)
        if len(chosen) == most:
            break
    return chosen


def _finalist(
    bench: Bench,
    trial: Trial,
    values: NDArray[np.float64],
    base: NDArray[np.float64],
    gain: Interval | None,
    pvalue: float,
    judgements: Judgements,
    level: float,
    seed: int,
) -> Finalist:
    steps = values - base
    return Finalist(
        system=dict(trial.system),
        development=trial.score,
        test=bootstrap_interval(values, confidence=1 - level, seed=seed),
        gain=gain or Interval(0.0, 0.0, 0.0, 1 - level),
        pvalue=pvalue,
        better=bool(pvalue <= level and steps.mean() > 0),
        worse=bool(pvalue <= level and steps.mean() < 0),
        won=int((steps > 1e-9).sum()),
        lost=int((steps < -1e-9).sum()),
        tied=int((np.abs(steps) <= 1e-9).sum()),
        costs=costs_of(bench, trial.system, judgements.queries),
        examples=_examples(bench, trial.system, judgements, steps),
    )


def costs_of(bench: Bench, system: System, queries: Sequence[str]) -> Costs:
    """Measure searches of a system, one at a time, through a real collection.

    Args:
        bench: Tries systems.
        system: The system.
        queries: Queries to search for; some of them are taken.

    Returns:
        Times and bytes.
    """
    collection, encoder = bench.collection_of(system), bench.encoder_of(system)
    settings = bench.settings_of(system)
    collection.configure(
        weight=settings.weight,
        feedback_passages=settings.feedback_passages,
        feedback_weight=settings.feedback_weight,
    )
    asked = list(queries[:_TIMED])
    collection.search(asked[0], per_document=True)  # the first search loads what all use
    searches, encodings = [], []
    for query in asked:
        began = time.perf_counter()
        collection.search(query, per_document=True)
        searches.append(time.perf_counter() - began)
        began = time.perf_counter()
        encoder.encode_query([query])
        encodings.append(time.perf_counter() - began)
    p50, p95 = np.percentile(searches, [50, 95]) * 1000
    return Costs(float(p50), float(p95), float(np.median(encodings) * 1000), bench.bytes_per_document(system))


def _examples(bench: Bench, system: System, judgements: Judgements, steps: NDArray[np.float64]) -> tuple[Example, ...]:
    order = np.argsort(steps, kind="stable")
    places = [int(place) for place in (*order[::-1][:_EXAMPLES], *order[:_EXAMPLES]) if abs(steps[place]) > 1e-9]
    places = list(dict.fromkeys(places))
    queries = [judgements.queries[place] for place in places]
    if not queries:
        return ()
    before, after = bench.rank({}, queries, depth=_SHOWN), bench.rank(system, queries, depth=_SHOWN)
    return tuple(
        Example(query, tuple(old), tuple(new), tuple(_known(judgements.relevant[place])), float(steps[place]))
        for query, old, new, place in zip(queries, before, after, places, strict=True)
    )


def _known(relevant: Mapping[str, float]) -> list[str]:
    return sorted(relevant, key=lambda source: (-relevant[source], source))[:_SHOWN]
