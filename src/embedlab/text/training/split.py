"""Held-out data: split off before training so that no text, document or group is on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedlab._core.errors import InputError
from embedlab.text.training.recipe import TrainingData
from embedlab.text.training.sources import Loaded

MOST = 1000  # held-out rows of one data set in one part: more sharpen no interval that matters
LEAST = 10  # test rows below which nothing can be said

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Parts:
    """Data to train on, to choose by, and to judge by.

    Attributes:
        train: What is trained on.
        development: To choose settings and checkpoints by; empty data sets are missing.
        test: To judge the finished model by.
        notes: What a reader must know about the split.
    """

    train: tuple[TrainingData, ...]
    development: tuple[TrainingData, ...] = ()
    test: tuple[TrainingData, ...] = ()
    notes: tuple[str, ...] = ()


def hold_out(loaded: Sequence[Loaded], *, share: float, seed: int = 0) -> Parts:
    """Split rows into training, development and test parts.

    Rows that share a text (as anchor, positive or plain text, whatever its case and spacing, also across data sets) or
    a group, such as the document they were cut from, stay together. A training row whose negative is held out elsewhere
    is dropped.

    Args:
        loaded: The data sets with their groups.
        share: Share of the rows to hold out, half of them for each part, in [0, 0.5]; 0 for none.
        seed: Decides which.

    Returns:
        The parts; without development and test where fewer than ten test rows would come out.

    Raises:
        InputError: ``share`` is out of range.
    """
    if isinstance(share, bool) or not 0 <= share <= 0.5:
        raise InputError(
            f"held_out={share}: must be in [0, 0.5]; 0 holds nothing out, and then nothing is judged by it"
        )
    everything = tuple(each.data for each in loaded)
    if share == 0:
        return Parts(everything, notes=("Nothing was held out.",))
    bundles = _bundles(loaded)
    target = [min(MOST, int(share / 2 * len(each.rows))) for each in everything]
    chosen = _draw(bundles, target, len(everything), seed)
    if sum(len(rows) for rows in chosen["test"]) < LEAST:
        note = f"Too few rows or groups to hold out {LEAST} or more for a test: the data judge nothing."
        return Parts(everything, notes=(note,))
    parts = {
        part: tuple(_rows(each, places) for each, places in zip(everything, rows, strict=True) if len(places))
        for part, rows in chosen.items()
    }
    train, dropped = _without(everything, chosen, [*parts["development"], *parts["test"]])
    notes = (f"{dropped} training rows were dropped: their negatives are held-out texts.",) if dropped else ()
    return Parts(train, parts["development"], parts["test"], notes)


def text_key(text: str) -> str:
    """Return what two texts must share to be the same: their words in lower case.

    Example:
        >>> text_key("A  cat\\n") == text_key("a cat")
        True
    """
    return " ".join(text.casefold().split())


def _bundles(loaded: Sequence[Loaded]) -> list[list[tuple[int, int]]]:
    """Group rows, as (data set, row), that must stay together: connected through texts and groups."""
    parent: dict[Key, Key] = {}

    def root(key: Key) -> Key:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    first: list[Key] = []
    places: list[tuple[int, int]] = []
    for number, each in enumerate(loaded):
        columns = [name for name in each.data.rows.column_names if _ties(name)]
        values = [each.data.rows[name][:] for name in columns]
        for row in range(len(each.data.rows)):
            keys: list[Key] = [("text", text_key(column[row])) for column in values]
            if each.groups is not None:
                keys.append((f"group {number}", each.groups[row]))
            for key in keys[1:]:
                parent[root(key)] = root(keys[0])
            root(keys[0])
            first.append(keys[0])
            places.append((number, row))
    found: dict[Key, list[tuple[int, int]]] = {}
    for key, place in zip(first, places, strict=True):
        found.setdefault(root(key), []).append(place)
    return list(found.values())


def _ties(column: str) -> bool:
    return column in ("anchor", "positive", "sentence1", "sentence2", "text")


def _draw(
    bundles: Sequence[Sequence[tuple[int, int]]], target: Sequence[int], count: int, seed: int
) -> dict[str, list[list[int]]]:
    """Fill both parts with whole bundles, test and development by turns; what does not fit stays in training."""
    parts: dict[str, list[list[int]]] = {"test": [[] for _ in range(count)], "development": [[] for _ in range(count)]}
    turn = ["test", "development"]
    for place in np.random.default_rng(seed).permutation(len(bundles)):
        sizes = np.bincount([number for number, _ in bundles[place]], minlength=count)
        for part in turn:
            if all(len(parts[part][i]) + size <= target[i] for i, size in enumerate(sizes)):
                for number, row in bundles[place]:
                    parts[part][number].append(row)
                turn.reverse()
                break
    return parts


def _rows(data: TrainingData, places: Iterable[int]) -> TrainingData:
    return TrainingData(data.name, data.kind, data.rows.select(sorted(places)).flatten_indices())


def _without(
    everything: Sequence[TrainingData], chosen: Mapping[str, list[list[int]]], held: Sequence[TrainingData]
) -> tuple[tuple[TrainingData, ...], int]:
    """Return the rest, less rows whose negatives are held out, and how many of these there were."""
    known = {
        text_key(text) for each in held for name in each.rows.column_names if _ties(name) for text in each.rows[name]
    }
    rest: list[TrainingData] = []
    dropped = 0
    for number, data in enumerate(everything):
        out = {row for part in chosen.values() for row in part[number]}
        negatives = [data.rows[name][:] for name in data.rows.column_names if name.startswith("negative")]
        bad = {row for row in range(len(data.rows)) if any(text_key(column[row]) in known for column in negatives)}
        dropped += len(bad - out)
        rest.append(_rows(data, set(range(len(data.rows))) - out - bad))
    return tuple(rest), dropped
