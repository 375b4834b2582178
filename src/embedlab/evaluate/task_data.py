"""What the builders of tasks share: checks of their arguments, mteb's shapes, and the hash that names a version."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from embedlab._core.errors import InputError
from embedlab._core.extras import require

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.task_metadata import TaskType

Label: TypeAlias = str | int
ENGLISH = "eng-Latn"


def made(
    kind: TaskType,
    name: str,
    data: dict[str, Any],
    languages: list[str],
    description: str,
    given: dict[str, Any],
    item_languages: tuple[str, ...] | None,
    **settings: Any,
) -> AbsTask:
    """Make the task; its revision is the hash of the data and settings, so that results of other data never mix."""
    if not isinstance(name, str) or not name.strip() or "/" in name:
        raise InputError(f"name={name!r}: a task needs a name without '/'")
    require("mteb", extra="evaluate")
    from embedlab.evaluate.local_task import make_task

    content = json.dumps([kind, data, settings, item_languages], ensure_ascii=False, sort_keys=True, default=str)
    revision = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return make_task(
        kind,
        name=name,
        revision=revision,
        languages=languages,
        description=description,
        given=given,
        item_languages=item_languages,
        **settings,
    )


def dataset_of(columns: dict[str, Any]) -> Any:
    """Return columns as a table of the datasets library."""
    return require("datasets", extra="evaluate").Dataset.from_dict(columns)


def languages_of(places: Iterable[int], languages: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the languages of the items that are used."""
    if languages is None:
        return None
    wanted = list(places)
    if wanted and max(wanted) >= len(languages):
        raise InputError(f"languages has {len(languages)} entries: every item needs one")
    return tuple(str(languages[place]) for place in wanted)


def same_length(columns: dict[str, Sequence[Any]], *, at_least: int) -> None:
    """Demand that all columns have one length, and that there are enough rows."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"lengths differ: {told}; every row needs an entry in each")
    name, length = next(iter(lengths.items()))
    if length < at_least:
        raise InputError(f"{name} has {length} entries: such a task needs at least {at_least}")


def numbers_in(name: str, values: Sequence[float]) -> list[float]:
    """Return finite numbers as floats."""
    numbers = [float(value) for value in values]
    for place, number in enumerate(numbers):
        if not math.isfinite(number):
            raise InputError(f"{name}[{place}]={number}: scores must be finite")
    return numbers


def classes_in(name: str, labels: Sequence[Label]) -> list[str]:
    """Return classes by name, in which 1 and "1" are one class."""
    for place, label in enumerate(labels):
        if isinstance(label, float) or label is None or str(label) == "":
            raise InputError(f"{name}[{place}]={label!r}: a class is a name or a whole number")
    return [str(label) for label in labels]


def several_classes(name: str, classes: Sequence[Label]) -> None:
    """Demand at least two classes."""
    if len(set(classes)) < 2:
        raise InputError(f"{name} are all {classes[0]!r}: with one class there is nothing to tell apart")


def half_of_each(classes: Sequence[str], seed: int) -> list[int]:
    """Return the places of half of each class, at least one; each class must leave something to test."""
    places = defaultdict(list)
    for place, label in enumerate(classes):
        places[label].append(place)
    lonely = [label for label, where in places.items() if len(where) < 2]
    if lonely:
        raise InputError(
            f"labels holds {lonely[0]!r} once: without train, every class needs two texts, one to train on"
        )
    rng = random.Random(seed)
    return sorted(place for label in sorted(places) for place in rng.sample(places[label], len(places[label]) // 2))
