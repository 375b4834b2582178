"""Corpora against corpora by depth: Q with a bootstrap interval, label by label, and watched over time.

The core, depth and its rank-sum test, is ``embedlab.understand.tte_depth``. These are its uses for data that comes in
clusters, with labels, or day by day.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.ops.significance import Interval, holm, resamples
from embedlab.understand.tte_depth import DepthTest, TextDepth, compare_depths
from embedlab.understand.tte_depth.compare import Alternative
from embedlab.understand.tte_depth.rows import matrix, sum_of_units, units

_FORMAT = 1
_KEPT_DEPTHS = 10_000  # of a reference, beside its sum: quantiles of these are good to half a percent


def bootstrap_q(
    reference: ArrayLike,
    other: ArrayLike,
    *,
    reference_groups: ArrayLike | None = None,
    other_groups: ArrayLike | None = None,
    confidence: float = 0.95,
    num_resamples: int = 400,
    seed: int = 0,
) -> Interval:
    """Estimate Q with a percentile interval from drawing both corpora anew, depths measured again each time.

    ``TextDepth.test`` gives an interval that takes the reference's centre as known and its texts as independent. Here
    the centre moves with the texts drawn, and texts that belong together, such as the passages of one document, are
    drawn together.

    Args:
        reference: Rows of the reference corpus, at least 2.
        other: Rows of the other corpus.
        reference_groups: Cluster of each row of the reference; whole clusters are drawn. None draws rows.
        other_groups: Cluster of each row of the other corpus.
        confidence: Level of the interval, in (0, 1).
        num_resamples: Resamples, at least 100.
        seed: Decides them.

    Shape:
        reference (N, D), other (M, D), groups (N,) and (M,) -> Interval

    Returns:
        Q in [0, 1] with its interval.

    Raises:
        InputError: a corpus is not a finite matrix without zero rows, widths differ, or an option is out of range.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(300, 8)) + 1
        >>> found = bootstrap_q(rows[:200], rows[200:])
        >>> found.low < 0.5 < found.high
        True
    """
    if num_resamples < 100 or not 0 < confidence < 1:
        raise InputError(f"num_resamples={num_resamples} must be at least 100 and confidence={confidence} in (0, 1)")
    depth = TextDepth().fit(reference)
    estimate = depth.q(other)
    own, others = units("reference", matrix("reference", reference)), units("other", matrix("other", other))
    count = len(own)
    drawn: list[float] = []
    draws = zip(
        _rows_of(resamples(count, groups=reference_groups, num_resamples=num_resamples, seed=seed)),
        _rows_of(resamples(len(others), groups=other_groups, num_resamples=num_resamples, seed=seed + 1)),
        strict=True,
    )
    for weights, other_weights in draws:
        size = weights.sum()
        centre = weights @ own  # (D,)
        # depth less a constant; a row drawn twice is at distance 0 from itself, so all its copies are left out
        inner = (own @ centre - weights) / np.maximum(size - weights, 1)
        outer = others @ centre / size
        drawn.append(_weighted_q(inner, weights, outer, other_weights))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high), confidence)


def _rows_of(parts: Iterator[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
    for part in parts:
        yield from part


def _weighted_q(
    inner: NDArray[np.float64], weights: NDArray[np.float64], outer: NDArray[np.float64], other: NDArray[np.float64]
) -> float:
    """Share of weighted pairs with inner below outer, equals counting half."""
    order = np.argsort(inner, kind="stable")
    ranked, mass = inner[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    below = mass[np.searchsorted(ranked, outer, side="left")] + mass[np.searchsorted(ranked, outer, side="right")]
    return float(other @ below / (2 * mass[-1] * other.sum()))


@dataclass(frozen=True, slots=True)
class GroupShift:
    """How the texts of one label differ between two corpora.

    Attributes:
        label: The label.
        test: Depth test within the label, the reference's texts of it against the other corpus's.
        adjusted: P-value adjusted for the number of labels (Holm).
        share_reference: Share of the reference that has the label.
        share_other: Share of the other corpus that has it.
    """

    label: str
    test: DepthTest
    adjusted: float
    share_reference: float
    share_other: float


@dataclass(frozen=True, slots=True)
class LabelledShift:
    """How two corpora differ, label by label.

    Attributes:
        groups: Labels with at least the fewest texts on both sides, the lowest adjusted p-value first.
        left_out: Labels with fewer, or on one side only.
    """

    groups: tuple[GroupShift, ...]
    left_out: tuple[str, ...]


def shift_by_label(
    reference: ArrayLike,
    other: ArrayLike,
    reference_labels: Sequence[str],
    other_labels: Sequence[str],
    *,
    alternative: Alternative = "two-sided",
    at_least: int = 5,
    seed: int = 0,
) -> LabelledShift:
    """Compare two corpora within each label, or cluster, by depth.

    Depth over a corpus of several topics mostly measures topics: its median lies in the largest. Within a label it
    tells whether the texts of that label have moved. Below 50 texts on a side the p-value is the permutation test's.

    Args:
        reference: Rows of the reference corpus.
        other: Rows of the other corpus.
        reference_labels: Label of each row of the reference.
        other_labels: Label of each row of the other corpus.
        alternative: As in ``TextDepth.test``.
        at_least: Fewest texts of a label on both sides, at least 2.
        seed: Decides the permutations.

    Returns:
        One test per label, adjusted for their number.

    Raises:
        InputError: a corpus is not as ``TextDepth`` needs it, labels are not one per row, or ``at_least`` is below 2.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(400, 8)) + 1
        >>> rows[300:] += np.eye(8)[0] * 3
        >>> labels = (["a"] * 100 + ["b"] * 100) * 2
        >>> found = shift_by_label(rows[:200], rows[200:], labels[:200], labels[200:])
        >>> [(group.label, group.adjusted < 0.05) for group in found.groups]
        [('b', True), ('a', False)]
    """
    if at_least < 2:
        raise InputError(f"at_least={at_least} must be at least 2")
    own, others = matrix("reference", reference, at_least=2), matrix("other", other)
    given = {"reference_labels": (reference_labels, own), "other_labels": (other_labels, others)}
    for name, (labels, rows) in given.items():
        if len(labels) != len(rows):
            raise InputError(f"{name} has {len(labels)} entries for {len(rows)} rows: give one per row")
    mine, theirs = np.asarray(reference_labels, dtype=str), np.asarray(other_labels, dtype=str)
    tested: list[tuple[str, DepthTest]] = []
    left_out = []
    for label in sorted(set(mine.tolist()) | set(theirs.tolist())):
        inside, outside = own[mine == label], others[theirs == label]
        if min(len(inside), len(outside)) < at_least:
            left_out.append(label)
            continue
        few = min(len(inside), len(outside)) < 50
        depth = TextDepth().fit(inside)
        method: Any = "permutation" if few else "asymptotic"
        tested.append((label, depth.test(outside, alternative=alternative, method=method, seed=seed)))
    adjusted = holm([test.pvalue for _, test in tested])
    groups = [
        GroupShift(label, test, float(value), float(np.mean(mine == label)), float(np.mean(theirs == label)))
        for (label, test), value in zip(tested, adjusted, strict=True)
    ]
    return LabelledShift(tuple(sorted(groups, key=lambda group: group.adjusted)), tuple(left_out))


class DriftMonitor:
    """Watch whether what arrives still lies where a reference corpus lies, without keeping either.

    Of the reference, its number of rows, the sum of its unit rows and a sorted sample of its depths are kept; of what
    arrives, only the depths since the last ``reset``.

    Args:
        reference: Rows of the reference corpus, at least 2.
        fingerprint: Fingerprint of the model that made the rows, kept so that others can be refused.
        seed: Decides which depths are kept of a reference with over 10,000 rows.

    Shape:
        reference (N, D)

    Attributes:
        count: Rows in the reference.
        seen: Rows that have arrived since the last ``reset``.
        fingerprint: Fingerprint of the model.

    Raises:
        InputError: ``reference`` is not a finite matrix of 2 rows or more without zero rows.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(600, 8)) + 1
        >>> monitor = DriftMonitor(rows[:400])
        >>> _ = monitor.add(rows[400:500])
        >>> _ = monitor.add(rows[500:] - 0.6)
        >>> monitor.test().pvalue < 0.01, monitor.seen
        (True, 200)
    """

    def __init__(self, reference: ArrayLike, *, fingerprint: str = "", seed: int = 0) -> None:
        depth = TextDepth().fit(reference)
        depths = depth.depths()
        if len(depths) > _KEPT_DEPTHS:
            depths = np.random.default_rng(seed).permutation(depths)[:_KEPT_DEPTHS]
        total = sum_of_units("reference", matrix("reference", reference))
        self._depth, self._depths = TextDepth.from_sum(total, depth.count), np.sort(depths)
        self.fingerprint = fingerprint
        self._arrived: list[NDArray[np.float64]] = []

    @property
    def count(self) -> int:
        """Rows in the reference."""
        return self._depth.count

    @property
    def seen(self) -> int:
        """Rows that have arrived since the last ``reset``."""
        return sum(map(len, self._arrived))

    def add(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Take in what has arrived.

        Args:
            vectors: Rows by the same model.

        Returns:
            Depth of each in the reference.

        Raises:
            InputError: they do not fit the reference.
        """
        self._arrived.append(self._depth.depths(vectors))
        return self._arrived[-1]

    def test(self, *, alternative: Alternative = "two-sided", confidence: float = 0.95) -> DepthTest:
        """Compare all that has arrived since the last ``reset`` with the reference.

        Args:
            alternative: As in ``TextDepth.test``.
            confidence: Level of the interval around Q.

        Returns:
            Q, its interval, statistic and p-value; ``n`` is the number of depths kept of the reference.

        Raises:
            InputError: nothing has arrived yet.
        """
        if not self._arrived:
            raise InputError("nothing has arrived yet: call add first")
        arrived = np.concatenate(self._arrived)
        return compare_depths(self._depths, arrived, alternative=alternative, confidence=confidence)

    def reset(self) -> None:
        """Forget what has arrived, for the next day or week; the reference stays."""
        self._arrived.clear()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the reference to a file of NumPy's ``npz`` form, in one step; what has arrived is not part of it.

        Args:
            path: The file; an existing one is replaced.
        """
        total = self._depth.total
        content = io.BytesIO()
        if total is not None:
            np.savez(
                content,
                format=_FORMAT,
                total=total,
                count=self.count,
                depths=self._depths,
                fingerprint=self.fingerprint,
            )
        atomic_write(path, content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DriftMonitor:
        """Open a saved reference.

        Args:
            path: A file written by ``save``.

        Returns:
            A monitor that has seen nothing yet.

        Raises:
            InputError: the file is not there, or is not one of these.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as content:
                found = {name: content[name] for name in ("format", "total", "count", "depths", "fingerprint")}
        except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no saved reference of depths: {error}") from error
        if int(found["format"]) != _FORMAT:
            raise InputError(f"{path} has format {found['format']}, this version reads {_FORMAT}: save it anew")
        monitor = cls.__new__(cls)
        monitor._depth = TextDepth.from_sum(found["total"], int(found["count"]))
        monitor._depths = np.sort(found["depths"].astype(np.float64))
        monitor.fingerprint = str(found["fingerprint"])
        monitor._arrived = []
        return monitor
