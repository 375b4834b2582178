"""Claims of a paper as records, and the verdict that measured numbers give them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from embedlab._core.errors import InputError

Verdict = Literal["holds", "holds weaker", "does not hold"]
LEVELS = ("smoke", "cpu", "gpu")

# from worst to best: what is not there, what was not measured, what no longer counts, what was measured
STATES = ("missing", "not run", "stale", "does not hold", "holds weaker", "holds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One thing a paper claims, in a form that a measurement can contradict.

    The *gain* of a seed is ``metric - baseline`` when higher is better and ``baseline - metric`` when lower is better.
    The claim holds if the mean gain reaches ``margin`` and at least ``wins`` of the seeds gain; it holds weaker if the
    mean gain is above zero but below ``margin`` with as many wins; otherwise it does not hold.

    Attributes:
        id: Short name, unique within the method.
        words: The claim as one sentence.
        metric: Key of the number under test in what ``run`` returns.
        baseline: Key of the number it is compared with, or a constant.
        direction: Whether ``"higher"`` or ``"lower"`` is better.
        margin: Smallest mean gain that counts as holding, in the metric's unit, at least 0.
        seeds: Number of seeds to run.
        wins: Fraction of seeds, in (0, 1], that must show a gain above zero (or of zero if ``margin`` is 0).
        levels: Levels at which the claim is judged.
        published: What the paper reports, with its setting, as text: never mixed with our numbers.
        published_source: Where it is printed: table or page.
    """

    id: str
    words: str
    metric: str
    baseline: str | float
    direction: Literal["higher", "lower"]
    margin: float
    seeds: int = 3
    wins: float = 2 / 3
    levels: tuple[str, ...] = ("cpu", "gpu")
    published: str | None = None
    published_source: str | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower"):
            raise InputError(f"claim {self.id!r}: direction={self.direction!r} must be 'higher' or 'lower'")
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise InputError(f"claim {self.id!r}: margin={self.margin} must be a finite number, at least 0")
        if not (self.seeds >= 1 and 0 < self.wins <= 1):
            raise InputError(f"claim {self.id!r}: seeds={self.seeds} must be >= 1 and wins={self.wins} in (0, 1]")
        if not set(self.levels) <= set(LEVELS):
            raise InputError(f"claim {self.id!r}: levels={self.levels} must be among {', '.join(LEVELS)}")
        if (self.published is None) != (self.published_source is None):
            raise InputError(f"claim {self.id!r}: published and published_source go together")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the measured numbers say about one claim.

    Attributes:
        claim: The claim.
        verdict: ``"holds"``, ``"holds weaker"`` or ``"does not hold"``.
        metric_mean: Mean of the metric over the seeds.
        baseline_mean: Mean of the baseline over the seeds.
        gains: Gain of each seed, positive when better.
        gain_mean: Mean gain.
        gain_spread: Sample standard deviation of the gains; 0 for one seed.
    """

    claim: Claim
    verdict: Verdict
    metric_mean: float
    baseline_mean: float
    gains: tuple[float, ...]
    gain_mean: float
    gain_spread: float


def judge(claim: Claim, runs: Sequence[Mapping[str, float]]) -> Judgement:
    """Judge one claim by the numbers of its seeds.

    Args:
        claim: The claim.
        runs: What ``run`` returned, one mapping per seed.

    Returns:
        The verdict with the figures that led to it.

    Raises:
        InputError: there is no run, a number is missing, or a number is not finite.

    Example:
        >>> claim = Claim(id="a", words="b", metric="new", baseline="old", direction="higher", margin=0.5)
        >>> judge(claim, [{"new": 3.0, "old": 2.0}, {"new": 2.5, "old": 2.0}]).verdict
        'holds'
        >>> judge(claim, [{"new": 2.2, "old": 2.0}]).verdict
        'holds weaker'
        >>> judge(claim, [{"new": 1.0, "old": 2.0}]).verdict
        'does not hold'
    """
    if not runs:
        raise InputError(f"claim {claim.id!r}: no runs to judge it by")
    metrics = [_number(claim, run, claim.metric) for run in runs]
    baselines = [_number(claim, run, claim.baseline) for run in runs]
    sign = 1.0 if claim.direction == "higher" else -1.0
    gains = tuple(sign * (metric - baseline) for metric, baseline in zip(metrics, baselines, strict=True))
    mean = statistics.fmean(gains)
    won = sum(gain > 0 or (gain == 0 and claim.margin == 0) for gain in gains)
    enough = won >= claim.wins * len(gains) - 1e-9
    verdict: Verdict = "does not hold"
    if enough and mean >= claim.margin:
        verdict = "holds"
    elif enough and mean > 0:
        verdict = "holds weaker"
    return Judgement(
        claim=claim,
        verdict=verdict,
        metric_mean=statistics.fmean(metrics),
        baseline_mean=statistics.fmean(baselines),
        gains=gains,
        gain_mean=mean,
        gain_spread=statistics.stdev(gains) if len(gains) > 1 else 0.0,
    )


def worst(states: Iterable[str]) -> str:
    """Return the worst of some states: a chain is as strong as its weakest link.

    Args:
        states: Some of ``STATES``; at least one.

    Returns:
        The one that comes first in ``STATES``.

    Example:
        >>> worst(["holds", "stale", "holds weaker"])
        'stale'
    """
    return min(states, key=STATES.index)


def _number(claim: Claim, run: Mapping[str, float], key: str | float) -> float:
    if not isinstance(key, str):
        return float(key)
    if key not in run:
        raise InputError(f"claim {claim.id!r}: run() gave no number {key!r}, only {', '.join(sorted(run))}")
    if not math.isfinite(run[key]):
        raise InputError(f"claim {claim.id!r}: run() gave {key}={run[key]}, which is not finite")
    return float(run[key])
