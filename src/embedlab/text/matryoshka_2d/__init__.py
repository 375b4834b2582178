"""One encoder for every depth and width (2D Matryoshka, Espresso): train once, choose speed and storage at inference.

loss = TwoDMatryoshkaLoss(model, CoSENTLoss(model))          # train with it, like any loss of the host
ElasticEncoder(model).encode(texts, layer=3, dim=64)         # later layers are not computed
truncate(model, layers=3, dim=64).save("small")              # a smaller model, for plain sentence-transformers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.matryoshka_2d.encoder import ElasticEncoder
from embedlab.text.matryoshka_2d.grid import Grid, evaluate_grid
from embedlab.text.matryoshka_2d.loss import EspressoLoss, TwoDMatryoshkaLoss, compression, principal
from embedlab.text.matryoshka_2d.measures import measure_for
from embedlab.text.matryoshka_2d.recipes import ESPRESSO, MATRYOSHKA_2D
from embedlab.text.matryoshka_2d.report import write_report
from embedlab.text.matryoshka_2d.truncation import truncate

if TYPE_CHECKING:
    from embedlab.testing.loss import LossExample
    from embedlab.testing.surgery import SurgeryExample

__all__ = [
    "ESPRESSO",
    "MATRYOSHKA_2D",
    "ElasticEncoder",
    "EspressoLoss",
    "Grid",
    "TwoDMatryoshkaLoss",
    "compression",
    "evaluate_grid",
    "example",
    "measure_for",
    "principal",
    "truncate",
    "write_report",
]

METHOD = {
    "card": 42,
    "title": "2D Matryoshka Sentence Embeddings (later: ESE, Espresso Sentence Embeddings)",
    "authors": "Xianming Li, Zongxi Li, Jing Li, Haoran Xie, Qing Li",
    "year": 2024,
    "source": "arXiv:2402.14776v1 (2DMSE) and its revision at ICLR 2025 (ESE)",
    "kinds": {"loss": "TwoDMatryoshkaLoss", "surgery": "truncate"},
    "recipes": {"matryoshka_2d": "MATRYOSHKA_2D", "espresso": "ESPRESSO"},
    "extras": ["train"],
    "official_code": "SeanLee97/AnglE (MIT)",
    "deviations": [
        "Cut vectors are made unit length again before the base loss, as they are at inference; the alignment is taken "
        "before any normalisation.",
        "The alignment does not move the last layer (detach_teacher=False restores the official behaviour).",
        "Espresso trains layers 1 to N-1 beside the last; the official sum over hidden states 0 to N-2 "
        "(layers='official') never trains the last layer but one.",
        "The principal directions of Espresso are exact, and point where their largest entry is positive; the official "
        "low-rank decomposition is randomised, and its directions point either way.",
        "An external teacher for the alignment is not offered.",
        "A truncated model keeps BERT's unused pooler (D x D weights): without it, plain hosts would make a random "
        "one on loading.",
    ],
    "known_failures": [
        "Architectures that share layers (ALBERT) or keep them elsewhere (T5) are refused.",
        "Modules that pool over all layers have no meaning in a cut model.",
        "EspressoLoss computes in double precision, which Apple's GPUs lack.",
    ],
}


def example(seed: int = 0) -> dict[str, LossExample | SurgeryExample]:
    """Make the smallest ready instances: a tiny encoder of three layers, with a ranking loss on four pairs.

    Args:
        seed: Decides the weights.

    Returns:
        ``{"loss": ..., "surgery": ...}`` for the contracts of those kinds.
    """
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from embedlab.testing.contract import Refusal
    from embedlab.testing.loss import LossExample
    from embedlab.testing.surgery import SurgeryExample
    from embedlab.testing.tiny import tiny_encoder

    anchors = ["a cat sat on the mat", "shares fell today", "it rains", "the train was late again"]
    positives = ["the cat is on a mat", "stocks lost in value", "rain is coming down", "we waited for the train"]
    model = tiny_encoder(anchors + positives, seed=seed, num_layers=3)
    base = MultipleNegativesRankingLoss(model)
    deep = tiny_encoder(anchors + positives, seed=seed, num_layers=3)
    return {
        "loss": LossExample(
            loss=TwoDMatryoshkaLoss(model, base, layers=(1,), dims=(8,)),  # one of each: the same draw at every step
            model=model,
            features=[model.preprocess(anchors), model.preprocess(positives)],
            refuses=(
                Refusal(lambda: TwoDMatryoshkaLoss(model, base, layers=(3,)), "layers"),
                Refusal(lambda: TwoDMatryoshkaLoss(model, base, dims=(32,)), "dims"),
                Refusal(lambda: TwoDMatryoshkaLoss(model, base, layer_weight="linear"), "layer_weight"),  # type: ignore[arg-type]
                Refusal(lambda: TwoDMatryoshkaLoss(model, base, kl_temperature=0.0), "kl_temperature"),
                Refusal(lambda: TwoDMatryoshkaLoss(model, base, sample="two"), "sample"),  # type: ignore[arg-type]
                Refusal(lambda: TwoDMatryoshkaLoss(model, MultipleNegativesRankingLoss(deep)), "loss"),
            ),
        ),
        "surgery": SurgeryExample(
            model=deep,
            apply=lambda given: truncate(given, layers=2, dim=8),
            texts=[*anchors, "a mat"],
            neutral=truncate,
            refuses=(
                Refusal(lambda: truncate(deep, layers=4), "layers"),
                Refusal(lambda: truncate(deep, layers=0), "layers"),
                Refusal(lambda: truncate(deep, dim=33), "dim"),
            ),
        ),
    }
