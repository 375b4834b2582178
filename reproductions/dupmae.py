"""Pre-training that makes [CLS] and the other tokens hold the text gives better search than predicting masked words.

Published in Liu et al. (2023), arXiv:2305.02564v1: after fine-tuning, DupMAE searches better than RetroMAE, which is
better than masked language modelling; and its two halves together are better than either at the same total width.

Small here: a BERT of 2 layers, 128 wide, 6,144 wordpieces, that has read general text by masked language modelling
(``embedlab.models.small_encoder``) goes on for 80 steps of 16 windows on the unlabelled documents of the target
collections: abstracts of Cranfield (all that a query asks for, and a third of the others) and the code of 667 functions
of Python's standard library. The three objectives see the same windows and the same masks. Fine-tuning is contrastive,
40 steps on other texts (docstring -> code of other modules, title -> abstract of SciFact), the same batches for all.
Text is cut at 64 tokens. Queries of one half of each collection chose the learning rates, on masked language modelling
alone; the other half is reported: the mean of nDCG@10 on Cranfield and MRR@10 on docstring -> code.

Falsified if dupmae with both halves is not better than masked language modelling after fine-tuning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from embedlab.data.loaders import load_cranfield, load_scifact, load_stdlib_functions
from embedlab.testing import Claim, data_hash, demand_close

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from embedlab.text.dupmae import DuplexEncoder, MAEPretrainer
    from embedlab.text.dupmae.objective import Objective

_SOURCE = "arXiv:2305.02564v1, tables 1 and 6"

CLAIMS = (
    Claim(
        id="words-without-labels",
        words="Without any label, the words of dupmae find more than the [CLS] vector of masked language modelling.",
        metric="zero_dupmae_ot",
        baseline="zero_mlm_cls",
        direction="higher",
        margin=0.1,
    ),
    Claim(
        id="dupmae-beats-mlm",
        words="After fine-tuning, dupmae with both halves is better than masked language modelling.",
        metric="tuned_dupmae_both",
        baseline="tuned_mlm_cls",
        direction="higher",
        margin=0.01,
        published="BEIR nDCG@10: BERT 0.371, DupMAE 0.477",
        published_source=_SOURCE,
    ),
    Claim(
        id="retromae-beats-mlm",
        words="After fine-tuning, the [CLS] vector of retromae is better than that of masked language modelling.",
        metric="tuned_retromae_cls",
        baseline="tuned_mlm_cls",
        direction="higher",
        margin=0.01,
        published="BEIR nDCG@10: BERT 0.371, RetroMAE 0.452",
        published_source=_SOURCE,
    ),
    Claim(
        id="dupmae-beats-retromae",
        words="After fine-tuning, dupmae with both halves is better than retromae.",
        metric="tuned_dupmae_both",
        baseline="tuned_retromae_cls",
        direction="higher",
        margin=0.01,
        published="MS MARCO MRR@10: RetroMAE 0.393, DupMAE 0.410; BEIR nDCG@10: 0.452, 0.477",
        published_source=_SOURCE,
    ),
    Claim(
        id="both-beat-cls",
        words="At the same total width, both halves are better than [CLS] alone.",
        metric="tuned_dupmae_both",
        baseline="tuned_dupmae_cls",
        direction="higher",
        margin=0.01,
        published="MS MARCO MRR@10: CLS 768 0.394, CLS 384 + OT 384 0.410",
        published_source=_SOURCE,
    ),
    Claim(
        id="both-beat-words",
        words="At the same total width, both halves are better than words alone.",
        metric="tuned_dupmae_both",
        baseline="tuned_dupmae_ot",
        direction="higher",
        margin=0.0,
        published="MS MARCO MRR@10: OT 768 0.402, CLS 384 + OT 384 0.410",
        published_source=_SOURCE,
    ),
)

OBJECTIVES: tuple[Objective, ...] = ("mlm", "retromae", "dupmae")
ARMS = {"mlm": ("cls", "ot"), "retromae": ("cls",), "dupmae": ("cls", "ot", "both")}


@dataclass(frozen=True)
class Level:
    """What a level costs."""

    width: int  # of the encoder, and so of dense part and words together
    length: int
    steps: int  # of pre-training
    batch_size: int
    learning_rate: float
    tuning_steps: int
    tuning_batch: int
    tuning_rate: float
    every: int  # one text in so many


LEVELS = {
    "smoke": Level(32, 24, 2, 4, 1e-3, 2, 8, 1e-3, every=30),
    "cpu": Level(128, 64, 80, 16, 5e-4, 40, 24, 1e-3, every=1),
    "gpu": Level(384, 128, 4000, 64, 3e-4, 600, 64, 5e-5, every=1),
}


@dataclass(frozen=True)
class Task:
    """A collection: which documents answer which query."""

    documents: list[str]
    queries: list[str]
    right: list[set[int]]


def oracle() -> None:
    """The score equals the sum over the words a document keeps; the bag's loss equals the loop over words."""
    import torch

    from embedlab.text.dupmae import DuplexDocuments, DuplexQueries, bag_of_words_loss, score
    from embedlab.text.dupmae.vectors import strongest_words

    rng = np.random.default_rng(0)
    dense, words = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(5, 30)).astype(np.float32)
    asked = DuplexQueries(rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(3, 30)).astype(np.float32))
    slow = np.zeros((3, 5))
    for q in range(3):
        for d in range(5):
            kept = sorted(range(30), key=lambda word: -words[d, word])[:7]
            slow[q, d] = asked.dense[q] @ dense[d] + sum(asked.words[q, word] * words[d, word] for word in kept)
    found = score(asked, DuplexDocuments(dense, strongest_words(words, 7)))
    demand_close(found, slow, "score against the loop over kept words", atol=1e-4)

    texts = [[3, 5, 3, 9], [4]]  # one word twice
    loss = 0.0
    for row, text in enumerate(texts):
        chance = np.exp(words[row].astype(float)) / np.exp(words[row].astype(float)).sum()
        loss -= sum(np.log(chance[word]) for word in set(text)) / len(text) / len(texts)
    unique = torch.tensor([[3, 5, -100, 9], [4, -100, -100, -100]])
    tokens = torch.tensor([[3, 5, 3, 9], [4, -100, -100, -100]])
    demand_close(bag_of_words_loss(torch.tensor(words[:2]), unique, tokens).item(), loss, "loss of the bag of words")


def run(seed: int, level: str) -> dict[str, float | str]:
    """Pre-train by the three objectives, look up both collections without and after fine-tuning."""
    setting = LEVELS[level]
    tasks, corpus, pairs = _data(setting.every)
    batches = list(_batches(pairs, setting, seed))
    numbers: dict[str, float | str] = {"data": data_hash(corpus, [str(group) for group in pairs])}
    _note(numbers, "bm25", _bm25(tasks))
    half = setting.width // 2
    widths = {"cls": (setting.width, 1), "ot": (1, setting.width), "both": (half, setting.width - half)}
    for objective in OBJECTIVES:
        pretrainer = _pretrained(objective, corpus, setting, level, seed)
        for mode in ARMS[objective]:
            encoder = _encoder(pretrainer, mode, *widths[mode], seed=seed, texts=corpus)
            if mode != "both":  # which stands for nothing before it is tuned
                _note(numbers, f"zero_{objective}_{mode}", _search(encoder, tasks))
            if (objective, mode) != ("mlm", "ot"):  # nothing has taught its words; only looked at
                _tune(encoder.host, batches, setting)
                _note(numbers, f"tuned_{objective}_{mode}", _search(encoder, tasks))
            if mode == "both":  # as many bits as [CLS] alone: the place of a word is stored too
                kept = half * 32 // (32 + int(np.ceil(np.log2(encoder.pooling.vocabulary))))
                _note(numbers, "tuned_dupmae_both_equal_bits", _search(encoder, tasks, kept=kept))
    return numbers


def _note(numbers: dict[str, float | str], name: str, found: dict[str, float]) -> None:
    """Write the mean of the two tasks, and each."""
    numbers[name] = float(np.mean(list(found.values())))
    numbers.update({f"{name}_{task}": value for task, value in found.items()})


@cache
def _data(every: int) -> tuple[dict[str, Task], list[str], tuple[tuple[tuple[str, str], ...], ...]]:
    """Return the two collections, the unlabelled corpus, and pairs to fine-tune on from two other sources."""
    cranfield, functions = load_cranfield(), load_stdlib_functions(limit=None if every == 1 else 600)
    asked = {key: text for key, text in cranfield.queries.items() if int(key) % 2 == 0}
    wanted = {document for key in list(asked)[::every] for document in cranfield.qrels[key]}
    others = max(3, every)  # of the abstracts that no query asks for, one in so many
    kept = [key for place, key in enumerate(cranfield.corpus) if key in wanted or place % others == 0]
    place_of = {key: place for place, key in enumerate(kept)}
    chosen = list(asked)[::every]
    held_out = [each for each in functions if each.held_out][::every]
    tested = [place for place, each in enumerate(held_out) if crc32(each.summary.encode()) % 2 == 0]
    tasks = {
        "cranfield": Task(
            [str(cranfield.corpus[key]) for key in kept],
            [asked[key] for key in chosen],
            [{place_of[document] for document in cranfield.qrels[key]} for key in chosen],
        ),
        "docstrings": Task(
            [each.code for each in held_out],
            [held_out[place].summary for place in tested],
            [{place} for place in tested],
        ),
    }
    known = [each for each in functions if not each.held_out][::every]
    corpus = [text for task in tasks.values() for text in task.documents if text.strip()]
    titles = [(text.title, text.text) for text in load_scifact().corpus.values()][::every]
    return tasks, corpus, (tuple((each.summary, each.code) for each in known), tuple(titles))


def _bm25(tasks: dict[str, Task]) -> dict[str, float]:
    from embedlab.models.lexical import Bm25

    found = {}
    for name, task in tasks.items():
        model = Bm25().fit(task.documents)
        found[name] = _quality(name, task, model.rank(task.queries, model.sparse_documents(task.documents))[0])
    return found


@cache
def _start(level: str) -> Any:
    """The masked language model that all objectives go on from, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from embedlab.models.small_encoder import small_encoder, wordpieces
    from embedlab.text.dupmae import masked_lm

    if level == "cpu":
        return masked_lm(small_encoder())
    setting = LEVELS[level]  # from scratch
    vocabulary, layers = (600, 1) if level == "smoke" else (30522, 6)
    tokenizer = wordpieces(_data(setting.every)[1], vocabulary=vocabulary, length=setting.length)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=setting.width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, setting.width // 64),
        intermediate_size=4 * setting.width,
        max_position_embeddings=setting.length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(config)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _pretrained(objective: Objective, corpus: list[str], setting: Level, level: str, seed: int) -> MAEPretrainer:
    from embedlab.text.dupmae import MAEPretrainer

    model, tokenizer = _start(level)
    pretrainer = MAEPretrainer(model, objective=objective, tokenizer=tokenizer, max_length=setting.length, seed=seed)
    with TemporaryDirectory() as folder:
        pretrainer.train(
            corpus,
            Path(folder),
            steps=setting.steps,
            batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
            arguments={"bf16": level == "gpu"},
        )
    return pretrainer


def _encoder(
    pretrainer: MAEPretrainer, mode: Any, dense_dim: int, sparse_k: int, *, seed: int, texts: list[str]
) -> DuplexEncoder:
    from embedlab.text.dupmae import DuplexEncoder

    encoder = DuplexEncoder(
        pretrainer.model,
        tokenizer=pretrainer.tokenizer,
        dense_dim=dense_dim,
        sparse_k=sparse_k,
        mode=mode,
        max_length=pretrainer.max_length,
        seed=seed,
    )
    if mode == "both":
        encoder.balance(texts[:200])
    return encoder


def _batches(
    pairs: tuple[tuple[tuple[str, str], ...], ...], setting: Level, seed: int
) -> Iterator[tuple[list[str], list[str]]]:
    """Draw batches of one source each, the two in turn."""
    rng = np.random.default_rng(seed)
    orders = [np.concatenate([rng.permutation(len(group)) for _ in range(9)]) for group in pairs]
    for step in range(setting.tuning_steps):
        group, order = pairs[step % len(pairs)], orders[step % len(pairs)]
        start = step // len(pairs) * setting.tuning_batch
        first, second = zip(*(group[place] for place in order[start : start + setting.tuning_batch]), strict=True)
        yield list(first), list(second)


def _tune(model: SentenceTransformer, batches: list[tuple[list[str], list[str]]], setting: Level) -> None:
    """Contrast; the temperature is the spread of the untrained scores, so that all arms start alike."""
    import torch

    from embedlab.text.dupmae import DuplexScore, duplex_loss, pooling_of

    def features(texts: list[str]) -> dict[str, Any]:
        found = model.preprocess(texts)
        return {key: value.to(model.device) for key, value in found.items() if hasattr(value, "to")}

    with torch.no_grad():
        first, second = (model(features(column))["sentence_embedding"] for column in batches[0])
        spread = DuplexScore(pooling_of(model))(first, second).std().item()
    loss = duplex_loss(model, temperature=spread)
    optimiser = torch.optim.AdamW(model.parameters(), lr=setting.tuning_rate)
    model.train()
    for step, columns in enumerate(batches):
        done = (step + 1) / (len(batches) + 1)
        for group in optimiser.param_groups:  # linear warm-up over a tenth, then linear decay
            group["lr"] = setting.tuning_rate * min(done / 0.1, (1 - done) / 0.9)
        optimiser.zero_grad()
        loss([features(column) for column in columns], None).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.eval()


def _search(encoder: DuplexEncoder, tasks: dict[str, Task], *, kept: int | None = None) -> dict[str, float]:
    from embedlab.text.dupmae import DuplexIndex

    found = {}
    for name, task in tasks.items():
        documents = encoder.encode_document(task.documents, batch_size=64)
        if kept is not None:
            documents = documents.with_words(kept)
        ranked, _ = DuplexIndex(documents).search(encoder.encode_query(task.queries), top_k=10)
        found[name] = _quality(name, task, ranked)
    return found


def _quality(name: str, task: Task, ranked: NDArray[np.int64]) -> float:
    """Mean nDCG@10 on Cranfield, mean reciprocal rank of the first ten on docstrings."""
    values = []
    for row, right in zip(ranked[:, :10].tolist(), task.right, strict=True):
        hits = np.array([place in right for place in row], dtype=float)
        if name == "cranfield":
            gains = 1 / np.log2(np.arange(2, 12))
            values.append(float((hits * gains[: len(hits)]).sum() / gains[: len(right)].sum()))
        else:
            values.append(float(1 / (1 + hits.argmax())) if hits.any() else 0.0)
    return float(np.mean(values))
