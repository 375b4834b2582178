"""Masked auto-encoders for search (RetroMAE, DupMAE): pre-train on plain texts so that vectors hold the text.

A decoder of one layer must rebuild the text from [CLS], and the other tokens together must name its words. For search,
a short dense part from [CLS] stands beside the strongest words of a document; a query keeps the scores of all words.

    pretrainer = MAEPretrainer("bert-folder", objective="dupmae")
    pretrainer.train(texts, "checkpoints", steps=10_000)
    pretrainer.save("pretrained")
    encoder = DuplexEncoder("pretrained", dense_dim=384, sparse_k=384)
    places, scores = DuplexIndex(encoder.encode_document(texts)).search(encoder.encode_query(queries))

Recipes of the trainer: ``dupmae_pretrain``, ``retromae_pretrain``, ``mlm_pretrain``, ``dupmae_finetune``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from embedlab.text.dupmae.encoder import DuplexEncoder
from embedlab.text.dupmae.export import duplex_sentence_transformer, plain_sentence_transformer
from embedlab.text.dupmae.finetuning import (
    DuplexDistillationLoss,
    add_teacher_scores,
    duplex_loss,
    mine_negatives,
    train_teacher,
)
from embedlab.text.dupmae.heads import VocabularyHead, masked_lm
from embedlab.text.dupmae.masking import MaskCollator
from embedlab.text.dupmae.objective import EnhancedDecoder, MaskedAutoEncoder, bag_of_words_loss
from embedlab.text.dupmae.pooling import DuplexPooling, DuplexScore, pooling_of
from embedlab.text.dupmae.pretrainer import MAEPretrainer, PretrainReport
from embedlab.text.dupmae.recipes import DUPMAE_FINETUNE, DUPMAE_PRETRAIN, MLM_PRETRAIN, RETROMAE_PRETRAIN
from embedlab.text.dupmae.vectors import DuplexDocuments, DuplexIndex, DuplexQueries, score

if TYPE_CHECKING:
    from pathlib import Path

    from embedlab.testing.module import ModuleExample
    from embedlab.testing.trainer import Trained, TrainerExample
    from embedlab.text.dupmae.objective import Objective

__all__ = [
    "DUPMAE_FINETUNE",
    "DUPMAE_PRETRAIN",
    "MLM_PRETRAIN",
    "RETROMAE_PRETRAIN",
    "DuplexDistillationLoss",
    "DuplexDocuments",
    "DuplexEncoder",
    "DuplexIndex",
    "DuplexPooling",
    "DuplexQueries",
    "DuplexScore",
    "EnhancedDecoder",
    "MAEPretrainer",
    "MaskCollator",
    "MaskedAutoEncoder",
    "PretrainReport",
    "VocabularyHead",
    "add_teacher_scores",
    "bag_of_words_loss",
    "duplex_loss",
    "duplex_sentence_transformer",
    "example",
    "masked_lm",
    "mine_negatives",
    "plain_sentence_transformer",
    "pooling_of",
    "score",
    "train_teacher",
]

METHOD = {
    "card": 39,
    "title": "RetroMAE-2: Duplex Masked Auto-Encoder For Pre-Training Retrieval-Oriented Language Models",
    "authors": "Zheng Liu, Shitao Xiao, Yingxia Shao, Zhao Cao",
    "year": 2023,
    "source": "arXiv:2305.02564v1",
    "kinds": {"trainer": "MAEPretrainer", "module": "DuplexPooling"},
    "extras": ["train", "evaluate"],
    "official_code": "staoxiao/RetroMAE (Apache-2.0)",
    "recipes": {
        "dupmae_pretrain": "DUPMAE_PRETRAIN",
        "retromae_pretrain": "RETROMAE_PRETRAIN",
        "mlm_pretrain": "MLM_PRETRAIN",
        "dupmae_finetune": "DUPMAE_FINETUNE",
    },
    "deviations": [
        "A mask holds a part of a text's words, not words until a part of its tokens is covered, so that tokens of "
        "long words are hidden as often as others.",
        "The bag of words follows the official code, which differs from the paper: weight 0.1 instead of 1, maxima "
        "over masked tokens too, each different word counted once but divided by the number of all tokens. bow_weight "
        "and exclude_masked choose the paper's.",
        "The projection of [CLS] starts orthonormal, so that the dense part is of use before fine-tuning; the official "
        "code has no such part.",
        "DuplexEncoder.balance, which is optional, scales the dense part so that both halves weigh alike before "
        "fine-tuning; the paper leaves that to training.",
        "The representation, its index and the fine-tuning of both halves are not in the official code; they are "
        "written from section 3.4 of the paper.",
    ],
    "known_failures": [
        "The decoder needs an encoder with learned positions (BERT, RoBERTa); rotary ones (ModernBERT) can be trained "
        "by 'mlm' only.",
        "Of a text with fewer words than sparse_k some kept scores belong to words that it does not suggest, and may "
        "be negative; they are kept, as published.",
        "Before fine-tuning, dense part and words are added at whatever scales pre-training left them.",
    ],
}


def example(seed: int = 0) -> dict[str, TrainerExample | ModuleExample]:
    """Make the smallest ready instances: a tiny BERT that reads eight sentences, and its pooling on three texts.

    Args:
        seed: Decides the weights of the tiny BERT.

    Returns:
        ``{"trainer": ..., "module": ...}`` for the contracts of these kinds.
    """
    from embedlab.testing.contract import Refusal
    from embedlab.testing.module import ModuleExample
    from embedlab.testing.tiny import tiny_encoder
    from embedlab.testing.trainer import TrainerExample

    texts = [
        "the cat sat on the mat and looked at the dog",
        "the dog lay by the door",
        "a ship sailed over the calm sea",
        "the sea was calm and blue",
        "shares fell on the news",
        "the bank raised its rates again",
        "rain fell on the mat by the door",
        "the news was read at the bank",
    ]
    model = tiny_encoder(texts, seed=seed, max_length=16)
    tokens = {key: value for key, value in model.preprocess(texts[:3]).items() if hasattr(value, "shape")}
    features = {key: value.detach() for key, value in model[0](tokens).items() if hasattr(value, "shape")}
    body, _ = masked_lm(model, seed=seed)
    head = VocabularyHead.of(body)
    pooling = DuplexPooling(head, dense_dim=8, sparse_k=4, seed=seed).eval()

    def train(folder: Path, *, seed: int, max_steps: int, objective: Objective) -> Trained:
        from embedlab.testing.trainer import Trained

        pretrainer = MAEPretrainer(model, objective=objective, seed=seed)
        report = pretrainer.train(texts, folder, steps=10, batch_size=4, learning_rate=1e-2, stop_after=max_steps)
        weights = {name: value.numpy() for name, value in pretrainer.network.state_dict().items()}
        return Trained(weights, report.steps, report.samples, report.terms["loss"])

    return {
        "trainer": TrainerExample(
            train=partial(train, objective="dupmae"),
            baseline=partial(train, objective="mlm"),
            steps=10,
            data=texts,
            refuses=(
                Refusal(lambda: MAEPretrainer(model, objective="bert"), "objective"),  # type: ignore[arg-type]
                Refusal(lambda: MAEPretrainer(model, encoder_mask=1.0), "encoder_mask"),
                Refusal(lambda: MAEPretrainer(model, decoder_mask=0.0), "decoder_mask"),
                Refusal(lambda: MAEPretrainer(model, bow_weight=-1.0), "bow_weight"),
                Refusal(lambda: MAEPretrainer(model, max_length=2), "max_length"),
                Refusal(lambda: MAEPretrainer("no such folder"), "model"),
            ),
        ),
        "module": ModuleExample(
            module=pooling,
            features=features,
            output="sentence_embedding",
            width=pooling.get_embedding_dimension(),
            load=DuplexPooling.load,
            refuses=(
                Refusal(lambda: DuplexPooling(head, dense_dim=33), "dense_dim"),
                Refusal(lambda: DuplexPooling(head, dense_dim=8, sparse_k=0), "sparse_k"),
                Refusal(lambda: DuplexPooling(head, dense_dim=8, sparse_k=4, mode="all"), "mode"),  # type: ignore[arg-type]
            ),
        ),
    }
