"""Which pooling and which attention make a decoder a good embedder? The designs, one factory, and a fair comparison.

    model = build_llm_embedder("decoder", pooling="multi_layer", attention="bidirectional", lora=True)
    compare_models(results, baseline="1", pairs=[("5", "4"), ("4", "2")]).to_table()

The layers of an untuned model are looked at by ``embedlab.understand.layers``. A saved model opens with
``embedlab.models.load_model(folder)`` or, where ``embedlab`` is installed, with
``SentenceTransformer(folder, trust_remote_code=True)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.pooling_attention.comparison import ModelComparison, PairResult, compare_models
from embedlab.text.pooling_attention.factory import DESIGNS, VARIANTS, build_llm_embedder, parameter_counts
from embedlab.text.pooling_attention.harness import Probe, Tuning, classes, clusters, search, similarity, tune_designs
from embedlab.text.pooling_attention.pooling import LatentPooling
from embedlab.text.pooling_attention.recipes import POOLING_ATTENTION

if TYPE_CHECKING:
    from embedlab.testing.module import ModuleExample

__all__ = [
    "DESIGNS",
    "POOLING_ATTENTION",
    "VARIANTS",
    "LatentPooling",
    "ModelComparison",
    "PairResult",
    "Probe",
    "Tuning",
    "build_llm_embedder",
    "classes",
    "clusters",
    "compare_models",
    "example",
    "parameter_counts",
    "search",
    "similarity",
    "tune_designs",
]

METHOD = {
    "card": 18,
    "title": "Pooling And Attention: What Are Effective Designs For LLM-Based Embedding Models?",
    "authors": "Yixuan Tang, Yi Yang",
    "year": 2024,
    "source": "arXiv:2409.02727v2",
    "kinds": {"module": "LatentPooling"},
    "recipes": {"pooling_attention": "POOLING_ATTENTION"},
    "extras": ["train"],
    "official_code": "yixuantt/PoolingAndAttn (no licence file)",
    "deviations": [
        "Padding is never looked up, and the last token is found by the attention mask; the official fourth design has "
        "no mask, and the fifth takes every end mark for padding.",
        "A head is as wide as the embedding divided by the number of heads; published are 32 heads of 2048 for 4096.",
        "Every layer is summed up inside the forward pass, so memory does not grow with layers times tokens.",
        "p-values are corrected by Holm's method; correction='none' gives the published protocol.",
    ],
    "known_failures": [
        "The second design looks up in a single state, so it is a feed-forward net of the last token and no attention.",
        "With few pairs of data sets no test can tell designs apart: such rows say so.",
    ],
}


def example(seed: int = 0) -> dict[str, ModuleExample]:
    """Make the smallest ready instance: latents that look up in three rows of tokens.

    Args:
        seed: Decides tokens and weights.

    Returns:
        ``{"module": ...}`` for the contract of that kind.
    """
    import torch

    from embedlab.testing.contract import Refusal
    from embedlab.testing.module import ModuleExample

    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    tokens = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(seed))
    return {
        "module": ModuleExample(
            module=LatentPooling(8, num_latents=4, num_heads=2, seed=seed).eval(),
            features={"token_embeddings": tokens, "attention_mask": mask},
            output="sentence_embedding",
            width=8,
            load=LatentPooling.load,
            refuses=(
                Refusal(lambda: LatentPooling(8, num_latents=0), "num_latents"),
                Refusal(lambda: LatentPooling(8, layers="first"), "layers"),  # type: ignore[arg-type]
                Refusal(lambda: LatentPooling(8, layers="all"), "num_layers"),
                Refusal(lambda: LatentPooling(8, layers="all", num_layers=2, token_summary="tokens"), "token_summary"),
            ),
            half_atol=0.1,
        )
    }
