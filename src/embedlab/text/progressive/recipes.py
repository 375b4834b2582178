"""The recipe ``peg``: filter pairs, mine hard negatives, train from easy to hard in large batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import unknown_name
from embedlab._core.extras import require
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from embedlab.text.progressive.loss import ProgressiveContrastiveLoss


def _data(data: Sequence[TrainingData], model: SentenceTransformer, setting: Setting) -> list[TrainingData]:
    """Filter, then mine; what was mined is kept in the run's folder for when it is resumed."""
    searcher: SentenceTransformer | None = None
    made = []
    for each in data:
        path = setting.folder / f"tuples-{_digest(each, setting)}.parquet"
        if not path.is_file():
            searcher = searcher or _searcher(model, setting)
            partial = path.with_suffix(".partial")
            _prepared(each, searcher, setting).to_parquet(str(partial))
            partial.replace(path)
        # read here and not by `Dataset.from_parquet`, which keeps a copy among the user's caches
        table: Any = require("pyarrow.parquet", extra="train").read_table(path)
        rows = require("datasets", extra="train").Dataset.from_dict(table.to_pydict())
        made.append(TrainingData(each.name, "tuples" if len(rows.column_names) > 2 else "pairs", rows))
    return made


def _prepared(each: TrainingData, searcher: SentenceTransformer, setting: Setting) -> Dataset:
    from embedlab.text.progressive.pairs import check_tuples, filter_pairs, mine_tuples

    options = setting.options
    rows = check_tuples(each.rows)
    if options["filter_top_k"] is not None:
        rows = filter_pairs(rows, searcher, top_k=options["filter_top_k"])
    if each.kind == "pairs" and options["num_negatives"]:
        rows = mine_tuples(
            rows,
            searcher,
            num_negatives=options["num_negatives"],
            skip=options["skip"],
            relative_margin=options["relative_margin"],
        )
    return rows


def _searcher(model: SentenceTransformer, setting: Setting) -> SentenceTransformer:
    if setting.options["miner"] is None:
        return model
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(setting.options["miner"]))


def _digest(each: TrainingData, setting: Setting) -> str:
    told = [setting.options[name] for name in ("filter_top_k", "num_negatives", "skip", "relative_margin", "miner")]
    texts = [each.rows[column][:] for column in each.rows.column_names]
    return blake2b(json.dumps([each.name, told, texts], default=str).encode(), digest_size=8).hexdigest()


def _loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> ProgressiveContrastiveLoss:
    from torch import distributed

    from embedlab.text.progressive.loss import ProgressiveContrastiveLoss
    from embedlab.text.progressive.modulators import MODULATORS, Modulator

    options = setting.options
    name = options["modulator"]
    if name is not None and name not in MODULATORS:
        raise unknown_name("modulator", str(name), MODULATORS)
    given: dict[str, Any] = {}
    if name == "adaptive":
        given["rate"] = options["rate"]
    elif name is not None:
        given = {"steps": _batches(data, setting)}
        given |= {key: options[key] for key in ("start", "end") if options[key] is not None}
    modulator = Modulator() if name is None else MODULATORS[name](**given)
    return ProgressiveContrastiveLoss(
        model,
        scale=1 / options["temperature"],
        modulator=modulator,
        margin=options["margin"],
        mini_batch_size=options["mini_batch_size"],
        gather_across_devices=options["gather_across_devices"] and distributed.is_initialized(),
    )


def _batches(data: Sequence[TrainingData], setting: Setting) -> int:
    """Batches that the whole run has, over which a schedule goes."""
    arguments = setting.arguments
    accumulated = int(arguments.gradient_accumulation_steps)
    if arguments.max_steps > 0:
        return int(arguments.max_steps) * accumulated
    size = int(arguments.per_device_train_batch_size) * int(arguments.world_size)
    return max(1, round(sum(max(1, len(each.rows) // size) for each in data) * float(arguments.num_train_epochs)))


def _callbacks(loss: Any, setting: Setting) -> list[Any]:
    from embedlab.text.progressive.progress import KeepProgress

    return [KeepProgress(loss)]


PEG = Recipe(
    name="peg",
    summary="Filter pairs by searching, mine hard negatives, and train from easy to hard in large batches: for search.",
    takes=("pairs", "tuples"),
    data=_data,
    loss=_loss,
    callbacks=_callbacks,
    # the loss leaves repeated texts out by itself, and mined negatives are often positives of another row of the batch
    arguments={"batch_size": 256, "batch_sampler": "batch_sampler"},
    options={
        "modulator": "adaptive",
        "temperature": 0.02,
        "rate": 0.01,
        "margin": 0.0,
        "start": None,
        "end": None,
        "filter_top_k": 10,
        "num_negatives": 5,
        "skip": 0,
        "relative_margin": None,
        "miner": None,
        "mini_batch_size": 32,
        "gather_across_devices": True,
    },
    describe={
        "modulator": "adaptive, sample_weight or hardness: how weight moves to hard negatives; none for plain InfoNCE",
        "temperature": "divides cosines, above 0",
        "rate": "adaptive: share of the newest batch in t, the running mean of the positives' cosines, in (0, 1]",
        "margin": "a negative is hard if its cosine exceeds the positive's less this, from 0 to 2",
        "start": "sample_weight, hardness: first strength; none for the modulator's own",
        "end": "sample_weight, hardness: last strength, at the run's end; none for the modulator's own",
        "filter_top_k": "keep pairs whose positive is among so many nearest of its anchor, at least 1; none keeps all",
        "num_negatives": "hard negatives mined for each pair, from 0; rows that come with negatives keep theirs",
        "skip": "nearest texts that are passed over when mining, from 0",
        "relative_margin": "leave out negatives nearer than the positive less this share; none keeps them",
        "miner": "folder or name of the model that filters and mines; none for the one that is trained, as it is given",
        "mini_batch_size": "texts encoded at once (gradient caching): large batches in little memory; none for all",
        "gather_across_devices": "whether texts of all processes serve as negatives",
    },
)
