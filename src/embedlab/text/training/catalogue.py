"""All recipes by name, and recipes put together from parts of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from embedlab._core.errors import EmbedlabError, InputError, unknown_name
from embedlab._core.registry import methods
from embedlab.text.training.plain import PLAIN
from embedlab.text.training.recipe import Recipe, Setting

#: part as it is called in a recipe file -> field of ``Recipe``
PARTS: Mapping[str, str] = {"loss": "loss", "modules": "modules", "prepare": "data", "post": "post"}


@cache
def recipe_names() -> dict[str, str]:
    """Return the names of all recipes.

    Returns:
        Recipe -> the method it comes from, empty for the plain ones; nothing is imported.
    """
    found = dict.fromkeys(PLAIN, "")
    for record in methods().values():
        for name in record.recipes:
            if name in found:
                raise EmbedlabError(f"two recipes are called {name!r}: rename that of {record.module}")
            found[name] = record.name
    return found


def find_recipe(name: str) -> Recipe:
    """Look a recipe up.

    Args:
        name: Its name, with ``-`` or ``_``.

    Returns:
        The recipe.

    Raises:
        InputError: there is none of this name; the message suggests the nearest.
    """
    known = recipe_names()
    key = str(name).replace("-", "_")
    if key not in known:
        raise unknown_name("recipe", str(name), known)
    if not known[key]:
        return PLAIN[key]
    record = methods()[known[key]]
    found = getattr(record.load(), record.recipes[key])
    if not isinstance(found, Recipe) or found.name != key:
        raise EmbedlabError(f"{record.module}: {record.recipes[key]} is no Recipe of the name {key!r}")
    return found


def compose(name: str, parts: Mapping[str, str]) -> Recipe:
    """Put a recipe together: one recipe, with parts taken from others.

    Every part sees the options of the recipe it comes from, so an option that two of them share is set for both. What
    belongs to a loss comes along with it: the kinds of data it takes, training arguments, callbacks and collator.

    Args:
        name: The recipe that gives all other parts.
        parts: ``"loss"``, ``"modules"``, ``"prepare"`` or ``"post"`` -> recipe to take it from.

    Returns:
        The recipe; for no parts, the one of that name.

    Raises:
        InputError: an unknown recipe or part, or a recipe without the part that shall be taken from it.

    Example:
        >>> compose("contrastive", {"loss": "cosent"}).takes
        ('scored',)
    """
    base = find_recipe(name)
    given = {part: find_recipe(source) for part, source in parts.items() if source != base.name}
    if not given:
        return base
    for part, source in given.items():
        if part not in PARTS:
            raise unknown_name("part of a recipe", part, PARTS)
        if getattr(source, PARTS[part]) is None:
            having = [PART for PART, field in PARTS.items() if getattr(source, field) is not None]
            raise InputError(f"{part}: {source.name!r} has no such part; it has {', '.join(having) or 'none'}")
    if base.fit is not None and given.keys() - {"post"}:
        raise InputError(f"recipe: {base.name!r} trains in its own way: only post can be taken from another recipe")
    loss = given.get("loss", base)
    sources = {part: given.get(part, base) for part in PARTS}
    used = [each for part, each in sources.items() if getattr(each, PARTS[part]) is not None or each is loss]
    options: dict[str, Any] = {}
    describe: dict[str, str] = {}
    for each in (*used, loss):  # where two share an option, the loss decides its default
        options |= each.options
        describe |= each.describe
    whole = "+".join(dict.fromkeys((base.name, *(f"{part}:{each.name}" for part, each in given.items()))))
    fields: dict[str, Any] = {
        field: _narrowed(getattr(sources[part], field), sources[part]) for part, field in PARTS.items()
    }
    return replace(
        loss,
        name=whole,
        summary=f"{base.summary} With " + ", ".join(f"{part} of {each.name}" for part, each in given.items()) + ".",
        callbacks=_narrowed(loss.callbacks, loss),
        collator=_narrowed(loss.collator, loss),
        fit=_narrowed(base.fit, base),
        arguments={**base.arguments, **loss.arguments},
        options=options,
        describe=describe,
        **fields,
    )


def _narrowed(part: Callable[..., Any] | None, source: Recipe) -> Callable[..., Any] | None:
    """Let a part see the options of its own recipe only."""
    if part is None:
        return None

    def own(*given: Any) -> Any:
        *rest, setting = given
        return part(*rest, _with_own_options(setting, source))

    return own


def _with_own_options(setting: Setting, source: Recipe) -> Setting:
    return replace(setting, options={key: setting.options.get(key, value) for key, value in source.options.items()})
