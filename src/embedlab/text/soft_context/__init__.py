"""Long contexts as a few soft tokens: passages become vectors that a frozen language model reads instead of tokens.

compressor = ContextCompressor(decoder, tokenizer, num_tokens=(1, 4, 16)).fit(passages, continuations)
memory = compressor.compress(passages, num_tokens=4)                  # (N, 4, H)
compressor.perplexity(continuations, memory=memory).value             # against contexts=passages, and nothing
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.text.soft_context.compressor import ContextCompressor, Perplexity
from embedlab.text.soft_context.memory import MemoryReader
from embedlab.text.soft_context.reader import SoftTokens, VectorReader, VectorReaderConfig

if TYPE_CHECKING:
    from embedlab.testing.trainer import TrainerExample

__all__ = [
    "ContextCompressor",
    "MemoryReader",
    "Perplexity",
    "SoftTokens",
    "VectorReader",
    "VectorReaderConfig",
    "example",
]

METHOD = {
    "card": 7,
    "title": "When Text Embedding Meets Large Language Model: A Comprehensive Survey (long-context compression)",
    "authors": "Zhijie Nie, Zhangchi Feng, Mingxin Li, Cunwang Zhang, Yanzhao Zhang, Dingkun Long, Richong Zhang",
    "year": 2024,
    "source": "arXiv:2412.09165v3, section on long-context compression",
    "kinds": {"trainer": "ContextCompressor"},
    "extras": ["train"],
    "official_code": None,
    "deviations": [
        "The writing side is a full copy of the language model, trained as a whole; ICAE trains low-rank matrices.",
        "The mark for repeating the passage is a second start token, not a new one.",
        "Every step draws how many memory tokens are used, so that one compressor serves all sizes.",
    ],
    "known_failures": [
        "Memory tokens carry what a passage is about long before they carry its words: reconstruction needs far more "
        "training than a lower perplexity.",
    ],
}


def example(seed: int = 0) -> dict[str, TrainerExample]:
    """Make the smallest ready instance: a tiny language model and eight passages with their continuations.

    Args:
        seed: Decides the weights of the language model.

    Returns:
        ``{"trainer": ...}`` for the contract of that kind.
    """
    import tempfile
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import AutoModelForCausalLM, AutoTokenizer

    from embedlab.testing.contract import Refusal
    from embedlab.testing.tiny_decoder import save_tiny_decoder
    from embedlab.testing.trainer import Trained, TrainerExample

    contexts = [f"{who} keeps a {what} at {where}" for who in ("Ann", "Ben") for what, where in _PLACES]
    following = [f"so the {what} is at {where} now" for _ in range(2) for what, where in _PLACES]
    with tempfile.TemporaryDirectory() as place:
        save_tiny_decoder(place, texts=contexts + following, seed=seed, dim=16)
        decoder = AutoModelForCausalLM.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place)

    def made(**options: int) -> ContextCompressor:
        return ContextCompressor(decoder, tokenizer, num_tokens=(1, 2), max_context=8, max_continuation=8, **options)

    def train(folder: Path, *, seed: int, max_steps: int, given: Sequence[str] = contexts) -> Trained:
        compressor = made(seed=seed).fit(
            given,
            following,
            steps=max_steps,
            batch_size=8,
            learning_rate=1e-2,
            reconstruct=0.0,
            folder=folder,
            lr_scheduler_type="constant",
            warmup_steps=0,
            save_strategy="steps",
            save_steps=4,
        )
        trained = ((name, weight) for name, weight in compressor.reader.named_parameters() if weight.requires_grad)
        weights = {name: weight.numpy(force=True).copy() for name, weight in trained}
        return Trained(weights, max_steps, 8 * max_steps, compressor.losses)

    return {
        "trainer": TrainerExample(
            train=train,
            baseline=lambda folder, *, seed, max_steps: train(
                folder, seed=seed, max_steps=max_steps, given=[contexts[0]] * len(contexts)
            ),
            steps=8,
            data=contexts,
            refuses=(
                Refusal(lambda: ContextCompressor(decoder, tokenizer, num_tokens=()), says="num_tokens"),
                Refusal(lambda: made().fit(contexts, following[:2]), says="8 contexts for 2 continuations"),
                Refusal(lambda: made().fit(contexts, following, reconstruct=2.0), says="reconstruct"),
                Refusal(lambda: made().compress(contexts, num_tokens=3), says="num_tokens=3"),
                Refusal(lambda: made().compress_long(""), says="empty"),
                Refusal(
                    lambda: made().perplexity(following, memory=made().compress(contexts[:2])), says="2 rows of memory"
                ),
            ),
        )
    }


_PLACES = (("cat", "home"), ("boat", "sea"), ("goat", "work"), ("book", "school"))
