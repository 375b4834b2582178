"""Who writes queries and passages: a language model behind any function of a prompt, or rules that need none."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.text.synthesis.personas import Persona, TaskKind

Complete = Callable[[str], str]  # prompt -> text


@dataclass(frozen=True, slots=True)
class Seed:
    """Where a row starts from.

    Attributes:
        id: Stable id, kept with the row.
        text: A passage that a query is written for, or a question that inspires another one.
        title: Heading above a passage; may be empty.
        kind: ``"passage"``: the passage becomes the positive. ``"question"``: query and passage are both written anew.
    """

    id: str
    text: str
    title: str = ""
    kind: Literal["passage", "question"] = "passage"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a writer gives.

    Attributes:
        query: What the persona asks.
        positive: A passage that answers it.
        prompts: Every prompt that led here, for the record.
        negative: A passage that looks like an answer but is none; empty where none was written.
        attributes: What was asked for beyond persona and task, for the record.
    """

    query: str
    positive: str
    prompts: tuple[str, ...]
    negative: str = ""
    attributes: str = ""

    @property
    def prompt_hash(self) -> str:
        """Sixteen hex digits over the prompts."""
        return hashlib.sha256("\0".join(self.prompts).encode()).hexdigest()[:16]


class DraftError(EmbedlabError):
    """A writer gave nothing usable; the journal keeps what it said instead.

    Args:
        reason: One word, counted in the report.
        raw: What the model answered last.
        prompts: The prompts.
    """

    def __init__(self, reason: str, raw: str = "", prompts: tuple[str, ...] = ()) -> None:
        super().__init__(f"{reason}: {raw[:200]!r}")
        self.reason, self.raw, self.prompts = reason, raw, prompts


class Writer(Protocol):
    """Writes one query with its positive; the same arguments lead to the same prompts."""

    name: str

    def write(self, seed: Seed, persona: Persona, task: TaskKind, *, draw: int) -> Draft:
        """Write, or raise ``DraftError``."""


@runtime_checkable
class BatchWriter(Protocol):
    """A writer that is quicker with many jobs at once."""

    def write_many(self, jobs: Sequence[tuple[Seed, Persona, TaskKind, int]]) -> list[Draft | DraftError]:
        """Write a draft, or an error in its place, for each (seed, persona, task, draw)."""
        ...


class PromptWriter:
    """Let a language model write, through any function from prompt to text.

    Answers must hold one JSON object; text around it is passed over. An answer without one is asked for again.

    Args:
        llm: The model: ``embedlab.models.chat.ChatEndpoint``, a local pipeline, or any function from prompt to text.
        name: What the journal calls the model; None takes its ``name`` or, failing that, its type's.
        attempts: Most answers to ask for until one can be read, at least 1.

    Raises:
        InputError: ``llm`` cannot be called, or ``attempts`` is below 1.
    """

    def __init__(self, llm: Complete, *, name: str | None = None, attempts: int = 3) -> None:
        if not callable(llm):
            raise InputError(f"llm={llm!r}: a function from prompt to text is needed")
        if attempts < 1:
            raise InputError(f"attempts={attempts}: must be at least 1")
        self._llm, self._attempts = llm, attempts
        self.name = name or str(getattr(llm, "name", getattr(llm, "__name__", type(llm).__name__)))

    def write(self, seed: Seed, persona: Persona, task: TaskKind, *, draw: int) -> Draft:
        """Write one query, and its passage if the seed is a question.

        Args:
            seed: Where to start from.
            persona: Who asks.
            task: What for.
            draw: Number of the draw from this seed, from 0; later ones ask for something else.

        Returns:
            The draft.

        Raises:
            DraftError: no answer could be read, or it repeats the seed.
        """
        first = query_prompt(seed, persona, task, draw=draw)
        query = self._ask(first, "query", (first,))
        if plain_words(query) == plain_words(seed.text):
            raise DraftError("echo", query, (first,))
        if seed.kind == "passage":
            return Draft(query, seed.text, (first,))
        second = passage_prompt(query, task)
        return Draft(query, self._ask(second, "passage", (first, second)), (first, second))

    def _ask(self, prompt: str, key: str, prompts: tuple[str, ...]) -> str:
        raw = ""
        for _ in range(self._attempts):
            raw = self._llm(prompt)
            if not isinstance(raw, str):
                raise InputError(f"llm gave a {type(raw).__name__}: a function from prompt to text is needed")
            text = _value(raw, key)
            if text:
                return text
        raise DraftError("malformed", raw, prompts)


def query_prompt(seed: Seed, persona: Persona, task: TaskKind, *, draw: int = 0) -> str:
    """Write the prompt for a query.

    Args:
        seed: A passage to ask about, or a question to depart from.
        persona: Who asks.
        task: What for.
        draw: Number of the draw from this seed, from 0.

    Returns:
        The prompt.
    """
    who = f"A person {_clause(persona)} and now {task.description}."
    again = f" This is request number {draw + 1} on the same text: choose another point than the obvious one." * (
        draw > 0
    )
    if seed.kind == "passage":
        heading = f"Heading: {seed.title}\n" if seed.title else ""
        return (
            f"{who}\nThe passage below helps this person. Write what they would type into a search field before they "
            f"have seen it: one question or search phrase, in their own words, without copying its sentences.{again}\n"
            f'Answer with one JSON object: {{"query": "..."}}\n\n{heading}Passage:\n{seed.text}'
        )
    return (
        f"{who}\nAnother person once asked the question below. Write one new question that fits this person: the same "
        f"field, but another need and other words.{again}\n"
        f'Answer with one JSON object: {{"query": "..."}}\n\nQuestion:\n{seed.text}'
    )


def passage_prompt(query: str, task: TaskKind) -> str:
    """Write the prompt for a passage that answers a query.

    Args:
        query: The query.
        task: What it is for.

    Returns:
        The prompt.
    """
    return (
        f"Somebody {task.description} and asks: {query}\nWrite a passage of three to six sentences, as it could stand "
        "in a report or a handbook, that contains the answer. Do not repeat the question and do not address the "
        'reader.\nAnswer with one JSON object: {"passage": "..."}'
    )


def judge_prompt(query: str, passage: str) -> str:
    """Write the prompt for a judgement whether a passage answers a query.

    Args:
        query: The query.
        passage: The passage.

    Returns:
        The prompt; an answer that begins with yes accepts.
    """
    return (
        "Does the passage answer the query, and is the query a sensible one for a person to ask? "
        f"Answer yes or no.\n\nQuery: {query}\n\nPassage:\n{passage}"
    )


def plain_words(text: str) -> list[str]:
    """Split a text into lower-case words, without punctuation.

    Args:
        text: The text.

    Returns:
        The words.
    """
    return re.findall(r"\w+", text.lower())


def _clause(persona: Persona) -> str:
    return f"works or lives as {persona.name}: {persona.description}"


def _value(raw: str, key: str) -> str:
    """Read one text out of an answer's first JSON object that has it; empty if there is none."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", raw):
        try:
            found: Any = decoder.raw_decode(raw, match.start())[0]
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and isinstance(found.get(key), str):
            return " ".join(found[key].split())
    return ""
