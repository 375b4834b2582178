"""NV-Embed: a decoder as an embedder, by attention both ways, latent attention pooling and two-stage tuning.

    model = build_llm_embedder("decoder", pooling="latent_attention", attention="bidirectional")
    reports = train_in_stages("two_stage", model=model, data={...}, out="embedder")

Stage 1 contrasts retrieval data with hard negatives and the batch, stage 2 everything with hard negatives alone. A
saved model opens with ``embedlab.models.load_model(folder)`` or, where ``embedlab`` is installed, with
``SentenceTransformer(folder, trust_remote_code=True)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.nv_embed.data import classification_to_triplets, decontaminate, mine_hard_negatives, sts_to_pairs
from embedlab.text.nv_embed.loss import CachedHardNegativesRankingLoss, HardNegativesRankingLoss
from embedlab.text.nv_embed.pooling import InstructionMask, LatentAttentionPooling, SelfAttentionPooling
from embedlab.text.nv_embed.recipes import NV_EMBED_STAGE1, NV_EMBED_STAGE2, ORDERS, train_in_stages

if TYPE_CHECKING:
    from embedlab.testing.loss import LossExample
    from embedlab.testing.module import ModuleExample

__all__ = [
    "NV_EMBED_STAGE1",
    "NV_EMBED_STAGE2",
    "ORDERS",
    "CachedHardNegativesRankingLoss",
    "HardNegativesRankingLoss",
    "InstructionMask",
    "LatentAttentionPooling",
    "SelfAttentionPooling",
    "classification_to_triplets",
    "decontaminate",
    "example",
    "mine_hard_negatives",
    "sts_to_pairs",
    "train_in_stages",
]

METHOD = {
    "card": 4,
    "title": "NV-Embed: Improved Techniques for Training LLMs as Generalist Embedding Models",
    "authors": "Chankyu Lee, Rajarshi Roy, Mengyao Xu, Jonathan Raiman, Mohammad Shoeybi, Bryan Catanzaro, Wei Ping",
    "year": 2024,
    "source": "arXiv:2405.17428v3 (ICLR 2025)",
    "kinds": {"module": "LatentAttentionPooling", "loss": "HardNegativesRankingLoss"},
    "recipes": {"nv_embed_stage1": "NV_EMBED_STAGE1", "nv_embed_stage2": "NV_EMBED_STAGE2"},
    "extras": ["train"],
    "official_code": "nvidia/NV-Embed-v2, modelling file of the checkpoint (CC-BY-NC-4.0)",
    "deviations": [
        "Instructions are left out of the mean row by row, by the characters that each token covers, with padding on "
        "either side; the official code counts them without the mark of the beginning and pads on the right only.",
        "The mean is taken in single precision and normalising is the host's module, placed after the pooling.",
        "The temperature is 0.02, which the paper does not state.",
    ],
    "known_failures": [
        "Without negatives in the batch, rows without a negative of their own teach nothing and are refused.",
        "Instructions are not found in packed batches (flash attention without padding), which are switched off.",
    ],
}


def example(seed: int = 0) -> dict[str, ModuleExample | LossExample]:
    """Make the smallest ready instances: latent pooling of three rows of tokens, and a loss on six triples.

    Args:
        seed: Decides tokens and weights.

    Returns:
        Kind -> example, for the contract checks.
    """
    import torch

    from embedlab.testing.contract import Refusal
    from embedlab.testing.loss import LossExample
    from embedlab.testing.module import ModuleExample
    from embedlab.testing.tiny import tiny_encoder

    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    instruction = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    tokens = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(seed))
    columns = [
        ["a cat sat", "shares fell", "it rained", "we sang", "a bus came", "tea was made"],
        ["the cat slept", "stocks lost", "rain came", "a song began", "the bus left", "they drank tea"],
        ["a dog sat", "shares rose", "it snowed", "we slept", "a train came", "coffee was made"],
    ]
    model = tiny_encoder([text for column in columns for text in column], seed=seed)
    alone = HardNegativesRankingLoss(model, in_batch_negatives=False)

    def lead() -> float:  # of the positives over the negatives of their own: the others are not contrasted
        anchors, positives, negatives = (torch.from_numpy(model.encode(column)) for column in columns)
        cosine = torch.nn.functional.cosine_similarity
        return float((cosine(anchors, positives) - cosine(anchors, negatives)).mean())

    return {
        "module": ModuleExample(
            module=LatentAttentionPooling(8, num_latents=6, num_heads=2, seed=seed).eval(),
            features={"token_embeddings": tokens, "attention_mask": mask, "instruction_mask": instruction},
            output="sentence_embedding",
            width=8,
            load=LatentAttentionPooling.load,
            refuses=(
                Refusal(lambda: LatentAttentionPooling(8, num_latents=0), "num_latents"),
                Refusal(lambda: LatentAttentionPooling(8, num_heads=-1), "num_heads"),
                Refusal(lambda: LatentAttentionPooling(8, head_dim=0), "head_dim"),
            ),
            half_atol=0.1,
        ),
        "loss": LossExample(
            loss=alone,
            model=model,
            features=[model.preprocess(column) for column in columns],
            refuses=(
                Refusal(lambda: HardNegativesRankingLoss(model, scale=0.0), "scale"),
                Refusal(
                    lambda: alone([model.preprocess(column) for column in columns[:2]], None), "in_batch_negatives"
                ),
            ),
            progress=lead,
        ),
    }
