"""Stage 1 and stage 2 as recipes, and the four orders in which the paper tries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from torch import nn

#: Orders of the paper's ablation -> recipes, each beginning with what the one before it made.
ORDERS: dict[str, tuple[str, ...]] = {
    "two_stage": ("nv_embed_stage1", "nv_embed_stage2"),
    "reversed": ("nv_embed_stage2", "nv_embed_stage1"),
    "single": ("nv_embed_stage2",),
    "single_in_batch": ("nv_embed_stage1",),
}


def train_in_stages(
    order: str,
    *,
    model: str | Path | SentenceTransformer,
    data: Mapping[str, Any],
    out: str | Path,
    retrieval: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **overrides: Any,
) -> list[Any]:
    """Train by one of the four orders: both stages, the reverse, or a single one on everything.

    Args:
        order: A key of ``ORDERS``. Stage 1 sees the data sets named in ``retrieval`` where there are two stages.
        model: What to begin with.
        data: Name -> data set, as ``embedlab.text.train`` takes it.
        out: Folder; each stage writes to ``<recipe>`` below it, and what the last one writes is the result.
        retrieval: Names of the data sets that stage 1 sees.
        options: Recipe -> options and training arguments of that stage alone.
        overrides: Options and training arguments of every stage, as ``embedlab.text.train`` takes them.

    Returns:
        The reports of the stages, in order.

    Raises:
        InputError: there is no such order or data set, or stage 1 is left without data.
    """
    from embedlab.text import train

    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    stages, reports = ORDERS[order], []
    for stage in stages:
        given = dict(data)
        if len(stages) > 1 and stage == "nv_embed_stage1":
            missing = [name for name in retrieval if name not in data]
            if missing or not retrieval:
                raise InputError(
                    f"retrieval={list(retrieval)}: name data sets that stage 1 shall see, of {sorted(data)}"
                )
            given = {name: data[name] for name in retrieval}
        reports.append(
            train(
                stage, model=model, data=given, out=Path(out) / stage, **{**overrides, **(options or {}).get(stage, {})}
            )
        )
        model = Path(out) / stage
    return reports


def blend(data: Sequence[TrainingData], model: SentenceTransformer, setting: Setting) -> Sequence[TrainingData]:
    """Turn data sets of every kind into one of rows with hard negatives, shuffled: batches then mix all tasks.

    Pairs get mined negatives; scored pairs become pairs both ways, and then the same; labelled texts become triples;
    rows that have negatives keep them. Each data set's instruction goes before its anchors, and before the other texts
    of scored pairs too.

    Args:
        data: The data sets.
        model: Mines the negatives where no teacher is named.
        setting: The options of the recipes here.

    Returns:
        One data set of kind ``"tuples"``.

    Raises:
        InputError: an instruction is given for a data set that is not there.
    """
    options = setting.options
    unknown = [name for name in options["instructions"] if name not in {each.name for each in data}]
    if unknown:
        raise unknown_name("instructions", unknown[0], [each.name for each in data])
    teacher = model
    if options["teacher"] is not None:
        from embedlab.models import load_model

        teacher = load_model(options["teacher"]).host  # type: ignore[attr-defined]  # checked by the host's miner
    parts = [_as_tuples(each, teacher, setting) for each in data]
    width = min(len(part.column_names) for part in parts)  # rows of a batch have as many negatives each
    names = parts[0].column_names[:width]
    columns = {name: [text for part in parts for text in part[name][:]] for name in names}
    order = np.random.default_rng(setting.seed).permutation(len(columns["anchor"]))
    from datasets import Dataset

    rows = Dataset.from_dict({name: [column[place] for place in order] for name, column in columns.items()})
    return [TrainingData("blend", "tuples", rows)]


def _as_tuples(data: TrainingData, teacher: SentenceTransformer, setting: Setting) -> Dataset:
    from embedlab.text.nv_embed.data import classification_to_triplets, mine_hard_negatives, sts_to_pairs

    options, rows = setting.options, data.rows
    count = options["num_negatives"]
    if data.kind == "labels":
        rows = classification_to_triplets(
            rows["text"][:], rows["label"][:], mode=options["mode"], num_negatives=count, seed=setting.seed
        )
    if data.kind == "scored":
        texts = list(dict.fromkeys([*rows["sentence1"], *rows["sentence2"]]))
        pairs = sts_to_pairs(
            rows["sentence1"][:], rows["sentence2"][:], rows["score"][:], min_score=options["min_score"]
        )
        rows = mine_hard_negatives(pairs, teacher, corpus=texts, num_negatives=count, percent=options["percent"])
    if data.kind == "pairs":
        rows = mine_hard_negatives(rows, teacher, num_negatives=count, percent=options["percent"])
    task = options["instructions"].get(data.name, "")
    told = rows.column_names if data.kind == "scored" else rows.column_names[:1]
    return rows.map(lambda row: {name: _told(task, row[name]) for name in told}) if task else rows


def _told(task: str, text: str) -> str:
    from embedlab.models.decoder import instruct

    return instruct(task, text)


def _modules(model: SentenceTransformer, setting: Setting) -> SentenceTransformer:
    from embedlab.text.pooling_attention.recipes import with_design

    return with_design(model, setting)


def _loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
    from embedlab.text.nv_embed.loss import CachedHardNegativesRankingLoss, HardNegativesRankingLoss

    options = setting.options
    told: dict[str, Any] = {"scale": 1 / options["temperature"], "in_batch_negatives": options["in_batch_negatives"]}
    if options["mini_batch_size"] is None:
        return HardNegativesRankingLoss(model, **told)
    return CachedHardNegativesRankingLoss(model, mini_batch_size=options["mini_batch_size"], **told)


_OPTIONS: dict[str, Any] = {
    "pooling": None,
    "attention": "bidirectional",
    "num_latents": None,
    "num_heads": None,
    "temperature": 0.02,
    "in_batch_negatives": True,
    "mini_batch_size": None,
    "num_negatives": 7,
    "percent": 0.95,
    "teacher": None,
    "mode": "example",
    "min_score": 0.8,
    "instructions": {},
}
_DESCRIBE = {
    "pooling": "eos, mean, latent_attention or self_attention, put on a decoder; none leaves the model as it is",
    "attention": "causal or bidirectional, with pooling",
    "num_latents": "latents of the pooling; none for the published 512",
    "num_heads": "attention heads of the pooling; none for the published 8",
    "temperature": "divides cosines, above 0",
    "in_batch_negatives": "whether the texts of other rows are negatives",
    "mini_batch_size": "texts encoded at once (gradient caching); none for all",
    "num_negatives": "hard negatives per row, from 1; rows that bring fewer set the number for all",
    "percent": "largest share of the positive's score that a mined negative may have, in (0, 1]; none for no bar",
    "teacher": "model that mines negatives; none for the one that is trained",
    "mode": "labelled texts: example (a text of the class is the positive) or label (its name is)",
    "min_score": "scored pairs from this score are positives, in [0, 1]",
    "instructions": "data set -> what its anchors are for, in a sentence",
}
_ARGUMENTS: dict[str, Any] = {"warmup_steps": 500, "lr_scheduler_type": "linear", "per_device_train_batch_size": 128}

NV_EMBED_STAGE1 = Recipe(
    name="nv_embed_stage1",
    summary="NV-Embed's first stage: hard negatives and those of the batch, for retrieval data.",
    takes=("tuples",),
    data=blend,
    modules=_modules,
    loss=_loss,
    arguments={"learning_rate": 2e-5, **_ARGUMENTS},
    options=_OPTIONS,
    describe=_DESCRIBE,
)
NV_EMBED_STAGE2 = Recipe(
    name="nv_embed_stage2",
    summary="NV-Embed's second stage: hard negatives alone, for a blend of retrieval, classes and similarity.",
    takes=("tuples",),
    data=blend,
    modules=_modules,
    loss=_loss,
    arguments={"learning_rate": 1.5e-5, **_ARGUMENTS},
    options={**_OPTIONS, "in_batch_negatives": False},
    describe=_DESCRIBE,
)
