"""Recipes that prepare a decoder: `mntp`, `ebae`, `ebar`, and the unsupervised contrast that follows them, `simcse`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

SLOTS = ("pooling", "prompt")


def _bidirectional(model: SentenceTransformer, setting: Setting) -> SentenceTransformer:
    from embedlab.models.bidirectional import sees_later_tokens, to_bidirectional

    return model if sees_later_tokens(model) else to_bidirectional(model, last_layers=setting.options["last_layers"])


def _mntp_loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
    from embedlab.text.pre_adaptation.objectives import MaskedNextTokenLoss

    return MaskedNextTokenLoss(model, mask_share=setting.options["mask_share"], seed=setting.seed)


def _bag_loss(target: Any) -> Callable[[SentenceTransformer, Sequence[TrainingData], Setting], nn.Module]:
    def loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
        from embedlab.text.pre_adaptation.objectives import BagOfWordsLoss

        return BagOfWordsLoss(model, target=target)

    return loss


def _slot(template: str) -> Callable[[SentenceTransformer, Setting], SentenceTransformer]:
    """Leave the model's own pooling, or put the text into a prompt whose last token is the slot."""

    def modules(model: SentenceTransformer, setting: Setting) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        from embedlab.text.prompting.module import PromptModule
        from embedlab.text.prompting.templates import load_templates

        if setting.options["slot"] not in SLOTS:
            raise unknown_name("slot", setting.options["slot"], SLOTS)
        first: Any = model[0]
        if setting.options["slot"] == "pooling" or isinstance(first, PromptModule):
            return model
        prompted = PromptModule(
            first.model, first.tokenizer, templates=load_templates().of(template), max_seq_length=model.max_seq_length
        )
        return SentenceTransformer(modules=[prompted], device=str(model.device))

    return modules


def _followed(data: Sequence[TrainingData], model: SentenceTransformer, setting: Setting) -> Sequence[TrainingData]:
    """Pair each text with the next row's."""
    return [
        _paired(each, each.rows["text"][:-1], each.rows["text"][1:]) if each.kind == "texts" else each for each in data
    ]


def _twice(data: Sequence[TrainingData], model: SentenceTransformer, setting: Setting) -> Sequence[TrainingData]:
    """Pair each text with itself: two passes differ by their dropout alone."""
    return [_paired(each, each.rows["text"], each.rows["text"]) if each.kind == "texts" else each for each in data]


def _paired(data: TrainingData, first: Sequence[str], second: Sequence[str]) -> TrainingData:
    from datasets import Dataset

    rows = Dataset.from_dict({"anchor": list(first), "positive": list(second)})
    return replace(data, kind="pairs", rows=rows)


def _with_dropout(model: SentenceTransformer, setting: Setting) -> SentenceTransformer:
    """Set every kind of dropout the model has; decoders are published without any."""
    share = setting.options["dropout"]
    if not 0 < share < 1:
        raise InputError(f"dropout={share}: expected a number above 0 and below 1; without it both passes are the same")
    if not _set_dropout(model, share):
        raise InputError("dropout: the model has no dropout, neither as modules nor in its attention")
    return model


def _without_dropout(model: SentenceTransformer, base: SentenceTransformer, setting: Setting) -> SentenceTransformer:
    """Give the model the dropout of the one it began with."""
    for module, before in zip(model.modules(), base.modules(), strict=False):
        for name in ("attention_dropout", "p"):
            if type(module) is type(before) and isinstance(getattr(before, name, None), float):
                setattr(module, name, getattr(before, name))
    return model


def _set_dropout(model: SentenceTransformer, share: float) -> int:
    from torch import nn

    found = 0
    for module in model.modules():
        name = "p" if isinstance(module, nn.Dropout) else "attention_dropout"
        if isinstance(getattr(module, name, None), float):
            setattr(module, name, share)
            found += 1
    return found


def _simcse_loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    made: nn.Module = MultipleNegativesRankingLoss(model, scale=1 / setting.options["temperature"])
    return made


MNTP = Recipe(
    name="mntp",
    summary="Let a decoder look both ways and teach it to: hidden tokens are guessed from the state before them.",
    takes=("texts",),
    loss=_mntp_loss,
    modules=_bidirectional,
    arguments={"learning_rate": 1e-4},
    baseline="simcse",
    options={"mask_share": 0.2, "last_layers": None},
    describe={
        "mask_share": "share of a text's tokens to hide, above 0, at most 1",
        "last_layers": "how many layers, from the last, look both ways (BeLLM); none for all",
    },
)
EBAE = Recipe(
    name="ebae",
    summary="Teach a decoder to put a text into one vector: its head must tell the text's words from it.",
    takes=("texts",),
    loss=_bag_loss("self"),
    modules=_slot("ebae"),
    arguments={"learning_rate": 1e-4},
    baseline="simcse",
    options={"slot": "pooling"},
    describe={"slot": "which vector: of the model's own 'pooling', or of the last token of a 'prompt' after the text"},
)
EBAR = Recipe(
    name="ebar",
    summary="Teach a decoder to put what follows a text into one vector: texts in order, or pairs of text and next.",
    takes=("texts", "pairs"),
    loss=_bag_loss("next"),
    data=_followed,
    modules=_slot("ebar"),
    arguments={"learning_rate": 1e-4},
    baseline="ebae",
    options={"slot": "pooling"},
    describe={"slot": "which vector: of the model's own 'pooling', or of the last token of a 'prompt' after the text"},
)
SIMCSE = Recipe(
    name="simcse",
    summary="Contrast texts without labels: two passes of a text with different dropout are a pair (SimCSE).",
    takes=("texts", "pairs"),
    loss=_simcse_loss,
    data=_twice,
    modules=_with_dropout,
    post=_without_dropout,
    arguments={"learning_rate": 3e-5},
    baseline="ebae",
    options={"temperature": 0.05, "dropout": 0.3},
    describe={
        "temperature": "divides cosines, above 0",
        "dropout": "share of values dropped in training, above 0 and below 1 (LLM2Vec: 0.3)",
    },
)
