"""Contrastive training on very large batches that moves from easy to hard negatives (PEG).

Thousands of documents per query hold a few hard negatives and many easy ones. Early in training the hard ones are noise
to a model that cannot tell them apart yet; later they are all that is left to learn from. A *modulator* inside the loss
shifts the weight from the ones to the others.

    loss = ProgressiveContrastiveLoss(model, mini_batch_size=32)           # a batch of thousands, gradients cached
    SentenceTransformerTrainer(model, args, train_dataset=tuples, loss=loss, callbacks=[KeepProgress(loss)])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.progressive.loss import ProgressiveContrastiveLoss
from embedlab.text.progressive.modulators import AdaptiveCurriculum, Modulator, ScheduledHardness, ScheduledWeights
from embedlab.text.progressive.pairs import filter_pairs, mine_tuples
from embedlab.text.progressive.progress import HardnessSchedule, KeepProgress
from embedlab.text.progressive.recipes import PEG

if TYPE_CHECKING:
    from embedlab.testing.loss import LossExample

__all__ = [
    "PEG",
    "AdaptiveCurriculum",
    "HardnessSchedule",
    "KeepProgress",
    "Modulator",
    "ProgressiveContrastiveLoss",
    "ScheduledHardness",
    "ScheduledWeights",
    "example",
    "filter_pairs",
    "mine_tuples",
]

METHOD = {
    "card": 34,
    "title": "Towards Robust Text Retrieval with Progressive Learning",
    "authors": "Tong Wu, Yulei Qin, Enwei Zhang, Zihan Xu, Yuting Gao, Ke Li, Xing Sun",
    "year": 2023,
    "source": "arXiv:2311.11691v1",
    "kinds": {"loss": "ProgressiveContrastiveLoss"},
    "extras": ["train"],
    "official_code": None,
    "recipes": {"peg": "PEG"},
    "deviations": [
        "The formula of the progressive weighting is a reconstruction: the report gives it in words only. The default "
        "is that of CurricularFace (arXiv:2004.00288), by some of the same authors; two other schedules are offered.",
        "The modulator goes on by one batch, not by one optimiser step: gradient accumulation over n batches moves it "
        "n times per step.",
        "Documents that repeat the text of the query or of its positive, and positives of the same query in another "
        "row, are left out of the negatives.",
    ],
    "known_failures": [
        "A hard negative whose t + c exceeds 1 is amplified without bound in the logits: at scale 50 one mislabelled "
        "pair may dominate a batch late in training. Filter the pairs first.",
        "Under the host's MatryoshkaLoss without gradient caching, every width moves the modulator by one batch.",
    ],
}


def example(seed: int = 0) -> dict[str, LossExample]:
    """Make the smallest ready instance: a tiny encoder, eight queries with a positive and a hard negative each.

    Args:
        seed: Decides the weights.

    Returns:
        ``{"loss": ...}`` for the contract of that kind.
    """
    from embedlab.testing.contract import Refusal
    from embedlab.testing.loss import LossExample
    from embedlab.testing.tiny import tiny_encoder

    rows = [
        ("open a file", "returns a handle to the named file", "closes the file and its handle"),
        ("close a file", "flushes and releases the handle", "opens the named file for reading"),
        ("sort a list", "puts the items of a list in order", "puts the items of a list in random order"),
        ("shuffle a list", "mixes the items of a list", "sorts the items of a list in place"),
        ("join strings", "puts the pieces together with a separator", "cuts a string at a separator"),
        ("split a string", "cuts a string at every separator", "joins the pieces with a separator"),
        ("parse a date", "reads day month and year from text", "writes day month and year as text"),
        ("format a date", "gives a date as text", "reads a date from text"),
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    model = tiny_encoder([text for column in columns for text in column], seed=seed)
    modulator = AdaptiveCurriculum()
    modulator.t.fill_(0.5)
    loss = ProgressiveContrastiveLoss(model, modulator=modulator)
    return {
        "loss": LossExample(
            loss=loss,
            model=model,
            features=[model.preprocess(column) for column in columns],
            refuses=(
                Refusal(lambda: ProgressiveContrastiveLoss(model, scale=0.0), "scale"),
                Refusal(lambda: ProgressiveContrastiveLoss(model, modulator="adaptiv"), "adaptive"),
                Refusal(lambda: ProgressiveContrastiveLoss(model, margin=-0.1), "margin"),
                Refusal(lambda: ProgressiveContrastiveLoss(model, mini_batch_size=0), "mini_batch_size"),
                Refusal(lambda: AdaptiveCurriculum(rate=0.0), "rate"),
                Refusal(lambda: ScheduledWeights(cap=0.0), "cap"),
                Refusal(lambda: ScheduledHardness(steps=0), "steps"),
                Refusal(lambda: loss([model.preprocess(columns[0])]), "column"),
            ),
        )
    }
