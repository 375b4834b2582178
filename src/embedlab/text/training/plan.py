"""What a run shall do: a recipe file, a mapping or a name, with what is given on top of it, checked as a whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab.text.training.adapters import settle_lora
from embedlab.text.training.arguments import argument_names, settle
from embedlab.text.training.catalogue import PARTS, compose
from embedlab.text.training.recipe import Recipe
from embedlab.text.training.sources import Source, as_sources

DEFAULT_MODEL = "minilm"
_KEYS = (
    "recipe",
    *PARTS,
    "model",
    "data",
    "out",
    "options",
    "arguments",
    "lora",
    "evaluation",
    "compare",
    "seed",
)


@dataclass(frozen=True, slots=True)
class Judging:
    """How a run is evaluated.

    Attributes:
        held_out: Share of the data that is split off before training, half for development and half for the test.
        tasks: Names of further tasks, as for ``embedlab evaluate``.
        select: ``"last"`` keeps the weights of the last step, ``"best"`` those of the checkpoint with the lowest loss
            on the development part.
        cache: Folder for vectors and results; None for this user's.
    """

    held_out: float = 0.2
    tasks: tuple[str, ...] = ()
    select: str = "last"
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, resolved.

    Attributes:
        base: Name of the recipe.
        parts: Parts taken from other recipes.
        recipe: The recipe that comes out.
        model: Folder or hub name, or the loaded start model.
        sources: Where data come from.
        out: The result folder.
        options: All options of the recipe.
        arguments: All training arguments that differ from the host's, under our names.
        lora: Settings of low-rank adaptation, or None.
        judging: How it is evaluated, or None.
        compare: Whether the baseline is trained too.
        seed: Decides everything that is drawn.
    """

    base: str
    parts: Mapping[str, str]
    recipe: Recipe
    model: Any
    sources: tuple[Source, ...]
    out: Path
    options: Mapping[str, Any]
    arguments: Mapping[str, Any]
    lora: Mapping[str, Any] | None
    judging: Judging | None
    compare: bool
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as a recipe file holds it; what was handed over as an object is described by a text."""
        judging = self.judging
        return {
            "recipe": self.base,
            **self.parts,
            "model": _said(self.model),
            "data": [_source(each) for each in self.sources],
            "options": dict(self.options),
            "arguments": dict(self.arguments),
            "lora": None if self.lora is None else dict(self.lora),
            "evaluation": False
            if judging is None
            else {**{f.name: getattr(judging, f.name) for f in fields(judging)}, "tasks": list(judging.tasks)},
            "compare": self.compare,
            "seed": self.seed,
        }

    def to_yaml(self) -> str:
        """Return the plan as the text of a recipe file that makes the same run again."""
        text: str = require("yaml", extra="train").safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text

    @property
    def fingerprint(self) -> str:
        """Hash over everything that decides the result but the content of the data."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_plan(
    recipe: str | Path | Mapping[str, Any],
    *,
    model: Any = None,
    data: Any = None,
    out: str | Path | None = None,
    compare: bool | None = None,
    evaluate: Any = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Put a recipe and what is given beside it together, and check all of it before anything is done.

    Args:
        recipe: Name of a recipe, a recipe file, or its content.
        model: Over the recipe's; a name or a loaded model.
        data: Over the recipe's; see ``as_sources``.
        out: Over the recipe's.
        compare: Over the recipe's.
        evaluate: Over the recipe's: False for none, names of tasks, or settings (``held_out``, ``tasks``, ...).
        seed: Over the recipe's.
        overrides: Options of the recipe, training arguments or ``lora``, by name.

    Returns:
        The plan.

    Raises:
        InputError: anything is unknown, missing or out of range; one message says what.
    """
    content, home = _content(recipe)
    for key in content:
        if key not in _KEYS:
            raise unknown_name("key of a recipe file", str(key), _KEYS)
    parts = {part: str(content[part]) for part in PARTS if content.get(part) is not None}
    base = str(content.get("recipe") or parts.get("loss") or "contrastive")
    parts = {part: source for part, source in parts.items() if source != base}
    chosen = compose(base, parts)
    options = {**chosen.options, **_options(chosen, _first(content.get("options"), {}))}
    given: dict[str, Any] = dict(_mapping("arguments", _first(content.get("arguments"), {})))
    lora = content.get("lora")
    for name, value in (overrides or {}).items():
        if name == "lora":
            lora = value
        elif name in chosen.options:
            options[name] = value
        elif name in argument_names():
            given[name] = value
        else:
            raise unknown_name("option or training argument", name, {*chosen.options, *argument_names(), "lora"})
    if chosen.fit is not None and lora:
        raise InputError(f"lora: the recipe {chosen.name!r} trains in its own way, which knows no adapters")
    where = _first(out, content.get("out"))
    if where is None:
        raise InputError("out: say where the result shall go, --out FOLDER or out=")
    seed = _first(seed, content.get("seed"), 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed={seed!r}: must be a whole number of at least 0")
    wanted = _first(compare, content.get("compare"), False)
    if not isinstance(wanted, bool):
        raise InputError(f"compare={wanted!r}: must be true or false")
    return Plan(
        base=base,
        parts=parts,
        recipe=chosen,
        model=_model(_first(model, content.get("model"), DEFAULT_MODEL), home if model is None else None),
        sources=tuple(as_sources(data) if data is not None else as_sources(_below(content.get("data"), home))),
        out=Path(where) if out is not None or home is None else home / Path(where),
        options=options,
        arguments=settle(chosen.arguments, given),
        lora=settle_lora(lora),
        judging=_judging(content.get("evaluation"), evaluate),
        compare=wanted,
        seed=seed,
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _content(recipe: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """Return the keys of a recipe, and the folder that its paths are below."""
    if isinstance(recipe, Mapping):
        return dict(recipe), None
    path = Path(recipe)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return {"recipe": str(recipe)}, None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe: {path} cannot be read as a UTF-8 text: {error}") from error
    content = _parsed(text, path)
    if not isinstance(content, Mapping):
        raise InputError(f"recipe: {path} holds no keys: begin with recipe: NAME")
    return dict(content), path.resolve().parent


def parse_value(text: str, where: str) -> Any:
    """Read one value as it is written in a recipe file.

    Args:
        text: The value, such as ``"2e-5"``, ``"true"`` or ``"[a, b]"``.
        where: What to call it in an error.

    Example:
        >>> parse_value("2e-5", "lr"), parse_value("none", "x"), parse_value("mean", "y")
        (2e-05, None, 'mean')
    """
    return None if text.strip().lower() == "none" else _parsed(text, where)


def _parsed(text: str, path: str | Path) -> Any:
    """Read YAML without objects, refusing keys that occur twice; 2e-5 is a number, as everybody means it."""
    yaml: Any = require("yaml", extra="train")

    class Strict(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise InputError(f"recipe: {path}, line {node.start_mark.line + 1}: the key {twice!r} occurs twice")
            return super().construct_mapping(node, deep=deep)

    number = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    Strict.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader=Strict)
    except yaml.YAMLError as error:
        raise InputError(f"recipe: {path} is no valid YAML: {' '.join(str(error).split())}") from error


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name}={value!r:.80}: expected keys with values")
    return value


def _options(recipe: Recipe, given: Any) -> Mapping[str, Any]:
    for name in _mapping("options", given):
        if name not in recipe.options:
            raise unknown_name(f"option of the recipe {recipe.name!r}", str(name), recipe.options)
    chosen: Mapping[str, Any] = given
    return chosen


def _below(data: Any, home: Path | None) -> Any:
    """Read the paths of a recipe file as below its folder."""
    if home is None or data is None:
        return data
    if isinstance(data, str):
        return str(home / data)
    if isinstance(data, Mapping):
        if "path" in data:
            return {**data, "path": str(home / str(data["path"]))}
        return {name: _below(value, home) for name, value in data.items()}
    return [_below(each, home) for each in data] if isinstance(data, Sequence) else data


def _model(name: Any, home: Path | None) -> Any:
    if name == DEFAULT_MODEL:
        return name
    if isinstance(name, str | Path):
        if home is not None and (home / name).is_dir():
            return str(home / name)
        return str(name)
    return name


def _judging(written: Any, given: Any) -> Judging | None:
    """Settings of the evaluation: those of the file, those of the call over them."""
    settings = _settings(written)
    if given is not None:
        over = _settings(given)
        settings = None if over is None else {**(settings or {}), **over}
    if settings is None:
        return None
    known = [each.name for each in fields(Judging)]
    for key in settings:
        if key not in known:
            raise unknown_name("key of evaluation", str(key), known)
    tasks = settings.get("tasks") or ()
    tasks = tasks.split(",") if isinstance(tasks, str) else tasks
    judging = replace(Judging(), **{**settings, "tasks": tuple(str(task).strip() for task in tasks)})
    if (
        not isinstance(judging.held_out, int | float)
        or isinstance(judging.held_out, bool)
        or not 0 <= judging.held_out <= 0.5
    ):
        raise InputError(f"held_out={judging.held_out!r}: must be a share of the data in [0, 0.5]")
    if judging.select not in ("last", "best"):
        raise unknown_name("value of select", str(judging.select), ("last", "best"))
    return judging


def _settings(value: Any) -> dict[str, Any] | None:
    if value is None or value is True:
        return {}
    if value is False:
        return None
    if isinstance(value, Mapping):
        return dict(value)
    return {"tasks": value}


def _said(value: Any) -> str:
    if isinstance(value, str | Path):
        return str(Path(value).resolve()) if Path(value).is_dir() else str(value)
    name = getattr(getattr(value, "model_card_data", None), "base_model", None)
    return f"({name or type(value).__name__}, handed over as an object)"


def _source(source: Source) -> dict[str, Any]:
    data = source.data
    path = (
        str(Path(data).resolve())
        if isinstance(data, str | Path)
        else f"({type(data).__name__}, handed over as an object)"
    )
    changed = {
        each.name: getattr(source, each.name)
        for each in fields(Source)
        if each.name not in ("data", "columns") and getattr(source, each.name) != each.default
    }
    return {"path": path, **changed, **({"columns": dict(source.columns)} if source.columns else {})}
