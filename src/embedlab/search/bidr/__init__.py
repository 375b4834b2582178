"""Two-stage search (BiDR): codes trained for the task find candidates in memory, full vectors on disk verify them.

    quantizer = ContrastivePQ(384).init_from_faiss(opq_index)             # start from what faiss learns
    train_sparse(quantizer, pairs, query_head=q, document_head=d)         # codes, for telling all documents apart
    sampler = LocalityCentricBatchSampler(pairs.positives, candidates)    # neighbours that the codes confuse
    train_dense(pairs, lambda epoch: sampler.at(epoch), query_head=q2, document_head=d2)

    codec = ContrastivePQCodec.of(quantizer)                              # or ContrastivePQCodec(384).fit(vectors, ...)
    index = BiGranularIndex.build(folder, codec, vectors)
    scores, rows = index.search(queries, top_k=10, candidates=1000)

Searching needs numpy, and is fast with the extra ``codecs``; training needs the extra ``train`` too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.search.bidr.codec import ContrastivePQCodec
from embedlab.search.bidr.false_negatives import FalseNegatives
from embedlab.search.bidr.index import BiGranularIndex, Cost
from embedlab.search.bidr.vectors import TwoStageError, VectorFile, VectorTable

if TYPE_CHECKING:
    from embedlab.search.bidr.quantizer import ContrastivePQ
    from embedlab.search.bidr.sampler import LocalityCentricBatchSampler
    from embedlab.search.bidr.training import Pairs, ResidualHead, Schedule, train_dense, train_sparse
    from embedlab.testing.codec import CodecExample

__all__ = [
    "BiGranularIndex",
    "ContrastivePQ",
    "ContrastivePQCodec",
    "Cost",
    "FalseNegatives",
    "LocalityCentricBatchSampler",
    "Pairs",
    "ResidualHead",
    "Schedule",
    "TwoStageError",
    "VectorFile",
    "VectorTable",
    "example",
    "train_dense",
    "train_sparse",
]

METHOD = {
    "card": 23,
    "title": "Progressively Optimized Bi-Granular Document Representation for Scalable Embedding Based Retrieval",
    "authors": "Shitao Xiao, Zheng Liu, Weihao Han, Jianjin Zhang, Yingxia Shao, Defu Lian, Chaozhuo Li, Hao Sun, "
    "Denvy Deng, Liangjie Zhang, Qi Zhang, Xing Xie",
    "year": 2022,
    "source": "arXiv:2201.05409v1 (WWW 2022)",
    "kinds": {"codec": "ContrastivePQCodec"},
    "extras": ["train", "codecs"],
    "official_code": "microsoft/BiDR (MIT)",
    "deviations": [
        "The official L2 term compares the vector before turning with the reconstruction after it; here both are in "
        "one space.",
        "The rotation can be trained (train_rotation=True) and stays orthogonal; the official flag passes no gradient.",
        "Codewords that no vector chooses are moved to badly encoded parts of a batch; the official code leaves them.",
        "Likely false negatives (same group, near copy of the positive) are kept out of drawn and in-batch negatives "
        "alike; the official code masks labelled positives only.",
        "Encoders are heads on fixed vectors here. Whole transformers train with the same sampler in a "
        "sentence-transformers trainer, through rows().",
        "Temperatures suit unit vectors in the codec and the reproduction: 0.05 for the loss, 0.01 for the choice of "
        "codewords. The published value of 1 is the default of ContrastivePQ and Schedule.",
    ],
    "known_failures": [
        "Codes are trained for one task: for other queries they may find less than OPQ's, whose aim is the vectors' "
        "own geometry.",
        "Codes, codebook and candidates belong to one encoder: when it changes, all three must be made anew.",
        "A cold disk without many parallel reads makes verification slow; lower candidates then.",
    ],
}

_TORCH = {
    "ContrastivePQ": "quantizer",
    "LocalityCentricBatchSampler": "sampler",
    "Pairs": "training",
    "ResidualHead": "training",
    "Schedule": "training",
    "train_dense": "training",
    "train_sparse": "training",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name not in _TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from embedlab._core.extras import require

    require("torch", extra="train")
    return getattr(import_module(f"{__name__}.{_TORCH[name]}"), name)


def example(seed: int = 0) -> dict[str, CodecExample]:
    """Make the smallest ready instance: eight dimensions in two bytes, learned from 64 vectors.

    Args:
        seed: Decides the vectors and everything learned.

    Returns:
        ``{"codec": ...}`` for the contract of that kind.
    """
    import numpy as np

    from embedlab.search.codecs import load_codec
    from embedlab.testing.codec import CodecExample
    from embedlab.testing.contract import Refusal

    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(64, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    small: dict[str, Any] = {
        "parts": 4,
        "centroids": 16,
        "opq_iterations": 2,
        "steps": 4,
        "batch_size": 16,
        "seed": seed,
    }
    return {
        "codec": CodecExample(
            codec=ContrastivePQCodec(8, **small),
            vectors=vectors,
            queries=rng.normal(size=(3, 8)).astype(np.float32),
            max_error=0.4,
            load=load_codec,
            refuses=(
                Refusal(lambda: ContrastivePQCodec(8, parts=3), says="parts=3"),
                Refusal(lambda: ContrastivePQCodec(8, parts=4, centroids=17), says="centroids=17"),
                Refusal(lambda: ContrastivePQCodec(8, parts=1, centroids=16), says="parts=1"),
                Refusal(lambda: ContrastivePQCodec(8, parts=4, steps=-1), says="steps=-1"),
                Refusal(lambda: ContrastivePQCodec(8, parts=4, temperature=0.0), says="temperature"),
                Refusal(lambda: ContrastivePQCodec(8, **small).fit(vectors[:8]), says="at least 16"),
                Refusal(
                    lambda: ContrastivePQCodec(8, **small).fit(vectors, pairs=(vectors[:2], vectors)), says="pairs"
                ),
            ),
        )
    }
