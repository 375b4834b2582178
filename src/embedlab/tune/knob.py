"""A knob: one thing about a search system that can be set, what it may be set to, and what trying it costs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias

from embedlab._core.errors import unknown_name

Stage: TypeAlias = Literal["passages", "model", "codec", "ranking"]
STAGES: tuple[Stage, ...] = ("ranking", "passages", "model", "codec")
Setting: TypeAlias = Any  # whatever JSON can hold


@dataclass(frozen=True, slots=True)
class Knob:
    """What a method offers to the tuner.

    Attributes:
        name: By which it is known, in reports and in ``tune.json``.
        stage: Where it takes hold. ``"passages"`` and ``"ranking"`` are settings of the collection, the first before
            and the second after vectors are made; ``"model"`` makes another encoder; ``"codec"`` stores vectors in
            fewer bytes.
        settings: What it may be set to, as JSON can hold it; the first leaves everything as it is.
        summary: What it changes, in one sentence.
        make: Turns a setting into what the stage needs: a mapping of collection settings (``passages``, ``ranking``),
            an ``Encoder`` (``model``; called with the setting, the encoder as it is, the passages' texts and a seed),
            or a codec not yet fitted (``codec``; called with the setting, the width of the vectors and a seed).
        extra: Extra of this package it needs; without it the knob is passed over.
        needs_people: Whether queries that were made from the documents misjudge it, so that it is turned only where
            people asked: made queries copy their passage's words, and so favour searching by words, and short passages.
    """

    name: str
    stage: Stage
    settings: tuple[Setting, ...]
    summary: str
    make: Callable[..., Any] = field(repr=False)
    extra: str | None = None
    needs_people: bool = False

    @property
    def neutral(self) -> Setting:
        """The setting that leaves everything as it is."""
        return self.settings[0]


@cache
def knobs() -> dict[str, Knob]:
    """Gather the knobs that exist: those of the tuner's own folder, and those that methods name in their records.

    Returns:
        Knob by name, in the order of the stages; knobs whose extra is not installed are left out.
    """
    from embedlab._core.extras import installed
    from embedlab._core.registry import methods
    from embedlab.tune import own

    found: list[Knob] = []
    for module in pkgutil.iter_modules(own.__path__):
        found.append(importlib.import_module(f"{own.__name__}.{module.name}").KNOB)
    for record in methods().values():
        for public in record.knobs.values():
            found.append(getattr(record.load(), public))
    usable = [knob for knob in found if knob.extra is None or installed(knob.extra)]
    return {knob.name: knob for knob in sorted(usable, key=lambda knob: (STAGES.index(knob.stage), knob.name))}


def chosen(names: Sequence[str] | None) -> dict[str, Knob]:
    """Return some of the knobs.

    Args:
        names: Their names; None for all.

    Returns:
        Knob by name.

    Raises:
        InputError: there is no such knob.
    """
    every = knobs()
    if names is None:
        return dict(every)
    for name in names:
        if name not in every:
            raise unknown_name("knob", name, every)
    return {name: knob for name, knob in every.items() if name in names}


def settings_of(system: Mapping[str, Setting], stage: Stage, among: Mapping[str, Knob]) -> dict[str, Any]:
    """Return the collection settings that a system asks for at a stage.

    Args:
        system: Knob -> setting; what is missing is as it was.
        stage: ``"passages"`` or ``"ranking"``.
        among: The knobs.

    Returns:
        Field of ``embedlab.search.Settings`` -> value.
    """
    fields: dict[str, Any] = {}
    for name, setting in system.items():
        knob = among[name]
        if knob.stage == stage and setting != knob.neutral:
            fields |= knob.make(setting)
    return fields
