"""A data set as questions to a reader: which label, which passage, how alike? And whether an answer is right."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from embedlab._core.errors import InputError
from embedlab.data.loaders import LabelData, PairData, RetrievalData
from embedlab.evaluate.domain_gap.material import Data

_NUM_PASSAGES = 5  # one of them relevant
_MAX_CHARS = 800  # of a text in a prompt
_SLACK = 0.2  # of the scale: a rating may be off by one on a scale of 0 to 5


@dataclass(frozen=True, slots=True)
class Question:
    """One instance of a data set in natural language.

    Attributes:
        id: Which instance: its place, or the query's id.
        prompt: What the reader is asked.
        texts: The texts it is about: the text, the pair, or the query and its passages.
        options: What may be answered; empty for a rating.
        answer: The right option, or the gold rating from 0 to 5.
    """

    id: str
    prompt: str
    texts: tuple[str, ...]
    options: tuple[str, ...]
    answer: str

    def right(self, answer: str) -> bool:
        """Tell whether an answer is right.

        An option counts where it stands alone in the answer, the longest first; the last one named counts, since
        readers reason before they answer. A rating may be off by a fifth of the scale.

        Args:
            answer: What the reader said.

        Returns:
            True if it is right; an answer that names no option is wrong.
        """
        if not self.options:
            numbers = re.findall(r"-?\d+(?:\.\d+)?", answer)
            return bool(numbers) and abs(float(numbers[-1]) - float(self.answer)) <= 5 * _SLACK + 1e-9
        ordered = sorted(self.options, key=len, reverse=True)
        found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)", answer, re.IGNORECASE)
        return bool(found) and found[-1].casefold() == self.answer.casefold()


def questions(data: Data, *, num_questions: int, seed: int = 0) -> list[Question]:
    """Turn instances of a data set into questions.

    Labels: which of them fits the text? Scores: how alike from 0 to 5 (on 0 and 1: same or different)? Retrieval: which
    of five passages answers the query, one relevant and four drawn from the rest?

    Args:
        data: The data set, in one of our forms.
        num_questions: How many at most.
        seed: Decides which instances, and the passages.

    Returns:
        The questions.

    Raises:
        InputError: the data set has no answers (plain texts), or only one.
    """
    rng = random.Random(seed)
    if isinstance(data, LabelData):
        return _of_labels(data, num_questions, rng)
    if isinstance(data, PairData):
        return _of_pairs(data, num_questions, rng)
    if isinstance(data, RetrievalData):
        return _of_queries(data, num_questions, rng)
    raise InputError(
        "llm_error needs right answers, and plain texts have none: give LabelData, PairData, RetrievalData or a task"
    )


def _of_labels(data: LabelData, count: int, rng: random.Random) -> list[Question]:
    options = tuple(sorted(set(data.labels)))
    if len(options) < 2:
        raise InputError(f"llm_error: the labels are all {options[0] if options else 'missing'!r}: nothing to choose")
    listed = "\n".join(f"- {option}" for option in options)
    return [
        Question(
            str(place),
            f"Which label fits the text best? Answer with the label only.\n\nLabels:\n{listed}\n\n"
            f"Text: {_cut(data.texts[place])}\n\nLabel:",
            (data.texts[place],),
            options,
            data.labels[place],
        )
        for place in _places(len(data.texts), count, rng)
    ]


def _of_pairs(data: PairData, count: int, rng: random.Random) -> list[Question]:
    low, high = min(data.scores, default=0.0), max(data.scores, default=0.0)
    if low == high:
        raise InputError(f"llm_error: the scores are all {low}: nothing to tell apart")
    binary = set(data.scores) == {low, high}
    ask = (
        "Do the two texts mean the same? Answer 'same' or 'different' only."
        if binary
        else "How alike are the two texts in meaning, from 0 (unrelated) to 5 (the same)? Answer with one number only."
    )
    asked = []
    for place in _places(len(data.first), count, rng):
        score, texts = data.scores[place], (data.first[place], data.second[place])
        right = ("same" if score == high else "different") if binary else f"{5 * (score - low) / (high - low):.3f}"
        prompt = f"{ask}\n\nFirst: {_cut(texts[0])}\nSecond: {_cut(texts[1])}\n\nAnswer:"
        asked.append(Question(str(place), prompt, texts, ("same", "different") if binary else (), right))
    return asked


def _of_queries(data: RetrievalData, count: int, rng: random.Random) -> list[Question]:
    ids, asked = [key for key, text in data.corpus.items() if str(text).strip()], []
    judged = [query for query, grades in data.qrels.items() if query in data.queries and grades]
    for place in _places(len(judged), count, rng):
        query, grades = judged[place], data.qrels[judged[place]]
        relevant = [key for key in grades if grades[key] > 0 and key in data.corpus]
        others = rng.sample(ids, min(len(ids), _NUM_PASSAGES - 1 + len(grades)))
        wrong = [key for key in others if key not in grades][: _NUM_PASSAGES - 1]
        if not relevant or len(wrong) < _NUM_PASSAGES - 1:
            continue
        chosen = [rng.choice(relevant), *wrong]
        order = rng.sample(range(_NUM_PASSAGES), _NUM_PASSAGES)
        passages = [str(data.corpus[chosen[at]]) for at in order]
        letters = tuple("ABCDE"[:_NUM_PASSAGES])
        listed = "\n\n".join(f"{letter}: {_cut(text)}" for letter, text in zip(letters, passages, strict=True))
        prompt = (
            f"Which passage answers the query? Answer with its letter only.\n\nQuery: {_cut(data.queries[query])}"
            f"\n\n{listed}\n\nLetter:"
        )
        asked.append(Question(query, prompt, (data.queries[query], *passages), letters, letters[order.index(0)]))
    if not asked:
        raise InputError(f"llm_error: no query of {data.name} has a relevant passage and {_NUM_PASSAGES - 1} others")
    return asked


def _places(total: int, count: int, rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(total), min(count, total)))


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _MAX_CHARS else f"{flat[:_MAX_CHARS]} ..."
