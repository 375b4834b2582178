"""Preparing a causal language model for embedding, before any pairs: MNTP, EBAE, EBAR, SimCSE.

A decoder is trained to guess the next token from what stands before it. An embedder should see a whole text and put
it into one vector. These objectives, all on plain text, teach one or the other: to use what stands after a token
(MNTP), to hold a text's words in one vector (EBAE), or those of the text that follows (EBAR); and then to tell texts
apart (SimCSE).

    train("mntp", model=decoder, data="texts.jsonl", out="prepared")
    train("contrastive", model="prepared", data="pairs.jsonl", out="embedder")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.pre_adaptation.objectives import BagOfWordsLoss, MaskedNextTokenLoss, bag_loss
from embedlab.text.pre_adaptation.recipes import EBAE, EBAR, MNTP, SIMCSE

if TYPE_CHECKING:
    from embedlab.testing.loss import LossExample

__all__ = ["EBAE", "EBAR", "MNTP", "SIMCSE", "BagOfWordsLoss", "MaskedNextTokenLoss", "bag_loss", "example"]

METHOD = {
    "card": 38,
    "title": "LLMs are Also Effective Embedding Models: An In-depth Overview",
    "authors": "Chongyang Tao, Tao Shen, Shen Gao, Junshuo Zhang, Zhen Li, Kai Hua, Wenpeng Hu, Zhengwei Tao, Shuai Ma",
    "year": 2024,
    "source": "arXiv:2412.12591v2",
    "kinds": {"loss": "MaskedNextTokenLoss"},
    "extras": ["train"],
    "official_code": "McGill-NLP/llm2vec (MIT); FlagOpen/FlagEmbedding (MIT)",
    "deviations": [
        "Every chosen token is hidden; LLM2Vec can also put random tokens or leave some as they are.",
        "A text has exactly round(share x tokens) hidden tokens, at least one, instead of one draw per token.",
        "EBAE and EBAR have one slot, the mark of the end or the last token of a prompt; LLaRA has eight in a row.",
        "The head is the language model's own and is trained along.",
    ],
    "known_failures": [
        "A tokenizer without a mask token and without a token for an underscore is refused.",
        "A model loaded without its head is refused unless the head is tied to its word embeddings.",
        "Decoders without any dropout cannot be contrasted with themselves; the recipe sets it in the attention.",
    ],
    "recipes": {"mntp": "MNTP", "ebae": "EBAE", "ebar": "EBAR", "simcse": "SIMCSE"},
}


def example(seed: int = 0) -> dict[str, LossExample]:
    """Make the smallest ready instance: a tiny decoder that looks both ways, and four texts.

    Args:
        seed: Decides the weights and what is hidden.

    Returns:
        ``{"loss": ...}`` for the contract of that kind.
    """
    import torch

    from embedlab.models.bidirectional import to_bidirectional
    from embedlab.testing.contract import Refusal
    from embedlab.testing.loss import LossExample
    from embedlab.testing.tiny_decoder import tiny_decoder

    texts = ["a cat sat on the mat", "the dog ran away", "a cat ran on the mat away", "the mat"]
    model = to_bidirectional(tiny_decoder(texts, seed=seed, pooling="mean"))
    loss = MaskedNextTokenLoss(model, seed=seed)
    features = model.preprocess(texts)

    def surprise_elsewhere() -> float:
        with torch.no_grad():
            return -float(MaskedNextTokenLoss(model, seed=seed + 1, mask_share=0.3)([dict(features)]))

    return {
        "loss": LossExample(
            loss=loss,
            model=model,
            features=[features],
            refuses=(
                Refusal(lambda: MaskedNextTokenLoss(model, mask_share=0.0), "mask_share=0.0"),
                Refusal(lambda: MaskedNextTokenLoss(model, mask_share=1.5), "mask_share=1.5"),
                Refusal(lambda: BagOfWordsLoss(model, target="last"), "target='last'"),  # type: ignore[arg-type]
                Refusal(lambda: BagOfWordsLoss(model, target="next")([features]), "two columns"),
            ),
            progress=surprise_elsewhere,
            row_order_matters=True,
        )
    }
