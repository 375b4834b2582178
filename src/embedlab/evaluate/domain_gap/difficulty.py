"""How often a reader gets a data set wrong: a language model, or, under its own name, a small model as stand-in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.data.loaders import LabelData, PairData
from embedlab.evaluate.domain_gap.material import Data
from embedlab.evaluate.domain_gap.questions import Question, questions
from embedlab.models.encoder import Encoder
from embedlab.ops.significance import Interval, bootstrap_interval


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """Share of questions answered wrongly, and what is needed to ask them again.

    Attributes:
        rate: The share, with its interval over questions.
        reader: Who answered.
        ids: Instances that were asked.
        wrong: For each of them whether the answer was wrong.
        prompts: Hash of all prompts together; another one means other questions.
    """

    rate: Interval
    reader: str
    ids: tuple[str, ...]
    wrong: tuple[bool, ...]
    prompts: str


class Reader(Protocol):
    """Anything that measures an error rate on a data set.

    Attributes:
        column: Name of its measure, ``"llm_error"`` for a language model.
    """

    column: str

    def error_rate(self, data: Data) -> ErrorRate:
        """Return the share of the data set's instances that the reader gets wrong."""
        ...


class LLMErrorRate:
    """Share of a data set's instances that a strong instruction model answers wrongly, asked in natural language.

    The rate depends on the model, on the prompts and on what the model has seen in training: all are logged.

    Args:
        answer: Function from prompt to answer, such as ``embedlab.models.chat.ChatEndpoint("https://host/v1#model")``.
        name: Name of the model in reports; None takes the function's ``name`` where it has one.
        num_questions: Instances that are asked, at least 2.
        num_threads: Questions asked at once, at least 1; more only if ``answer`` may be called from several threads.
        seed: Decides which instances.

    Raises:
        InputError: a number is out of range, or ``answer`` cannot be called.

    Example:
        >>> data = LabelData(["my card is lost", "the fee is wrong", "where is my card"], ["card", "fee", "card"])
        >>> LLMErrorRate(lambda prompt: "card", name="always card").error_rate(data).wrong
        (False, True, False)
    """

    column = "llm_error"

    def __init__(
        self,
        answer: Callable[[str], str],
        *,
        name: str | None = None,
        num_questions: int = 100,
        num_threads: int = 1,
        seed: int = 0,
    ) -> None:
        if not callable(answer):
            raise InputError(f"answer={answer!r} must be a function from prompt to answer")
        if num_questions < 2 or num_threads < 1:
            raise InputError(
                f"num_questions={num_questions} must be at least 2 and num_threads={num_threads} at least 1"
            )
        self._answer, self._num_questions, self._num_threads, self._seed = answer, num_questions, num_threads, seed
        self.name = name or str(getattr(answer, "name", type(answer).__name__))

    def error_rate(self, data: Data) -> ErrorRate:
        """Ask, and compare the answers with the data set's.

        Args:
            data: The data set, in one of our forms.

        Returns:
            The share of wrong answers with its interval; an answer that names no option is wrong.

        Raises:
            InputError: the data set has no right answers to compare with.
        """
        asked = questions(data, num_questions=self._num_questions, seed=self._seed)
        with ThreadPoolExecutor(self._num_threads) as pool:
            answers = list(pool.map(self._answer, [question.prompt for question in asked]))
        wrong = [not question.right(answer) for question, answer in zip(asked, answers, strict=True)]
        return _error_rate(self.name, asked, wrong)


class ModelErrorRate:
    """Offline stand-in for ``LLMErrorRate``: the error of a small model under cross-validation. **Not an LLM's error.**

    Labels: logistic regression on an encoder's vectors. Scores: regression of the score on the cosine, right within a
    fifth of the scale. Retrieval: the passage with the highest cosine. It says how hard a data set is *for encoders of
    this sort*; used to control scores of like encoders it explains away what it shares with them, so a gap that
    survives it is real, and one that does not may be.

    Args:
        encoder: The encoder; None for the embedded default model.
        num_questions: Instances that are judged, at least 10.
        seed: Decides instances and folds.

    Raises:
        InputError: ``num_questions`` is out of range.
    """

    column = "model_error"

    def __init__(self, encoder: Encoder | None = None, *, num_questions: int = 400, seed: int = 0) -> None:
        if num_questions < 10:
            raise InputError(f"num_questions={num_questions} must be at least 10")
        if encoder is None:
            from embedlab.models import load_model

            encoder = load_model()
        self._encoder, self._num_questions, self._seed = encoder, num_questions, seed
        self.name = f"stand-in on {encoder.name}"

    def error_rate(self, data: Data) -> ErrorRate:
        """Answer the same questions as a language model would get, by vectors.

        Args:
            data: The data set, in one of our forms.

        Returns:
            The share of wrong answers with its interval.

        Raises:
            InputError: the data set has no right answers to compare with, or too few instances for folds.
        """
        require("sklearn", extra="evaluate")
        asked = questions(data, num_questions=self._num_questions, seed=self._seed)
        if isinstance(data, LabelData):
            wrong = self._wrong_labels(asked)
        elif isinstance(data, PairData):
            wrong = self._wrong_scores(asked)
        else:
            wrong = self._wrong_passages(asked)
        return _error_rate(self.name, asked, wrong.tolist())

    def _wrong_labels(self, asked: Sequence[Question]) -> NDArray[np.bool_]:
        from sklearn.linear_model import LogisticRegression

        rows = self._encoder.encode_document([question.texts[0] for question in asked])
        labels = np.array([question.answer for question in asked])
        found = _cross_validated(rows, labels, LogisticRegression(C=10.0, max_iter=200), self._seed)
        return np.asarray(found != labels)

    def _wrong_scores(self, asked: Sequence[Question]) -> NDArray[np.bool_]:
        from sklearn.isotonic import IsotonicRegression
        from sklearn.linear_model import LogisticRegression

        left, right = (self._encoder.encode_document([question.texts[side] for question in asked]) for side in (0, 1))
        cosines = np.einsum("nd,nd->n", left, right)[:, None].astype(np.float64)  # (N, 1)
        answers = np.array([question.answer for question in asked])
        if asked[0].options:
            return np.asarray(_cross_validated(cosines, answers, LogisticRegression(), self._seed) != answers)
        fitted = _cross_validated(
            cosines, answers.astype(np.float64), IsotonicRegression(out_of_bounds="clip"), self._seed
        )
        return np.array([not question.right(f"{value:.3f}") for question, value in zip(asked, fitted, strict=True)])

    def _wrong_passages(self, asked: Sequence[Question]) -> NDArray[np.bool_]:
        queries = self._encoder.encode_query([question.texts[0] for question in asked])
        passages = self._encoder.encode_document([text for question in asked for text in question.texts[1:]])
        each = passages.reshape(len(asked), -1, passages.shape[1])  # (N, 5, D)
        best = np.einsum("nd,npd->np", queries, each).argmax(axis=1)
        return np.array([question.options[at] != question.answer for question, at in zip(asked, best, strict=True)])


def _cross_validated(rows: NDArray[Any], answers: NDArray[Any], model: Any, seed: int) -> NDArray[Any]:
    """Predict each answer by a model that has not seen it. Folds are plain: some labels occur once."""
    from sklearn.base import clone
    from sklearn.model_selection import KFold

    if len(answers) < 10:
        raise InputError(f"model_error: {len(answers)} instances are too few for cross-validation: 10 at least")
    predicted = np.empty_like(answers)
    for train, test in KFold(5, shuffle=True, random_state=seed).split(rows):
        if len(set(answers[train].tolist())) < 2:
            predicted[test] = answers[train][0]
        else:
            predicted[test] = clone(model).fit(rows[train], answers[train]).predict(rows[test])
    return predicted


def _error_rate(reader: str, asked: Sequence[Question], wrong: Sequence[bool]) -> ErrorRate:
    prompts = hashlib.sha256("\0".join(question.prompt for question in asked).encode()).hexdigest()[:16]
    rate = bootstrap_interval(np.asarray(wrong, dtype=np.float64))
    return ErrorRate(rate, reader, tuple(question.id for question in asked), tuple(map(bool, wrong)), prompts)
