"""The contrastive entropy of a dense retriever falls with its size and its data along a power law.

Fang et al. (2024), arXiv:2403.18684v2, fit L(N, D) = [(A/N)^(alpha/beta) + B/D]^beta + delta to retrievers of 0.5 to 82
million parameters on MS MARCO and reach R^2 above 0.99; the survey recommends the fit for dividing a budget.

Small here: bidirectional transformers trained from nothing, 1 or 2 layers of 16 to 96, on 500 to 4,000 pairs of
one-line and long descriptions of Debian's packages, two passes each; the entropy among 256 packages that nobody trained
on. Word embeddings do not count in N. The law is fitted to all sizes but the largest, which it must predict. At the gpu
level: five sizes up to 20 million and five amounts of data.

Falsified if the entropy does not fall with size and data.

Measured: it falls with both, by far. The law does not fit (R^2 0.84 to 0.89) and misses the largest model by 18 to 26 %
of its entropy. Likely reason: two passes over 500 pairs are a few dozen steps, so the small runs end half trained, and
the law is one of trained models.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from embedlab.data.loaders import load_debian_packages
from embedlab.testing import Claim, data_hash, demand_close

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_FIT = ("R^2 above 0.99", "arXiv:2412.12591v2, on dense retrieval; fits of arXiv:2403.18684v2")

CLAIMS = (
    Claim(
        id="falls-with-size",
        words="With all data, the largest model is less surprised than the smallest.",
        metric="entropy_largest",
        baseline="entropy_smallest",
        direction="lower",
        margin=0.05,
    ),
    Claim(
        id="falls-with-data",
        words="The largest model is less surprised after all pairs than after an eighth of them.",
        metric="entropy_largest",
        baseline="entropy_little_data",
        direction="lower",
        margin=0.1,
    ),
    Claim(
        id="law-fits",
        words="The joint law explains at least nine tenths of the variance of the runs that it was fitted to.",
        metric="r2",
        baseline=0.9,
        direction="higher",
        margin=0.0,
        published=_FIT[0],
        published_source=_FIT[1],
    ),
    Claim(
        id="predicts-the-largest",
        words="Fitted to the other sizes, it predicts the largest within a tenth of its entropy.",
        metric="held_out_error",
        baseline=0.1,
        direction="lower",
        margin=0.0,
    ),
)


@dataclass(frozen=True)
class Level:
    """What a level costs."""

    shapes: tuple[tuple[int, int], ...]  # layers, width
    pairs: tuple[int, ...]
    batch_size: int
    epochs: int
    vocabulary: int
    test: int


LEVELS = {
    "smoke": Level(((1, 16), (1, 32), (2, 32)), (16, 32, 64), batch_size=16, epochs=1, vocabulary=512, test=32),
    "cpu": Level(
        ((1, 16), (1, 32), (1, 64), (2, 96)),
        (500, 1000, 2000, 4000),
        batch_size=32,
        epochs=2,
        vocabulary=4096,
        test=256,
    ),
    "gpu": Level(
        ((2, 128), (4, 192), (4, 256), (6, 384), (8, 448)),
        (2000, 4000, 8000, 16_000, 32_000),
        batch_size=64,
        epochs=3,
        vocabulary=8192,
        test=256,
    ),
}
LEARNING_RATE = 2e-3
MAX_LENGTH = 32


def run(seed: int, level: str) -> dict[str, float | str]:
    """Train every size on every amount of data, fit, and predict the largest size."""
    from embedlab.understand.scaling_law import fit_joint

    setting = LEVELS[level]
    pairs, test = _pairs(setting)
    order = np.random.default_rng(seed).permutation(len(pairs))
    runs = []
    for layers, dim in setting.shapes:
        for count in setting.pairs:
            model = _model(setting, layers, dim, seed)
            _train(model, [pairs[place] for place in order[:count]], setting, seed)
            runs.append((_size(model), count, _entropy(model, test)))
    sizes, data, entropies = (np.array(column, dtype=np.float64) for column in zip(*runs, strict=True))
    seen = sizes < sizes.max()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the smoke level has too few runs
        law = fit_joint(sizes[seen], data[seen], entropies[seen])
    of = {(size, count): entropy for size, count, entropy in runs}
    small, large, least, most = sizes.min(), sizes.max(), data.min(), data.max()
    size, count = law.best_split(6 * 2 * MAX_LENGTH * small * most, cost=6 * 2 * MAX_LENGTH)
    return {
        "entropy_smallest": of[small, most],
        "entropy_largest": of[large, most],
        "entropy_little_data": of[large, least],
        "r2": law.r2,
        "held_out_error": law.held_out_error(entropies[~seen], sizes=sizes[~seen], data=data[~seen]),
        "alpha": law.alpha,
        "beta": law.beta,
        "delta": law.delta,
        "best_size": size,
        "best_pairs": count,
        "largest_parameters": float(large),
        "data": data_hash([text for pair in test for text in pair], [pairs[place][0] for place in order]),
    }


def oracle() -> None:
    """Check the entropy against its definition and a planted law against the fit."""
    from embedlab.understand.scaling_law import ScalingLaw, contrastive_entropy, fit_joint

    rows = np.random.default_rng(0).normal(size=(5, 3))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    slow = [
        np.log(sum(np.exp(unit[one] @ unit[other] / 0.1) for other in range(5))) - unit[one] @ unit[one] / 0.1
        for one in range(5)
    ]
    demand_close(contrastive_entropy(rows, rows, temperature=0.1), np.array(slow), "entropy against the sum")
    planted = ScalingLaw(0.5, 0.4, 4e5, 2e3, 0.5, 1.0, 36)
    sizes, data = (each.ravel() for each in np.meshgrid(np.geomspace(1e4, 1e8, 6), np.geomspace(1e2, 1e6, 6)))
    found = fit_joint(sizes, data, planted.predict(sizes, data))
    demand_close(found.alpha, planted.alpha, "the planted exponent of size", atol=0.01)
    demand_close(found.beta, planted.beta, "the planted exponent of data", atol=0.01)


@cache
def _pairs(setting: Level) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Draw packages evenly: one-line and long description; one in ten is kept for testing, by its name."""
    seen: set[str] = set()
    train, test = [], []
    for package in sorted(load_debian_packages(), key=lambda one: crc32(one.name.encode())):
        pair = package.short, " ".join(package.long.split())[:240]
        if len(pair[1]) < 60 or seen & set(pair):
            continue
        seen |= set(pair)
        (test if crc32(package.name[::-1].encode()) % 10 == 0 else train).append(pair)
        if len(train) >= max(setting.pairs) and len(test) >= setting.test:
            break
    return train[: max(setting.pairs)], test[: setting.test]


@cache
def _tokenizer(setting: Level) -> Any:
    from embedlab.models.small_decoder import train_tokenizer

    texts = [text for pair in _pairs(setting)[0][:4000] for text in pair]
    return train_tokenizer(texts, vocabulary=setting.vocabulary, context=MAX_LENGTH)


def _model(setting: Level, layers: int, dim: int, seed: int) -> SentenceTransformer:
    import tempfile

    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    tokenizer = _tokenizer(setting)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        intermediate_size=dim * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=max(1, dim // 32),
        max_position_embeddings=MAX_LENGTH,
        is_causal=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        transformers.LlamaModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        body = Transformer(folder, max_seq_length=MAX_LENGTH)
    return SentenceTransformer(modules=[body, Pooling(dim, pooling_mode="mean")], device="cpu")


def _train(model: SentenceTransformer, pairs: list[tuple[str, str]], setting: Level, seed: int) -> None:
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    rng = np.random.default_rng([seed, 1])
    batches = [
        places
        for _ in range(setting.epochs)
        for places in np.array_split(rng.permutation(len(pairs)), len(pairs) // setting.batch_size)
    ]
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=len(batches), pct_start=0.1)
    model.train()
    for places in batches:
        columns = [model.preprocess([pairs[place][side] for place in places]) for side in (0, 1)]
        loss(columns, None).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()


def _entropy(model: SentenceTransformer, test: list[tuple[str, str]]) -> float:
    from embedlab.understand.scaling_law import contrastive_entropy

    columns = [model.encode([pair[side] for pair in test], batch_size=64, show_progress_bar=False) for side in (0, 1)]
    return float(contrastive_entropy(*columns).mean())


def _size(model: SentenceTransformer) -> int:
    """Count the parameters without the word embeddings."""
    return sum(one.numel() for name, one in model.named_parameters() if "embed_tokens" not in name)
