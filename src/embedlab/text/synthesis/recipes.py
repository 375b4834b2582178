"""The recipe ``distill``: a teacher's scores instead of yes and no."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn


def load_teacher(name: str) -> Any:
    """Load what scores pairs: a cross-encoder, or any embedding model.

    Args:
        name: Folder of a cross-encoder, or what ``load_model`` takes.

    Returns:
        A ``CrossEncoder`` if the folder holds a classifier, otherwise an ``Encoder``.
    """
    from embedlab.models import load_model

    config = Path(name) / "config.json"
    if config.is_file():
        kinds = json.loads(config.read_text(encoding="utf-8")).get("architectures") or ()
        if any(str(kind).endswith("ForSequenceClassification") for kind in kinds):
            return require("sentence_transformers", extra="train").CrossEncoder(name)
    return load_model(name)


def _data(data: Sequence[TrainingData], model: SentenceTransformer, setting: Setting) -> list[TrainingData]:
    options = setting.options
    if not options["teacher"]:
        raise InputError("teacher=None: name the model that scores: a cross-encoder's folder, or an embedding model")
    teacher = load_teacher(str(options["teacher"]))
    return [_labelled(each, teacher, setting) for each in data]


def _labelled(each: TrainingData, teacher: Any, setting: Setting) -> TrainingData:
    """Mine negatives for pairs, and put the teacher's scores beside each row."""
    from embedlab.models import load_model
    from embedlab.text.synthesis.distill import distillation_rows
    from embedlab.text.synthesis.triplets import Triplet, mine_negatives

    columns = {name: each.rows[name][:] for name in each.rows.column_names}
    if each.kind == "pairs":
        miner = teacher if hasattr(teacher, "encode_document") else load_model()
        pairs = list(zip(columns["anchor"], columns["positive"], strict=True))
        pool = list(dict.fromkeys(columns["positive"]))
        triplets = mine_negatives(pairs, pool, miner, num_negatives=setting.options["num_negatives"])
    elif each.kind == "tuples":
        names = [name for name in columns if name not in ("anchor", "positive")]
        rows = zip(*(columns[name] for name in ("anchor", "positive", *names)), strict=True)
        triplets = [Triplet(query, positive, tuple(negatives)) for query, positive, *negatives in rows]
    else:
        raise InputError(f"data {each.name!r}: distill takes pairs and tuples, and these rows are {each.kind}")
    made = distillation_rows(triplets, teacher, objective=setting.options["objective"])
    made = {"anchor" if name == "query" else name: values for name, values in made.items()}
    return TrainingData(each.name, "tuples", require("datasets", extra="train").Dataset.from_dict(made))


def _loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import pairwise_cos_sim, pairwise_dot_score

    similarities = {"cosine": pairwise_cos_sim, "dot": pairwise_dot_score}
    if setting.options["similarity"] not in similarities:
        raise unknown_name("similarity", str(setting.options["similarity"]), similarities)
    compare = similarities[setting.options["similarity"]]
    made: nn.Module
    if setting.options["objective"] == "kl":
        made = losses.DistillKLDivLoss(model, similarity_fct=compare, temperature=setting.options["temperature"])
    else:
        made = losses.MarginMSELoss(model, similarity_fct=compare)
    return made


DISTILL = Recipe(
    name="distill",
    summary="Learn a teacher's scores of positives and hard negatives instead of yes and no: where labels are noisy.",
    takes=("tuples",),
    data=_data,
    loss=_loss,
    options={
        "teacher": None,
        "objective": "margin",
        "similarity": "cosine",
        "temperature": 0.05,
        "num_negatives": 1,
    },
    describe={
        "teacher": "what scores: the folder of a cross-encoder, or an embedding model, whose cosines are taken",
        "objective": "margin: the teacher's lead of the positive over each negative (MarginMSE); kl: its chances",
        "similarity": "cosine for teachers whose scores lie in [-1, 1]; dot for those without bounds",
        "temperature": "kl only: divides the scores of both, above 0",
        "num_negatives": "hard negatives mined for rows that come without, at least 1",
    },
)
