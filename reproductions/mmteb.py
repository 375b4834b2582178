"""A benchmark can lose tasks and documents and still put models in the same order; and that order is soft.

Published in Enevoldsen et al. (2025), arXiv:2502.13595: tasks that others predict are taken out, retrieval corpora
shrink to pools of hard negatives, and models are ranked by Borda count.

Small here: the public English leaderboard of 2024 (120 models, 56 tasks, no holes) instead of 500 tasks; and for the
pools one retrieval task, TAT-QA (1356 paragraphs of financial reports, 896 questions), with fourteen cheap models: the
shipped model cut to several widths, and counts of words or letters.

Falsified if: the kept tasks predict the dropped ones no better than random sets of the same size do; or pools of depth
25 and more do not keep the order of models; or Borda and mean agree on the best model.

Measured without being claimed: at 7 kept tasks, the fewest that leave one of each type, selected tasks predict the
others worse than random ones do (`predict_selected_7`). In the union of pools even depth 2 keeps the order, and so do
as many random documents (`union_order_random_*`); what pools keep better there is the scores (`union_gap_*`). The
shipped model that pools is kin to its five cut versions among the scored ones.

What does not hold, and is claimed here so that it stays visible: the mean score over selected tasks does not follow the
full mean better than the mean over random tasks (`mean_selected_*` against `mean_random_*`). Taking out redundant tasks
takes away their weight, and with it the mean moves. Four models of the table are others under a second name; they are
kept for the published setting, and `removed_without_copies` says what goes without them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab.data import RetrievalData, load_tatqa
from embedlab.data.loaders import data_file
from embedlab.evaluate.mmteb import (
    ScoreTable,
    predictability,
    rank,
    rank_agreement,
    rank_intervals,
    read_scores,
    select_tasks,
)
from embedlab.testing import Claim, data_hash, demand_close

_PAPER = "arXiv:2502.13595"
_KEPT = (40, 28, 20)
_DEPTHS = (2, 5, 10, 25, 50, 100)
# the task types of the English leaderboard, in the order of its columns
_TYPES = (
    ["Classification"] * 12
    + ["Clustering"] * 11
    + ["PairClassification"] * 3
    + ["Reranking"] * 4
    + ["Retrieval"] * 15
    + ["STS"] * 10
    + ["Summarization"]
)

CLAIMS = (
    *(
        Claim(
            id=f"selected-predict-{k}",
            words=f"{k} selected tasks predict the other {56 - k} better than 95 % of random sets of tasks do.",
            metric=f"predict_selected_{k}",
            baseline=f"predict_random_{k}_p95",
            direction="higher",
            margin=0.005,
            published="a reduced English benchmark follows the old one: Pearson 0.958, Spearman 0.902 over 12 models",
            published_source="notebook of the official repository",
        )
        for k in _KEPT
    ),
    Claim(
        id="order-kept-at-published-thresholds",
        words="Tasks taken out at the published thresholds leave the order of models by mean score as it was.",
        metric="mean_order_published",
        baseline=0.99,
        direction="higher",
        margin=0.0,
    ),
    *(
        Claim(
            id=f"selected-mean-{k}",
            words=f"The mean over {k} selected tasks orders models more like the full mean than random sets do.",
            metric=f"mean_selected_{k}",
            baseline=f"mean_random_{k}",
            direction="higher",
            margin=0.0,
        )
        for k in (28, 7)
    ),
    Claim(
        id="borda-is-not-mean",
        words="The model that Borda puts first is not the one with the best mean.",
        metric="rank_by_borda_of_the_best_mean",
        baseline=1.0,
        direction="higher",
        margin=1.0,
        published="multilingual: paraphrase-mpnet above e5-small by Borda, below it by mean",
        published_source=f"{_PAPER}, table 2",
    ),
    Claim(
        id="neighbours-are-not-told-apart",
        words="Fewer than 10 % of the models next to each other are told apart, with tasks drawn anew.",
        metric="neighbours_separated_share",
        baseline=0.1,
        direction="lower",
        margin=0.0,
    ),
    *(
        Claim(
            id=f"pools-keep-order-{depth}",
            words=f"Models keep their order when each query ranks its own pool of depth {depth} of two retrievers.",
            metric=f"order_{depth}",
            baseline=0.95,
            direction="higher",
            margin=0.0,
            published="pools of 250 from three retrievers keep the ranking of models",
            published_source=f"{_PAPER}, section 2.4",
        )
        for depth in (25, 50, 100)
    ),
    Claim(
        id="union-keeps-order",
        words="Ranking the union of pools of depth 10 keeps the order, with about half of the documents gone.",
        metric="union_order_10",
        baseline=0.95,
        direction="higher",
        margin=0.0,
    ),
    Claim(
        id="shallow-pools-do-not",
        words="Pools of depth 2 do not keep the order.",
        metric="order_2",
        baseline=0.95,
        direction="lower",
        margin=0.1,
    ),
    Claim(
        id="pools-keep-scores",
        words="At depth 25 scores are less than 0.05 from those on the full corpus.",
        metric="gap_25",
        baseline=0.05,
        direction="lower",
        margin=0.0,
    ),
    Claim(
        id="hard-beats-random",
        words="At depth 50 pools keep the order better than as many random documents.",
        metric="order_50",
        baseline="order_random_50",
        direction="higher",
        margin=0.01,
    ),
)


def oracle() -> None:
    """Left-out predictions equal refitting without each model, with more and with fewer models than tasks."""
    rng = np.random.default_rng(0)
    for models, tasks in ((14, 6), (6, 9)):
        scores = rng.normal(size=(models, tasks)) @ rng.normal(size=(tasks, tasks))
        slow = np.empty_like(scores)
        for t in range(tasks):
            for i in range(models):
                x = np.delete(np.delete(scores, t, axis=1), i, axis=0)
                y = np.delete(scores[:, t], i)
                slope = np.linalg.pinv(x - x.mean(axis=0)) @ (y - y.mean())
                slow[i, t] = y.mean() + (np.delete(scores[i], t) - x.mean(axis=0)) @ slope
        demand_close(predictability(scores).predicted, slow, f"{models} models", atol=1e-8, rtol=1e-8)
    tied = rng.integers(0, 3, size=(6, 5)).astype(float)
    points = np.zeros(6)
    for column in tied.T:
        for i in range(6):
            points[i] += sum((column[i] > other) + (column[i] == other) / 2 for other in np.delete(column, i))
    demand_close(rank(tied).points, points, "Borda as models beaten, ties counting half", atol=1e-12, rtol=0)


def run(seed: int, level: str) -> dict[str, float | str]:
    """Measure once."""
    table = read_scores(data_file("mteb-leaderboard", "results.csv"))
    finance = load_tatqa("dev")
    numbers: dict[str, float | str] = {
        "data": data_hash(table.models, table.tasks, table.values, list(finance.corpus), list(finance.queries.values()))
    }
    numbers |= _selection(table, 10 if level == "smoke" else 100, seed)
    numbers |= _ranks(table, 200 if level == "smoke" else 2000, seed)
    return numbers | _pools(finance if level != "smoke" else _part(finance), seed)


def _selection(table: ScoreTable, draws: int, seed: int) -> dict[str, float]:
    """What kept tasks tell of dropped ones and of the full mean, beside random sets of the same size."""
    rng = np.random.default_rng(seed)
    whole = table.values.mean(axis=1)
    numbers: dict[str, float] = {}
    published = select_tasks(table, types=_TYPES, rho=0.95, nmse=0.2, drop_copies=False)
    numbers["removed_published"] = len(published.removed)
    numbers["removed_without_copies"] = len(select_tasks(table, types=_TYPES).removed)
    numbers["mean_order_published"] = _agree(_mean(table, published.kept), whole)
    for k in (*_KEPT, 7):
        kept = select_tasks(table, types=_TYPES, rho=-1, nmse=np.inf, min_tasks=k, drop_copies=False).kept
        sets = [_random_set(table.tasks, k, rng) for _ in range(draws)]
        numbers[f"mean_selected_{k}"] = _agree(_mean(table, kept), whole)
        numbers[f"mean_random_{k}"] = float(np.mean([_agree(_mean(table, tasks), whole) for tasks in sets]))
        ours, random = _told(table, kept), np.array([_told(table, tasks) for tasks in sets])  # mean, min
        numbers[f"predict_selected_{k}"], numbers[f"predict_selected_{k}_min"] = ours
        numbers[f"predict_random_{k}"], numbers[f"predict_random_{k}_min"] = (float(x) for x in random.mean(axis=0))
        numbers[f"predict_random_{k}_p95"] = float(np.quantile(random[:, 0], 0.95))
    return numbers


def _told(table: ScoreTable, kept: tuple[str, ...]) -> tuple[float, float]:
    """Mean and least rank correlation of dropped tasks with what the kept ones predict."""
    dropped = [task for task in table.tasks if task not in kept]
    found = predictability(table, tasks=dropped, given=kept).spearman
    return float(found.mean()), float(found.min())


def _random_set(tasks: tuple[str, ...], k: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw k tasks, of each type its share, at least one."""
    types = np.array(_TYPES)
    names, sizes = np.unique(types, return_counts=True)
    share = k * sizes / len(tasks)
    counts = np.maximum(1, np.floor(share)).astype(int)
    while counts.sum() > k:  # the least loss of share
        counts[np.argmax(np.where(counts > 1, counts - share, -np.inf))] -= 1
    while counts.sum() < k:
        counts[np.argmax(np.where(counts < sizes, share - counts, -np.inf))] += 1
    drawn = [
        rng.choice(np.flatnonzero(types == name), size=n, replace=False) for name, n in zip(names, counts, strict=True)
    ]
    return tuple(tasks[j] for j in sorted(np.concatenate(drawn)))


def _mean(table: ScoreTable, tasks: tuple[str, ...]) -> NDArray[np.float64]:
    return np.asarray(table.values[:, [table.tasks.index(task) for task in tasks]].mean(axis=1))


def _agree(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic)


def _ranks(table: ScoreTable, resamples: int, seed: int) -> dict[str, float]:
    borda, mean = rank(table), rank(table, method="mean")
    numbers = {
        "borda_mean_spearman": _agree(borda.ranks, mean.ranks),
        "rank_by_borda_of_the_best_mean": float(borda.ranks[np.argmin(mean.ranks)]),
        "borda_points_of_the_first": float(borda.points.max()),
    }
    for method in ("mean", "borda"):
        firm = rank_intervals(table, method=method, num_resamples=resamples, seed=seed)
        first = int(np.argmin(firm.ranking.ranks))
        prefix = "" if method == "mean" else "borda_"
        numbers[f"{prefix}pairs_separated_share"] = firm.share_separated()
        numbers[f"{prefix}neighbours_separated_share"] = firm.neighbours_separated() / (len(table.models) - 1)
        numbers[f"{prefix}worst_rank_of_the_first"] = float(firm.high[first])
    return numbers


def _pools(data: RetrievalData, seed: int) -> dict[str, float]:
    """Each query in its own pool; and, for a tenth of the queries, in the union of all pools."""
    numbers: dict[str, float] = {}
    few = dict(list(data.queries.items())[seed % 10 :: 10])
    fewer = RetrievalData(data.name, data.corpus, few, {query: data.qrels[query] for query in few})
    for prefix, part, within in (("", data, "query"), ("union_", fewer, "corpus")):
        found = rank_agreement(part, _models(data.name), ["bm25", "default"], depths=_DEPTHS, within=within, seed=seed)
        numbers |= {f"{prefix}ndcg_best": float(found.full.max()), f"{prefix}ndcg_worst": float(found.full.min())}
        for entry in found.depths:
            name = f"{prefix}{{}}_{entry.depth}"
            numbers[name.format("order")], numbers[name.format("gap")] = entry.spearman, entry.gap
            numbers[name.format("order_random")] = entry.random_spearman
            numbers[name.format("gap_random")] = entry.random_gap
            numbers[name.format("share")] = entry.documents / found.documents
    return numbers


def _part(data: RetrievalData) -> RetrievalData:
    queries = dict(list(data.queries.items())[::20])
    needed = {key for query in queries for key in data.qrels[query]}
    corpus = {key: text for n, (key, text) in enumerate(data.corpus.items()) if n % 8 == 0 or key in needed}
    return RetrievalData(f"{data.name}-part", corpus, queries, {query: data.qrels[query] for query in queries})


class _Cut:
    """The shipped model, cut to its first directions; each text is encoded once for all widths."""

    def __init__(self, dim: int) -> None:
        self.name, self.dim = f"default-{dim}", dim
        self.fingerprint = f"cut:{dim:016x}"

    def encode_document(self, texts: Any, **options: Any) -> NDArray[np.float32]:
        rows = _encoded(tuple(texts))[:, : self.dim].copy()
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def encode_query(self, texts: Any) -> NDArray[np.float32]:
        return self.encode_document(texts)


@cache
def _encoded(texts: tuple[str, ...]) -> NDArray[np.float32]:
    from embedlab.models import load_model

    return load_model().encode_document(texts)


@cache  # fitted once for all seeds
def _models(name: str) -> list[Any]:
    """Fourteen models, none of which pools."""
    from embedlab.models.lexical import BagOfWords, Lsa, Tfidf

    data = load_tatqa("dev") if not name.endswith("-part") else _part(load_tatqa("dev"))
    texts = [str(text) for text in data.corpus.values()]
    counting = [
        BagOfWords(),
        Tfidf(),
        Tfidf(name="tfidf-2000", max_features=2000),
        Tfidf(name="tfidf-pairs", ngram_range=(1, 2)),
        Tfidf(name="letters-3", analyzer="char_wb", ngram_range=(3, 3)),
        Tfidf(name="letters-4", analyzer="char_wb", ngram_range=(4, 4)),
        Lsa(name="lsa-256", dim=256),
        Lsa(name="lsa-64", dim=64),
        Lsa(name="lsa-16", dim=16),
    ]
    return [_Cut(dim) for dim in (128, 64, 32, 16, 8)] + [model.fit(texts) for model in counting]
