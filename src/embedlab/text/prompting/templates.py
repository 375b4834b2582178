"""Prompts as data: what the model reads, which token ends it, and which tokens become the vector."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from embedlab._core.errors import InputError, unknown_name

Pool = Literal["end", "last", "mean", "weighted_mean"]
TEXT, SLOT = "{text}", "{slot}"
_OWN = Path(__file__).with_name("templates.toml")


@dataclass(frozen=True, slots=True)
class Template:
    """One prompt.

    Attributes:
        text: What the model reads, with ``{text}`` once or more, and ``{slot}`` at most once and right before it.
        pool: ``"end"``: the last token of the prompt; ``"last"``, ``"mean"`` and ``"weighted_mean"`` (weights
            proportional to the position): tokens of the last copy of the text.
        end: The last characters of ``text``, said once more, so that a slip of the pen is found; needed for ``"end"``.
        after: What follows the word of a demonstration; "" where demonstrations make no sense.
        about: What it is for.

    Raises:
        InputError: the parts do not fit together.
    """

    text: str
    pool: Pool
    end: str = ""
    after: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        if TEXT not in self.text:
            raise InputError(f"text={self.text!r}: a template needs {TEXT} where the text goes")
        if self.pool not in get_args(Pool):
            raise InputError(f"pool={self.pool!r}: expected one of {', '.join(get_args(Pool))}")
        if self.pool == "end" and (not self.end.strip() or not self.text.endswith(self.end)):
            raise InputError(
                f"end={self.end!r}: pool='end' needs the last characters of the template, which ends "
                f"{self.text[-8:]!r}; they must not be blank, or another token would carry the vector"
            )
        if self.pool == "end" and self.text.endswith(TEXT):
            raise InputError(f"text={self.text!r}: pool='end' needs words after the text; use pool='last' instead")
        if SLOT in self.text and (self.text.count(SLOT) > 1 or SLOT + TEXT not in self.text or self.copies > 1):
            raise InputError(f"text={self.text!r}: {SLOT} stands once, right before the only {TEXT}")

    @property
    def copies(self) -> int:
        """How often the text is repeated."""
        return self.text.count(TEXT)

    @property
    def parts(self) -> list[str]:
        """What stands before, between and after the copies of the text."""
        return self.text.replace(SLOT, "").split(TEXT)

    @property
    def has_slot(self) -> bool:
        """Whether there is a slot before the text."""
        return SLOT in self.text

    def demonstration(self, text: str, word: str) -> str:
        """Fill the template and give the answer.

        Args:
            text: A text.
            word: The word that says what it means.

        Returns:
            What stands before the prompt proper.

        Raises:
            InputError: the template is not made for demonstrations.
        """
        if not self.after:
            raise InputError(f"demos: the template {self.text!r} asks for no word; choose a method such as 'eol'")
        return text.join(self.parts) + word + self.after + ("" if self.after.endswith("\n") else " ")


@dataclass(frozen=True, slots=True)
class Templates:
    """Templates by name, and methods: which templates are averaged.

    Attributes:
        template: Name -> template.
        method: Name -> names of templates.
    """

    template: Mapping[str, Template]
    method: Mapping[str, Sequence[str]]

    def of(self, method: str) -> list[Template]:
        """Return the templates of a method, or the one template of that name.

        Args:
            method: Name of a method or of a template.

        Returns:
            The templates to average.

        Raises:
            InputError: there is neither.
        """
        if method in self.method:
            return [self.named(name) for name in self.method[method]]
        if method in self.template:
            return [self.template[method]]
        raise unknown_name("method", method, [*self.method, *self.template])

    def named(self, name: str) -> Template:
        """Return a template by its name.

        Args:
            name: The name.

        Returns:
            The template.

        Raises:
            InputError: there is none.
        """
        if name not in self.template:
            raise unknown_name("template", name, self.template)
        return self.template[name]


def load_templates(path: str | Path | None = None) -> Templates:
    """Read the templates of this package, and those of a file over them.

    Args:
        path: A file of the form of ``templates.toml``; None for the package's own alone.

    Returns:
        All templates and methods; a name in the file hides the package's.

    Raises:
        InputError: the file cannot be read, or a template in it is not whole.

    Example:
        >>> load_templates().of("eol")[0].text
        'This sentence : "{text}" means in one word:"'
    """
    template: dict[str, Template] = {}
    method: dict[str, Sequence[str]] = {}
    for file in [_OWN] if path is None else [_OWN, Path(path)]:
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"templates={str(file)!r}: not a readable TOML file ({error})") from error
        for name, entry in found.get("template", {}).items():
            template[name] = _template(name, entry)
        method.update(found.get("method", {}))
    return Templates(template, method)


def _template(name: str, entry: Mapping[str, Any]) -> Template:
    known = {one.name for one in fields(Template)}
    missing = {"text", "pool"} - entry.keys()
    if missing or entry.keys() - known:
        wrong = ", ".join(sorted(missing or entry.keys() - known))
        problem = "lacks" if missing else "does not know"
        raise InputError(f"template {name!r} {problem} {wrong}; fields: {', '.join(sorted(known))}")
    return Template(**entry)
