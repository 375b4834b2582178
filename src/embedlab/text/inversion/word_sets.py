"""Which words a text had, read from its vector by ridge regression; and two baselines that any attack must beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.text.inversion.measures import checked, words

_RIDGES = tuple(10.0**power for power in range(-4, 2))  # as shares of the mean eigenvalue
_HELD_OUT = 10  # every tenth text chooses ridge and threshold
_BLOCK = 2048


class TokenSetInverter:
    """Read the set of words of a text from its vector: one linear score for each word of the vocabulary.

    ``scores = [x, 1] W`` with ``W = (X'X + r I)^-1 X'Y``, where Y has a 1 for every word of every text. A word counts
    as present from a threshold on; ridge and threshold are the pair with the best F1 on every tenth training text.
    Needs numpy alone, and O(N D² + D² V) operations once.

    Args:
        min_count: Words that occur in fewer training texts are left out, at least 1.
        max_words: Size of the vocabulary, the most frequent words, at least 1.

    Attributes:
        vocabulary: The words, most frequent first.
        ridge: Chosen ridge, a share of the mean eigenvalue of X'X.
        threshold: Chosen threshold.

    Raises:
        InputError: a number is below 1.

    References:
        Song & Raghunathan (2020), "Information leakage in embedding models", arXiv:2004.00053v1, section 3 (multi-label
        inversion); logistic there, ridge here.
    """

    def __init__(self, *, min_count: int = 2, max_words: int = 20_000) -> None:
        for name, value in (("min_count", min_count), ("max_words", max_words)):
            if value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        self.min_count, self.max_words = min_count, max_words
        self.vocabulary: tuple[str, ...] = ()
        self.ridge = self.threshold = float("nan")
        self._weights = np.empty((0, 0))

    def fit(self, vectors: ArrayLike, texts: Sequence[str]) -> TokenSetInverter:
        """Learn on texts whose vectors are known.

        Args:
            vectors: Their vectors.
            texts: At least 20 texts.

        Shape:
            vectors (N, D)

        Returns:
            Itself.

        Raises:
            InputError: too few texts, no word occurs ``min_count`` times, or ``vectors`` do not fit.
        """
        rows = checked(vectors, texts)
        if len(rows) < 2 * _HELD_OUT:
            raise InputError(f"{len(rows)} texts are too few to learn from: give at least {2 * _HELD_OUT}")
        bags = [set(words(text)) for text in texts]
        counts = Counter(word for bag in bags for word in sorted(bag))
        kept = [word for word, count in counts.most_common(self.max_words) if count >= self.min_count]
        if not kept:
            raise InputError(f"no word occurs in {self.min_count} texts: give more texts, or lower min_count")
        self.vocabulary = tuple(kept)
        place = {word: number for number, word in enumerate(kept)}
        held = np.arange(len(rows)) % _HELD_OUT == 0
        inputs = np.hstack([rows, np.ones((len(rows), 1))])
        known = [[place[word] for word in sorted(bag) if word in place] for bag in bags]
        learn = _Ridge(inputs[~held], [each for each, out in zip(known, held, strict=True) if not out], len(kept))
        there = _indicators([each for each, out in zip(known, held, strict=True) if out], len(kept)) > 0
        sizes = np.array([len(bag) for bag, out in zip(bags, held, strict=True) if out])
        best = -1.0
        for ridge in _RIDGES:
            f1, threshold = _best_threshold(inputs[held] @ learn.solve(ridge), there, sizes)
            if f1 > best:
                best, self.ridge, self.threshold = f1, ridge, threshold
        self._weights = _Ridge(inputs, known, len(kept)).solve(self.ridge)
        return self

    def scores(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Score every word of the vocabulary.

        Args:
            vectors: Vectors of the width that was learnt on.

        Shape:
            vectors (N, D) -> (N, V)

        Returns:
            Scores, about 1 for words that are there and 0 for others.

        Raises:
            InputError: it has not been fitted, or ``vectors`` do not fit.
        """
        if not self.vocabulary:
            raise InputError("the inverter has not learnt yet: call fit(vectors, texts) first")
        rows = np.asarray(vectors, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self._weights) - 1 or not np.isfinite(rows).all():
            raise InputError(f"vectors has shape {rows.shape}: give a finite matrix (N, {len(self._weights) - 1})")
        scored: NDArray[np.float64] = rows @ self._weights[:-1] + self._weights[-1]
        return scored

    def invert(self, vectors: ArrayLike) -> list[str]:
        """List the words that each text had, likeliest first; at least one.

        Args:
            vectors: Vectors of the width that was learnt on.

        Shape:
            vectors (N, D)

        Returns:
            For each vector its words, joined by spaces.

        Raises:
            InputError: it has not been fitted, or ``vectors`` do not fit.
        """
        rows = np.asarray(vectors)
        found: list[str] = []
        for start in range(0, len(rows), _BLOCK):
            for scores in self.scores(rows[start : start + _BLOCK]):
                order = np.argsort(-scores, kind="stable")[: max(1, int((scores >= self.threshold).sum()))]
                found.append(" ".join(self.vocabulary[word] for word in order))
        return found


class FrequentWords:
    """Always guess the words that most texts have: what can be recovered without looking at the vector."""

    def fit(self, vectors: ArrayLike, texts: Sequence[str]) -> FrequentWords:
        """Count words and take as many of the most frequent as give the best mean F1 on the training texts.

        Args:
            vectors: Not looked at.
            texts: At least one text.

        Returns:
            Itself.
        """
        checked(vectors, texts)
        bags = [set(words(text)) for text in texts]
        counts = Counter(word for bag in bags for word in sorted(bag))
        order = [word for word, _ in counts.most_common(100)]
        held = np.array([[word in bag for word in order] for bag in bags])  # (N, 100)
        sizes = np.array([len(bag) for bag in bags])
        scores = np.broadcast_to(np.arange(len(order), 0, -1.0), held.shape)
        _, threshold = _best_threshold(scores, held, sizes)
        self._guess = " ".join(order[: max(1, int((scores[0] >= threshold).sum()))])
        return self

    def invert(self, vectors: ArrayLike) -> list[str]:
        """Give the same words for every vector, shape (N, D)."""
        return [self._guess] * len(np.asarray(vectors))


class NearestText:
    """Give back the training text whose vector is nearest by cosine: what can be had without writing anything."""

    def fit(self, vectors: ArrayLike, texts: Sequence[str]) -> NearestText:
        """Keep texts and vectors, shape (N, D).

        Args:
            vectors: Vectors of the texts.
            texts: At least one text.

        Returns:
            Itself.

        Raises:
            InputError: ``vectors`` are no finite matrix with one row for each text.
        """
        self._rows, self._texts = _unit(checked(vectors, texts)), list(texts)
        return self

    def invert(self, vectors: ArrayLike) -> list[str]:
        """Look up the nearest text of every vector, shape (N, D); of texts as near the first."""
        rows = _unit(np.asarray(vectors, dtype=np.float64))
        found: list[str] = []
        for start in range(0, len(rows), _BLOCK):
            found += [self._texts[place] for place in (rows[start : start + _BLOCK] @ self._rows.T).argmax(axis=1)]
        return found


class _Ridge:
    """Ridge regression for several ridges at the price of one: X'X is decomposed once, X'Y summed block by block."""

    def __init__(self, inputs: NDArray[np.float64], known: Sequence[Sequence[int]], num_words: int) -> None:
        self._values, self._axes = np.linalg.eigh(inputs.T @ inputs)
        right = np.zeros((inputs.shape[1], num_words))
        for start in range(0, len(inputs), _BLOCK):
            right += inputs[start : start + _BLOCK].T @ _indicators(known[start : start + _BLOCK], num_words)
        self._right = self._axes.T @ right

    def solve(self, ridge: float) -> NDArray[np.float64]:
        penalty = ridge * self._values.mean()
        solved: NDArray[np.float64] = self._axes @ (self._right / (self._values + penalty)[:, None])
        return solved


def _indicators(known: Sequence[Sequence[int]], num_words: int) -> NDArray[np.float64]:
    there = np.zeros((len(known), num_words))  # (N, V)
    for row, places in zip(there, known, strict=True):
        row[list(places)] = 1.0
    return there


def _best_threshold(
    scores: NDArray[np.float64], held: NDArray[np.bool_], sizes: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the best mean F1 over texts and the threshold that gives it; at least one word a text is guessed."""
    best = (-1.0, 0.0)
    most = min(40, scores.shape[1])  # words guessed for a text on average
    for threshold in np.quantile(scores, 1.0 - np.geomspace(1, most, 40).clip(max=most) / scores.shape[1]):
        taken = scores >= threshold
        taken[np.arange(len(scores)), scores.argmax(axis=1)] = True
        f1 = float((2 * (taken & held).sum(axis=1) / (taken.sum(axis=1) + np.maximum(sizes, 1))).mean())
        best = max(best, (f1, float(threshold)))
    return best


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
