"""A decoder that was taught to look both ways, or to sum up, before contrastive training is better after few steps.

LLM2Vec (arXiv:2404.05961v2) finds that switching a decoder to bidirectional attention hurts most models until they are
adapted by masked next-token prediction (MNTP); LLaRA (arXiv:2312.15503v1) that a vector trained to tell a text's words
(EBAE) makes a better start for dense retrieval.

Small here: the decoder of 5 million parameters made by ``embedlab.models.small_decoder``; docstring -> code of Python's
standard library, whole modules held out (they were held out of the decoder's own training as well), 48 tokens of each
text. MNTP and EBAE take as many steps on the same texts in the same order, without pairs; then all four arms take 24
contrastive steps of 24 pairs in the same order with the same learning rate. The causal arm and the two bidirectional
ones pool by the mean, EBAE reads the last token of its prompt. Seeds draw the order of texts and pairs and what is
hidden; the decoder is one. The two raw arms get no adaptation steps, which is what is being compared.

Falsified if MNTP does not make up for the switch, or EBAE's vectors are no better than the untrained prompt's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.data.loaders import Function, load_stdlib_functions
from embedlab.testing import Claim, data_hash, demand_close

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

_LLM2VEC = "bidirectional alone falls below causal for most models; MNTP lifts all of them above it"

CLAIMS = (
    Claim(
        id="mntp-makes-up-for-the-switch",
        words="After 24 contrastive steps, a bidirectional decoder adapted by MNTP beats one that was only switched.",
        metric="mrr_mntp",
        baseline="mrr_bidirectional",
        direction="higher",
        margin=0.0,
        published=_LLM2VEC,
        published_source="arXiv:2404.05961v2, section 3",
    ),
    Claim(
        id="mntp-beats-causal",
        words="It also beats the causal decoder.",
        metric="mrr_mntp",
        baseline="mrr_causal",
        direction="higher",
        margin=0.0,
        published=_LLM2VEC,
        published_source="arXiv:2404.05961v2, section 3",
    ),
    Claim(
        id="the-switch-alone-hurts",
        words="Before any training, switching to bidirectional attention hurts.",
        metric="zero_bidirectional",
        baseline="zero_causal",
        direction="lower",
        margin=0.0,
    ),
    Claim(
        id="ebae-zero-shot",
        words="Before any pairs, EBAE's vector finds far more than the same prompt untrained: at least twice as much.",
        metric="zero_ebae",
        baseline="twice_zero_prompt",
        direction="higher",
        margin=0.0,
    ),
    Claim(
        id="ebae-beats-causal",
        words="After 24 contrastive steps, EBAE beats the causal decoder.",
        metric="mrr_ebae",
        baseline="mrr_causal",
        direction="higher",
        margin=0.0,
    ),
)


@dataclass(frozen=True)
class Level:
    """What a level costs."""

    size: str
    functions: int
    adapt_steps: int
    pair_steps: int
    batch_size: int
    max_length: int
    test: int


LEVELS = {
    "smoke": Level("smoke", functions=60, adapt_steps=1, pair_steps=1, batch_size=4, max_length=24, test=8),
    "cpu": Level("cpu", functions=1600, adapt_steps=60, pair_steps=24, batch_size=24, max_length=48, test=150),
    "gpu": Level("cpu", functions=4000, adapt_steps=600, pair_steps=100, batch_size=64, max_length=128, test=700),
}
LEARNING_RATE = 1e-3  # for every arm and stage


def run(seed: int, level: str) -> dict[str, float | str]:
    """Adapt, contrast and judge the four arms."""
    from embedlab.models.bidirectional import to_bidirectional
    from embedlab.text.pre_adaptation import BagOfWordsLoss, MaskedNextTokenLoss

    setting = LEVELS[level]
    train, test = _functions(setting)
    rng = np.random.default_rng(seed)
    texts = [
        [part for one in rng.choice(len(train), setting.batch_size // 2) for part in _columns(train[one])]
        for _ in range(setting.adapt_steps)
    ]
    pairs = [
        [train[one] for one in rng.choice(len(train), setting.batch_size, replace=False)]
        for _ in range(setting.pair_steps)
    ]
    causal, prompt = _decoder(setting, None), _decoder(setting, "ebae")
    arms = {
        "causal": causal,
        "bidirectional": to_bidirectional(causal),
        "mntp": _fit(to_bidirectional(causal), lambda model: MaskedNextTokenLoss(model, seed=seed), texts, seed),
        "ebae": _fit(prompt, BagOfWordsLoss, texts, seed),
    }
    numbers: dict[str, float | str] = {f"zero_{name}": _mrr(model, test) for name, model in arms.items()}
    numbers["zero_prompt"] = _mrr(prompt, test)
    numbers["twice_zero_prompt"] = 2 * _mrr(prompt, test)
    for name, model in arms.items():
        numbers[f"mrr_{name}"] = _mrr(_contrast(model, pairs, seed), test)
    return {**numbers, "data": data_hash([one.code for one in test], [one.code for batch in pairs for one in batch])}


def oracle() -> None:
    """Check the bag-of-words loss against a loop over words, and MRR@10 against its definition."""
    import torch

    from embedlab.text.pre_adaptation import bag_loss

    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bags = [[0, 3], [1], [2, 3, 4]]
    marks = torch.zeros(3, 5)
    each = []
    for row, bag in enumerate(bags):
        marks[row, bag] = 1
        total = np.log(np.exp(scores[row].numpy()).sum())
        each.append(np.mean([total - float(scores[row, word]) for word in bag]))
    demand_close(float(bag_loss(scores, marks)), float(np.mean(each)), "bag loss against the loop over words")
    demand_close(_reciprocal(np.array([[0.9, 0.1], [0.9, 0.1]])), (1 + 1 / 2) / 2, "MRR of a first and a second place")


@cache
def _functions(setting: Level) -> tuple[list[Function], list[Function]]:
    functions = load_stdlib_functions(limit=setting.functions)
    kept = [one for one in functions if one.held_out] or functions
    return [one for one in functions if not one.held_out], kept[: setting.test]


def _columns(function: Function) -> tuple[str, str]:
    return function.summary, function.code


def _decoder(setting: Level, template: str | None) -> SentenceTransformer:
    """Open the decoder: with the mean over its last states, or the last token of a prompt."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from embedlab.models.small_decoder import small_decoder
    from embedlab.text.prompting import PromptEmbedder

    folder = str(small_decoder(size=setting.size))
    if template is not None:
        host: SentenceTransformer = PromptEmbedder(
            folder, method=template, max_length=setting.max_length, device="cpu"
        ).host
        return host
    body = Transformer(folder, max_seq_length=setting.max_length)
    return SentenceTransformer(
        modules=[body, Pooling(body.get_embedding_dimension(), pooling_mode="mean")], device="cpu"
    )


def _fit(
    model: SentenceTransformer, loss: Callable[[Any], nn.Module], batches: Sequence[list[str]], seed: int
) -> SentenceTransformer:
    made = copy.deepcopy(model)
    return _steps(made, loss(made), [[made.preprocess(batch)] for batch in batches], seed)


def _contrast(model: SentenceTransformer, batches: Sequence[list[Function]], seed: int) -> SentenceTransformer:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    made = copy.deepcopy(model)
    columns = [
        [made.preprocess([one.summary for one in batch]), made.preprocess([one.code for one in batch])]
        for batch in batches
    ]
    return _steps(made, MultipleNegativesRankingLoss(made), columns, seed)


def _steps(
    model: SentenceTransformer, loss: nn.Module, batches: Sequence[list[dict[str, Any]]], seed: int
) -> SentenceTransformer:
    """Take one step of AdamW per batch, the learning rate rising over a tenth and falling to zero."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    rise = max(1, len(batches) // 10)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step, columns in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(
                    (step + 1) / rise, (len(batches) - step) / max(1, len(batches) - rise)
                )
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(columns, None)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def _mrr(model: SentenceTransformer, test: Sequence[Function]) -> float:
    options: dict[str, Any] = {"batch_size": 64, "show_progress_bar": False, "normalize_embeddings": True}
    queries = model.encode([one.summary for one in test], **options)
    codes = model.encode([one.code for one in test], **options)
    return _reciprocal(np.asarray(queries @ codes.T, dtype=np.float64))


def _reciprocal(scores: np.ndarray[Any, Any]) -> float:
    """MRR@10 where document i answers query i; whatever scores as high stands before it."""
    own = np.diagonal(scores)[:, None]
    ranks = (scores > own).sum(1) + (scores == own).sum(1)
    return float(np.mean(np.where(ranks <= 10, 1 / ranks, 0)))
