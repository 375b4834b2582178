"""Does a reduced retrieval task still put models in the same order? Measured against the depth of its pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.data.datasets import RetrievalData
from embedlab.evaluate.mmteb.pools import as_retrieval, nearest, ready, scores_of
from embedlab.evaluate.ranking import fair_keys
from embedlab.ops.weighted import Spearman

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from embedlab.models.encoder import Encoder

_CUT = 10


@dataclass(frozen=True, slots=True)
class AtDepth:
    """One depth of pools.

    Attributes:
        depth: Documents from each retriever and query.
        documents: Size of the reduced corpus.
        scores: nDCG@10 of each model on it, (M,).
        spearman: Rank correlation with the scores on the full corpus.
        gap: Mean absolute difference to the scores on the full corpus.
        random_spearman: The same correlation for relevant documents and random others, as many in all.
        random_gap: The same difference for these.
    """

    depth: int
    documents: int
    scores: NDArray[np.float64]
    spearman: float
    gap: float
    random_spearman: float
    random_gap: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How reduced tasks of growing depth agree with the full task.

    Attributes:
        models: Names of the models that were scored.
        retrievers: Names of those that built the pools.
        own_pool: Models among the pooling ones.
        documents: Size of the full corpus.
        full: nDCG@10 of each model on the full corpus, (M,).
        depths: One entry per depth.
    """

    models: tuple[str, ...]
    retrievers: tuple[str, ...]
    own_pool: tuple[str, ...]
    documents: int
    full: NDArray[np.float64]
    depths: tuple[AtDepth, ...]


def rank_agreement(
    data: RetrievalData | AbsTask,
    models: Sequence[Encoder | str],
    retrievers: Sequence[Encoder | str],
    *,
    depths: Sequence[int] = (2, 5, 10, 25, 50, 100),
    seed: int = 0,
) -> Agreement:
    """Score models on a full retrieval task and on pools of several depths, and correlate the two orders.

    Args:
        data: The full task.
        models: At least three models to be ordered, or their names.
        retrievers: Models that build the pools, or their names.
        depths: Depths of the pools, each at least 1. Published: 2, 5, 10, 50, 100, 500 and 1000.
        seed: Decides ties and random documents.

    Returns:
        Scores, rank correlations and gaps per depth; random documents of equal number beside them.

    Raises:
        InputError: as for ``hard_negative_subset``; fewer than three models, or models that all score the same.
    """
    if not depths or min(depths) < 1:
        raise InputError(f"depths={tuple(depths)} must be numbers of at least 1")
    full = as_retrieval(data)
    queries, documents = list(full.queries.values()), [str(text) for text in full.corpus.values()]
    pooling, scored = ready(retrievers, documents), ready(models, documents)
    if len(scored) < 3:
        raise InputError(f"models holds {len(scored)}: an order worth comparing needs at least three")
    grades = _grades(full)
    relevant = np.unique(np.concatenate([places for places, _ in grades]))
    found = [nearest(model, queries, documents, top_k=max(depths), seed=seed) for model in pooling.values()]
    subsets: list[NDArray[np.intp]] = []
    rng = np.random.default_rng(seed)
    for depth in depths:
        pooled = np.concatenate([row[:depth] for rows in found for row in rows])
        chosen = np.union1d(relevant, pooled)
        others = np.setdiff1d(np.arange(len(documents)), relevant)
        drawn = rng.choice(others, size=len(chosen) - len(relevant), replace=False)
        subsets += [chosen, np.union1d(relevant, drawn)]
    rows = [_on_subsets(model, queries, documents, grades, subsets, seed) for model in scored.values()]
    scores = np.array(rows)  # (M, 1 + 2 * depths)
    whole = scores[:, 0]
    entries = []
    for place, depth in enumerate(depths):
        ours, theirs = scores[:, 1 + 2 * place], scores[:, 2 + 2 * place]
        entries.append(
            AtDepth(
                depth,
                len(subsets[2 * place]),
                ours,
                _spearman(ours, whole),
                float(np.abs(ours - whole).mean()),
                _spearman(theirs, whole),
                float(np.abs(theirs - whole).mean()),
            )
        )
    known = {model.fingerprint for model in pooling.values()}
    own = tuple(name for name, model in scored.items() if model.fingerprint in known)
    return Agreement(tuple(scored), tuple(pooling), own, len(documents), whole, tuple(entries))


def ndcg_at_10(keys: NDArray[np.float64], gains: NDArray[np.float64]) -> float:
    """Score one ranking: discounted gains of the first ten over the largest possible.

    Args:
        keys: What documents are ranked by, larger first, no ties.
        gains: Grade of each document; at least one above 0.

    Shape:
        keys (N,), gains (N,) -> float

    Returns:
        nDCG@10 in [0, 1].

    Example:
        >>> ndcg_at_10(np.array([3.0, 2.0, 1.0]), np.array([0.0, 1.0, 0.0])) == 1 / np.log2(3)
        True
    """
    cut = min(_CUT, len(keys))
    top = np.argpartition(-keys, cut - 1)[:cut]
    top = top[np.argsort(-keys[top])]
    discounts = 1 / np.log2(np.arange(cut) + 2)
    best = np.sort(gains)[::-1][:cut]
    return float(gains[top] @ discounts / (best @ discounts))


def _on_subsets(
    model: Any,
    queries: list[str],
    documents: list[str],
    grades: list[tuple[NDArray[np.intp], NDArray[np.float64]]],
    subsets: list[NDArray[np.intp]],
    seed: int,
) -> list[float]:
    """Mean nDCG@10 on the full corpus, then on each subset."""
    totals = np.zeros(1 + len(subsets))
    for row, (places, values) in zip(scores_of(model, queries, documents), grades, strict=True):
        keys, gains = fair_keys(row, seed=seed), np.zeros(len(documents))
        gains[places] = values
        totals[0] += ndcg_at_10(keys, gains)
        totals[1:] += [ndcg_at_10(keys[subset], gains[subset]) for subset in subsets]
    return [float(total) / len(queries) for total in totals]


def _grades(data: RetrievalData) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    place = {key: number for number, key in enumerate(data.corpus)}
    return [
        (np.array([place[key] for key in data.qrels[query]]), np.array(list(data.qrels[query].values()), dtype=float))
        for query in data.queries
    ]


def _spearman(ours: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    ours, whole = np.round(ours, 9), np.round(whole, 9)
    if np.ptp(whole) == 0:
        raise InputError("all models score the same on the full task: there is no order to keep")
    if np.ptp(ours) == 0:
        return 0.0  # an order that tells nothing agrees with none
    return float(Spearman(whole)(ours[None], np.ones((1, len(ours))))[0])
