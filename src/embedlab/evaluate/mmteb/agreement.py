"""Does a reduced retrieval task still put models in the same order? Measured against the depth of its pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.data.datasets import RetrievalData
from embedlab.evaluate.mmteb.pools import as_retrieval, nearest, ready, scores_of
from embedlab.evaluate.ranking import fair_keys
from embedlab.ops.weighted import Spearman

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from embedlab.models.encoder import Encoder

Within: TypeAlias = Literal["corpus", "query"]
Places: TypeAlias = NDArray[np.intp]

_CUT = 10


@dataclass(frozen=True, slots=True)
class AtDepth:
    """One depth of pools.

    Attributes:
        depth: Documents from each retriever and query.
        documents: How many documents a query ranks, on average.
        scores: nDCG@10 of each model on it, (M,).
        spearman: Rank correlation with the scores on the full corpus.
        gap: Mean absolute difference to the scores on the full corpus.
        random_spearman: The same correlation for relevant documents and random others, as many in all.
        random_gap: The same difference for these.
    """

    depth: int
    documents: float
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
    within: Within = "corpus",
    seed: int = 0,
) -> Agreement:
    """Score models on a full retrieval task and on pools of several depths, and correlate the two orders.

    ``within="corpus"`` is what ``hard_negative_subset`` makes: one corpus, the union of all pools, so that a query also
    meets the hard documents of others. ``within="query"`` lets each query rank its own pool alone, as reranking does:
    far less to encode where queries are many, and much harder on models that did not pool.

    Args:
        data: The full task.
        models: At least three models to be ordered, or their names.
        retrievers: Models that build the pools, or their names.
        depths: Depths of the pools, each at least 1. Published: 2, 5, 10, 50, 100, 500 and 1000.
        within: What a query ranks: ``"corpus"``, the union of the pools, or ``"query"``, its own pool.
        seed: Decides ties and random documents.

    Returns:
        Scores, rank correlations and gaps per depth; random documents of equal number beside them.

    Raises:
        InputError: as for ``hard_negative_subset``; fewer than three models, models that all score the same, or another
            ``within``.
    """
    if not depths or min(depths) < 1:
        raise InputError(f"depths={tuple(depths)} must be numbers of at least 1")
    if within not in get_args(Within):
        raise unknown_name("within", within, get_args(Within))
    full = as_retrieval(data)
    queries, documents = list(full.queries.values()), [str(text) for text in full.corpus.values()]
    pooling, scored = ready("retrievers", retrievers, documents), ready("models", models, documents)
    if len(scored) < 3:
        raise InputError(f"models holds {len(scored)}: an order worth comparing needs at least three")
    grades = _grades(full)
    answers = [places for places, _ in grades]
    found = [nearest(model, queries, documents, top_k=max(depths), seed=seed) for model in pooling.values()]
    rng, subsets = np.random.default_rng(seed), list[list[Places]]()
    for depth in depths:
        taken = [np.unique(np.concatenate([row[:depth] for row in rows])) for rows in zip(*found, strict=True)]
        if within == "corpus":
            pool, relevant = np.unique(np.concatenate(taken)), np.unique(np.concatenate(answers))
            subsets += [[part] * len(queries) for part in _pool_and_random(pool, relevant, len(documents), rng)]
        else:
            pairs = zip(taken, answers, strict=True)
            parts = [_pool_and_random(pool, relevant, len(documents), rng) for pool, relevant in pairs]
            subsets += [[first for first, _ in parts], [second for _, second in parts]]
    scores = np.array([_on_subsets(model, queries, documents, grades, subsets, seed) for model in scored.values()])
    whole = scores[:, 0]  # scores (M, 1 + 2 * depths)
    entries = []
    for place, depth in enumerate(depths):
        ours, theirs = scores[:, 1 + 2 * place], scores[:, 2 + 2 * place]
        entries.append(
            AtDepth(
                depth,
                float(np.mean([len(part) for part in subsets[2 * place]])),
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
    grades: list[tuple[Places, NDArray[np.float64]]],
    subsets: list[list[Places]],  # per subset and query
    seed: int,
) -> list[float]:
    """Mean nDCG@10 on the full corpus, then on each subset."""
    totals = np.zeros(1 + len(subsets))
    rows = enumerate(scores_of(model, queries, documents))
    for (query, row), (places, values), *parts in zip(rows, grades, *subsets, strict=True):
        keys, gains = fair_keys(row, lot=(seed, query)), np.zeros(len(documents))
        gains[places] = values
        totals[0] += ndcg_at_10(keys, gains)
        totals[1:] += [ndcg_at_10(keys[part], gains[part]) for part in parts]
    return [float(total) / len(queries) for total in totals]


def _pool_and_random(pool: Places, relevant: Places, size: int, rng: np.random.Generator) -> tuple[Places, Places]:
    """The pool with the relevant documents, and the relevant ones with random others, as many in all."""
    chosen = np.union1d(relevant, pool)
    others = np.setdiff1d(np.arange(size), relevant)
    return chosen, np.union1d(relevant, rng.choice(others, size=len(chosen) - len(relevant), replace=False))


def _grades(data: RetrievalData) -> list[tuple[Places, NDArray[np.float64]]]:
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
