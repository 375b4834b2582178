"""The recipe ``gist``: a guide, whose vectors are stored once, says which texts of a batch are no negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.text.gist.loss import CachedGuidedContrastiveLoss, GuidedContrastiveLoss
    from embedlab.text.gist.store import GuideStore


def _data(data: Sequence[TrainingData], model: SentenceTransformer, setting: Setting) -> list[TrainingData]:
    """Store the guide's vectors of every text, and draw triples from labelled texts with them."""
    from embedlab.models import load_model
    from embedlab.text.gist.negatives import mine_class_triplets
    from embedlab.text.gist.store import GuideStore

    name = setting.options["guide"]
    if not isinstance(name, str | None):
        raise InputError(f"guide={name!r}: expected the folder, name or URL of a model, or none for the start model")
    columns = {each.name: [c for c in each.rows.column_names if c != "label"] for each in data}
    texts = dict.fromkeys(text for each in data for c in columns[each.name] for text in each.rows[c][:])
    guide = load_model(name) if name is not None else model
    store = GuideStore.build(guide, texts, _place(setting), fingerprint=None if name is not None else "start model")
    made = []
    for each in data:
        if each.kind == "labels":
            options = {key: setting.options[key] for key in ("top_k", "negative", "negative_top_k")}
            mined = mine_class_triplets(
                each.rows["text"][:], each.rows["label"][:], store, seed=setting.seed, **options
            )
            rows = mined.remove_columns("label").rename_column("negative", "negative_1")
            if not len(rows):
                raise InputError(f"data {each.name!r}: no class has two different texts, so there are no pairs")
            made.append(TrainingData(each.name, "tuples", rows))
        else:
            made.append(each)
    return made


def _place(setting: Setting) -> Any:
    return setting.folder / "guide-store"


def _store(setting: Setting) -> GuideStore:
    from embedlab.text.gist.store import GuideStore

    return GuideStore.open(_place(setting))


def _loss(
    model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting
) -> GuidedContrastiveLoss | CachedGuidedContrastiveLoss:
    from torch import distributed

    from embedlab.text.gist.loss import CachedGuidedContrastiveLoss, GuidedContrastiveLoss

    options = dict(setting.options)
    shared = ("temperature", "margin", "margin_strategy", "contrast_anchors", "contrast_positives")
    given: dict[str, Any] = {key: options[key] for key in (*shared, "negative_mode", "triplet", "triplet_margin")}
    given["gather_across_devices"] = options["gather_across_devices"] and distributed.is_initialized()
    columns = max(len(each.rows.column_names) for each in data)
    if options["mini_batch_size"] is None and columns <= 3:
        return GuidedContrastiveLoss(model, _store(setting), **given)
    # the plain loss takes one column of hard negatives only
    return CachedGuidedContrastiveLoss(
        model, _store(setting), mini_batch_size=options["mini_batch_size"] or 32, **given
    )


def _callbacks(loss: Any, setting: Setting) -> list[Any]:
    from embedlab.text.gist.schedule import TemperatureSchedule

    lowest = setting.options["lowest_temperature"]
    return [] if lowest is None else [TemperatureSchedule(loss, lowest=lowest, decay=setting.options["decay"])]


def _collator(loss: Any, setting: Setting) -> Any:
    return loss.data_collator(setting.arguments)


GIST = Recipe(
    name="gist",
    summary="Contrast pairs, leaving out what a stronger guide takes for false negatives: where texts repeat in sense.",
    takes=("pairs", "tuples"),
    data=_data,
    loss=_loss,
    callbacks=_callbacks,
    collator=_collator,
    arguments={"learning_rate": 5e-6, "batch_sampler": "no_duplicates"},
    options={
        "guide": None,
        "temperature": 0.01,
        "lowest_temperature": None,
        "decay": 0.9999,
        "margin": 0.0,
        "margin_strategy": "absolute",
        "contrast_anchors": True,
        "contrast_positives": True,
        "negative_mode": "all",
        "triplet": None,
        "triplet_margin": 1.0,
        "top_k": 100,
        "negative": "uniform",
        "negative_top_k": None,
        "mini_batch_size": None,
        "gather_across_devices": True,
    },
    describe={
        "guide": "folder, name or URL of the model that guides, a stronger one if there is; none for the start model",
        "temperature": "divides cosines, above 0",
        "lowest_temperature": "floor of a temperature that falls by decay at each step; none keeps it as it is",
        "decay": "the temperature is decay to the power of the step, between its floor and its first value; in (0, 1)",
        "margin": "by how much the bar is lowered above which a text is no negative, from 0 to 2",
        "margin_strategy": "absolute, or relative to the guide's cosine of the pair",
        "contrast_anchors": "whether anchors are contrasted with each other",
        "contrast_positives": "whether positives are contrasted with each other; no may serve search better",
        "negative_mode": "all, or hard for those only that the student ranks above the positive",
        "triplet": "hard or soft adds a guided triplet; none does not",
        "triplet_margin": "by how much its negatives shall be further than its positives, from 0 to 2",
        "top_k": "labelled texts: the positive is one of so many nearest of its class, at least 1",
        "negative": "labelled texts: uniform or least_similar, how the negative is drawn",
        "negative_top_k": "labelled texts: draw it among so many nearest of other classes only; none for all",
        "mini_batch_size": "texts encoded at once (gradient caching): large batches in little memory; none for all",
        "gather_across_devices": "whether texts of all processes serve as negatives",
    },
)
