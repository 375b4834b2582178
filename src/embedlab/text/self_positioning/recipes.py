"""Recipes for the trainer: one model per data set and their merge, and the joint training it is compared with."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.files import atomic_folder, atomic_write
from embedlab.text.training.plain import CLASSES, CONTRASTIVE, COSENT
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from torch import nn

_log = logging.getLogger(__name__)

PIPELINES = ("separate", "sequential")
# what a data set is trained with, by the kind of its rows
_BY_KIND: Mapping[str, Recipe] = {"pairs": CONTRASTIVE, "tuples": CONTRASTIVE, "scored": COSENT, "labels": CLASSES}
_LOSSES = {key: value for recipe in (CONTRASTIVE, COSENT) for key, value in recipe.options.items()}
_LOSS_WORDS = {key: value for recipe in (CONTRASTIVE, COSENT) for key, value in recipe.describe.items()}


def _joint_loss(
    model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting
) -> nn.Module | dict[str, nn.Module]:
    return {each.name: _loss(model, each, setting) for each in data}


def _loss(model: SentenceTransformer, data: TrainingData, setting: Setting) -> Any:
    recipe = _BY_KIND[data.kind]
    if recipe.loss is None:
        raise InputError(f"data: {data.name!r} holds {data.kind}, for which there is no plain loss")
    given = {key: setting.options.get(key, value) for key, value in recipe.options.items()}
    return recipe.loss(model, [data], Setting(given, setting.folder, setting.seed, setting.arguments))


def _fit(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> SentenceTransformer:
    """Train the models of one of the pipelines, each resumable, then search for their merge."""
    from embedlab.text.self_positioning.pipelines import train_separately, train_sequentially
    from embedlab.text.self_positioning.probe import balanced_probe
    from embedlab.text.self_positioning.search import SelfPositioning

    options = setting.options
    if options["pipeline"] not in PIPELINES:
        raise unknown_name("pipeline", options["pipeline"], PIPELINES)
    known = {each.name: each for each in data}
    per_task = options["probe"]
    # the probe is drawn from what is trained on, as published, and leaves the held-out rows to the evaluation
    probe = balanced_probe({name: each.rows for name, each in known.items()}, per_task=per_task, seed=setting.seed)

    def train(start: SentenceTransformer, name: str, _: Dataset) -> SentenceTransformer:
        return _train_one(start, known[name], setting, share=len(known[name].rows) / sum(len(d.rows) for d in data))

    run = train_separately if options["pipeline"] == "separate" else train_sequentially
    models = run(model, {name: each.rows for name, each in known.items()}, train)
    search = SelfPositioning(
        model,
        models,
        {name: loss_maker(each, setting) for name, each in known.items()},
        mu=options["mu"],
        method=options["method"],
        granularity=options["granularity"],
    )
    found = search.fit(
        probe,
        lr=options["search_lr"],
        epochs=options["search_epochs"],
        batch_size=min(options["search_batch_size"], per_task),
        seed=setting.seed,
        folder=setting.folder,
    )
    shares = ", ".join(f"{name} {weight:.3f}" for name, weight in zip(found.names, found.weights, strict=True))
    _log.info("merged with weights %s and scale %.3f", shares, found.scale)
    atomic_write(setting.folder / "merge.json", json.dumps(found.to_dict(), indent=2))
    return found.model


def loss_maker(data: TrainingData, setting: Setting | None = None) -> Any:
    """Choose a loss by the kind of rows: InfoNCE for pairs and tuples, CoSENT for scored pairs, triplets for classes.

    Args:
        data: The data set.
        setting: Options of the run; None for the defaults.

    Returns:
        What makes the loss for a model.

    Raises:
        InputError: plain texts, for which there is no such loss.
    """
    if data.kind not in _BY_KIND:
        known = ", ".join(_BY_KIND)
        raise InputError(
            f"data: {data.name!r} holds {data.kind}, for which there is no plain loss; there is for {known}"
        )
    return lambda model: _loss(model, data, setting or Setting(_LOSSES, Path(), 0))


def _train_one(
    model: SentenceTransformer, data: TrainingData, setting: Setting, *, share: float
) -> SentenceTransformer:
    """Train on one data set in a folder of its own; a model that is finished there is taken as it is."""
    from sentence_transformers import SentenceTransformer

    from embedlab.text.training.fitting import fit

    folder = setting.folder / "models" / data.name
    if (folder / "modules.json").is_file():
        return SentenceTransformer(str(folder), device=str(model.device), local_files_only=True)
    arguments = copy.deepcopy(setting.arguments)
    arguments.output_dir = str(setting.folder / "checkpoints" / data.name)
    if arguments.max_steps > 0:  # the steps of the run are those of all models together, as of one joint training
        arguments.max_steps = max(1, round(arguments.max_steps * share))
    part = Recipe(name=data.name, summary="", takes=(data.kind,), loss=lambda m, d, s: _loss(m, d[0], s))
    fitted = fit(part, model, [data], Setting(setting.options, setting.folder, setting.seed, arguments))
    with atomic_folder(folder) as fresh:
        fitted.model.save_pretrained(str(fresh), create_model_card=False)
    return fitted.model


JOINT = Recipe(
    name="joint",
    summary="Train on several data sets at once, each with the loss of its kind: the plain way to serve several tasks.",
    takes=("pairs", "tuples", "scored", "labels"),
    loss=_joint_loss,
    options=_LOSSES,
    describe=_LOSS_WORDS,
)
SELF_POSITIONING = Recipe(
    name="self_positioning",
    summary="Train one model per data set, then learn on a small balanced sample how to merge them: for tasks that "
    "hinder each other, or data sets of very different sizes.",
    takes=("pairs", "tuples", "scored", "labels"),
    loss=None,
    fit=_fit,
    baseline="joint",
    options={
        **_LOSSES,
        "pipeline": "separate",
        "method": "slerp",
        "granularity": "global",
        "mu": 0.01,
        "probe": 256,
        "search_lr": 0.3,
        "search_epochs": 4,
        "search_batch_size": 32,
    },
    describe={
        **_LOSS_WORDS,
        "pipeline": "separate: each model from the start; sequential: each goes on from the one before, in the order "
        "of the data sets",
        "method": "slerp, average or barycentric: how directions are merged",
        "granularity": "global: one angle over all parameters; per_tensor: one for each tensor",
        "mu": "weight of the merged vector's length in the search, at least 0; published runs are best below 0.05",
        "probe": "rows of each data set that the merge is learned on, at least 2",
        "search_lr": "learning rate of the search, above 0; a large probe needs less, such as 0.05",
        "search_epochs": "passes over the probe, at least 1",
        "search_batch_size": "rows of one data set in a batch of the search, at least 2",
    },
)
