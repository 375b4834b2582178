"""What a ranking is worth: nDCG, recall, average precision, of one query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedlab._core.errors import InputError

GOALS = ("ndcg@10", "recall@100", "map")


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be as large as possible.

    Attributes:
        name: ``"ndcg@10"``, ``"recall@100"`` or ``"map"``; any depth may stand behind the ``@``.
        measure: ``"ndcg"``, ``"recall"`` or ``"map"``.
        depth: How many documents of a ranking count.
    """

    name: str
    measure: str
    depth: int

    @classmethod
    def of(cls, name: str) -> Goal:
        """Read a goal.

        Args:
            name: As in ``name`` above.

        Returns:
            The goal.

        Raises:
            InputError: it is none.

        Example:
            >>> Goal.of("ndcg@10").depth
            10
        """
        measure, _, depth = name.partition("@")
        known = measure in ("ndcg", "recall", "map") and (not depth or depth.isdecimal())
        if not known or not 1 <= int(depth or 100) <= 1000:
            raise InputError(f"goal={name!r}: must be one of {', '.join(GOALS)}, with a depth from 1 to 1000")
        return cls(name, measure, int(depth or 100))


def value_of(goal: Goal, ranked: Sequence[str], relevant: Mapping[str, float]) -> float:
    """Score one ranking.

    Args:
        goal: What is measured.
        ranked: Documents, best first.
        relevant: Grades, above 0, of the relevant ones.

    Returns:
        A value in [0, 1].

    Example:
        >>> value_of(Goal.of("ndcg@10"), ["a", "b"], {"b": 1.0})
        0.6309297535714575
    """
    gains = [relevant.get(document, 0.0) for document in ranked[: goal.depth]]
    if goal.measure == "ndcg":
        ideal = sorted(relevant.values(), reverse=True)[: goal.depth]
        return _discounted(gains) / _discounted(ideal)
    hits = [gain > 0 for gain in gains]
    if goal.measure == "recall":
        return sum(hits) / min(len(relevant), goal.depth)
    found, total = 0, 0.0
    for place, hit in enumerate(hits, start=1):
        if hit:
            found += 1
            total += found / place
    return total / len(relevant)


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
