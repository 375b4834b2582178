"""Does a model keep its word when texts get long, misspelt or moved, or prompts are reworded? Numbers and verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.models.encoder import Encoder

Floats = NDArray[np.float64]
Pairs = tuple[Sequence[str], Sequence[str]]  # queries and documents, row by row

#: Check -> the largest value that passes. Drops and spreads are in points of MRR, association in deviations.
THRESHOLDS: Mapping[str, float] = {
    "length": 0.10,
    "position": 0.10,
    "prompts": 0.02,
    "typos": 0.15,
    "case": 0.05,
    "association": 0.80,
    "out_of_domain": 0.20,
}

PROMPTS = ("", "query: ", "Find the text that fits: ", "Which document is about this? ", "Search for: ")

_FILLING = (
    "This page is one of several. It was set in the same type as the others, and its margins are as wide as theirs. "
    "Some lines are longer and some are shorter. What comes before may be read again later, and what comes after may "
    "be left for another time. The pages are numbered in the usual way, and nothing depends on the order in which they "
    "are read. There is a list of them at the front."
)


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: Its name, a key of ``THRESHOLDS``.
        value: What is judged; smaller is better.
        threshold: The largest value that passes.
        passed: Whether it is at most that.
        detail: The numbers behind it.
    """

    name: str
    value: float
    threshold: float
    passed: bool
    detail: dict[str, float]


@dataclass(frozen=True, slots=True)
class RobustnessReport:
    """All checks of one model.

    Attributes:
        model: The model's name.
        mrr: Mean reciprocal rank of each query's document among all, untouched.
        checks: The checks.
    """

    model: str
    mrr: float
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)


def check_robustness(
    encoder: Encoder,
    queries: Sequence[str],
    documents: Sequence[str],
    *,
    outside: Pairs | None = None,
    thresholds: Mapping[str, float] | None = None,
    typo_rate: float = 0.05,
    seed: int = 0,
) -> RobustnessReport:
    """Put a model to the test on pairs of query and document.

    - ``length``: MRR less that with every document four times as long, by words that say nothing behind it.
    - ``position``: the largest difference in MRR between the document at the beginning, in the middle and at the end of
      a text four times as long.
    - ``prompts``: standard deviation of the MRR over five instructions before the queries.
    - ``typos``: MRR less that with one letter in twenty of the queries swapped, dropped or doubled.
    - ``case``: MRR less the worse of all upper and all lower case queries.
    - ``association``: the largest effect size, without its sign, of the shipped association tests.
    - ``out_of_domain``: MRR less that on ``outside``, among as many documents; left out without it.

    Args:
        encoder: The model.
        queries: Queries.
        documents: The document that answers each query, in the same order, at least four.
        outside: Queries and documents of another domain.
        thresholds: Check -> largest value that passes, over ``THRESHOLDS``.
        typo_rate: Share of letters to spoil, in (0, 1).
        seed: Of the spoiled letters.

    Returns:
        The report.

    Raises:
        InputError: lengths differ, there are fewer than four pairs, or a threshold or rate is not allowed.
    """
    _check_pairs(queries, documents)
    limits = {**THRESHOLDS, **(thresholds or {})}
    for name in limits:
        if name not in THRESHOLDS:
            raise unknown_name("threshold", name, THRESHOLDS)
    if not 0 < typo_rate < 1:
        raise InputError(f"typo_rate={typo_rate}: expected a number above 0 and below 1")
    asked, found = encoder.encode_query(list(queries)), encoder.encode_document(list(documents))
    mrr = mean_reciprocal_rank(asked, found)

    def against(texts: Sequence[str]) -> float:
        return mean_reciprocal_rank(asked, encoder.encode_document(list(texts)))

    def asking(texts: Sequence[str]) -> float:
        return mean_reciprocal_rank(encoder.encode_query(list(texts)), found)

    places = {place: against(_buried(documents, place)) for place in ("start", "middle", "end")}
    prompts = {f"prompt_{n}": asking([prompt + query for query in queries]) for n, prompt in enumerate(PROMPTS)}
    typos = asking([_misspelt(query, typo_rate, np.random.default_rng([seed, n])) for n, query in enumerate(queries)])
    cases = {"upper": asking([query.upper() for query in queries]), "lower": asking([q.lower() for q in queries])}
    biases = {name: association(encoder, *words) for name, words in association_tests().items()}
    values: dict[str, tuple[float, dict[str, float]]] = {
        "length": (mrr - places["start"], {"long": places["start"]}),
        "position": (max(places.values()) - min(places.values()), places),
        "prompts": (float(np.std(list(prompts.values()))), prompts),
        "typos": (mrr - typos, {"misspelt": typos}),
        "case": (mrr - min(cases.values()), cases),
        "association": (max(abs(value) for value in biases.values()), biases),
    }
    if outside is not None:
        values["out_of_domain"] = _outside(encoder, outside, asked, found)
    checks = tuple(
        Check(name, value, limits[name], value <= limits[name], detail) for name, (value, detail) in values.items()
    )
    return RobustnessReport(encoder.name, mrr, checks)


def mean_reciprocal_rank(queries: ArrayLike, documents: ArrayLike) -> float:
    """Return the mean of 1 / rank of document i for query i, by dot product; equal scores stand before it.

    Args:
        queries: Vectors.
        documents: Vectors, in the same order.

    Shape:
        queries (N, D), documents (N, D) -> float

    Returns:
        A number in (0, 1].

    Example:
        >>> mean_reciprocal_rank([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
        0.75
    """
    scores = np.asarray(queries, dtype=np.float64) @ np.asarray(documents, dtype=np.float64).T
    own = np.diagonal(scores)[:, None]
    return float(np.mean(1 / ((scores > own).sum(1) + (scores == own).sum(1))))


def association(
    encoder: Encoder, first: Sequence[str], second: Sequence[str], left: Sequence[str], right: Sequence[str]
) -> float:
    """Measure whether one group of words is nearer to a set of attributes than another group: WEAT's effect size.

    s(w) = mean cos(w, left) - mean cos(w, right); the effect is (mean s(first) - mean s(second)) / deviation of s over
    both.

    Args:
        encoder: The model.
        first: Words of one group.
        second: Words of the other.
        left: Attributes.
        right: Attributes of the other kind.

    Returns:
        From -2 to 2; 0 for no association; positive where the first group goes with the left attributes.

    Raises:
        InputError: a list is empty.

    References:
        Caliskan, Bryson and Narayanan (2017), Semantics derived automatically from language corpora contain human-like
        biases, arXiv:1608.07187v4.
    """
    if not (first and second and left and right):
        raise InputError("association: each of the four lists needs at least one word")
    rows = encoder.encode_document([*first, *second]).astype(np.float64)
    near = (rows @ encoder.encode_document(list(left)).T).mean(1) - (
        rows @ encoder.encode_document(list(right)).T
    ).mean(1)
    spread = float(near.std(ddof=1))
    return float((near[: len(first)].mean() - near[len(first) :].mean()) / spread) if spread > 1e-12 else 0.0


@cache
def association_tests() -> dict[str, tuple[list[str], list[str], list[str], list[str]]]:
    """Read the shipped association tests.

    Returns:
        Name -> the four lists of ``association``.
    """
    file = Path(__file__).with_name("association_tests.json")
    return {name: tuple(lists) for name, lists in json.loads(file.read_text(encoding="utf-8")).items()}


def _outside(encoder: Encoder, outside: Pairs, asked: Any, found: Any) -> tuple[float, dict[str, float]]:
    _check_pairs(*outside)
    count = min(len(outside[0]), len(asked))
    other = mean_reciprocal_rank(
        encoder.encode_query(list(outside[0][:count])), encoder.encode_document(list(outside[1][:count]))
    )
    inside = mean_reciprocal_rank(asked[:count], found[:count])
    return inside - other, {"inside": inside, "outside": other}


def _check_pairs(queries: Sequence[str], documents: Sequence[str]) -> None:
    if len(queries) != len(documents) or len(queries) < 4:
        raise InputError(f"{len(queries)} queries and {len(documents)} documents: expected as many, at least four")


def _buried(documents: Sequence[str], place: str) -> list[str]:
    """Put three times as many words that say nothing around each: behind it, on both sides, or before it."""
    made = []
    for document in documents:
        count = 3 * len(document.split())
        words = _FILLING.split()
        filling = (words * (1 + count // len(words)))[:count]
        cut = {"start": 0, "middle": count // 2, "end": count}[place]
        made.append(" ".join([*filling[:cut], document, *filling[cut:]]))
    return made


def _misspelt(text: str, rate: float, rng: np.random.Generator) -> str:
    """Swap a letter with the next, drop it or double it, at the rate given."""
    ways: list[Callable[[str, str], str]] = [lambda a, b: b + a, lambda a, b: b, lambda a, b: a + a + b]
    out, place = [], 0
    while place < len(text):
        pair = text[place : place + 2]
        if len(pair) == 2 and pair.isalpha() and rng.random() < rate:
            out.append(ways[rng.integers(3)](*pair))
            place += 2
        else:
            out.append(text[place])
            place += 1
    return "".join(out)
