"""The inventory of concepts, and items that are described by a text, by declared concepts, or by both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError

Floats = NDArray[np.float32]
Declared: TypeAlias = Collection[str] | Mapping[str, float]


@dataclass(frozen=True)
class ConceptSpace:
    """Name the axes of a space.

    Args:
        names: Names of the concepts, all different; the order of the axes.
        descriptions: What each concept is, in a sentence or a page; None where the name has to do.

    Raises:
        InputError: there is no name, one is blank or there twice, or the descriptions are not as many.

    Example:
        >>> space = ConceptSpace(["Accounting software", "Web page creation"])
        >>> space.multi_hot([["Web page creation"], {"Accounting software": 0.5}]).tolist()
        [[0.0, 1.0], [0.5, 0.0]]
    """

    names: Sequence[str]
    descriptions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise InputError(f"names={self.names!r}: expected a sequence of names")
        names = tuple(self.names)
        texts = ("",) * len(names) if self.descriptions is None else tuple(self.descriptions)
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise InputError(f"names={list(names)[:5]!r}: every concept needs a name, and there must be one at least")
        if len(set(names)) != len(names):
            twice = next(name for place, name in enumerate(names) if name in names[:place])
            raise InputError(f"names: {twice!r} is there twice; every concept must have a name of its own")
        if len(texts) != len(names):
            raise InputError(f"descriptions has {len(texts)} entries for {len(names)} names: give one for each")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "descriptions", texts if self.descriptions is not None else None)

    @cached_property
    def articles(self) -> tuple[str, ...]:
        """Name and description of each concept, as one text."""
        texts = self.descriptions or ("",) * len(self)
        return tuple(f"{name}. {text}" if text else name for name, text in zip(self.names, texts, strict=True))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def __len__(self) -> int:
        """Return the number of concepts, the width of the space."""
        return len(self.names)

    def multi_hot(self, declared: Iterable[Declared]) -> Floats:
        """Write declared sets as rows over the axes.

        Args:
            declared: For each item the names that hold, or names with weights of at least 0.

        Shape:
            declared N -> (N, m) float32

        Returns:
            1, or the weight, where a concept is declared; 0 elsewhere.

        Raises:
            InputError: a name is not in the space, or a weight is negative or not finite.
        """
        rows = []
        for each in declared:
            if isinstance(each, str):
                raise InputError(f"concepts={each!r} is one text: put the names into a list")
            row = np.zeros(len(self), np.float32)
            for name in each:
                weight = float(each[name]) if isinstance(each, Mapping) else 1.0
                if not (np.isfinite(weight) and weight >= 0):
                    raise InputError(f"concepts: {name!r} has the weight {weight}; weights are finite and at least 0")
                row[self.place(name)] = weight
            rows.append(row)
        return np.array(rows, np.float32).reshape(-1, len(self))

    def place(self, name: str) -> int:
        """Return the axis of a concept.

        Args:
            name: Its name.

        Returns:
            Its column.

        Raises:
            InputError: there is no such concept.
        """
        if name not in self._places:
            near = get_close_matches(str(name), self.names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown concept {name!r}: {hint}the space has {len(self)} concepts and not this one")
        return self._places[name]


@dataclass(frozen=True, slots=True)
class Item:
    """Something to compare: by its text, by the concepts declared for it, or by both.

    Args:
        text: The text, if there is one.
        concepts: Names of the concepts that hold, or names with weights; None if nothing was declared.
    """

    text: str | None = None
    concepts: Declared | None = None


Comparable: TypeAlias = str | Item


def as_item(given: Comparable) -> Item:
    """Take a plain text as an item with that text.

    Args:
        given: A text or an item.

    Returns:
        The item.

    Raises:
        InputError: it is neither, or an item without anything.
    """
    item = Item(given) if isinstance(given, str) else given
    if not isinstance(item, Item) or (item.text is None and item.concepts is None):
        raise InputError(f"{given!r:.80}: expected a text, or an Item with a text, concepts, or both")
    return item
