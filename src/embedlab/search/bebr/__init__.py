"""BEBR: vectors as sums of signs, with as many bits per dimension as wanted, learned from stored vectors alone.

A code starts as a rotation with the best uniform quantiser, which is good without training, and training is kept only
where development data say that it helped: for the neighbourhoods of the vectors, for pairs of what belongs together, or
for codes of an older version that new queries shall find.

    codec = make_codec("bebr", 384, bits=2, code_dim=256).fit(vectors)              # or fit(vectors, pairs=(a, b))
    scores, rows = codec.scanner(codec.encode(vectors)).search(queries, top_k=10)
    newer = BebrCodec(384).fit(vectors, pairs=pairs, old=codec)                     # its queries find the old codes too
    bridge = QueryMap(768, 384).fit(by_new_model, by_old_model, pairs=pairs)        # queries of another model do

Encoding and searching need numpy; training needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.search.bebr.binarizer import BinaryCodes, RecurrentBinarizer, compare
from embedlab.search.bebr.codec import BebrCodec
from embedlab.search.bebr.plan import Training, TrainingReport
from embedlab.search.bebr.upgrade import QueryMap, UpgradeReport

if TYPE_CHECKING:
    from embedlab.search.bebr.head import BinarizeHead
    from embedlab.testing.codec import CodecExample
    from embedlab.testing.module import ModuleExample

__all__ = [
    "BebrCodec",
    "BinarizeHead",
    "BinaryCodes",
    "QueryMap",
    "RecurrentBinarizer",
    "Training",
    "TrainingReport",
    "UpgradeReport",
    "compare",
    "example",
]

METHOD = {
    "card": 24,
    "title": "Binary Embedding-based Retrieval at Tencent",
    "authors": "Yukang Gan, Yixiao Ge, Chang Zhou, Shupeng Su, Zhouchuan Xu, Xuyuan Xu, Quanchao Hui, Xiang Chen, "
    "Yexin Wang, Ying Shan",
    "year": 2023,
    "source": "arXiv:2302.08714v1 (KDD 2023)",
    "kinds": {"codec": "BebrCodec", "module": "BinarizeHead"},
    "extras": ["train"],
    "official_code": "TencentARC/BEBR (Apache-2.0)",
    "deviations": [
        "The start is a rotation (principal directions where the code has fewer dimensions) beside hidden units "
        "without a say, instead of random networks, which throw the neighbourhoods of the vectors away; "
        "init='random' draws the weights, but keeps a path past the hidden units that starts at zero.",
        "Reconstructions have a learned length after normalising, 1 in the paper: for three and four bits the best "
        "uniform quantiser wants 1.2 and 1.3.",
        "What training makes is kept only if it beats the start on development data by more than a standard error.",
        "Beside codes with codes, training also contrasts the floats before the first signs with codes, so that "
        "queries can be compared without binarising them.",
        "Without pairs, the loss is how far neighbourhoods of codes are from those of the vectors; the paper needs "
        "pairs.",
        "In compatible training the rotation starts from the one nearest to the old codes.",
        "The gradient of the signs is passed on as a new tensor, and sign(0) is +1; the official code edits the "
        "gradient in place and leaves a third symbol.",
    ],
    "known_failures": [
        "At four bits per dimension the rotation is next to lossless: training without pairs changes nothing, and "
        "is not kept.",
        "Training on pairs moves the neighbourhoods of the vectors away, the more the more bits there are.",
        "Fewer than 250 vectors or pairs leave too little to judge training by, and the start is used.",
    ],
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name != "BinarizeHead":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from embedlab._core.extras import require

    require("sentence_transformers", extra="train")
    from embedlab.search.bebr.head import BinarizeHead

    return BinarizeHead


def example(seed: int = 0) -> dict[str, CodecExample | ModuleExample]:
    """Make the smallest ready instances: a codec with vectors in clusters, and a head of a binariser.

    Args:
        seed: Decides vectors and weights.

    Returns:
        Kind -> example, for the contract checks.
    """
    import numpy as np
    import torch

    from embedlab.search.bebr.head import BinarizeHead
    from embedlab.search.bebr.recurrence import unit
    from embedlab.search.codecs import load_codec
    from embedlab.testing.codec import CodecExample
    from embedlab.testing.contract import Refusal
    from embedlab.testing.module import ModuleExample

    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(30, 24)).repeat(10, axis=0) + 0.7 * rng.normal(size=(300, 24))).astype(np.float32)
    fitted = RecurrentBinarizer(24, code_dim=16, hidden=8, seed=seed).fit(rows, training=Training(steps=0))
    small = Training(steps=3, batch_size=32)
    return {
        "codec": CodecExample(
            codec=BebrCodec(24, bits=2, steps=10, seed=seed),
            vectors=rows,
            queries=rows[::40] + np.float32(0.01),
            max_error=0.45,
            load=load_codec,
            score_is_dot=False,
            refuses=(
                Refusal(lambda: BebrCodec(24, bits=5), says="bits=5"),
                Refusal(lambda: BebrCodec(24, code_dim=0), says="m=0"),
                Refusal(lambda: BebrCodec(24, steps=-1), says="steps=-1"),
                Refusal(lambda: BebrCodec(24, distillation=-1.0), says="distillation"),
                Refusal(lambda: BebrCodec(24).fit(rows, pairs=(rows, rows[1:])), says="pairs"),
                Refusal(lambda: BebrCodec(24).fit(rows, old=BebrCodec(24, steps=0).fit(rows)), says="old"),
                Refusal(lambda: RecurrentBinarizer(24, rounds=4), says="rounds=4"),
                Refusal(lambda: RecurrentBinarizer(24, init="rotated"), says="init"),  # type: ignore[arg-type]
                Refusal(lambda: RecurrentBinarizer(24, hidden=4).fit(rows[:, 1:], training=small), says="(N, 24)"),
            ),
        ),
        "module": ModuleExample(
            module=BinarizeHead(fitted),
            features={"sentence_embedding": torch.from_numpy(rows[:5].copy())},
            output="sentence_embedding",
            width=16,
            load=BinarizeHead.load,
            refuses=(
                Refusal(lambda: BinarizeHead(RecurrentBinarizer(24)), says="binarizer"),
                Refusal(
                    lambda: BinarizeHead(fitted)({"sentence_embedding": torch.ones(2, 5)}), says="sentence_embedding"
                ),
            ),
        ),
    }
