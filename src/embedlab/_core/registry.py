"""The list of methods, read from their source files without importing any of them.

A method is one module (or one folder with an ``__init__.py``) in a room of the package that holds a literal dict named
``METHOD``. There is no list to keep: a file with a record is a method.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from embedlab._core.errors import EmbedlabError, unknown_name

ROOMS = (
    "text",
    "words",
    "graphs",
    "categorical",
    "vision",
    "multimodal",
    "concepts",
    "search",
    "evaluate",
    "understand",
)
KINDS = ("loss", "module", "surgery", "trainer", "table", "codec", "embedder", "concept", "task", "probe")
EXTRAS = ("train", "evaluate", "codecs", "words", "graphs", "concepts", "vision", "distributed")

# field -> (what it must be, in words; the check)
_FIELDS: dict[str, tuple[str, Any]] = {
    "card": (
        "a whole number: 1 to 52 for the papers of the list, more for others",
        lambda v: type(v) is int and v >= 1,
    ),
    "title": ("a text that is not empty", lambda v: _is_text(v)),
    "authors": ("a text that is not empty", lambda v: _is_text(v)),
    "year": ("a whole number from 1990 on", lambda v: type(v) is int and 1990 <= v <= 2100),
    "source": ("a text with the version, such as 'arXiv:2402.16829v1'", lambda v: _is_text(v)),
    "kinds": (f"a dict from kind ({', '.join(KINDS)}) to the public name in the module", lambda v: _is_kinds(v)),
    "extras": (f"a list of extras out of {', '.join(EXTRAS)}", lambda v: _is_texts(v) and set(v) <= set(EXTRAS)),
    "official_code": ("None or a text 'owner/name (licence)'", lambda v: v is None or (_is_text(v) and "/" in v)),
    "deviations": ("a list of texts, empty if there are none", lambda v: _is_texts(v)),
    "known_failures": ("a list of texts, empty if there are none", lambda v: _is_texts(v)),
}
_OPTIONAL: dict[str, tuple[str, Any]] = {
    "recipes": (
        "a dict from the recipe's name to the public name of the Recipe in the module",
        lambda v: _is_names(v),
    ),
    "knobs": (
        "a dict from the knob's name to the public name of the Knob in the module",
        lambda v: _is_names(v),
    ),
}


class RecordError(EmbedlabError):
    """A method's ``METHOD`` record is missing, not a literal, or has a wrong field."""


@dataclass(frozen=True, slots=True)
class MethodRecord:
    """What a method says about itself.

    Attributes:
        name: The module's name, by which the method is known everywhere.
        room: The package that holds it, which says what the user holds: ``text``, ``words``, ``graphs``, ...
        card: Number of the paper: 1 to 52 as in `embedlab papers`, more for others.
        title: Title of the paper.
        authors: Authors as one text.
        year: Year of publication.
        source: Where it was published, with version.
        kinds: Kind of object -> public name of that object in the module.
        extras: Extras of this package that the method needs.
        official_code: ``"owner/name (licence)"`` of the authors' code, or None.
        deviations: Where this implementation differs from the paper or its code, one sentence each.
        known_failures: When it is known not to work, one sentence each.
        path: The source file that holds the record.
        recipes: Training recipe -> public name of the ``Recipe`` in the module; empty for methods without.
        knobs: Knob of `embedlab tune` -> public name of the ``Knob`` in the module; empty for methods without.
    """

    name: str
    room: str
    card: int
    title: str
    authors: str
    year: int
    source: str
    kinds: dict[str, str]
    extras: tuple[str, ...]
    official_code: str | None
    deviations: tuple[str, ...]
    known_failures: tuple[str, ...]
    path: Path
    recipes: dict[str, str] = field(default_factory=dict)
    knobs: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """Dotted name to import the method by."""
        return f"embedlab.{self.room}.{self.name}"

    def load(self) -> ModuleType:
        """Import the method's module.

        Returns:
            The module; importing it may need the packages of ``extras``.
        """
        return importlib.import_module(self.module)

    def sources(self) -> tuple[Path, ...]:
        """Return the files the method is written in: one, or every module of its folder."""
        return tuple(sorted(self.path.parent.rglob("*.py"))) if self.path.name == "__init__.py" else (self.path,)


@cache
def methods() -> dict[str, MethodRecord]:
    """Read the records of all methods in the package.

    Returns:
        Method name -> record, sorted by name.

    Raises:
        RecordError: a record is malformed, or two methods have the same name.
    """
    return collect(Path(__file__).parents[1])


def method(name: str) -> MethodRecord:
    """Look one method up.

    Args:
        name: Its name, with ``-`` or ``_``.

    Returns:
        The record.

    Raises:
        InputError: there is no such method; the message suggests the nearest name.
    """
    known = methods()
    key = name.replace("-", "_")
    if key not in known:
        raise unknown_name("method", name, known)
    return known[key]


def collect(package: Path) -> dict[str, MethodRecord]:
    """Read the records of all methods below a package folder.

    Args:
        package: Folder whose sub-folders are the rooms.

    Returns:
        Method name -> record, sorted by name.

    Raises:
        RecordError: a record is malformed, or two methods have the same name.
    """
    found: dict[str, MethodRecord] = {}
    for room in ROOMS:
        for path in _modules(package / room):
            record = read_record(path)
            if record is None:
                continue
            if record.name in found:
                raise RecordError(f"{path}: the name {record.name!r} is taken by {found[record.name].path}: rename one")
            found[record.name] = record
    return dict(sorted(found.items()))


def read_record(path: Path) -> MethodRecord | None:
    """Read the ``METHOD`` record of one source file, importing nothing.

    Args:
        path: A module, or the ``__init__.py`` of a method that is a folder.

    Returns:
        The record, or None when the file assigns no ``METHOD``.

    Raises:
        RecordError: the record is not a literal dict, or a field is missing, unknown or wrong.
    """
    value = _assigned(path, "METHOD")
    if value is None:
        return None
    try:
        raw = ast.literal_eval(value)
    except (ValueError, TypeError) as error:
        raise RecordError(f"{path}:{value.lineno}: METHOD must be one literal dict, without names or calls") from error
    if not isinstance(raw, dict):
        raise RecordError(f"{path}:{value.lineno}: METHOD must be a dict, got {type(raw).__name__}")
    allowed = _FIELDS | _OPTIONAL
    for name in sorted(set(map(str, raw)) - set(allowed)):
        raise RecordError(f"{path}: METHOD has an unknown field {name!r}: allowed are {', '.join(allowed)}")
    for name, (meaning, right) in allowed.items():
        if name not in raw and name in _FIELDS:
            raise RecordError(f"{path}: METHOD lacks the field {name!r}: {meaning}")
        if name in raw and not right(raw[name]):
            raise RecordError(f"{path}: METHOD[{name!r}] is {raw[name]!r}: it must be {meaning}")
    body = path.parent if path.name == "__init__.py" else path
    fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in raw.items()}
    return MethodRecord(name=body.stem, room=body.parent.name, path=path, **fields)


def _modules(room: Path) -> Iterator[Path]:
    for path in sorted(room.glob("*.py")) + sorted(room.glob("*/__init__.py")):
        if path.parent != room or path.name != "__init__.py":
            yield path


def _assigned(path: Path, name: str) -> ast.expr | None:
    """Return the expression a module assigns to a top-level name, or None."""
    source = path.read_text(encoding="utf-8")
    if name not in source:  # most modules hold no record: spare the command line parsing them
        return None
    try:
        tree = ast.parse(source, filename=str(path))
    except SyntaxError as error:
        raise RecordError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from error
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return node.value
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_names(value: object) -> bool:
    return (
        isinstance(value, dict) and bool(value) and all(_is_text(key) and _is_text(name) for key, name in value.items())
    )


def _is_kinds(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and set(value) <= set(KINDS) and all(map(_is_text, value.values()))
