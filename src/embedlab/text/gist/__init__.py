"""Guided contrastive fine-tuning (GISTEmbed): a frozen guide says which texts of a batch are no negatives.

In a batch of pairs, some of the "negatives" mean the same as the positive, and pushing them away teaches the student
nonsense. A stronger encoder sees most of them. Because it is frozen, its vectors are computed once per distinct text
(``GuideStore``) and travel with the batch; the guide never runs during training.

    store = GuideStore.build(load_model("big-model"), texts, "guide-store")
    loss = GuidedContrastiveLoss(student, store)
    SentenceTransformerTrainer(student, args, train_dataset=pairs, loss=loss, data_collator=loss.data_collator(args))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.gist.loss import CachedGuidedContrastiveLoss, GuidedContrastiveLoss
from embedlab.text.gist.negatives import MaskReport, mine_class_triplets, report_masks
from embedlab.text.gist.recipes import GIST
from embedlab.text.gist.schedule import TemperatureSchedule
from embedlab.text.gist.store import GuideStore

if TYPE_CHECKING:
    from embedlab.testing.loss import LossExample

__all__ = [
    "GIST",
    "CachedGuidedContrastiveLoss",
    "GuideStore",
    "GuidedContrastiveLoss",
    "MaskReport",
    "TemperatureSchedule",
    "example",
    "mine_class_triplets",
    "report_masks",
]

METHOD = {
    "card": 41,
    "title": "GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning",
    "authors": "Aivin V. Solatorio",
    "year": 2024,
    "source": "arXiv:2402.16829v1",
    "kinds": {"loss": "GuidedContrastiveLoss"},
    "extras": ["train"],
    "official_code": "avsolatorio/GISTEmbed (no licence file)",
    "recipes": {"gist": "GIST"},
    "deviations": [
        "A candidate that ties with the positive to within 1e-6 is dropped too, so that exact duplicates and self "
        "pairs never act as negatives; the official rule is strictly greater.",
        "The guide's vectors come from a store keyed by the raw text, so the guide never sees the student's prompts, "
        "truncation or unknown tokens.",
        "Guided triplets compare cosine distances, and their mean is over the whole batch: a row without negatives "
        "adds 0. What margin the published runs took is not known here.",
    ],
    "known_failures": [
        "A guide that knows less about the task than the student drops true negatives and keeps false ones.",
        "The cached loss takes no static student (StaticEmbedding), and cannot slice the guide's vectors of flattened "
        "batches (flash attention without padding).",
    ],
}


def example(seed: int = 0) -> dict[str, LossExample]:
    """Make the smallest ready instance: two tiny encoders, eight pairs of which two share a topic, a store in memory.

    Args:
        seed: Decides the weights of student and guide.

    Returns:
        ``{"loss": ...}`` for the contract of that kind.
    """
    from embedlab.testing.contract import Refusal
    from embedlab.testing.loss import LossExample
    from embedlab.testing.tiny import tiny_encoder

    pairs = [
        ("my card has not come yet", "where is the card I ordered"),
        ("the card is still missing", "when will my card arrive"),
        ("how do I change my code", "I want another pin"),
        ("the machine kept my card", "my card was swallowed"),
        ("which rate do you use", "how is the exchange rate found"),
        ("close my account please", "I want to leave the bank"),
        ("a payment was taken twice", "I was charged two times"),
        ("can my child open an account", "how old must one be"),
    ]
    anchors, positives = map(list, zip(*pairs, strict=True))
    texts = anchors + positives
    student, guide = tiny_encoder(texts, seed=seed), tiny_encoder(texts, seed=seed + 1, dim=48, num_heads=3)
    store = GuideStore.build(guide, texts, fingerprint=f"tiny:{seed + 1}")
    loss = GuidedContrastiveLoss(student, store)
    return {
        "loss": LossExample(
            loss=loss,
            model=student,
            features=[loss.preprocess(anchors), loss.preprocess(positives)],
            refuses=(
                Refusal(lambda: GuidedContrastiveLoss(student, store, temperature=0.0), "temperature"),
                Refusal(lambda: GuidedContrastiveLoss(student, store, margin=-0.1), "margin"),
                Refusal(lambda: GuidedContrastiveLoss(student, store, margin_strategy="squared"), "margin_strategy"),  # type: ignore[arg-type]
                Refusal(lambda: GuidedContrastiveLoss(student, store, negative_mode="easy"), "negative_mode"),  # type: ignore[arg-type]
                Refusal(lambda: GuidedContrastiveLoss(student, store, triplet="semi"), "triplet"),  # type: ignore[arg-type]
                Refusal(lambda: GuidedContrastiveLoss(student, triplet="hard"), "triplet"),
                Refusal(lambda: GuidedContrastiveLoss(student, student), "guide"),
                Refusal(lambda: loss.preprocess(["never seen"]), "never seen"),
                Refusal(lambda: loss([student.preprocess(anchors), student.preprocess(positives)]), "data_collator"),
            ),
        )
    }
