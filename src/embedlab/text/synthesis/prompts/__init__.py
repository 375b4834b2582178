"""Prompts as data: what is asked stands in files beside this one, and in files of yours."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any

from embedlab._core.errors import InputError, unknown_name

_FIELDS = ("query", "positive", "negative")  # what a row can be given
_FILLED = ("who", "length", "difficulty", "again", "criterion")
ATTRIBUTES = ("length", "difficulty")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One prompt with places to fill, and how its answer is read.

    Attributes:
        name: What rows say they were asked with.
        about: What it is for, in a sentence.
        text: The prompt, with ``{who}``, ``{length}``, ``{difficulty}``, ``{again}`` or ``{criterion}``.
        material: Tags of the texts under the prompt, in order.
        answer: The JSON object that is asked for; empty for prompts whose answer is chosen from options.
        gives: Field of a row (``query``, ``positive``, ``negative``) -> key of the answer. A field that is missing
            keeps the material.
        attributes: Attribute (``length``, ``difficulty``) -> what it may be.
    """

    name: str
    about: str
    text: str
    material: tuple[str, ...]
    answer: Mapping[str, Any] = field(default_factory=dict)
    gives: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def render(self, texts: Sequence[str], **filled: str) -> str:
        """Write the prompt.

        Args:
            texts: One text for each tag of ``material``.
            **filled: Value of each place in the text; one that is missing stays empty.

        Returns:
            The prompt: what is asked, the form of the answer, and the texts between tags that they cannot close.

        Raises:
            InputError: there are more or fewer texts than tags.

        Example:
            >>> prompt = load_prompts()["summary"].render(["Sales fell."], who="A teacher reads.", length="two words")
            >>> print(prompt[:16], prompt[-26:], sep=" / ")
            A teacher reads. / <text>
            Sales fell.
            </text>
        """
        if len(texts) != len(self.material):
            raise InputError(f"prompt {self.name!r} takes {' '.join(self.material)}, got {len(texts)} texts")
        asked = self.text.format_map(dict.fromkeys(_FILLED, "") | filled).strip()
        if self.answer:
            asked += f"\nAnswer with one JSON object: {json.dumps(self.answer)}"
        return "\n\n".join([asked, *(tagged(tag, text) for tag, text in zip(self.material, texts, strict=True))])


def tagged(tag: str, text: str) -> str:
    """Put a text between tags that it cannot close itself.

    Args:
        tag: The tag's name.
        text: The text.

    Returns:
        The text between ``<tag>`` and ``</tag>``.

    Example:
        >>> print(tagged("query", "break</query> out"))
        <query>
        break< /query> out
        </query>
    """
    inside = text.strip().replace(f"</{tag}>", f"< /{tag}>")
    return f"<{tag}>\n{inside}\n</{tag}>"


def load_prompts(path: str | os.PathLike[str] | None = None) -> Mapping[str, PromptTemplate]:
    """Read prompts: those of this package, and those of a file of yours put over them.

    Args:
        path: A TOML file in the form of ``writing.toml``; None for the package's alone.

    Returns:
        Name -> prompt.

    Raises:
        InputError: the file is not there, not TOML, or a prompt in it is not complete.

    Example:
        >>> sorted(load_prompts())[:3]
        ['document', 'entailment', 'instruction']
    """
    if path is None:
        return _shipped()
    try:
        content = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"prompts={str(path)!r}: cannot be read: {error}") from error
    return MappingProxyType({**_shipped(), **_parsed(content, str(path))})


def prompt_named(name: str, path: str | os.PathLike[str] | None = None) -> PromptTemplate:
    """Look a prompt up.

    Args:
        name: Its name.
        path: A file of yours that may hold it.

    Returns:
        The prompt.

    Raises:
        InputError: there is none of that name.
    """
    known = load_prompts(path)
    if name not in known:
        raise unknown_name("prompt", name, known)
    return known[name]


@cache
def _shipped() -> Mapping[str, PromptTemplate]:
    here = Path(__file__).parent
    found = [_parsed(file.read_text(encoding="utf-8"), file.name) for file in sorted(here.glob("*.toml"))]
    return MappingProxyType({name: prompt for each in reversed(found) for name, prompt in each.items()})


def _parsed(content: str, where: str) -> dict[str, PromptTemplate]:
    try:
        tables = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not TOML: {error}") from error
    attributes = tables.pop("attributes", {})
    return {name: _prompt(name, table, attributes, where) for name, table in tables.items()}


def _prompt(name: str, table: Any, attributes: Any, where: str) -> PromptTemplate:
    if not isinstance(table, dict) or not {"about", "text", "material"} <= set(table):
        raise InputError(f"{where}: prompt {name!r} needs about, text and material")
    places = {place for _, place, _, _ in Formatter().parse(table["text"]) if place is not None}
    if not places <= set(_FILLED):
        raise InputError(f"{where}: prompt {name!r} has unknown places {places - set(_FILLED)}: {', '.join(_FILLED)}")
    answer, gives = table.get("answer", {}), table.get("gives", {})
    if not set(gives) <= set(_FIELDS) or not set(gives.values()) <= set(answer):
        raise InputError(f"{where}: prompt {name!r}: gives must lead from {', '.join(_FIELDS)} to keys of answer")
    used = {key: tuple(attributes[key]) for key in ATTRIBUTES if key in attributes and key in places}
    material = tuple(re.findall(r"\w+", table["material"]))
    return PromptTemplate(name, table["about"], table["text"], material, answer, gives, used)
