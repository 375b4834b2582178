"""Putting a system into a collection, and taking it out again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.tune.knob import Knob, settings_of
from embedlab.tune.study import home_of

if TYPE_CHECKING:
    from embedlab.search import Collection

_RANKING = ("weight", "feedback_passages", "feedback_weight")


def can_apply(knob: Knob) -> bool:
    """Tell whether a knob can be turned in a collection that is there.

    Passages and models cannot: a collection would have to be made anew from its documents.

    Args:
        knob: The knob.

    Returns:
        Whether ``apply`` takes it.
    """
    return knob.stage in ("ranking", "codec")


def apply(collection: Collection, system: Mapping[str, Any], knobs: Mapping[str, Knob]) -> None:
    """Make a collection search as a system does; what it was is kept for ``undo``.

    The codec is written first, in one commit of its own; settings of the ranking follow in one write.

    Args:
        collection: The collection.
        system: Knob -> setting.
        knobs: The knobs it names.

    Raises:
        InputError: it sets what cannot be changed in place.
        CollectionError: the codes cannot be written; nothing is changed then.
    """
    from embedlab.search import compress_collection

    fixed = sorted(name for name in system if not can_apply(knobs[name]))
    if fixed:
        raise InputError(
            f"{', '.join(fixed)} cannot be changed in place: index the documents into a new collection with these "
            "settings, or tune with --apply from the start, which leaves them out"
        )
    codec = next((setting for name, setting in system.items() if knobs[name].stage == "codec"), None)
    before = {name: getattr(collection.settings, name) for name in _RANKING}
    note = home_of(collection) / "applied.json"
    kept = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {"before": before, "codec": False}
    atomic_write(note, json.dumps(kept | {"system": dict(system), "codec": kept["codec"] or codec is not None}))
    if codec is not None:
        compress_collection(collection.path, codec=codec["name"], bits=codec.get("bits"), verify=0)
    collection.configure(**settings_of(system, "ranking", knobs))


def undo(collection: Collection) -> dict[str, Any]:
    """Make a collection search as before the first ``apply``.

    Args:
        collection: The collection.

    Returns:
        The settings of the ranking that it has again.

    Raises:
        InputError: nothing was applied to it.
    """
    from embedlab.search import undo_compression

    note = home_of(collection) / "applied.json"
    if not note.is_file():
        raise InputError(f"nothing to undo: no result of tuning was applied to {collection.name}")
    kept = json.loads(note.read_text(encoding="utf-8"))
    if kept["codec"]:
        undo_compression(collection.path)
    collection.configure(**kept["before"])
    note.unlink()
    return dict(kept["before"])
