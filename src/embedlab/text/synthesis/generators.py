"""What writes and judges: one small protocol, and what stands behind it: a function, an endpoint, or rules."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from embedlab._core.errors import InputError
from embedlab.text.synthesis.offline import salient_phrases
from embedlab.text.synthesis.rules import split_sentences

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@runtime_checkable
class TextGenerator(Protocol):
    """A language model, or what stands in for one.

    Attributes:
        name: What rows say they were written by.
    """

    name: str

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        """Answer each prompt; another ``seed`` asks for another answer."""
        ...

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        """Say how well each option continues the prompt: log probabilities, up to a constant."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a generator has used up so far.

    Attributes:
        prompts: Prompts asked.
        prompt_tokens: Tokens sent, as far as they are counted.
        completion_tokens: Tokens received, as far as they are counted.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __sub__(self, before: Usage) -> Usage:
        return Usage(
            self.prompts - before.prompts,
            self.prompt_tokens - before.prompt_tokens,
            self.completion_tokens - before.completion_tokens,
        )

    def cost(self, *, per_million_prompt: float, per_million_completion: float) -> float:
        """Return the price.

        Args:
            per_million_prompt: Price of a million tokens sent.
            per_million_completion: Price of a million tokens received.

        Returns:
            The price, in the same currency.

        Example:
            >>> Usage(10, 2_000_000, 500_000).cost(per_million_prompt=0.5, per_million_completion=2)
            2.0
        """
        return (self.prompt_tokens * per_million_prompt + self.completion_tokens * per_million_completion) / 1e6


def usage_of(generator: object) -> Usage:
    """Return what a generator has used up; nothing for one that does not count.

    Args:
        generator: The generator.

    Returns:
        The counts.
    """
    found = getattr(generator, "usage", None)
    return found if isinstance(found, Usage) else Usage()


def as_generator(source: object, *, workers: int = 4) -> TextGenerator:
    """Take whatever writes: a generator, an address, a folder with a model, or a function from prompt to text.

    Args:
        source: The generator itself, ``"https://host/v1#model"``, a folder of a causal language model, or a function.
        workers: Prompts under way at the same time, at an endpoint.

    Returns:
        The generator.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(source, TextGenerator):
        return source
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return EndpointGenerator(source, workers=workers)
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        from embedlab.text.synthesis.local_generator import LocalGenerator

        return LocalGenerator(source)
    if callable(source):
        return CallableGenerator(source)
    raise InputError(
        f"llm={source!r}: expected a TextGenerator, 'https://host/v1#model', the folder of a causal language model, or "
        "a function from prompt to text"
    )


class CallableGenerator:
    """Ask any function from prompt to text.

    A function cannot tell probabilities: ``score`` lists the options under letters and asks for one.

    Args:
        function: Gets a prompt, gives a text.
        name: What rows say they were written by; None takes the function's name.
        workers: Calls at the same time, at least 1; above 1, the function must bear it.

    Attributes:
        name: See ``name``.

    Example:
        >>> CallableGenerator(str.upper, name="shout").generate(["hello"])
        ['HELLO']
    """

    def __init__(self, function: Callable[[str], str], *, name: str | None = None, workers: int = 1) -> None:
        if not callable(function):
            raise InputError(f"function={function!r}: a function from prompt to text is needed")
        if workers < 1:
            raise InputError(f"workers={workers}: must be at least 1")
        self.name = name or str(getattr(function, "name", getattr(function, "__name__", type(function).__name__)))
        self._function, self._workers, self._prompts = function, workers, 0

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return Usage(self._prompts)

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        """Call the function with each prompt; it cannot be told ``max_tokens`` or ``seed``."""
        return self._each(prompts, self._function)

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        """Ask which option fits best: 0 for that one, -20 for the others, and all 0 if the answer names none."""
        return scores_by_letter(self, prompt, options)

    def _each(self, prompts: Sequence[str], ask: Callable[[str], str]) -> list[str]:
        self._prompts += len(prompts)
        with ThreadPoolExecutor(self._workers) as pool:
            answers = list(pool.map(ask, prompts))
        for answer in answers:
            if not isinstance(answer, str):
                raise InputError(f"{self.name} gave a {type(answer).__name__}: a text is needed")
        return answers


class EndpointGenerator(CallableGenerator):
    """Ask a language model at an OpenAI-compatible chat endpoint.

    Args:
        url: Base URL and model, ``"https://host/v1#model-name"``.
        workers: Prompts under way at the same time, at least 1.
        **options: Further arguments of ``embedlab.models.chat.ChatEndpoint``, such as ``api_key`` and ``temperature``.
    """

    def __init__(self, url: str, *, workers: int = 4, **options: Any) -> None:
        from embedlab.models.chat import ChatEndpoint

        self._chat = ChatEndpoint(url, **options)
        super().__init__(self._chat, workers=workers)

    @property
    def usage(self) -> Usage:
        """What was asked, and the tokens that the server counted."""
        return Usage(self._prompts, self._chat.prompt_tokens, self._chat.completion_tokens)

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        """Ask; ``max_tokens`` and ``seed`` are sent along."""
        return self._each(prompts, lambda prompt: self._chat(prompt, max_tokens=max_tokens, seed=seed))

    def close(self) -> None:
        """Close the connections."""
        self._chat.close()


class TemplateGenerator:
    """Answer by rule, so that everything that asks a language model also runs without one.

    The answer fills the JSON object that the prompt asks for: texts with phrases of the prompt's material (what stands
    between ``<tag>`` and ``</tag>``), numbers with the share of words that two pieces of material have in common. It
    shows that a pipeline works, not what a language model would bring.

    Args:
        templates: Key of the answer -> texts with ``{topic}``, ``{other}`` and ``{sentence}`` to draw from; replaces
            the templates for that key.
        name: What rows say they were written by.

    Attributes:
        name: See ``name``.

    Example:
        >>> generator = TemplateGenerator()
        >>> generator.generate(['Answer {"query": "..."}.<passage>The boundary layer grows. Heat is lost.</passage>'])
        ['{"query": "how does boundary layer grows relate to Heat?"}']
    """

    def __init__(self, templates: Mapping[str, Sequence[str]] | None = None, *, name: str = "templates") -> None:
        self.name = name
        self._templates = {**_TEMPLATES, **(templates or {})}
        self._prompts = 0

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return Usage(self._prompts)

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        """Fill the JSON object of each prompt; ``max_tokens`` does not matter."""
        self._prompts += len(prompts)
        return [self._answer(prompt, seed) for prompt in prompts]

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        """Compare the words of the first material with those of the others.

        An option that is the tag of a material gets the share of words in common with it; ``"yes"`` and ``"no"`` and
        numbers are the likelier, the nearer they come to that share; other options get the share of their own words.
        """
        material = dict(re.findall(r"(?s)<(\w+)>(.*?)</\1>", prompt))
        first, *others = list(material.values()) or [prompt]
        share = _shared(first, others[0] if others else prompt)
        grades = [float(option) for option in options if option.replace(".", "", 1).isdigit()]
        if len(grades) == len(options):
            return [-10 * abs(grade / (max(grades) or 1) - share) for grade in grades]
        if sorted(options) == ["no", "yes"]:
            return [10 * (share if option == "yes" else 1 - share) for option in options]
        return [10 * _shared(first, material.get(option, option)) for option in options]

    def _answer(self, prompt: str, seed: int) -> str:
        material = _material(prompt)
        text = " ".join(material) or prompt
        phrases = salient_phrases(text, {}) or ["this"]
        parts = {"topic": phrases, "other": phrases[1:] or phrases, "sentence": split_sentences(text)}

        def fill(key: str, asked: Any, turn: int) -> Any:
            if isinstance(asked, list):
                return [fill(key, each, turn + i) for i, each in enumerate(asked)]
            if not isinstance(asked, str):
                return round(_shared(*material[:2]) * asked, 2) if len(material) > 1 else 0.0
            choices = self._templates.get(key, _TEMPLATES["query"])
            return choices[turn % len(choices)].format(
                **{name: found[turn // len(choices) % len(found)] for name, found in parts.items()}
            )

        turn = seed + int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
        skeleton = _skeleton(prompt) or {"query": "..."}
        return json.dumps({key: fill(key, asked, turn) for key, asked in skeleton.items()}, ensure_ascii=False)


_TEMPLATES: dict[str, Sequence[str]] = {
    "query": ("what is known about {topic}?", "{topic} and {other}", "how does {topic} relate to {other}?"),
    "positive": ("It is reported that {topic} goes with {other}. Details of {topic} are given elsewhere.",),
    "passage": ("It is reported that {topic} goes with {other}. Details of {topic} are given elsewhere.",),
    "negative": ("Another report deals with {other} alone. It says nothing of what is asked here.",),
    "paraphrase": ("In other words: {sentence}",),
    "entailed": ("{topic} is mentioned.",),
    "contradicted": ("Nobody has ever heard of {topic}.",),
    "summary": ("{topic}, {other}",),
    "instruction": ("Given a question about {topic}, find the passage that answers it",),
    "task": ("Given a question about {topic}, find what is reported on {other}",),
    "name": ("{topic}",),
}


def scores_by_letter(generator: TextGenerator, prompt: str, options: Sequence[str]) -> list[float]:
    """Score options by asking for the letter of the best one, for models that give no probabilities.

    Args:
        generator: Who is asked.
        prompt: The question.
        options: At most 26 answers to choose from.

    Returns:
        0 for the chosen option and -20 for the others, as if sure; all 0 if the answer names no option.

    Raises:
        InputError: there are more than 26 options.
    """
    if len(options) > len(_LETTERS):
        raise InputError(f"{len(options)} options: at most {len(_LETTERS)} can be told apart by letter")
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))
    answer = generator.generate([f"{prompt}\n\n{listed}\n\nAnswer with one letter."], max_tokens=8)[0]
    found = re.search(rf"\b([{_LETTERS[: len(options)]}])\b", answer)
    chosen = _LETTERS.index(found.group(1)) if found else None
    return [0.0 if chosen in (None, place) else -20.0 for place in range(len(options))]


def _material(prompt: str) -> list[str]:
    return [found.group(2).strip() for found in re.finditer(r"(?s)<(\w+)>(.*?)</\1>", prompt)]


def _skeleton(prompt: str) -> dict[str, Any] | None:
    """Read the JSON object that a prompt asks for: the last one outside its material."""
    bare = re.sub(r"(?s)<(\w+)>.*?</\1>", "", prompt)
    for found in reversed(re.findall(r"\{[^{}]*\}", bare)):
        try:
            asked = json.loads(found)
        except json.JSONDecodeError:
            continue
        if isinstance(asked, dict) and asked:
            return asked
    return None


def _shared(first: str, second: str) -> float:
    one, other = set(_words(first)), set(_words(second))
    return len(one & other) / max(min(len(one), len(other)), 1)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
