"""Rows of one kind turned into those that a loss takes, where there is one plain way to do it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedlab._core.errors import InputError
from embedlab.text.training.recipe import COLUMNS, Kind, Recipe, TrainingData
from embedlab.text.training.rows import dataset_of

_ADVICE = {
    "texts": "a recipe for pairs, which makes queries for them",
    "labels": "contrastive, gist or classes",
    "scored": "cosent, angle or cosine",
    "pairs": "contrastive or gist",
    "tuples": "contrastive, gist or triplet",
}


def suited(data: Sequence[TrainingData], recipe: Recipe, *, seed: int) -> list[TrainingData]:
    """Bring data sets to a kind that a recipe takes.

    Labelled texts become pairs of one class; tuples lose their negatives where only pairs are taken. Nothing else is
    changed: there is no honest way from scores to pairs, say.

    Args:
        data: The data sets.
        recipe: Says what it takes.
        seed: Decides which texts of a class become a pair.

    Returns:
        The data sets.

    Raises:
        InputError: a data set is of another kind, or too small.
    """
    return [_suited(each, recipe, seed) for each in data]


def _suited(data: TrainingData, recipe: Recipe, seed: int) -> TrainingData:
    takes: tuple[Kind, ...] = recipe.takes
    if len(data.rows) < 2:
        raise InputError(f"data {data.name!r}: {len(data.rows)} rows are left to train on: at least two are needed")
    if data.kind in takes:
        return data
    if "pairs" in takes and data.kind == "labels":
        return _pairs_of_classes(data, seed)
    if "pairs" in takes and data.kind == "tuples":
        return TrainingData(data.name, "pairs", data.rows.select_columns(list(COLUMNS["pairs"])))
    raise InputError(
        f"data {data.name!r}: the recipe {recipe.name!r} takes {', '.join(takes)}, and these rows are {data.kind} "
        f"({', '.join(data.rows.column_names)}): choose {_ADVICE[data.kind]}"
    )


def _pairs_of_classes(data: TrainingData, seed: int) -> TrainingData:
    """Pair every text with the next of its class, in an order drawn once."""
    rng = np.random.default_rng(seed)
    texts, labels = data.rows["text"][:], np.asarray(data.rows["label"][:])
    pairs: list[tuple[int, int]] = []
    for label in sorted(set(labels.tolist())):
        places = rng.permutation(np.flatnonzero(labels == label)).tolist()
        pairs += [
            pair for pair in zip(places, places[1:] + places[:1], strict=True) if texts[pair[0]] != texts[pair[1]]
        ]
    if len(pairs) < 2:
        raise InputError(f"data {data.name!r}: no class has two texts to pair: give more texts of each class")
    pairs = [pairs[place] for place in rng.permutation(len(pairs))]
    columns = {"anchor": [texts[one] for one, _ in pairs], "positive": [texts[two] for _, two in pairs]}
    return TrainingData(data.name, "pairs", dataset_of("pairs", columns, data.name))
