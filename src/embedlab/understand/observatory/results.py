"""What a property gives, and the list of properties, which anyone may extend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.ops.significance import Interval, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a property, with everything it was made of.

    Attributes:
        interval: The mean over tables (over objects, if there is one table), with its confidence interval.
        values: One value per object.
        objects: Names of the objects, as ``table.column``.
    """

    interval: Interval
    values: Floats
    objects: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; infinite ends of an interval become None."""
        ends = {"low": self.interval.low, "high": self.interval.high}
        return {
            "estimate": _plain(self.interval.estimate),
            **{name: _plain(value) for name, value in ends.items()},
            "confidence": self.interval.confidence,
            "values": {name: _plain(value) for name, value in zip(self.objects, self.values.tolist(), strict=True)},
        }


@dataclass(frozen=True, slots=True)
class PropertyResult:
    """What one encoder shows of one property.

    Attributes:
        name: The property.
        encoder: Name of the encoder.
        level: What was embedded.
        measures: The numbers, by name.
        details: Single numbers beside them: counts, p-values, levels of chance.
        skipped: Tables that could not be used, each with the reason.
        notes: What a reader has to know to read the numbers rightly.
    """

    name: str
    encoder: str
    level: str
    measures: dict[str, Measure]
    details: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __getitem__(self, measure: str) -> float:
        """Return the estimate of one measure."""
        if measure not in self.measures:
            raise unknown_name("measure", measure, self.measures)
        return self.measures[measure].interval.estimate

    def plot(self, *, reference: ArrayLike = ()) -> Figure:
        """Draw the measures as a matplotlib figure (extra ``evaluate``); see ``plots.draw``."""
        from embedlab.understand.observatory.plots import draw

        return draw(self, reference=reference)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "name": self.name,
            "encoder": self.encoder,
            "level": self.level,
            "measures": {name: measure.to_dict() for name, measure in self.measures.items()},
            "details": {name: _plain(value) for name, value in self.details.items()},
            "skipped": dict(self.skipped),
            "notes": list(self.notes),
        }


#: (encoder, tables, *, seed, further options) -> result
Property: TypeAlias = Callable[..., PropertyResult]
PROPERTIES: dict[str, Property] = {}


def register_property(name: str) -> Callable[[Property], Property]:
    """Make a property known under a name, as a decorator, so that ``characterize`` runs it with the others.

    Args:
        name: What reports call it.

    Returns:
        The decorator, which gives the function back. The function takes an encoder, a list of tables and the keyword
        ``seed``, and returns a ``PropertyResult``.

    Raises:
        InputError: the name is taken.
    """
    if name in PROPERTIES:
        raise InputError(f"name={name!r} is taken by another property: choose a new one")

    def add(measure: Property) -> Property:
        PROPERTIES[name] = measure
        return measure

    return add


def measure_over_tables(
    values: Sequence[float], objects: Sequence[str], tables: Sequence[str], *, seed: int = 0
) -> Measure:
    """Average values within tables, then over tables, with an interval over tables.

    Args:
        values: One number per object.
        objects: Name of each object.
        tables: Table of each object.
        seed: Decides the bootstrap resamples.

    Returns:
        The measure; with a single table the interval is over its objects.

    Raises:
        InputError: there is no value, or one is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise InputError("values: nothing could be measured on these tables; see the reasons in `skipped`")
    names, place = np.unique(np.asarray(tables), return_inverse=True)
    means = np.bincount(place, weights=sample) / np.bincount(place)
    units = means if len(names) > 1 else sample
    return Measure(bootstrap_interval(units, seed=seed), sample, tuple(objects))


def nothing_measured(
    name: str, encoder: str, level: str, skipped: Mapping[str, str], *, why: str = "there is no table"
) -> InputError:
    """Build the error for a property that no table allowed to measure.

    Args:
        name: The property.
        encoder: Name of the encoder.
        level: What was to be embedded.
        skipped: Reason per table.
        why: The reason where no table was skipped.

    Returns:
        The error, ready to be raised.
    """
    reasons = "; ".join(f"{table}: {reason}" for table, reason in list(skipped.items())[:3]) or why
    return InputError(f"tables: {name} of {encoder!r} at level {level!r} cannot be measured on any of them ({reasons})")


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
