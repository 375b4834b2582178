"""What a recipe is made of: data + modules + loss + schedule + post-step, each a plain function that may be missing.

A method states its recipes as module-level ``Recipe`` objects and names them in ``METHOD["recipes"]``, where the
trainer finds them, so there is no list to keep. Nothing here imports torch: the functions do, when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from torch import nn

Kind = Literal["pairs", "tuples", "scored", "labels", "texts"]
# kind -> columns, in the order in which the host's losses take them
COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "pairs": ("anchor", "positive"),
    "tuples": ("anchor", "positive", "negative_1"),  # and negative_2, ... as many as there are
    "scored": ("sentence1", "sentence2", "score"),  # score in [0, 1]
    "labels": ("text", "label"),
    "texts": ("text",),
}


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Rows of one data set; batches never mix two of them.

    Attributes:
        name: What the data set is called in logs and model cards; becomes its key in the host's ``DatasetDict``.
        kind: What a row is; decides the columns (``COLUMNS``).
        rows: The rows, with these columns and no others, in this order.
    """

    name: str
    kind: Kind
    rows: Dataset


@dataclass(frozen=True, slots=True)
class Setting:
    """What a recipe's functions are told about the run they are part of.

    Attributes:
        options: The recipe's options, the user's values put over the defaults.
        folder: Folder of the run, for stores and caches that a resumed run shall find again.
        seed: Decides everything that is drawn.
        arguments: The host's ``SentenceTransformerTrainingArguments``; None in ``data`` and ``modules``, which run
            before they are made.
    """

    options: Mapping[str, Any]
    folder: Path
    seed: int
    arguments: Any = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train a model, in five parts; a part that is None leaves things as they are.

    Attributes:
        name: The recipe's name, such as ``"gist"``.
        summary: What it does and when to choose it, in one sentence.
        takes: Kinds of data that the loss takes, after ``data`` has run.
        loss: ``loss(model, data, setting)`` makes the host's loss, or a dict of data set name -> loss. None only with
            ``fit``.
        data: ``data(data, model, setting)`` turns the given data sets into those that are trained on: mines negatives,
            draws triples from labels, filters pairs.
        modules: ``modules(model, setting)`` gives the model with other modules or switches; it may change its argument,
            which is a copy already.
        arguments: Training arguments that the method publishes; the user's go over them.
        callbacks: ``callbacks(loss, setting)`` makes callbacks of the host's trainer.
        collator: ``collator(loss, setting)`` makes the data collator; None for the host's.
        post: ``post(model, base, setting)`` is done once at the end: merge, fold; ``base`` is the model before it.
        fit: ``fit(model, data, setting)`` replaces the sentence-level trainer, for pre-training; gives the model.
        baseline: Name of the recipe that ``compare`` trains beside this one, on equal data, order and steps.
        options: Every option with its default; a user's option that is not here is refused.
        describe: Option -> what it does, allowed range and unit; the same keys as ``options``.
    """

    name: str
    summary: str
    takes: tuple[Kind, ...]
    loss: Callable[[SentenceTransformer, Sequence[TrainingData], Setting], nn.Module | dict[str, nn.Module]] | None
    data: Callable[[Sequence[TrainingData], SentenceTransformer, Setting], Sequence[TrainingData]] | None = None
    modules: Callable[[SentenceTransformer, Setting], SentenceTransformer] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Callable[[nn.Module, Setting], Sequence[Any]] | None = None
    collator: Callable[[nn.Module, Setting], Any] | None = None
    post: Callable[[SentenceTransformer, SentenceTransformer, Setting], SentenceTransformer] | None = None
    fit: Callable[[SentenceTransformer, Sequence[TrainingData], Setting], SentenceTransformer] | None = None
    baseline: str = "contrastive"
    options: Mapping[str, Any] = field(default_factory=dict)
    describe: Mapping[str, str] = field(default_factory=dict)
