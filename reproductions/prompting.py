"""A frozen causal language model embeds better by a mean than by its last token, and better still when it echoes.

The survey collects such findings: Echo (arXiv:2402.15449v1) gains over 9 % on zero-shot MTEB with a model of 7 billion
parameters over classical pooling; PromptEOL (arXiv:2307.16645v1) lifts such models from about 30-50 to 70-77 average
Spearman on STS; MetaEOL (arXiv:2402.18458v2), Token Prepending (arXiv:2412.11556v1) and PromptReps
(arXiv:2404.18424v2) build on the one-word prompt.

Small here: a decoder of 5 million parameters (``embedlab.models.small_decoder``), trained in minutes on two cores,
which has read 1.6 million tokens and never an instruction. 200 pairs of STS-B test; each method takes the better of two
layers on 80 pairs of the development part. Whitening is learned on the test sentences without their scores. In the
triples, two sentences of one meaning stand against the first one's beginning with the end of another sentence: means
over a causal model see the shared beginning twice and the end half. Cranfield, texts cut to 96 tokens, gives dense
states and sparse weights of one prompt (PromptReps); the weight of the fusion is chosen on half of the queries and
judged on the other. Seeds draw the pairs and halves; the decoder is the same for all (another takes minutes to train),
so their spread is that of the data alone.

Falsified if echo never helps a causal model. What can be expected to fail: the one-word prompt needs a model that has
learned to answer, and this one has not. Its state after such a prompt tells the prompt's end more than the text, so on
Cranfield it ranks little better than chance, dense and sparse alike; that fusing two such rankings loses nothing then
says little.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from embedlab.data.loaders import PairData, load_cranfield, load_stsb
from embedlab.testing import Claim, data_hash, demand_close

Floats = NDArray[np.float64]

_ECHO = ("zero-shot MTEB of a 7B model over 9 % above classical pooling", "arXiv:2402.15449v1, abstract")
_EOL = ("STS average about 30-50 -> 70-77 for frozen 7B models", "arXiv:2412.12591v2, section 3 (field figures)")


def _claim(
    name: str, words: str, metric: str, baseline: str, margin: float, source: tuple[str, str] = ("", "")
) -> Claim:
    return Claim(
        id=name,
        words=words,
        metric=metric,
        baseline=baseline,
        direction="higher",
        margin=margin,
        published=source[0] or None,
        published_source=source[1] or None,
    )


CLAIMS = (
    _claim("mean-beats-last", "The mean over tokens beats the last token.", "sts_mean", "sts_last", 0.02),
    _claim(
        "echo-beats-mean", "The mean over the second copy beats that of one pass.", "sts_echo", "sts_mean", 0.01, _ECHO
    ),
    _claim(
        "echo-last-beats-last",
        "The last token of the second copy beats that of one pass.",
        "sts_echo_last",
        "sts_last",
        0.01,
        _ECHO,
    ),
    _claim(
        "echo-parts-shared-beginnings",
        "Echo tells a paraphrase from a sentence of the same beginning more often than the mean of one pass.",
        "triples_echo",
        "triples_mean",
        0.01,
    ),
    _claim("eol-beats-last", "The one-word prompt beats the bare last token.", "sts_eol", "sts_last", 0.05, _EOL),
    _claim("meta-beats-eol", "Prompts for several tasks beat one.", "sts_meta", "sts_eol", 0.01),
    _claim("prepending-beats-eol", "A slot with the whole text beats none.", "sts_token_prepend", "sts_eol", 0.005),
    _claim("whitening-helps", "Whitening helps the one-word prompt.", "sts_eol_whitened", "sts_eol", 0.03),
    _claim(
        "hybrid-keeps-up",
        "Dense and sparse together are at most half a point of nDCG@10 below the better one.",
        "ndcg_hybrid",
        "ndcg_better_less_half_point",
        0.0,
    ),
    _claim(
        "a-frozen-prompt-retrieves",
        "Fused, the two find at least a tenth of what could be found.",
        "ndcg_hybrid",
        "ndcg_tenth",
        0.0,
    ),
)
STOP_WORDS = (
    "a an and any are as at be been by can do does for from has have how in is it its not of on one or that the there "
    "this to was what which with"
)

METHODS = ("last", "mean", "weighted_mean", "eol", "echo_last", "echo", "meta", "token_prepend")
LAYERS = (-1, -3)


@dataclass(frozen=True)
class Level:
    """What a level costs."""

    size: str
    dev: int
    test: int
    documents: int | None
    max_length: int


LEVELS = {
    "smoke": Level("smoke", dev=6, test=16, documents=60, max_length=64),
    "cpu": Level("cpu", dev=80, test=200, documents=None, max_length=96),
    "gpu": Level("cpu", dev=1000, test=1379, documents=None, max_length=256),
}


def run(seed: int, level: str) -> dict[str, float | str]:
    """Measure all methods on drawn pairs of STS-B, and the three rankings of Cranfield."""
    setting = LEVELS[level]
    rng = np.random.default_rng(seed)
    dev, test = _drawn(load_stsb("dev"), setting.dev, rng), _drawn(load_stsb("test"), setting.test, rng)
    triples = _triples(test, rng)
    numbers: dict[str, float | str] = {}
    for method in METHODS:
        layers = LAYERS if level != "smoke" else (-1,)
        layer = max(layers, key=lambda one: _spearman(_vectors(setting, method, one, dev.first + dev.second), dev))
        rows = _vectors(setting, method, layer, test.first + test.second)
        numbers[f"sts_{method}"] = _spearman(rows, test)
        numbers[f"sts_{method}_whitened"] = _spearman(_whitened(rows), test)
        numbers[f"layer_{method}"] = layer
        if method in ("last", "mean", "echo_last", "echo"):
            anchors, paraphrases, traps = np.split(
                _vectors(setting, method, layer, [text for part in triples for text in part]), 3
            )
            numbers[f"triples_{method}"] = float(np.mean(_cosines(anchors, paraphrases) > _cosines(anchors, traps)))
    numbers |= _rankings(setting, seed)
    return {**numbers, "data": data_hash(dev.first, test.first, triples, list(load_cranfield().queries))}


def oracle() -> None:
    """Check the scores used here against loops: Spearman by counting, nDCG by its definition."""
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    first, second = rng.permutation(9).astype(float), rng.permutation(9).astype(float)
    by_hand = 1 - 6 * sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) / (9 * 80)
    demand_close(spearmanr(first, second).statistic, by_hand, "Spearman against its formula for ranks without ties")
    scores, gains = np.array([0.1, 0.9, 0.5, 0.7]), np.array([3.0, 0.0, 1.0, 2.0])
    expected = (2 / np.log2(3) + 1 / np.log2(4) + 3 / np.log2(5)) / (3 / np.log2(2) + 2 / np.log2(3) + 1 / np.log2(4))
    demand_close(_ndcg(scores, gains), expected, "nDCG@10 against its sum")


def _drawn(pairs: PairData, count: int, rng: np.random.Generator) -> PairData:
    places = rng.choice(len(pairs.first), count, replace=False)
    return PairData(*([column[place] for place in places] for column in (pairs.first, pairs.second, pairs.scores)), [])


def _triples(pairs: PairData, rng: np.random.Generator) -> tuple[list[str], list[str], list[str]]:
    """Make (sentence, paraphrase, the sentence's beginning with another's end)."""
    alike = [
        (first, second)
        for first, second, score in zip(pairs.first, pairs.second, pairs.scores, strict=True)
        if score >= min(4.0, max(pairs.scores)) and len(first.split()) >= 6
    ]
    others = [sentence.split() for sentence in pairs.second if len(sentence.split()) >= 6]
    traps = []
    for first, _ in alike:
        words, other = first.split(), others[rng.integers(len(others))]
        traps.append(" ".join(words[: len(words) // 2] + other[len(other) // 2 :]))
    return [first for first, _ in alike], [second for _, second in alike], traps


@cache
def _embedder(setting: Level, method: str, layer: int) -> object:
    from embedlab.models.small_decoder import small_decoder
    from embedlab.text.prompting import PromptEmbedder

    return PromptEmbedder(small_decoder(size=setting.size), method=method, layer=layer, device="cpu")


def _vectors(setting: Level, method: str, layer: int, texts: list[str]) -> Floats:
    rows = _embedder(setting, method, layer).host.encode(texts, batch_size=32, show_progress_bar=False)  # type: ignore[attr-defined]
    return np.asarray(rows, dtype=np.float64)


def _whitened(rows: Floats) -> Floats:
    from embedlab.text.prompting import whitening

    matrix, mean = whitening(rows)
    return np.asarray((rows - mean) @ matrix.T)


def _cosines(first: Floats, second: Floats) -> Floats:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(1) / lengths)


def _spearman(rows: Floats, pairs: PairData) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(_cosines(*np.split(rows, 2)), pairs.scores).statistic)


@cache
def _scores(setting: Level) -> tuple[Floats, Floats, Floats]:
    """Score every document for every query, dense and sparse (Q, N), beside the grades; the same for all seeds."""
    data = load_cranfield()
    keys = list(data.corpus)[: setting.documents]
    queries = [query for query in data.queries if set(data.qrels[query]) & set(keys)]
    from embedlab.models.small_decoder import small_decoder
    from embedlab.text.prompting import PromptEmbedder

    encoder = PromptEmbedder(
        small_decoder(size=setting.size), method="promptreps", max_length=setting.max_length, device="cpu"
    )
    documents, asked = [str(data.corpus[key]) for key in keys], [data.queries[query] for query in queries]
    sample = encoder.fit(documents, fix="whiten")
    dense = sample.encode_query(asked) @ sample.encode_document(documents).T
    encoder.host.pop(-1)  # sparse weights come from the states as they are
    weights = [encoder.encode_sparse(texts, stop_words=STOP_WORDS.split()) for texts in (asked, documents)]
    sparse = (weights[0] @ weights[1].T).toarray()
    grades = np.array([[data.qrels[query].get(key, 0) for key in keys] for query in queries], dtype=np.float64)
    return np.asarray(dense, dtype=np.float64), np.asarray(sparse, dtype=np.float64), grades


def _rankings(setting: Level, seed: int) -> dict[str, float]:
    from embedlab.text.prompting import fuse_scores

    dense, sparse, grades = _scores(setting)
    order = np.random.default_rng([seed, 1]).permutation(len(grades))
    half, other = np.split(order, [len(order) // 2])

    def score(scores: Floats, rows: NDArray[np.int64]) -> float:
        return float(np.mean([_ndcg(scores[row], grades[row]) for row in rows]))

    weights = np.linspace(0.1, 0.9, 9)
    weight = max(weights, key=lambda one: score(fuse_scores(dense, sparse, weight=one), half))
    parts = {"ndcg_dense": score(dense, other), "ndcg_sparse": score(sparse, other)}
    return {
        **parts,
        "ndcg_hybrid": score(fuse_scores(dense, sparse, weight=weight), other),
        "ndcg_better_less_half_point": max(parts.values()) - 0.005,
        "ndcg_tenth": 0.1,
        "weight": float(weight),
    }


def _ndcg(scores: Floats, gains: Floats, top_k: int = 10) -> float:
    discounts = 1 / np.log2(np.arange(2, top_k + 2))
    found, best = gains[np.argsort(-scores, kind="stable")[:top_k]], np.sort(gains)[::-1][:top_k]
    return float((found * discounts[: len(found)]).sum() / (best * discounts[: len(best)]).sum())
