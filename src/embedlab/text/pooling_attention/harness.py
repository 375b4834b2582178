"""A fair comparison of designs: one decoder, one order of rows, as many steps; then the same questions to each.

A probe is a data set with a score: what the designs are compared on, and, with ``understand.layers``, the layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.ops.weighted import midranks

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from embedlab.text.pooling_attention.factory import Design

Encode: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]  # texts -> unit rows
Rows: TypeAlias = Sequence[Sequence[str]]  # anchor, positive, negatives


@dataclass(frozen=True, slots=True)
class Probe:
    """A data set with a score.

    Attributes:
        name: The data set.
        type: What kind of question it asks: ``"similarity"``, ``"search"``, ``"classification"`` or ``"clustering"``.
        score: From a function that gives texts unit rows to a number; larger is better.
    """

    name: str
    type: str
    score: Callable[[Encode], float]


@dataclass(frozen=True, slots=True)
class Tuning:
    """How every design is tuned.

    Attributes:
        steps: Optimiser steps.
        batch_size: Rows in a step.
        learning_rate: Highest one of the decoder, reached after a tenth of the steps; then it falls to 0.
        head_learning_rate: That of the pooling, which begins from nothing; None for the decoder's.
        max_seq_length: Longest text in tokens.
        scale: Of the loss: 1 / temperature.
        num_latents: Latents of poolings that have some.
        num_heads: Attention heads of poolings that have some.
        head_dim: Width of such a head; None for each pooling's own rule.
        in_batch_negatives: Whether other rows give negatives.
    """

    steps: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-4
    head_learning_rate: float | None = None
    max_seq_length: int = 48
    scale: float = 20.0
    num_latents: int = 32
    num_heads: int = 8
    head_dim: int | None = 32
    in_batch_negatives: bool = True


def tune_designs(
    base: str | Path | SentenceTransformer,
    designs: Mapping[str, Design],
    *,
    rows: Rows,
    probes: Sequence[Probe],
    tuning: Tuning | None = None,
    seed: int = 0,
    device: str | None = None,
    on_design: Callable[[str, SentenceTransformer], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Tune each design of a decoder on the same rows in the same order, and score it on every probe.

    Args:
        base: The decoder; see ``build_llm_embedder``.
        designs: Name -> pooling and attention, such as ``DESIGNS`` and ``VARIANTS`` hold.
        rows: Anchor, positive and negatives, as many in every row.
        probes: What to score them on; the texts must not be among the rows.
        tuning: Steps and sizes, the same for all.
        seed: Decides the order of the rows and the poolings' first weights.
        device: Where torch runs, e.g. ``"cpu"``; None lets the library choose.
        on_design: Called with each tuned model.

    Returns:
        Design -> probe -> score.

    Raises:
        InputError: there are no rows, or fewer than a batch.
    """
    from embedlab.text.nv_embed.loss import HardNegativesRankingLoss
    from embedlab.text.pooling_attention.factory import build_llm_embedder

    tuning = tuning or Tuning()
    if len(rows) < tuning.batch_size:
        raise InputError(f"rows: {len(rows)}, expected at least a batch of {tuning.batch_size}")
    found = {}
    for name, (pooling, attention) in designs.items():
        names = () if pooling in ("eos", "mean") else ("num_latents", "num_heads", "head_dim")
        sizes: dict[str, Any] = {name: getattr(tuning, name) for name in names}
        model = build_llm_embedder(
            base,
            pooling=pooling,
            attention=attention,
            max_seq_length=tuning.max_seq_length,
            device=device,
            seed=seed,
            **sizes,
        )
        loss = HardNegativesRankingLoss(model, scale=tuning.scale, in_batch_negatives=tuning.in_batch_negatives)
        head = tuning.head_learning_rate or tuning.learning_rate
        train_steps(model, loss, batches(rows, tuning.steps, tuning.batch_size, seed), tuning.learning_rate, head=head)
        found[name] = score_probes(model, probes)
        if on_design is not None:
            on_design(name, model)
    return found


def train_steps(
    model: SentenceTransformer,
    loss: nn.Module,
    given: Sequence[Rows],
    learning_rate: float,
    *,
    head: float | None = None,
) -> None:
    """Train a model on batches, one step each, with a learning rate that rises over a tenth and then falls to 0.

    Args:
        model: The model; it is changed.
        loss: A loss of the host on it.
        given: The batches.
        learning_rate: The highest one.
        head: That of the modules after the first; None for the same.
    """
    torch = require("torch", extra="train")
    groups = [
        {"params": [p for p in model[0].parameters() if p.requires_grad], "peak": learning_rate},
        {
            "params": [p for m in list(model)[1:] for p in m.parameters() if p.requires_grad],
            "peak": head or learning_rate,
        },
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, weight_decay=0.01)
    model.train(False)  # dropout off: the designs shall differ in nothing else
    for step, batch in enumerate(given):
        done = (step + 1) / (len(given) + 1)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * min(done / 0.1, (1 - done) / 0.9)
        columns = [_on(model.device, model.preprocess(list(column))) for column in zip(*batch, strict=True)]
        optimiser.zero_grad()
        loss(columns, None).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


def _on(device: Any, features: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}


def batches(rows: Rows, steps: int, size: int, seed: int) -> list[Rows]:
    """Draw batches, every row once before any comes again.

    Args:
        rows: The rows.
        steps: How many batches.
        size: Rows in one.
        seed: Decides the order.

    Returns:
        The batches.
    """
    return list(_batches(rows, steps, size, np.random.default_rng(seed)))


def _batches(rows: Rows, steps: int, size: int, generator: np.random.Generator) -> Iterator[Rows]:
    queue: list[int] = []
    for _ in range(steps):
        if len(queue) < size:
            queue = list(generator.permutation(len(rows)))
        drawn, queue = queue[:size], queue[size:]
        yield [rows[place] for place in drawn]


def score_probes(model: SentenceTransformer, probes: Sequence[Probe]) -> dict[str, float]:
    """Score a model on every probe, embedding each text once.

    Args:
        model: The model.
        probes: The probes.

    Returns:
        Probe -> score.
    """
    known: dict[str, NDArray[np.float32]] = {}

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            vectors = model.encode(new, batch_size=64, show_progress_bar=False, normalize_embeddings=True)
            known.update(zip(new, vectors, strict=True))
        return np.stack([known[text] for text in texts])

    return {probe.name: float(probe.score(encode)) for probe in probes}


def similarity(name: str, first: Sequence[str], second: Sequence[str], scores: Sequence[float]) -> Probe:
    """Make a probe of scored pairs: Spearman's correlation of cosines with the scores.

    Args:
        name: The data set.
        first: First texts.
        second: Second texts.
        scores: How alike people found them.

    Returns:
        The probe.
    """

    def score(encode: Encode) -> float:
        cosines = np.einsum("nd,nd->n", encode(first), encode(second))
        ranks = midranks(np.stack([cosines, scores]).astype(np.float64))
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])

    return Probe(name, "similarity", score)


def search(name: str, queries: Sequence[str], documents: Sequence[str], answers: Sequence[set[int]]) -> Probe:
    """Make a probe of search: mean reciprocal rank of the first answer among the ten best.

    Args:
        name: The data set.
        queries: The queries.
        documents: The documents.
        answers: Positions of the right documents, for each query.

    Returns:
        The probe.
    """

    def score(encode: Encode) -> float:
        best = np.argsort(-(encode(queries) @ encode(documents).T), axis=1, kind="stable")[:, :10]
        hits = [[int(place) in right for place in row] for row, right in zip(best, answers, strict=True)]
        return float(np.mean([1 / (row.index(True) + 1) if True in row else 0.0 for row in hits]))

    return Probe(name, "search", score)


def classes(
    name: str, texts: Sequence[str], labels: Sequence[Any], queries: Sequence[str], gold: Sequence[Any]
) -> Probe:
    """Make a probe of classification: accuracy of the vote of the five nearest labelled texts.

    Args:
        name: The data set.
        texts: Labelled texts.
        labels: Their classes.
        queries: Texts to classify.
        gold: Their classes.

    Returns:
        The probe.
    """
    known = sorted(set(labels))
    numbers = np.array([known.index(label) for label in labels])

    def score(encode: Encode) -> float:
        near = np.argsort(-(encode(queries) @ encode(texts).T), axis=1, kind="stable")[:, :5]
        votes = [np.bincount(numbers[row], minlength=len(known)).argmax() for row in near]
        return float(np.mean([known[vote] == right for vote, right in zip(votes, gold, strict=True)]))

    return Probe(name, "classification", score)


def clusters(name: str, texts: Sequence[str], labels: Sequence[Any], *, seed: int = 0) -> Probe:
    """Make a probe of clustering: V-measure of k-means with as many clusters as classes.

    Args:
        name: The data set.
        texts: The texts.
        labels: Their classes.
        seed: Of k-means.

    Returns:
        The probe.
    """

    def score(encode: Encode) -> float:
        cluster, metrics = require("sklearn.cluster", extra="train"), require("sklearn.metrics", extra="train")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fewer different vectors than clusters: that is the model's doing
            found = cluster.KMeans(len(set(labels)), n_init=1, random_state=seed).fit_predict(encode(texts))
        return float(metrics.v_measure_score(list(labels), found))

    return Probe(name, "clustering", score)
