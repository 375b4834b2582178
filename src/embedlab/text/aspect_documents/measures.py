"""How well a space finds what is alike in an aspect, and towards which aspect plain vectors lean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError

Bools = NDArray[np.bool_]
Ranking = NDArray[np.int64]

_BLOCK = 1024  # rows ranked at once


@dataclass(frozen=True, slots=True)
class AspectScores:
    """Means over the queries, each in [0, 1]; what is relevant beyond the first k counts as missed.

    Args:
        precision: Share of the first k that are relevant.
        recall: Share of all relevant documents that are among the first k.
        mrr: One over the rank of the first relevant document, 0 if it is not among the first k.
        map: Precision at each relevant document among the first k, added up and divided by *all* relevant documents.
        ndcg: Discounted gain of the first k, divided by that of all relevant documents in front.
        queries: Number of documents with a relevant other one; the others are candidates only.
    """

    precision: float
    recall: float
    mrr: float
    map: float
    ndcg: float
    queries: int

    def to_dict(self) -> dict[str, float]:
        """Return the numbers by name."""
        return asdict(self)


def nearest(vectors: ArrayLike, *, top_k: int = 10, apart: Bools | None = None) -> Ranking:
    """Rank for each document all others by cosine.

    Args:
        vectors: One row a document; zero rows are near to nothing.
        top_k: Length of the lists, below the number of documents.
        apart: Pairs that are no candidates of each other (N, N), such as documents of one group.

    Shape:
        vectors (N, D) -> (N, top_k)

    Returns:
        Places of the nearest documents, best first, of equals the lower place; -1 where there are no more.

    Raises:
        InputError: vectors are no finite matrix, or ``top_k`` is out of range.
    """
    rows = _matrix("vectors", vectors)
    if not 1 <= top_k < len(rows):
        raise InputError(f"top_k={top_k}: must be from 1 to the number of other documents, {len(rows) - 1}")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(lengths > 0, lengths, 1)
    ranking = np.empty((len(rows), top_k), np.int64)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = unit[part] @ unit.T
        np.fill_diagonal(scores[:, start:], -np.inf)
        if apart is not None:
            scores[apart[part]] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        ranking[part] = np.where(np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, order)
    return ranking


def aspect_scores(ranking: ArrayLike, relevant: Bools) -> AspectScores:
    """Score ranked lists of documents.

    Args:
        ranking: For each document the places of others, best first (N, k), -1 for none; see ``nearest``.
        relevant: Which are relevant to which (N, N).

    Returns:
        Means over the documents that have a relevant other one.

    Raises:
        InputError: shapes do not fit, or no document has a relevant one.

    Example:
        >>> alike = np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=bool)
        >>> aspect_scores([[1, 2], [2, 0], [0, 1]], alike).precision
        0.6666666666666666

    References:
        Ostendorff et al. (2022), Specialized Document Embeddings for Aspect-based Similarity of Research Papers,
        arXiv:2203.14541v1, section 4; average precision is divided by all relevant documents, as there.
    """
    order = np.asarray(ranking, np.int64)
    if relevant.shape != (len(order), len(order)) or order.ndim != 2:
        raise InputError(f"ranking {order.shape} and relevant {relevant.shape}: (N, k) and (N, N) are needed")
    total = relevant.sum(axis=1)
    asked = total > 0
    if not asked.any():
        raise InputError("relevant: no document has a relevant other one, so there is nothing to score")
    hits = (np.take_along_axis(relevant, np.maximum(order, 0), axis=1) & (order >= 0))[asked]  # (Q, k)
    wanted, places = total[asked], np.arange(1, order.shape[1] + 1)
    ideal = np.cumsum(1 / np.log2(np.arange(2, total.max() + 2)))[wanted - 1]
    return AspectScores(
        precision=float(hits.mean()),
        recall=float((hits.sum(axis=1) / wanted).mean()),
        mrr=float((hits / places).max(axis=1).mean()),
        map=float(((hits * hits.cumsum(axis=1) / places).sum(axis=1) / wanted).mean()),
        ndcg=float(((hits / np.log2(places + 1)).sum(axis=1) / ideal).mean()),
        queries=int(asked.sum()),
    )


@dataclass(frozen=True, slots=True)
class AspectBias:
    """Which share of a plain list of neighbours is also in the list of each specialised space.

    Args:
        overlap: Mean share by aspect, in [0, 1]; plain vectors lean towards the aspect with the largest.
        missing: One less the overlap, by aspect, as the paper prints it.
        leans_to: The aspect with the largest overlap; of equals the first.
    """

    overlap: dict[str, float]
    missing: dict[str, float]
    leans_to: str


def aspect_bias(generic: ArrayLike, specialised: Mapping[str, ArrayLike], *, top_k: int = 10) -> AspectBias:
    """Compare the neighbours in a plain space with those in specialised ones.

    ``1 - |top(A) & top(B)| / k``, averaged over documents: a plain encoder is biased towards the aspect whose space it
    shares most neighbours with.

    Args:
        generic: Plain vectors.
        specialised: Vectors of the same documents in each aspect.
        top_k: Length of the lists.

    Shape:
        generic (N, D), specialised (N, d) each

    Returns:
        Shares by aspect.

    Raises:
        InputError: numbers of documents differ, a matrix is not finite, or there is no aspect.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(30, 8))
        >>> aspect_bias(rows, {"same": 2 * rows, "other": rows[::-1]}, top_k=3).leans_to
        'same'

    References:
        Ostendorff et al. (2022), Specialized Document Embeddings for Aspect-based Similarity of Research Papers,
        arXiv:2203.14541v1, section 5.
    """
    if not specialised:
        raise InputError("specialised: no aspect given")
    plain = nearest(generic, top_k=top_k)
    overlap = {}
    for aspect, vectors in specialised.items():
        own = nearest(vectors, top_k=top_k)
        if len(own) != len(plain):
            raise InputError(f"specialised[{aspect!r}] has {len(own)} rows, generic has {len(plain)}")
        overlap[aspect] = float(np.mean([np.isin(a, b).mean() for a, b in zip(plain, own, strict=True)]))
    return AspectBias(
        overlap, {name: 1 - share for name, share in overlap.items()}, max(overlap, key=lambda name: overlap[name])
    )


def mean_scores(scores: list[AspectScores]) -> dict[str, tuple[float, float]]:
    """Return mean and sample standard deviation of each number over folds.

    Args:
        scores: One for each fold.

    Returns:
        Name -> (mean, spread); the spread of one fold is 0.
    """
    found = {}
    for item in fields(AspectScores):
        values = np.array([getattr(each, item.name) for each in scores], np.float64)
        found[item.name] = (float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0)
    return found


def _matrix(name: str, value: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(value, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"{name} must be a matrix (documents, dim), got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError(f"{name}: row {int((~np.isfinite(rows)).any(axis=1).argmax())} is not finite")
    return rows
