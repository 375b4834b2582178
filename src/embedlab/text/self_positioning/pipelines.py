"""The two ways to get models to merge: each data set by itself, or one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from embedlab._core.errors import InputError
from embedlab.text.self_positioning.weights import open_model

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from embedlab.text.self_positioning.weights import Model

    Train = Callable[[SentenceTransformer, str, Dataset], SentenceTransformer]  # model, name of the data set, rows


def train_separately(base: Model, data: Mapping[str, Dataset], train: Train) -> dict[str, SentenceTransformer]:
    """Train one model per data set, each from the base: for making an embedder of a plain language model.

    Args:
        base: The start; it stays as it is. (paper: theta_0)
        data: Name -> rows, at least two.
        train: Trains the copy it is given on one data set, and returns it.

    Returns:
        Name of the data set -> its model (paper: theta_i), to be merged with the same base.

    Raises:
        InputError: fewer than two data sets.
    """
    start = _start(base, data)
    return {name: train(copy.deepcopy(start), name, rows) for name, rows in data.items()}


def train_sequentially(base: Model, data: Mapping[str, Dataset], train: Train) -> dict[str, SentenceTransformer]:
    """Train on one data set after the other and keep each stop: for improving an embedder on given tasks.

    Args:
        base: The start; it stays as it is. (paper: theta_0)
        data: Name -> rows, at least two; their order is the order of training.
        train: Goes on with the copy it is given on one data set, and returns it.

    Returns:
        Names joined by ``+`` -> the model after these (paper: theta_(1), theta_(1,2), ...), to be merged with the base.

    Raises:
        InputError: fewer than two data sets.
    """
    model = _start(base, data)
    kept: dict[str, SentenceTransformer] = {}
    seen: list[str] = []
    for name, rows in data.items():
        model = train(copy.deepcopy(model), name, rows)
        seen.append(name)
        kept["+".join(seen)] = model
    return kept


def _start(base: Model, data: Mapping[str, Dataset]) -> SentenceTransformer:
    if len(data) < 2:
        raise InputError(f"data: got {len(data)} data set, merging needs a model of each of at least two")
    return open_model(base)
