"""Queries by rules: telling phrases put into questions, and first sentences taken out of their passages."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from embedlab._core.errors import InputError
from embedlab.text.synthesis.personas import Persona, TaskKind
from embedlab.text.synthesis.writers import Draft, DraftError, Seed, plain_words

_LONGEST_PHRASE = 4  # words
_TOP_PHRASES = 6  # of a passage, to draw from

# Words that end a phrase: what only ties a sentence together.
_TIES = """
a about above after again against all also am an and any are as at be because been before being below between both but
by can could did do does doing down due during each either etc few for from further had has have having he her here
hers him his how however i if in into is it its itself just less let may me might more most must my no nor not of off
on once only or other our ours out over own per same shall she should since so some such than that the their theirs
them then there these they this those through thus to too under until up upon us used very was we were what when where
whether which while who whom whose why will with within without would you your
"""
_FUNCTION_WORDS = frozenset(_TIES.split())


@dataclass(slots=True)
class RuleWriter:
    """Write queries without a language model: questions around salient phrases, headings, and sentences taken out.

    A third of the drafts are cloze: the passage's first sentence becomes the query and leaves the passage. The others
    put the passage's most telling phrases, by how rare their words are among all passages, into a question of the
    task, in the persona's register. Deterministic: nothing but ``seed`` and the arguments decides.

    Attributes:
        seed: Decides what is drawn.
        document_frequency: Word -> number of passages with it; filled by ``fit``.
        documents: Number of passages seen by ``fit``.
        name: How the journal calls this writer.
    """

    seed: int = 0
    document_frequency: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    name: str = "rules"

    def fit(self, texts: Iterable[str]) -> RuleWriter:
        """Learn which words are rare.

        Args:
            texts: All passages.

        Returns:
            The writer.
        """
        self.document_frequency, self.documents = Counter(), 0
        for text in texts:
            self.document_frequency.update(set(plain_words(text)))
            self.documents += 1
        return self

    def write(self, seed: Seed, persona: Persona, task: TaskKind, *, draw: int) -> Draft:
        """Write one query for a passage.

        Args:
            seed: A passage; rules cannot write one.
            persona: Who asks; decides the register.
            task: What for; decides the question.
            draw: Number of the draw from this passage, from 0.

        Returns:
            The draft.

        Raises:
            InputError: the seed is a question.
            DraftError: the passage has no telling phrase.
        """
        if seed.kind != "passage":
            raise InputError("a seed of kind 'question' needs a language model: give llm, or passages as seeds")
        prompt = f"rules {self.seed} {draw} {seed.id} {persona.name} {task.name}"
        rng = np.random.default_rng(list(hashlib.sha256(prompt.encode()).digest()))
        sentences = split_sentences(seed.text)
        if len(sentences) > 2 and 5 <= len(plain_words(sentences[0])) <= 40 and rng.random() < 1 / 3:
            return Draft(sentences[0], " ".join(sentences[1:]), (prompt,))
        phrases = self.phrases(seed.text, title=seed.title)[:_TOP_PHRASES]
        if not phrases:
            raise DraftError("no phrase", seed.text, (prompt,))
        first, *others = [phrases[i] for i in rng.permutation(len(phrases))]
        return Draft(_phrased(first, others, persona, task, rng), seed.text, (prompt,))

    def phrases(self, text: str, *, title: str = "") -> list[str]:
        """Find the telling phrases of a passage: runs of up to four content words.

        Args:
            text: The passage.
            title: Its heading, whose phrases count double.

        Returns:
            Phrases, the most telling first.
        """
        runs: dict[str, float] = {}
        for part, weight in ((title, 2.0), (text, 1.0)):
            for run in re.split(r"[^\w\s'&/-]|\n", part):
                for words in _content_runs(run.split()):
                    score = weight * sum(self._rarity(word) for word in words) / math.sqrt(len(words))
                    phrase = " ".join(words)
                    runs[phrase] = max(runs.get(phrase, 0.0), score)
        ranked = sorted(runs, key=lambda phrase: (-runs[phrase], phrase))
        kept: list[str] = []
        for phrase in ranked:  # a phrase inside a better one says nothing new
            if not any(" ".join(plain_words(phrase)) in " ".join(plain_words(better)) for better in kept):
                kept.append(phrase)
        return kept

    def _rarity(self, word: str) -> float:
        return math.log((1 + self.documents) / (1 + self.document_frequency[word.lower()])) + 1


def split_sentences(text: str) -> list[str]:
    """Split a passage at full stops, question and exclamation marks that a capital follows.

    Args:
        text: The passage.

    Returns:
        Its sentences; abbreviations such as "Inc." are kept together where the list knows them.

    Example:
        >>> split_sentences("Sales rose at Acme Inc. in 2019. Costs fell 2.5 %.")
        ['Sales rose at Acme Inc. in 2019.', 'Costs fell 2.5 %.']
    """
    pieces = re.split(r"(?<=[.!?])\s+(?=[A-Z\"“(])", text.strip())
    sentences: list[str] = []
    for piece in pieces:
        if sentences and re.search(r"\b(Inc|Corp|Ltd|Co|No|Mr|Ms|Dr|St|U\.S|vs|e\.g|i\.e)\.$", sentences[-1]):
            sentences[-1] += " " + piece
        elif piece:
            sentences.append(piece)
    return sentences


def _phrased(topic: str, others: list[str], persona: Persona, task: TaskKind, rng: np.random.Generator) -> str:
    if persona.register == "keywords":
        return " ".join([topic, *others[:1], task.name])
    usable = [question for question in task.questions if others or "{other}" not in question]
    question = usable[int(rng.integers(len(usable)))].format(topic=topic, other=others[0] if others else "")
    if persona.register == "detailed" and len(others) > 1:
        question = question.rstrip("?") + f", in particular with regard to {others[1]}?"
    return question[0].upper() + question[1:]


def _content_runs(tokens: list[str]) -> Iterator[list[str]]:
    run: list[str] = []
    for token in [*tokens, "the"]:
        word = token.strip("'-/&")
        if word.lower() in _FUNCTION_WORDS or not re.search(r"[A-Za-z]{2}", word):
            if run:
                yield run[-_LONGEST_PHRASE:]
            run = []
        else:
            run.append(word)
