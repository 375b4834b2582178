"""TempScale: sharper attention against length collapse, without training, and the diagnostics that show the collapse.

Self-attention averages over tokens. It is a low-pass filter, the longer the text the stronger, so embeddings of long
texts crowd together. Dividing the attention logits by a temperature below 1 weakens the filter. The temperature is
folded into the weights, so any attention kernel applies it exactly and a saved model carries it along.

    with attention_temperature(model, 0.9):
        vectors = model.encode(long_texts)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.temp_scale.diagnostics import (
    FilterRates,
    LengthBucket,
    LengthProfile,
    centroid_distance_by_length,
    filter_rate,
    high_gain,
    pairwise_cosine_by_length,
)
from embedlab.text.temp_scale.fold import attention_temperature, get_temperature, set_temperature, tempered_copy

if TYPE_CHECKING:
    from embedlab.testing.probe import ProbeExample
    from embedlab.testing.surgery import SurgeryExample

__all__ = [
    "FilterRates",
    "LengthBucket",
    "LengthProfile",
    "attention_temperature",
    "centroid_distance_by_length",
    "example",
    "filter_rate",
    "get_temperature",
    "high_gain",
    "pairwise_cosine_by_length",
    "set_temperature",
    "tempered_copy",
]

METHOD = {
    "card": 32,
    "title": "Length-Induced Embedding Collapse in Transformer-based Models",
    "authors": "Yuqi Zhou, Sunhao Dai, Zhanshuo Cao, Xiao Zhang, Jun Xu",
    "year": 2024,
    "source": "arXiv:2410.24200v1 (ACL 2025)",
    "kinds": {"surgery": "tempered_copy", "probe": "pairwise_cosine_by_length"},
    "extras": ["train"],
    "official_code": "Yuqi-Zhou/Length_Collapse (no licence stated)",
    "deviations": [
        "The temperature is folded into queries and position biases; the official code replaces attention modules and "
        "divides after adding the mask, which can overflow. The attention weights are the same.",
        "Temperatures above 1, up to 10, are allowed, for looking at the filter; the paper has 0 < tau <= 1.",
        "The paper's bound on the filter rate is not implemented: simulation shows that it is no upper bound.",
    ],
    "known_failures": [
        "Attention with ALiBi, capped logits or parameters not known here is refused, and so are unmerged adapters.",
        "A model saved at a temperature and loaded again returns to 1.0 up to one rounding, not to the last bit.",
        "Vectors made at different temperatures must not be mixed.",
    ],
}


def example(seed: int = 0) -> dict[str, SurgeryExample | ProbeExample]:
    """Make the smallest ready instances: a tiny encoder at temperature 0.7, and vectors of short and long texts.

    Args:
        seed: Decides the weights and the vectors.

    Returns:
        Kind -> example, for the contract checks.
    """
    import numpy as np

    from embedlab.testing.contract import Refusal
    from embedlab.testing.probe import KnownValue, ProbeExample
    from embedlab.testing.surgery import SurgeryExample
    from embedlab.testing.tiny import tiny_encoder

    texts = ["a cat", "a cat sat on the mat", "the dog ran", "on the mat the dog sat and the cat ran away from it"]
    model = tiny_encoder(texts, seed=seed)
    rng = np.random.default_rng(seed)
    rows, lengths = rng.normal(size=(24, 8)) + 0.5, rng.integers(1, 300, size=24).astype(np.float64)
    cross = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
    return {
        "surgery": SurgeryExample(
            model=model,
            apply=lambda original: tempered_copy(original, 0.7),
            texts=texts,
            refuses=(
                Refusal(lambda: tempered_copy(model, 0.0), says="temperature=0.0"),
                Refusal(lambda: tempered_copy(model, float("nan")), says="temperature=nan"),
                Refusal(lambda: tempered_copy(model[1], 0.9), says="no attention layer"),
            ),
            neutral=lambda original: tempered_copy(original, 1.0),
            restore=lambda changed: tempered_copy(changed, 1.0),
        ),
        "probe": ProbeExample(
            compute=pairwise_cosine_by_length,
            inputs=(rows, lengths),
            numbers=lambda profile: [bucket.mean for bucket in profile.buckets],
            bounds=(-1.0, 1.0),
            known=(
                KnownValue(
                    (cross, np.array([5, 99, 100, 150])),
                    [0.0, 1.0, np.nan, np.nan, np.nan, np.nan],
                    "a right angle among the short, one direction among the long, nothing longer",
                ),
            ),
            refuses=(
                Refusal(lambda: pairwise_cosine_by_length(rows, lengths[1:]), says="lengths"),
                Refusal(lambda: pairwise_cosine_by_length(rows, lengths, edges=[0, 0]), says="edges"),
                Refusal(lambda: pairwise_cosine_by_length(np.zeros((2, 3)), [1, 2]), says="embeddings"),
                Refusal(lambda: filter_rate(model, []), says="texts"),
            ),
            rows="together",
            tie_rule="a length on an edge belongs to the bucket that begins there; equal vectors have cosine 1",
        ),
    }
