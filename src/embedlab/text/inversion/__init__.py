"""Embedding inversion: how much of a text can be read back from its vector, and what helps against it.

A vector is not a hash: who holds it, and can embed texts of his own with the same encoder, learns to read it. Three
attacks, from cheap to strong, tell how much: the set of words (ridge regression, numpy alone), the text (a language
model with the vector as prefix), and the text corrected by embedding the guess and looking where it lies. Defences are
measured by what they cost in search and what they save in leakage.

    attack = TokenSetInverter().fit(encoder.encode_document(known), known)
    report = leakage_report(encoder.encode_document(secret), secret, inverter=attack, defences=[GaussianNoise(0.05)])

Vectors of an encoder that the attacker cannot call are first mapped into the space of one that he can, on a few pairs
(``embedlab.understand.relative.align``), and read there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.text.inversion.defences import (
    DefendedLeakage,
    GaussianNoise,
    Rounding,
    SecretRotation,
    Truncation,
    leakage_report,
)
from embedlab.text.inversion.measures import Inverter, Leakage, leakage
from embedlab.text.inversion.word_sets import FrequentWords, NearestText, TokenSetInverter

if TYPE_CHECKING:
    from embedlab.testing.probe import ProbeExample
    from embedlab.testing.trainer import TrainerExample
    from embedlab.text.inversion.writers import Correction, IterativeCorrector, PrefixInverter

__all__ = [
    "Correction",
    "DefendedLeakage",
    "FrequentWords",
    "GaussianNoise",
    "Inverter",
    "IterativeCorrector",
    "Leakage",
    "NearestText",
    "PrefixInverter",
    "Rounding",
    "SecretRotation",
    "TokenSetInverter",
    "Truncation",
    "example",
    "leakage",
    "leakage_report",
]

METHOD = {
    "card": 7,
    "title": "When Text Embedding Meets Large Language Model: A Comprehensive Survey (embedding inversion)",
    "authors": "Zhijie Nie, Zhangchi Feng, Mingxin Li, Cunwang Zhang, Yanzhao Zhang, Dingkun Long, Richong Zhang",
    "year": 2024,
    "source": "arXiv:2412.09165v3, section on embedding inversion",
    "kinds": {"probe": "leakage", "trainer": "PrefixInverter"},
    "extras": ["train"],
    "official_code": None,
    "deviations": [
        "The word-set attack is ridge regression with one threshold for all words, not logistic regression.",
        "The corrector is a decoder that reads vectors and guess as a prefix; vec2text uses an encoder-decoder.",
        "A round's best proposal is kept only if its vector is nearer than the guess so far: the cosine never falls.",
    ],
    "known_failures": [
        "Texts longer than the inverter was trained on come back in part only.",
        "A defence that the attacker knows can be learnt against: leakage under noise or rotation is that of an "
        "attacker who does not know.",
    ],
}

_TORCH = ("Correction", "IterativeCorrector", "PrefixInverter")


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name not in _TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from embedlab._core.extras import require

    require("transformers", extra="train")
    return getattr(import_module(f"{__name__}.writers"), name)


def example(seed: int = 0) -> dict[str, ProbeExample | TrainerExample]:
    """Make the smallest ready instances: nearest texts of random vectors, and a tiny writer with eight sentences.

    Args:
        seed: Decides the vectors.

    Returns:
        Kind -> example, for the contract checks.
    """
    import tempfile
    from pathlib import Path

    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from embedlab.testing.contract import Refusal
    from embedlab.testing.probe import KnownValue, ProbeExample
    from embedlab.testing.tiny_decoder import save_tiny_decoder
    from embedlab.testing.trainer import Trained, TrainerExample
    from embedlab.text.inversion.writers import PrefixInverter

    texts = [
        "my card has not come",
        "where is my card",
        "I want another pin",
        "the machine kept it",
        "which rate do you use",
        "close my account please",
        "a payment was taken twice",
        "can my child open one",
    ]
    rows = np.random.default_rng(seed).normal(size=(8, 6))
    nearest = NearestText().fit(rows, texts)
    with tempfile.TemporaryDirectory() as place:
        save_tiny_decoder(place, texts=texts, seed=seed, dim=16)
        decoder = AutoModelForCausalLM.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place)

    def train(folder: Path, *, seed: int, max_steps: int, vectors: Any = rows) -> Trained:
        inverter = PrefixInverter(decoder, tokenizer, tokens_per_vector=2, max_tokens=8, seed=seed)
        inverter.fit(
            vectors,
            texts,
            steps=max_steps,
            batch_size=4,
            learning_rate=1e-2,
            folder=folder,
            lr_scheduler_type="constant",
            warmup_steps=0,
            save_strategy="steps",
            save_steps=4,
        )
        reader: Any = inverter.reader
        weights = {name: weight.numpy(force=True).copy() for name, weight in reader.named_parameters()}
        return Trained(weights, max_steps, 4 * max_steps, inverter.losses)

    return {
        "probe": ProbeExample(
            compute=lambda vectors, words: leakage(vectors, words, inverter=nearest),
            inputs=(rows + 0.3, np.array(texts[4:] + texts[:4])),
            numbers=lambda found: found.f1,
            bounds=(0.0, 1.0),
            known=(
                KnownValue((rows, np.array(texts)), np.ones(8), "the attacker's own texts: all come back"),
                KnownValue(
                    (rows[:1], np.array(["my card"])), [4 / 7], "two of two words, two of five: 2 * 2 / (2 + 5)"
                ),
            ),
            refuses=(
                Refusal(lambda: leakage(rows, texts[:3], inverter=nearest), says="3 texts for 8 vectors"),
                Refusal(lambda: GaussianNoise(-1.0), says="sigma"),
                Refusal(lambda: Rounding(0), says="bits"),
                Refusal(lambda: Truncation(0), says="dim"),
                Refusal(lambda: TokenSetInverter(min_count=0), says="min_count"),
                Refusal(lambda: TokenSetInverter().scores(rows), says="fit"),
                Refusal(lambda: leakage_report(rows, texts, inverter=nearest, labels=texts, top_k=8), says="top_k=8"),
            ),
            rows="each",
            tie_rule="of training texts as near the first is given back",
        ),
        "trainer": TrainerExample(
            train=train,
            baseline=lambda folder, *, seed, max_steps: train(
                folder, seed=seed, max_steps=max_steps, vectors=np.zeros_like(rows)
            ),
            steps=8,
            data=rows,
            refuses=(
                Refusal(lambda: PrefixInverter(decoder, tokenizer, tokens_per_vector=0), says="tokens_per_vector"),
                Refusal(lambda: PrefixInverter(decoder, tokenizer).fit(rows, texts, steps=0), says="steps=0"),
                Refusal(
                    lambda: PrefixInverter(decoder, tokenizer).fit(rows, texts, learning_rate=0.0), says="learning_rate"
                ),
                Refusal(lambda: PrefixInverter(decoder, tokenizer).invert(rows), says="fit"),
            ),
        ),
    }
