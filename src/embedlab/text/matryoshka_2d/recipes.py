"""The recipes ``matryoshka_2d`` and ``espresso``: any pairs, tuples or scored pairs, for every depth and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import unknown_name
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

_BASES = ("ranking", "cosent", "angle")


def _base(model: SentenceTransformer, data: TrainingData, setting: Setting) -> nn.Module:
    """The sentence loss that fits the data, unless the option says which."""
    from sentence_transformers.sentence_transformer import losses

    name, size = setting.options["base"], setting.options["mini_batch_size"]
    if name is None:
        name = "cosent" if data.kind == "scored" else "ranking"
    if name not in _BASES:
        raise unknown_name("base", str(name), _BASES)
    if name == "cosent":
        return losses.CoSENTLoss(model)
    if name == "angle":
        return losses.AnglELoss(model)
    if size is not None:
        return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=size)
    return losses.MultipleNegativesRankingLoss(model)


def _two_d(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> dict[str, nn.Module]:
    from embedlab.text.matryoshka_2d.loss import TwoDMatryoshkaLoss

    names = ("dims", "layers", "layer_weight", "kl_weight", "kl_temperature", "sample", "detach_teacher")
    options = {name: setting.options[name] for name in names}
    return {
        each.name: TwoDMatryoshkaLoss(model, _base(model, each, setting), seed=setting.seed, **options) for each in data
    }


def _espresso(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> dict[str, nn.Module]:
    from embedlab.text.matryoshka_2d.loss import EspressoLoss

    options = {name: setting.options[name] for name in ("dim", "layers", "compression_weight", "temperature")}
    return {each.name: EspressoLoss(model, _base(model, each, setting), **options) for each in data}


def _callbacks(loss: Any, setting: Setting) -> list[Any]:
    """Tie the draws to the trainer's step, so that a resumed run draws what an uninterrupted one would have."""
    from transformers import TrainerCallback

    losses = list(loss.values()) if hasattr(loss, "values") else [loss]

    class DrawByStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
            for each in losses:
                each.step = state.global_step * args.gradient_accumulation_steps

    return [DrawByStep()]


_SHARED: dict[str, Any] = {"base": None, "mini_batch_size": None}
_SHARED_WORDS = {
    "base": "ranking, cosent or angle; none for cosent where pairs have scores, ranking elsewhere",
    "mini_batch_size": "ranking: texts encoded at once (gradient caching), for large batches; none for all",
}

MATRYOSHKA_2D = Recipe(
    name="matryoshka_2d",
    summary="Train one model to serve after any layer and cut to any width: choose speed and storage afterwards.",
    takes=("pairs", "tuples", "scored"),
    loss=_two_d,
    callbacks=_callbacks,
    arguments={"learning_rate": 2e-5},
    options={
        **_SHARED,
        "dims": None,
        "layers": None,
        "layer_weight": "inverse",
        "kl_weight": 1.0,
        "kl_temperature": 1.0,
        "sample": "one",
        "detach_teacher": True,
    },
    describe={
        **_SHARED_WORDS,
        "dims": "widths to draw from, below the model's; none for powers of two from 8; [] trains the full width only",
        "layers": "layers to draw from, 1 to the last but one; none for all; [] is plain Matryoshka, [3] fixed",
        "layer_weight": "inverse (1/n) or uniform (1), the weight of layer n",
        "kl_weight": "weight of the alignment with the last layer, from 0; 0 leaves it out",
        "kl_temperature": "temperature of the alignment, above 0",
        "sample": "one layer and width a step, or all",
        "detach_teacher": "whether the alignment leaves the last layer alone",
    },
)

ESPRESSO = Recipe(
    name="espresso",
    summary="Train all layers at once, each pressing what it holds into its first dimensions (for one small width).",
    takes=("pairs", "tuples", "scored"),
    loss=_espresso,
    arguments={"learning_rate": 2e-5},
    options={**_SHARED, "dim": 128, "layers": None, "compression_weight": 1.0, "temperature": 1.0},
    describe={
        **_SHARED_WORDS,
        "dim": "the small width, below the model's",
        "layers": "layers beside the last, from 0; none for 1 to the last but one; official for 0 to the last but two",
        "compression_weight": "weight of the terms that press, from 0; 0 leaves them out",
        "temperature": "temperature of these terms, above 0",
    },
)
