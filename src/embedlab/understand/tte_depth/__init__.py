"""TTE depth: how central is a text in its corpus, and do two corpora come from the same distribution?

A text is deep when it is near to all others. That one number ranks a corpus from its median outward, finds outliers,
chooses examples for a prompt, and, compared between two corpora, says whether one strays from the other. Under cosine
distance the mean over a corpus needs only the sum of its unit vectors, so nothing here is quadratic unless the distance
makes it so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.understand.tte_depth.compare import DepthTest, compare_depths, q_score
from embedlab.understand.tte_depth.depth import CorpusShift, TextDepth, corpus_shift
from embedlab.understand.tte_depth.exemplars import select_exemplars

if TYPE_CHECKING:
    from embedlab.testing.probe import ProbeExample

__all__ = [
    "CorpusShift",
    "DepthTest",
    "TextDepth",
    "compare_depths",
    "corpus_shift",
    "example",
    "q_score",
    "select_exemplars",
]

METHOD = {
    "card": 44,
    "title": "Statistical Depth for Ranking and Characterizing Transformer-Based Text Embeddings",
    "authors": "Parker Seegmiller, Sarah Masud Preum",
    "year": 2023,
    "source": "arXiv:2310.15010v1 (EMNLP 2023)",
    "kinds": {"probe": "TextDepth"},
    "extras": [],
    "official_code": "pkseeg/tte_depth (MIT)",
    "deviations": [
        "Q is the paper's: a mean over all pairs, ties counting half. The official code's pooled ranks, which end at "
        "M / 2(N + M) instead of 0, are there as q_score(pooled=True).",
        "Whether rows belong to the reference is said by the caller. The official code takes a square matrix of "
        "distances for it, so corpora of equal size are averaged over the wrong axis.",
        "Chord distance brings rows to unit length; the official function expects that of its caller.",
        "Q comes with DeLong's interval, which the paper does not give.",
    ],
    "known_failures": [
        "Swapped words go unnoticed with an encoder that hardly sees their order: depth knows places, not sentences.",
        "In a corpus of several clusters the median lies in the largest one, and near-duplicates look deep.",
        "Below 50 rows the asymptotic p-value is rough, since reference depths share a sum: use method='permutation'.",
    ],
}


def example(seed: int = 0) -> dict[str, ProbeExample]:
    """Return the smallest ready instance: thirty vectors around one direction, and each one's depth.

    Args:
        seed: Decides the vectors.

    Returns:
        Kind -> example, for the contract checks.
    """
    import numpy as np

    from embedlab.testing.contract import Refusal
    from embedlab.testing.probe import KnownValue, ProbeExample

    rows = np.random.default_rng(seed).normal(size=(30, 8)) + 1.0
    # three directions at right angles and a fourth opposite to the first: mean distances (1+1+2)/3, 1, 1, (2+1+1)/3
    cross = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [-1.0, 0.0, 0.0]])
    return {
        "probe": ProbeExample(
            compute=lambda vectors: TextDepth().fit(vectors).depths(),
            inputs=(rows,),
            numbers=lambda depths: depths,
            bounds=(0.0, 2.0),
            known=(
                KnownValue((cross,), [2 / 3, 1.0, 1.0, 2 / 3], "right angles are 1 apart, opposites 2"),
                KnownValue((np.ones((3, 2)),), [2.0, 2.0, 2.0], "equal texts are 0 apart"),
            ),
            refuses=(
                Refusal(lambda: TextDepth("cosin"), says="distance"),  # type: ignore[arg-type]
                Refusal(lambda: TextDepth(lambda a, b: a @ b.T), says="sup"),
                Refusal(lambda: TextDepth().fit(rows[:1]), says="reference"),
                Refusal(lambda: TextDepth().fit(np.zeros((3, 2))), says="reference"),
                Refusal(lambda: TextDepth().fit(rows).depths(rows[:, :2]), says="vectors"),
                Refusal(lambda: TextDepth().fit(rows).outliers(0.0), says="fraction"),
                Refusal(lambda: TextDepth().fit(rows).test(rows, alternative="bigger"), says="alternative"),  # type: ignore[arg-type]
                Refusal(lambda: select_exemplars(rows, 31), says="k=31"),
            ),
            rows="each",
            tie_rule="equal vectors have equal depth; order and outliers keep them as they came; Q counts a tie half",
        )
    }
