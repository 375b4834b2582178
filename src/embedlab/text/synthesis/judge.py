"""A language model, or a cross-encoder, as judge: how alike, how relevant, which is better, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.text.synthesis.generators import as_generator
from embedlab.text.synthesis.prompts import prompt_named, tagged

Pairs = Sequence[tuple[str, str]]
Scores = NDArray[np.float64]

_ALIKE = ("0", "1", "2", "3", "4", "5")
_RELEVANT = ("0", "1", "2", "3")
_SIDES = ("first", "second")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Judge(Protocol):
    """Says how well passages serve queries."""

    def relevance(self, pairs: Pairs) -> Scores:
        """Give one score for each (query, passage); larger is better."""
        ...


@dataclass(frozen=True, slots=True)
class Preference:
    """Which of two passages is better, asked in both orders.

    Attributes:
        first: How surely it is the first, in [0, 1]: the mean over both orders.
        order_gap: How far the two orders lie apart, in [0, 1]: 1 means that the judge only looked at the place.
    """

    first: float
    order_gap: float


class LLMJudge:
    """Let a language model grade, compare and rank; what has two sides is asked in both orders and averaged.

    A grade is the mean of the grades under the model's probabilities for them, so that a model that hesitates between
    2 and 3 says 2.5. Models that tell no probabilities are asked for a letter.

    Args:
        llm: A ``TextGenerator``, ``"https://host/v1#model"``, the folder of a causal language model, or a function.
        both_orders: Ask both orders where there are two sides; False asks one, at half the price, and inherits the
            judge's taste for a place.
        seed: Decides the orders in which lists are shown.

    Example:
        >>> from embedlab.text.synthesis import TemplateGenerator
        >>> judge = LLMJudge(TemplateGenerator())
        >>> judge.relevance([("heat loss", "Heat loss was large."), ("heat loss", "Sales fell.")]).round(2).tolist()
        [2.96, 0.04]

    References:
        Zheng et al. (2023), Judging LLM-as-a-Judge, arXiv:2306.05685v4, on taste for a place and its remedy.
    """

    def __init__(self, llm: Any, *, both_orders: bool = True, seed: int = 0) -> None:
        self.generator = as_generator(llm)
        self._both, self._seed = both_orders, seed

    def similarity(self, pairs: Pairs) -> Scores:
        """Grade how alike the two texts of each pair are.

        Args:
            pairs: Pairs of texts.

        Returns:
            Grades from 0 (about different things) to 5 (the same), (N,); the mean of both orders.
        """
        turned = [[(first, second), (second, first)][: 1 + self._both] for first, second in pairs]
        return np.array([np.mean([self._grade("similarity", each, _ALIKE) for each in both]) for both in turned])

    def relevance(self, pairs: Pairs) -> Scores:
        """Grade how well each passage serves its query.

        Args:
            pairs: (query, passage).

        Returns:
            Grades from 0 (not at all) to 3 (the answer), (N,).
        """
        return np.array([self._grade("relevance", pair, _RELEVANT) for pair in pairs])

    def preference(self, query: str, first: str, second: str) -> Preference:
        """Say which of two passages serves a query better.

        Args:
            query: The query.
            first: One passage.
            second: The other.

        Returns:
            How surely it is the first, and how much the order mattered.
        """
        prompt = prompt_named("preference")
        straight = self._chances(prompt.render([query, first, second]), _SIDES)[0]
        if not self._both:
            return Preference(float(straight), 0.0)
        turned = self._chances(prompt.render([query, second, first]), _SIDES)[1]
        return Preference(float((straight + turned) / 2), float(abs(straight - turned)))

    def rerank(self, query: str, candidates: Sequence[str]) -> Scores:
        """Compare all candidates in one list, shown in a random order and in its reverse.

        Args:
            query: The query.
            candidates: At most 26 passages.

        Returns:
            For each the chance to be the best, (N,); the mean of both orders.

        Raises:
            InputError: there are more than 26 candidates.
        """
        if len(candidates) > len(_LETTERS):
            raise InputError(f"{len(candidates)} candidates: one list holds at most {len(_LETTERS)}")
        shuffled = np.random.default_rng(self._seed).permutation(len(candidates))
        scores = np.zeros(len(candidates))
        orders = [shuffled, shuffled[::-1]][: 1 + self._both]
        for order in orders:
            listed = [tagged(_LETTERS[place], candidates[i]) for place, i in enumerate(order)]
            prompt = "\n\n".join([prompt_named("listwise").render([query]), *listed])
            scores[order] += self._chances(prompt, _LETTERS[: len(order)]) / len(orders)
        return scores

    def _grade(self, name: str, texts: tuple[str, str], grades: Sequence[str]) -> float:
        chances = self._chances(prompt_named(name).render(texts), grades)
        return float(chances @ np.array(grades, dtype=float))

    def _chances(self, prompt: str, options: Sequence[str]) -> Scores:
        """Turn the generator's scores into chances that sum to one."""
        scores = np.array(self.generator.score(prompt, options), dtype=float)
        chances = np.exp(scores - scores.max())
        return np.asarray(chances / chances.sum())


def as_judge(judge: Any) -> Judge:
    """Take what can judge: a ``Judge``, a cross-encoder, or a function of pairs.

    Args:
        judge: Something with ``relevance``; a ``sentence_transformers.CrossEncoder``, by its ``predict``; or a function
            from a list of (query, passage) to scores.

    Returns:
        The judge.

    Raises:
        InputError: it is none of these.
    """
    if hasattr(judge, "relevance"):
        found: Judge = judge
        return found
    if hasattr(judge, "predict"):
        return _Scorer(lambda pairs: judge.predict(pairs, show_progress_bar=False))
    if callable(judge):
        return _Scorer(judge)
    raise InputError(f"judge={judge!r:.80}: expected an LLMJudge, a CrossEncoder, or a function from pairs to scores")


class _Scorer:
    def __init__(self, score: Callable[[list[tuple[str, str]]], Any]) -> None:
        self._score = score

    def relevance(self, pairs: Pairs) -> Scores:
        """Give the function's scores."""
        scores = np.asarray(self._score(list(pairs)), dtype=np.float64)
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise InputError(f"the judge gave scores of shape {scores.shape} for {len(pairs)} pairs: one number each")
        return scores
