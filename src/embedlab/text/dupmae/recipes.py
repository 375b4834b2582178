"""Recipes of the trainer: three ways to pre-train, and the three stages of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from embedlab.text.dupmae.objective import Objective

STAGES = ("contrastive", "hard_negatives", "distillation")


def _pretrain(objective: Objective) -> Callable[[Any, Sequence[TrainingData], Setting], SentenceTransformer]:
    def fit(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> SentenceTransformer:
        from embedlab.text.dupmae.export import duplex_sentence_transformer
        from embedlab.text.dupmae.pretrainer import MAEPretrainer

        options, arguments = dict(setting.options), setting.arguments
        keep_head = options.pop("keep_head")
        pretrainer = MAEPretrainer(
            model, objective=objective, max_length=model.max_seq_length, seed=setting.seed, **options
        )
        pretrainer.train(
            [text for each in data for text in each.rows["text"]],
            setting.folder / "pretraining",
            steps=arguments.max_steps if arguments.max_steps > 0 else None,
            epochs=arguments.num_train_epochs,
            batch_size=arguments.per_device_train_batch_size,
            learning_rate=arguments.learning_rate,
            warmup=arguments.warmup_steps,
            weight_decay=arguments.weight_decay,
            arguments={
                "bf16": arguments.bf16,
                "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
                "save_strategy": arguments.save_strategy,
                "save_steps": arguments.save_steps,
            },
        )
        if not keep_head:
            return pretrainer.to_sentence_transformer()
        width = int(pretrainer.model.config.hidden_size)
        return duplex_sentence_transformer(
            pretrainer.model,
            pretrainer.tokenizer,
            dense_dim=width,
            sparse_k=min(384, len(pretrainer.tokenizer)),
            mode="cls",
            max_length=pretrainer.max_length,
        )

    return fit


def _with_pooling(model: SentenceTransformer, setting: Setting) -> SentenceTransformer:
    """Put both halves on the model; one that a former stage has given them keeps them as they are."""
    from embedlab.text.dupmae.export import duplex_sentence_transformer
    from embedlab.text.dupmae.heads import masked_lm
    from embedlab.text.dupmae.pooling import DuplexPooling, pooling_of

    options = setting.options
    pooling = next((module for module in model if isinstance(module, DuplexPooling)), None)
    if pooling is None or options["dense_dim"] not in (None, pooling.dense_dim):
        body, tokenizer = masked_lm(model, seed=setting.seed)
        width = int(body.config.hidden_size)
        model = duplex_sentence_transformer(
            body,
            tokenizer,
            dense_dim=options["dense_dim"] or min(384, width),
            sparse_k=min(options["sparse_k"], len(tokenizer)),
            max_length=model.max_seq_length,
            seed=setting.seed,
        )
        pooling = pooling_of(model)
    pooling.mode, pooling.sparse_k = options["mode"], min(options["sparse_k"], pooling.vocabulary)
    return model


def _mined(data: Sequence[TrainingData], model: SentenceTransformer, setting: Setting) -> Sequence[TrainingData]:
    """Give pairs hard negatives for stages 2 and 3, and the teacher's scores for stage 3."""
    from accelerate import PartialState

    from embedlab.text.dupmae.encoder import DuplexEncoder
    from embedlab.text.dupmae.finetuning import add_teacher_scores, mine_negatives, train_teacher

    options = setting.options
    if options["stage"] not in STAGES:
        raise unknown_name("stage", options["stage"], STAGES)
    if options["stage"] == "contrastive":
        return data
    if options["stage"] == "distillation" and options["teacher"] is None and PartialState().num_processes > 1:
        raise InputError("teacher=None: with several processes, train a cross-encoder first and give its folder")
    encoder = DuplexEncoder(_with_pooling(model, setting))
    made = []
    for each in data:
        rows = each.rows
        if each.kind == "pairs":
            rows = mine_negatives(
                encoder,
                rows["anchor"],
                rows["positive"],
                num_negatives=options["num_negatives"],
                top_k=options["top_k"],
                seed=setting.seed,
            )
        if options["stage"] == "distillation":
            if options["teacher"] is None:
                folder = setting.folder / "teacher"
                teacher = train_teacher(model, rows, folder, steps=options["teacher_steps"], seed=setting.seed)
            else:
                teacher = _cross_encoder(options["teacher"])
            rows = add_teacher_scores(rows, teacher)
        made.append(replace(each, kind="tuples", rows=rows))
    return made


def _cross_encoder(name: str) -> Any:
    from sentence_transformers.cross_encoder import CrossEncoder

    try:
        return CrossEncoder(name, num_labels=1)
    except (OSError, ValueError) as error:
        raise InputError(f"teacher={name!r} is no cross-encoder that can be loaded: {str(error)[:300]}") from error


def _loss(model: SentenceTransformer, data: Sequence[TrainingData], setting: Setting) -> nn.Module:
    from torch import distributed

    from embedlab.text.dupmae.finetuning import DuplexDistillationLoss, duplex_loss

    options = setting.options
    if options["stage"] == "distillation":
        return DuplexDistillationLoss(
            model, contrastive_weight=options["contrastive_weight"], temperature=options["temperature"]
        )
    made: nn.Module = duplex_loss(
        model, temperature=options["temperature"], gather_across_devices=distributed.is_initialized()
    )
    return made


def _cls_alone(model: SentenceTransformer, base: SentenceTransformer, setting: Setting) -> SentenceTransformer:
    """Leave the dense half as the embedding that everybody sees; ``DuplexEncoder.load`` takes both."""
    from embedlab.text.dupmae.pooling import pooling_of

    pooling = pooling_of(model)
    pooling.mode = "ot" if pooling.mode == "ot" else "cls"
    return model


_MASKS = {"encoder_mask": 0.3, "decoder_mask": 0.5}
_ABOUT_MASKS = {
    "encoder_mask": "part of the tokens hidden from the encoder, as whole words, in (0, 1)",
    "decoder_mask": "part of the tokens hidden from each row of the decoder, in (0, 1)",
}
_ABOUT_HEAD = {
    "keep_head": "whether the vocabulary head stays in the model, for the words' half and for further pre-training; "
    "without it the model loads in plain sentence-transformers"
}
# published for a second pre-training on the target corpus, but for the epochs: 20 there
_PUBLISHED = {"learning_rate": 1e-4, "warmup": 0.1, "weight_decay": 0.01, "epochs": 8, "batch_size": 32}

MLM_PRETRAIN = Recipe(
    name="mlm_pretrain",
    summary="Pre-train on plain texts by predicting masked words: the baseline of the next two.",
    takes=("texts",),
    loss=None,
    fit=_pretrain("mlm"),
    baseline="mlm_pretrain",
    arguments=_PUBLISHED,
    options={"encoder_mask": 0.3, "keep_head": False},
    describe={"encoder_mask": _ABOUT_MASKS["encoder_mask"], **_ABOUT_HEAD},
)
RETROMAE_PRETRAIN = Recipe(
    name="retromae_pretrain",
    summary="Pre-train on plain texts so that [CLS] can rebuild the text (RetroMAE): before fine-tuning for search.",
    takes=("texts",),
    loss=None,
    fit=_pretrain("retromae"),
    baseline="mlm_pretrain",
    arguments=_PUBLISHED,
    options={**_MASKS, "keep_head": False},
    describe={**_ABOUT_MASKS, **_ABOUT_HEAD},
)
DUPMAE_PRETRAIN = Recipe(
    name="dupmae_pretrain",
    summary="As retromae_pretrain, and the other tokens must name the words of the text (DupMAE): search by both.",
    takes=("texts",),
    loss=None,
    fit=_pretrain("dupmae"),
    baseline="mlm_pretrain",
    arguments=_PUBLISHED,
    options={**_MASKS, "bow_weight": 0.1, "exclude_masked": False, "keep_head": True},
    describe={
        **_ABOUT_MASKS,
        "bow_weight": "weight of the bag of words, at least 0; 1 in the paper, 0.1 in its code",
        "exclude_masked": "whether masked tokens are left out of the bag's maxima, as in the paper",
        **_ABOUT_HEAD,
    },
)
DUPMAE_FINETUNE = Recipe(
    name="dupmae_finetune",
    summary="Fine-tune both halves for search, one stage at a time: contrastive, hard_negatives, distillation.",
    takes=("pairs", "tuples"),
    loss=_loss,
    data=_mined,
    modules=_with_pooling,
    post=_cls_alone,
    arguments={"learning_rate": 2e-5, "batch_size": 16},
    options={
        "stage": "contrastive",
        "mode": "both",
        "dense_dim": None,
        "sparse_k": 384,
        "temperature": 1.0,
        "num_negatives": 15,
        "top_k": 200,
        "teacher": None,
        "teacher_steps": 1000,
        "contrastive_weight": 1e-4,
    },
    describe={
        "stage": "contrastive, hard_negatives (mined with the model itself) or distillation (from a cross-encoder)",
        "mode": "what is trained and scored: both, cls (the dense half) or ot (the words' half)",
        "dense_dim": "width of the dense half; none for 384, or the encoder's width if that is less",
        "sparse_k": "words kept of a document, at least 1",
        "temperature": "divides the scores, above 0",
        "num_negatives": "hard negatives for each pair, at least 1",
        "top_k": "among how many of the best passages they are drawn",
        "teacher": "folder or hub name of a cross-encoder; none trains one on the mined rows first",
        "teacher_steps": "optimiser steps of that training",
        "contrastive_weight": "weight of the contrastive loss beside the distillation, at least 0",
    },
)
