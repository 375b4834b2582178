"""Progressive training: first the compact side for all documents, then the exact side on what that one finds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from embedlab._core.errors import InputError
from embedlab.search.bidr.codec import ContrastivePQCodec
from embedlab.search.bidr.faiss_index import train_opq
from embedlab.search.bidr.false_negatives import FalseNegatives
from embedlab.search.bidr.quantizer import ContrastivePQ
from embedlab.search.bidr.sampler import Triple, columns_of, random_batches

_log = logging.getLogger(__name__)

Batches: TypeAlias = Callable[[int], Iterable[list[Triple]]]  # epoch -> its batches
Head: TypeAlias = nn.Module | None  # None: the vectors as they are, fixed
_MASKED = -1e4  # as published: far below any logit, and finite in half precision
_COPY = 0.9999  # cosine from which two documents are one
_NEGATIVES = 200_000  # documents that random negatives are drawn from, beside the positives
_WARM_UP = 0.1  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class Pairs:
    """What both sides learn from: queries, documents, and which document answers which query.

    Attributes:
        queries: Vectors of the queries (Q, D).
        documents: Vectors of all documents (N, D).
        positives: Number of the document that answers each query (Q,).
    """

    queries: NDArray[np.float32]
    documents: NDArray[np.float32]
    positives: NDArray[np.int64]

    @classmethod
    def of(cls, queries: ArrayLike, documents: ArrayLike, positives: ArrayLike) -> Pairs:
        """Check and gather the three.

        Args:
            queries: Vectors of the queries (Q, D).
            documents: Vectors of the documents (N, D).
            positives: Number of the document that answers each query (Q,).

        Returns:
            The pairs.

        Raises:
            InputError: shapes that do not fit, or a positive that is no document.
        """
        q, d = np.asarray(queries, np.float32), np.asarray(documents, np.float32)
        own = np.asarray(positives, np.int64)
        if q.ndim != 2 or d.ndim != 2 or q.shape[1] != d.shape[1] or own.shape != (len(q),) or not len(q):
            raise InputError(
                f"queries {q.shape}, documents {d.shape}, positives {own.shape}: expected (Q, D), (N, D) and (Q,)"
            )
        if own.min() < 0 or own.max() >= len(d):
            raise InputError(f"positives from {own.min()} to {own.max()}: must be rows of the {len(d)} documents")
        return cls(q, d, own)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps. Published up to 30 passes over the queries.
        batch_size: Queries in a batch. Published 128 on each of 8 devices.
        learning_rate: Highest rate of AdamW, after a tenth of the steps; falls to 0 in a line. Published 1e-4, for
            whole transformers; small heads on fixed vectors want 1e-3.
        weight_decay: Published 0.01.
        temperature: Divisor of the dot products. Published 1, for vectors of length 10 or so; unit vectors want 0.05.
        clip: Largest length of the gradient. Published 1.
        seed: Decides the order.
    """

    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    temperature: float = 1.0
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise InputError(f"steps={self.steps}, batch_size={self.batch_size}: expected at least 1 and 2")
        if not (self.learning_rate > 0 and self.temperature > 0 and self.clip > 0 and self.weight_decay >= 0):
            raise InputError(f"{self}: rates, temperature and clip must be above 0")


class ResidualHead(nn.Module):
    """Move unit vectors a little: ``x + f(x)``, at unit length again; the identity before training.

    Args:
        dim: Width D of the vectors.
        hidden: Width of the hidden layer of f; 0 for a linear map.
        seed: Decides the weights that it starts with.

    Shape:
        vectors (B, D) -> (B, D)
    """

    def __init__(self, dim: int, *, hidden: int = 0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(hidden, dim, generator=generator) / dim**0.5) if hidden else None
        self.bias = nn.Parameter(torch.zeros(hidden)) if hidden else None
        self.outer = nn.Parameter(torch.zeros(dim, hidden or dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Move vectors.

        Args:
            vectors: Vectors (B, D).

        Returns:
            Unit vectors (B, D).
        """
        inner = vectors
        if self.inner is not None and self.bias is not None:
            inner = nn.functional.gelu(vectors @ self.inner.T + self.bias)  # (B, H)
        return normalize(vectors + inner @ self.outer.T, dim=1)

    @torch.no_grad()
    def apply_to(self, vectors: NDArray[np.floating], *, block: int = 8192) -> NDArray[np.float32]:
        """Move many vectors, block by block.

        Args:
            vectors: Vectors (N, D), also memory-mapped.
            block: Rows at once.

        Returns:
            Unit vectors (N, D).
        """
        blocks = (
            torch.from_numpy(np.array(vectors[at : at + block], np.float32)) for at in range(0, len(vectors), block)
        )
        return np.concatenate([self(rows).numpy() for rows in blocks])


def train_sparse(
    quantizer: ContrastivePQ,
    pairs: Pairs,
    *,
    query_head: Head = None,
    document_head: Head = None,
    schedule: Schedule | None = None,
    num_negatives: int = 1,
    false_negatives: FalseNegatives | None = None,
    dense_weight: float = 1.0,
    l2_weight: float = 1e-6,
    reseed_every: int = 50,
    on_progress: Callable[[float], None] | None = None,
) -> list[float]:
    """Train the codebook, alone or with the heads below it, to tell each query's document from all others.

    Loss over the batch's positives and random negatives: ``dense_weight * CE(Q D') + CE(Q q(D)') + l2_weight *
    mean |d - q(d)|^2``; without heads the first term is constant and left out. Codewords that no vector chose for
    ``reseed_every`` steps move to where they are missed.

    Args:
        quantizer: The codebook, usually after ``init_from_faiss``; trained in place.
        pairs: What to learn from.
        query_head: Trained map of the queries, None for queries as they are.
        document_head: Trained map of the documents, None for fixed documents: then only the query side and the
            codebook learn. May be the same object as ``query_head``.
        schedule: How long and how fast; the published one by default.
        num_negatives: Random documents that join the batch for each query. Published 1.
        false_negatives: Which documents are no negatives of a query; by default its own positive.
        dense_weight: Weight of the term on unquantised documents. Published 1.
        l2_weight: Weight of the quantisation error. Published 1e-6 by default and 0 in the commands.
        reseed_every: Steps between two looks for dead codewords; 0 for never.
        on_progress: Called with the share done, in [0, 1].

    Returns:
        Loss of every step.

    Raises:
        InputError: widths that do not fit.

    References:
        Xiao et al. (2022), arXiv:2201.05409v1, section 3.2, equations 4 to 8.
    """
    plan = schedule or Schedule()
    if pairs.documents.shape[1] != quantizer.dim:
        raise InputError(f"documents are {pairs.documents.shape[1]} wide, the quantizer {quantizer.dim}")
    unsafe = false_negatives or FalseNegatives(pairs.positives)
    generator = torch.Generator().manual_seed(plan.seed)
    heads = query_head is not None or document_head is not None
    seen = 0

    def batches(epoch: int) -> Iterator[list[Triple]]:
        return random_batches(
            pairs.positives,
            batch_size=plan.batch_size,
            num_documents=len(pairs.documents),
            num_negatives=num_negatives,
            false_negatives=unsafe,
            seed=plan.seed,
            epoch=epoch,
        )

    def loss(queries: Tensor, documents: Tensor, masked: Tensor) -> Tensor:
        nonlocal seen
        if reseed_every and seen and seen % reseed_every == 0:
            moved = quantizer.reseed(documents.detach(), generator=generator)
            _log.debug("step %d: %d dead codewords moved", seen, moved)
        seen += 1
        quantised = quantizer.quantize(documents)
        value = _contrast(queries, quantised, masked, plan.temperature)
        value = value + l2_weight * (documents - quantised).square().mean()
        if heads and dense_weight:
            value = value + dense_weight * _contrast(queries, documents, masked, plan.temperature)
        return value

    modules = (quantizer, query_head, document_head)
    return _train(modules, pairs, query_head, document_head, batches, loss, unsafe, plan, on_progress)


def train_dense(
    pairs: Pairs,
    batches: Batches,
    *,
    query_head: Head,
    document_head: Head,
    schedule: Schedule | None = None,
    false_negatives: FalseNegatives | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> list[float]:
    """Train the heads whose vectors verify candidates, on batches made of what the compact side confuses.

    Args:
        pairs: What to learn from.
        batches: Gives an epoch's batches: of a ``LocalityCentricBatchSampler``, or ``random_batches``.
        query_head: Map of the queries, trained in place; None to keep them as they are.
        document_head: Map of the documents, trained in place; None to keep them as they are.
        schedule: How long and how fast; the published one by default. Its ``batch_size`` is that of ``batches``.
        false_negatives: Which documents are no negatives of a query; by default its own positive.
        on_progress: Called with the share done, in [0, 1].

    Returns:
        Loss of every step.

    Raises:
        InputError: there is nothing to train.

    References:
        Xiao et al. (2022), arXiv:2201.05409v1, section 3.3, equations 9 and 10.
    """
    plan = schedule or Schedule()
    unsafe = false_negatives or FalseNegatives(pairs.positives)

    def loss(queries: Tensor, documents: Tensor, masked: Tensor) -> Tensor:
        return _contrast(queries, documents, masked, plan.temperature)

    modules = (query_head, document_head)
    return _train(modules, pairs, query_head, document_head, batches, loss, unsafe, plan, on_progress)


def learn_codebook(
    codec: ContrastivePQCodec,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    positives: NDArray[np.float32],
    on_progress: Callable[[float], None] | None = None,
) -> ContrastivePQ:
    """Train a codebook by the settings of a codec: OPQ first, then contrast.

    Args:
        codec: Whose settings to follow.
        vectors: Vectors of documents (N, D).
        queries: Vectors of queries (P, D); the same array as ``positives`` for documents that are their own queries.
        positives: Their documents, row by row (P, D).
        on_progress: Called with the share of the steps done, in [0, 1].

    Returns:
        The trained module.
    """
    codebook, rotation = train_opq(
        vectors,
        parts=codec.parts,
        centroids=codec.centroids,
        rotate=codec.opq,
        iterations=codec.opq_iterations,
        seed=codec.seed,
    )
    quantizer = ContrastivePQ(
        codec.dim,
        parts=codec.parts,
        centroids=codec.centroids,
        rotation=rotation,
        temperature=codec.assignment_temperature,
    )
    quantizer.codebook.data.copy_(torch.from_numpy(codebook))
    if codec.steps:
        alone = queries is positives
        others = vectors[:: max(1, len(vectors) // _NEGATIVES)]
        documents = positives if alone else np.concatenate([positives, others])
        pairs = Pairs.of(queries, documents, np.arange(len(queries)))
        train_sparse(
            quantizer,
            pairs,
            schedule=Schedule(
                steps=codec.steps,
                batch_size=codec.batch_size,
                learning_rate=codec.learning_rate,
                temperature=codec.temperature,
                seed=codec.seed,
            ),
            false_negatives=FalseNegatives(pairs.positives, vectors=documents, threshold=_COPY),
            l2_weight=codec.l2_weight,
            on_progress=on_progress,
        )
    return quantizer.eval()


def _train(
    modules: Iterable[nn.Module | None],
    pairs: Pairs,
    query_head: Head,
    document_head: Head,
    batches: Batches,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    unsafe: FalseNegatives,
    plan: Schedule,
    on_progress: Callable[[float], None] | None,
) -> list[float]:
    """Run the optimiser over all epochs; what both stages share."""
    parts = nn.ModuleList({id(module): module for module in modules if module is not None}.values())
    parameters = list(parts.parameters())
    if not parameters:
        raise InputError("query_head and document_head are None: there is nothing to train")
    optimiser = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, plan.steps))
    parts.train()
    losses: list[float] = []
    endless = (batch for epoch in count() for batch in batches(epoch))
    for batch in islice(endless, plan.steps):
        rows, columns = columns_of(batch)
        masked = unsafe.mask(rows, columns)
        np.fill_diagonal(masked, False)  # the own positive leads the documents, in the queries' order
        queries, documents = (
            torch.from_numpy(vectors[chosen]) if head is None else head(torch.from_numpy(vectors[chosen]))
            for vectors, chosen, head in ((pairs.queries, rows, query_head), (pairs.documents, columns, document_head))
        )
        value = loss(queries, documents, torch.from_numpy(masked))
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, plan.clip)
        optimiser.step()
        rate.step()
        losses.append(float(value.detach()))
        if on_progress is not None:
            on_progress(len(losses) / plan.steps)
    parts.eval()
    return losses


def _contrast(queries: Tensor, documents: Tensor, masked: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each query's own document, which stands in its column, among all that are not masked."""
    logits = (queries @ documents.T / temperature).masked_fill(masked, _MASKED)  # (B, M)
    value: Tensor = cross_entropy(logits, torch.arange(len(queries), device=logits.device))
    return value


def _rate(step: int, steps: int) -> float:
    warm = max(1, int(_WARM_UP * steps))
    return (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm))
