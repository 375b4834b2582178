"""Judging a binariser on data kept aside, so that what training makes is kept only if it is better than the start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedlab.search.bebr.recurrence import Floats, Recurrence, unit, values

Scores = NDArray[np.float64]
NEAREST = 10


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well codes answer development queries, one number in [0, 1] for each.

    Attributes:
        fidelity: Share of the ten nearest by the vectors that are among the ten nearest by the codes.
        task: One over the rank of the query's own document; empty without pairs.
        old: The same in an index of old codes; empty without one.
    """

    fidelity: Scores
    task: Scores
    old: Scores

    @property
    def aim(self) -> Scores:
        """What training is for: finding the own document, in the old index as well if there is one; else fidelity."""
        if len(self.old):
            return (self.task + self.old) / 2
        return self.task if len(self.task) else self.fidelity


@dataclass(frozen=True)
class Development:
    """Queries and what they are searched in, kept aside from training.

    Attributes:
        queries: Unit vectors (Q, D).
        corpus: Unit vectors (N, D).
        own: The row of the corpus that belongs to each query (Q,): its document, or with ``itself`` the query.
        itself: Whether queries are rows of the corpus; each is then left out of its own results.
        old: Codes of the corpus by an old binariser, as sums of signs (N, m'), or None.
    """

    queries: Floats
    corpus: Floats
    own: NDArray[np.intp]
    itself: bool
    old: Floats | None = None

    def judge(self, recurrence: Recurrence, *, signs: bool = True) -> Judgement:
        """Search with codes and with floats as queries, and average the two.

        Args:
            recurrence: What to judge.
            signs: False to compare what signs are taken of, on both sides.

        Returns:
            The judgement.
        """
        stored = recurrence.floats(self.corpus)
        asked = [recurrence.floats(self.queries)]
        if signs:
            stored = unit(values(recurrence.codes(self.corpus), recurrence.bits))
            asked.append(unit(values(recurrence.codes(self.queries), recurrence.bits)))
        wanted = self._nearest(self.queries @ self.corpus.T)
        fidelity = np.mean([shared(self._nearest(each @ stored.T), wanted) for each in asked], axis=0)
        task = old = np.empty(0)
        if not self.itself:
            task = np.mean([reciprocal_ranks(each @ stored.T, self.own) for each in asked], axis=0)
        if self.old is not None:
            kept = unit(self.old)
            old = np.mean([reciprocal_ranks(each[:, : kept.shape[1]] @ kept.T, self.own) for each in asked], axis=0)
        return Judgement(fidelity, task, old)

    def _nearest(self, scores: Floats) -> NDArray[np.intp]:
        if self.itself:
            scores[np.arange(len(scores)), self.own] = -np.inf
        return nearest(scores)


def surely_better(new: Scores, start: Scores) -> bool:
    """Tell whether queries are answered better by more than one standard error of the difference.

    Args:
        new: One number for each query (Q,).
        start: The same before training (Q,).

    Returns:
        The answer.
    """
    gain = new - start
    return bool(gain.mean() > gain.std() / len(gain) ** 0.5)


def nearest(scores: Floats) -> NDArray[np.intp]:
    """Find the ten best columns of every row.

    Args:
        scores: Scores (Q, N).

    Returns:
        Columns (Q, min(10, N)), in any order.
    """
    return np.argpartition(-scores, min(NEAREST, scores.shape[1] - 1), axis=1)[:, :NEAREST]


def shared(found: NDArray[np.intp], wanted: NDArray[np.intp]) -> Scores:
    """Measure how much of what was wanted is found.

    Args:
        found: Columns (Q, k).
        wanted: Columns (Q, k).

    Returns:
        Shares (Q,).
    """
    return np.asarray((found[:, :, None] == wanted[:, None, :]).any(axis=1).mean(axis=1))


def reciprocal_ranks(scores: Floats, own: NDArray[np.intp]) -> Scores:
    """Return one over the rank of each row's own column; columns that tie with it do not count against it.

    Args:
        scores: Scores (Q, N).
        own: The column that belongs to each row (Q,).

    Returns:
        Numbers in (0, 1], (Q,).
    """
    mine = np.take_along_axis(scores, own[:, None], axis=1)
    return np.asarray(1 / (1 + (scores > mine).sum(axis=1)))
