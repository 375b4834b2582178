"""Was the model trained on the test? What is known of its training sets, and which of them may hold a task's data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

_LEAST = 4  # shorter names are found in too many others


def training_sets(name: str, encoder: Any) -> frozenset[str] | None:
    """Return the data sets that a model says it was trained on.

    They are read from the ``datasets`` of the model's card (``README.md`` in its folder), or for a model on the hub
    from mteb's own list.

    Args:
        name: What the model was loaded by.
        encoder: The model.

    Returns:
        Names of data sets; None where nothing is said, which is not the same as none.
    """
    folder = Path(name)
    if name == "default":
        from embedlab import models

        folder = Path(models.__file__).parent / "default"
    card = folder / "README.md"
    if card.is_file():
        named = _datasets_of_card(card.read_text(encoding="utf-8", errors="replace"))
        if named:
            return frozenset(named)
    return _known_to_mteb(name)


def overlaps(task: AbsTask, training: frozenset[str] | None) -> tuple[str, ...]:
    """Return the training sets whose name says that they may hold the task's data.

    Args:
        task: The task.
        training: Names of training sets; None for unknown.

    Returns:
        Their names, sorted; nothing where nothing is known.

    Example:
        >>> from embedlab.evaluate.tasks import from_bitext
        >>> task = from_bitext(["ja", "nein"], ["yes", "no"], name="banking77")
        >>> overlaps(task, frozenset({"mteb/banking77", "msmarco"}))
        ('mteb/banking77',)
    """
    metadata = task.metadata
    names = {metadata.name, metadata.dataset["path"].rpartition("/")[2], *(metadata.adapted_from or ())}
    plain = {_plain(name) for name in names}
    return tuple(sorted(each for each in training or () if any(_alike(_plain(each), name) for name in plain)))


def _alike(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return shorter == longer or (len(shorter) >= _LEAST and shorter in longer)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.rpartition("/")[2]).casefold()


def _datasets_of_card(text: str) -> list[str]:
    """Read the list ``datasets`` of the block between two lines of dashes at the top."""
    block = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = (
        re.search(r"^datasets:[ \t]*\n((?:[ \t]*-[ \t]*\S.*\n?)+)", block[1] + "\n", re.MULTILINE) if block else None
    )
    entries: Iterable[str] = re.findall(r"-[ \t]*(\S.*)", found[1]) if found else ()
    return [entry.strip().strip("\"'") for entry in entries]


def _known_to_mteb(name: str) -> frozenset[str] | None:
    from mteb.models.model_implementations import MODEL_REGISTRY

    meta = MODEL_REGISTRY.get(name)
    return None if meta is None or meta.training_datasets is None else frozenset(meta.training_datasets)
