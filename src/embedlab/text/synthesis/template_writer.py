"""A writer that asks any generator with prompts from files, many at once, and asks again where it got no answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from embedlab._core.errors import InputError
from embedlab.text.synthesis.generators import TextGenerator, Usage, usage_of
from embedlab.text.synthesis.journal import job_id
from embedlab.text.synthesis.personas import Persona, TaskKind
from embedlab.text.synthesis.prompts import PromptTemplate, prompt_named
from embedlab.text.synthesis.writers import Draft, DraftError, Seed, plain_words

_NEXT_ATTEMPT = 1_000_003  # added to the seed, so that an attempt asks for another answer


class TemplateWriter:
    """Write drafts with a prompt from a file.

    An answer must hold one JSON object with every key that was asked for; text around it is passed over. Where there is
    none, or the answer repeats the prompt or the passage, the prompt is asked again with another seed.

    Args:
        generator: The language model.
        prompt: Name of a prompt, or a prompt of your own, with ``gives``.
        attempts: Most answers to ask for, at least 1.
        max_tokens: Longest answer, at least 1.
        attributes: Attribute -> what it may be, in place of the file's; an empty list leaves it out.
        seed: Sent to the generator.

    Attributes:
        name: The generator's name.
        template: The prompt.

    Raises:
        InputError: the prompt is unknown or gives nothing, or a number is below 1.
    """

    def __init__(
        self,
        generator: TextGenerator,
        prompt: str | PromptTemplate = "query",
        *,
        attempts: int = 3,
        max_tokens: int = 512,
        attributes: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
    ) -> None:
        self.template = prompt if isinstance(prompt, PromptTemplate) else prompt_named(prompt)
        if not self.template.gives or len(self.template.material) != 1:
            raise InputError(
                f"prompt {self.template.name!r} writes no rows: choose one that gives a query or a positive"
            )
        for name, value in (("attempts", attempts), ("max_tokens", max_tokens)):
            if value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        self.name = generator.name
        self._generator, self._attempts, self._max_tokens, self._seed = generator, attempts, max_tokens, seed
        self._attributes = {**self.template.attributes, **(attributes or {})}

    @property
    def usage(self) -> Usage:
        """What the generator has used so far."""
        return usage_of(self._generator)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the drafts, for the journal."""
        asked = (self.template.text, self.template.answer, self.template.gives, self._attributes)
        return {"prompt": self.template.name, "asked": job_id(*asked), "max_tokens": self._max_tokens}

    def write(self, seed: Seed, persona: Persona, task: TaskKind, *, draw: int) -> Draft:
        """Write one draft; see ``write_many``.

        Args:
            seed: The text to write for.
            persona: Who asks.
            task: What for.
            draw: Number of the draw from this text, from 0.

        Returns:
            The draft.

        Raises:
            DraftError: no answer could be used.
        """
        found = self.write_many([(seed, persona, task, draw)])[0]
        if isinstance(found, DraftError):
            raise found
        return found

    def write_many(self, jobs: Sequence[tuple[Seed, Persona, TaskKind, int]]) -> list[Draft | DraftError]:
        """Write a draft for each job.

        Args:
            jobs: (seed, persona, task, draw), draws numbered from 0.

        Returns:
            Drafts in the order of the jobs; an error stands where no answer could be used.
        """
        asked = [self._prompt(*job) for job in jobs]
        found: dict[int, Draft | DraftError] = {}
        for attempt in range(self._attempts):
            open_jobs = [place for place in range(len(jobs)) if not isinstance(found.get(place), Draft)]
            if not open_jobs:
                break
            answers = self._generator.generate(
                [asked[place][0] for place in open_jobs],
                max_tokens=self._max_tokens,
                seed=self._seed + attempt * _NEXT_ATTEMPT,
            )
            for place, raw in zip(open_jobs, answers, strict=True):
                found[place] = self._read(raw, jobs[place][0], *asked[place])
        return [found[place] for place in range(len(jobs))]

    def _prompt(self, seed: Seed, persona: Persona, task: TaskKind, draw: int) -> tuple[str, str]:
        """Return the prompt, and the attributes dealt to it, for the record."""
        dealt = int(job_id(self._seed, seed.id, persona.name, task.name, draw), 16)
        chosen: dict[str, str] = {}
        for name, values in self._attributes.items():
            if values:
                dealt, place = divmod(dealt, len(values))
                chosen[name] = values[place]
        filled = {
            "who": f"A person works or lives as {persona.name}: {persona.description}. This person {task.description}.",
            "again": f" This is request number {draw + 1} on the same text: choose another point." * (draw > 0),
        }
        text = f"{seed.title}\n{seed.text}" if seed.title else seed.text
        return self.template.render([text], **filled, **chosen), "; ".join(f"{k}: {v}" for k, v in chosen.items())

    def _read(self, raw: str, seed: Seed, prompt: str, attributes: str) -> Draft | DraftError:
        answer = read_answer(raw, self.template.answer)
        if answer is None:
            return DraftError("malformed", raw, (prompt,))
        given = {field: answer[key] for field, key in self.template.gives.items()}
        texts = {"query": seed.text, "positive": seed.text, "negative": "", **given}
        if plain_words(texts["negative"]) == plain_words(texts["positive"]):
            return DraftError("negative is positive", raw, (prompt,))
        asked = " ".join(plain_words(prompt.partition("<")[0]))
        for text in given.values():
            words = " ".join(plain_words(text))
            if not words or words in asked or words == " ".join(plain_words(seed.text)):
                return DraftError("echo", raw, (prompt,))
        return Draft(texts["query"], texts["positive"], (prompt,), texts["negative"], attributes)


def read_answer(raw: str, asked: Mapping[str, Any]) -> dict[str, str] | None:
    """Read the first JSON object of an answer that has every key asked for, with texts.

    Args:
        raw: What the model said.
        asked: The object that was asked for.

    Returns:
        Key -> text with single spaces; None if there is no such object.

    Example:
        >>> read_answer('Sure! {"query": "why  so?", "mood": 1} Bye.', {"query": "..."})
        {'query': 'why so?'}
        >>> read_answer('{"query": "..."}', {"query": "..."}) is None  # the form, not filled in
        True
    """
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", raw):
        try:
            found = decoder.raw_decode(raw, match.start())[0]
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and all(isinstance(found.get(key), str) for key in asked):
            texts = {key: " ".join(found[key].split()) for key in asked}
            if all(texts.values()) and not any(text == asked[key] for key, text in texts.items()):
                return texts
    return None
