"""How much of a text came back: words, runs of words, the whole."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

_WORD = re.compile(r"\w+")
_TELLING = re.compile(r"\d")
_LONGEST_RUN = 4  # BLEU-4


class Inverter(Protocol):
    """Reads texts back from vectors."""

    def invert(self, vectors: NDArray[Any]) -> list[str]:
        """Guess the text of every vector, shape (N, D)."""
        ...


@dataclass(frozen=True, slots=True)
class Leakage:
    """What an inverter recovered, one number for each text, each in [0, 1].

    Attributes:
        guesses: The texts it wrote.
        precision: Share of the guess's words that the text has, each counted as often as it occurs.
        recall: Share of the text's words that the guess has.
        f1: Their harmonic mean; 0 when no word is shared.
        bleu: BLEU-4 with one added to the counts of runs of two words and more; 0 when no word is shared.
        rouge_l: F1 of the longest common subsequence of words.
        exact: 1 where all words came back in their order.
        cosine: Cosine of the guess's vector with the text's; NaN when no encoder was given.
        entities: Share of the text's telling words, such as have a digit or a capital letter after the first word, that
            came back; NaN for texts without any.
    """

    guesses: tuple[str, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    bleu: NDArray[np.float64]
    rouge_l: NDArray[np.float64]
    exact: NDArray[np.float64]
    cosine: NDArray[np.float64]
    entities: NDArray[np.float64]

    def means(self) -> dict[str, float]:
        """Average each number over the texts, leaving out NaN; NaN where nothing is left."""
        names = ("precision", "recall", "f1", "bleu", "rouge_l", "exact", "cosine", "entities")
        return {name: _mean(getattr(self, name)) for name in names}


def leakage(
    vectors: ArrayLike,
    texts: Sequence[str] | NDArray[Any],
    *,
    inverter: Inverter,
    encode: Callable[[Sequence[str]], NDArray[Any]] | None = None,
) -> Leakage:
    """Let an inverter read texts back from their vectors, and measure what came back.

    Words are compared without regard to case; punctuation does not count.

    Args:
        vectors: What the attacker holds.
        texts: What was embedded.
        inverter: An inverter, fitted on other texts.
        encode: Embeds guesses, to compare them with ``vectors``; None for no cosine.

    Shape:
        vectors (N, D), texts (N,)

    Returns:
        One number a text of each measure.

    Raises:
        InputError: ``vectors`` are no finite matrix with one row for each text, or the inverter gave another number of
            guesses.

    References:
        Nie et al. (2024), arXiv:2412.09165v3, section on embedding inversion; measures as in Morris et al. (2023),
        arXiv:2310.06816, section 4.

    Example:
        >>> import numpy as np
        >>> from embedlab.text.inversion import NearestText
        >>> texts = ["my card is lost", "top up failed"]
        >>> found = leakage(np.eye(2), ["my card was stolen", "top up"], inverter=NearestText().fit(np.eye(2), texts))
        >>> found.f1.round(2).tolist(), found.exact.tolist()
        ([0.5, 0.8], [0.0, 0.0])
    """
    rows = checked(vectors, texts)
    guesses = inverter.invert(rows)
    if len(guesses) != len(rows):
        raise InputError(f"inverter gave {len(guesses)} texts for {len(rows)} vectors: it must give one each")
    columns = np.array([_compare(str(text), guess) for text, guess in zip(texts, guesses, strict=True)]).T
    precision, recall, f1, run, common, exact, entities = columns
    cosine = np.full(len(rows), np.nan)
    if encode is not None:
        cosine = cosines(rows, np.asarray(encode(guesses), dtype=np.float64))
    return Leakage(tuple(guesses), precision, recall, f1, run, common, exact, cosine, entities)


def words(text: str) -> list[str]:
    """Split a text into words, lower-cased.

    Args:
        text: Any text.

    Returns:
        Its words in order, without punctuation.
    """
    return _WORD.findall(text.lower())


def cosines(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each row with its partner, 0 where one is the zero row.

    Args:
        one: Vectors.
        other: Their partners.

    Shape:
        one, other (N, D) -> (N,)

    Returns:
        Cosines, in [-1, 1].
    """
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    dots = np.einsum("nd,nd->n", one, other)
    ratios: NDArray[np.float64] = np.divide(dots, lengths, out=np.zeros(len(dots)), where=lengths > 0)
    return ratios.clip(-1.0, 1.0)


def checked(vectors: ArrayLike, texts: Sequence[str] | NDArray[Any]) -> NDArray[np.float64]:
    """Return vectors as a finite matrix with one row for each text.

    Args:
        vectors: Vectors, (N, D).
        texts: Their texts.

    Returns:
        The matrix in double precision.

    Raises:
        InputError: they are not that.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not len(rows):
        raise InputError(f"vectors has shape {rows.shape}: give a matrix (N, D) with at least one row")
    if not np.isfinite(rows).all():
        raise InputError("vectors holds NaN or infinity: leave those rows out")
    if len(texts) != len(rows):
        raise InputError(f"{len(texts)} texts for {len(rows)} vectors: give one each")
    return rows


def bleu(reference: Sequence[str], guess: Sequence[str]) -> float:
    """Compute BLEU-4 of one sentence, adding one to the counts of runs of two words and more.

    Args:
        reference: Words of the text.
        guess: Words of the guess.

    Returns:
        In [0, 1]; 0 when no word is shared.

    References:
        Lin & Och (2004), "ORANGE: a method for evaluating automatic evaluation metrics", section 4 (smoothing).

    Example:
        >>> round(bleu("the cat sat on the mat".split(), "the cat sat on a mat".split()), 3)
        0.604
    """
    if not guess or not set(reference) & set(guess):
        return 0.0
    logs = 0.0
    for length in range(1, _LONGEST_RUN + 1):
        runs, known = _runs(guess, length), _runs(reference, length)
        added = int(length > 1)
        logs += math.log(((runs & known).total() + added) / (max(runs.total(), 0) + added))
    brevity = min(0.0, 1.0 - len(reference) / len(guess))
    return math.exp(logs / _LONGEST_RUN + brevity)


def _compare(text: str, guess: str) -> tuple[float, ...]:
    one, other = words(text), words(guess)
    shared = (Counter(one) & Counter(other)).total()
    precision, recall = shared / max(len(other), 1), shared / max(len(one), 1)
    common = _longest_common(one, other)
    telling = _telling(text)
    found = float(np.mean([word in set(other) for word in telling])) if telling else math.nan
    return (
        precision,
        recall,
        _f1(precision, recall),
        bleu(one, other),
        _f1(common / max(len(other), 1), common / max(len(one), 1)),
        float(one == other),
        found,
    )


def _telling(text: str) -> list[str]:
    parts = _WORD.findall(text)
    return [part.lower() for place, part in enumerate(parts) if _TELLING.search(part) or (place and part[0].isupper())]


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _runs(parts: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(parts[start : start + length]) for start in range(len(parts) - length + 1))


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    best = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, candidate in enumerate(other, start=1):
            diagonal, best[place] = (
                best[place],
                diagonal + 1 if word == candidate else max(best[place], best[place - 1]),
            )
    return best[-1]


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
