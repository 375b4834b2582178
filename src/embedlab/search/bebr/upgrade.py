"""Upgrading the query model of an index: vectors of a new model, carried into the space of the old one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.search.bebr.development import nearest, reciprocal_ranks, shared, surely_better
from embedlab.search.bebr.recurrence import Floats, checked, unit

_RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_FEWEST, _JUDGED, _CORPUS, _TRAINED = 20, 1000, 5000, 50_000


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What queries of the new model find in the old index, on development data; all in [0, 1].

    Attributes:
        kept: Share of the ten nearest by the old model that the new one finds over the map.
        task: Mean reciprocal rank of each query's own document (of each text itself, without pairs) over the map.
        task_old: The same with queries of the old model, where they were given, and NaN otherwise.
        trained: Whether training on pairs was better than the closed form, and is used.
        queries: Number of development queries.
    """

    kept: float
    task: float
    task_old: float
    trained: bool
    queries: int


class QueryMap:
    """Carries vectors of a new model into the space of an old one, so that its queries can search the old index.

    ``x -> normalize(x A)``: the closed form is the ridge regression of the old vectors on the new ones of the same
    texts. Queries are unlike documents, though: with pairs, A is then trained by the contrast of BEBR's compatible
    training, new queries against old documents, and kept if development data say that it helped. What the index holds
    stays as it is, whether vectors or codes of any codec.

    Args:
        new_dim: Width of vectors of the new model.
        old_dim: Width of vectors of the old one.
        steps: Steps of training on pairs; 0 keeps the closed form and needs no torch.
        seed: Decides development data and order.

    Attributes:
        weights: A, (new_dim, old_dim); None before ``fit``.
        report: What the map keeps, measured on data kept aside; None where there was too little to measure by.

    Raises:
        InputError: a width or ``steps`` is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> old = unit(rng.normal(size=(300, 8)))
        >>> new = old @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
        >>> bridge = QueryMap(8, 8).fit(new, old)
        >>> round(bridge.report.kept, 2), bool(np.abs(bridge.transform(new) - old).max() < 1e-3)
        (1.0, True)

    References:
        Gan et al. (2023), arXiv:2302.08714v1, section 3.4 (backward-compatible training), here on the query side alone.
    """

    def __init__(self, new_dim: int, old_dim: int, *, steps: int = 100, seed: int = 0) -> None:
        for name, value, least in (("new_dim", new_dim, 1), ("old_dim", old_dim, 1), ("steps", steps, 0)):
            if value < least:
                raise InputError(f"{name}={value} must be at least {least}")
        self.new_dim, self.old_dim, self.steps, self.seed = new_dim, old_dim, steps, seed
        self.weights: Floats | None = None
        self.report: UpgradeReport | None = None

    def fit(
        self,
        new: ArrayLike,
        old: ArrayLike,
        *,
        pairs: tuple[ArrayLike, ArrayLike] | None = None,
        old_queries: ArrayLike | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Learn from the vectors that both models give the same texts.

        Args:
            new: Vectors of texts by the new model (N, new_dim).
            old: Vectors of the same texts by the old one (N, old_dim), or what a codec's ``decode`` makes of its codes.
            pairs: Vectors of queries by the new model, and of their documents by the old, row by row.
            old_queries: Vectors of the same queries by the old model, to measure what the upgrade loses or gains.
            on_progress: Called with the share done, in [0, 1].

        Returns:
            The map.

        Raises:
            InputError: the arrays do not fit each other.
            MissingExtraError: torch is missing (extra ``train``), and there are pairs to train on.
        """
        draw = np.random.default_rng(self.seed)
        texts, stored = _aligned(("new", new, self.new_dim), ("old", old, self.old_dim))
        order = draw.permutation(len(texts))[:_TRAINED]
        texts, stored = texts[order], stored[order]
        aside = min(_JUDGED, len(texts) // 5)
        corpus = stored[: aside + _CORPUS]
        found = {ridge: _ridge(texts[aside:], stored[aside:], ridge) for ridge in _RIDGES}
        self.weights = max(found.values(), key=lambda each: _agreement(each, texts[:aside], stored[:aside]))
        if pairs is None:
            self._measure(texts[:aside], stored[:aside], stored[:aside], corpus[aside:], trained=False)
            return self
        asked, answers = _aligned(("pairs[0]", pairs[0], self.new_dim), ("pairs[1]", pairs[1], self.old_dim))
        before = None
        if old_queries is not None:
            before, _ = _aligned(("old_queries", old_queries, self.old_dim), ("pairs[1]", pairs[1], self.old_dim))
        order = draw.permutation(len(asked))[:_TRAINED]
        aside = min(_JUDGED, len(asked) // 5)
        judged, rest = order[:aside], order[aside:]
        trained = False
        if self.steps and aside >= _FEWEST:
            require("torch", extra="train")
            from embedlab.search.bebr.query_training import trained_weights

            fresh = trained_weights(
                self.weights, asked[rest], answers[rest], steps=self.steps, seed=self.seed, on_progress=on_progress
            )
            own = np.concatenate([answers[judged], corpus])
            old_ranks, new_ranks = (
                reciprocal_ranks(_mapped(each, asked[judged]) @ own.T, np.arange(aside))
                for each in (self.weights, fresh)
            )
            trained = surely_better(new_ranks, old_ranks)
            self.weights = fresh if trained else self.weights
        self._measure(
            asked[judged], answers[judged], None if before is None else before[judged], corpus, trained=trained
        )
        return self

    def transform(self, vectors: ArrayLike) -> Floats:
        """Carry vectors of the new model into the space of the old one.

        Args:
            vectors: Vectors (Q, new_dim).

        Returns:
            Unit vectors (Q, old_dim); zero for vectors that are zero.

        Raises:
            InputError: the map is not fitted, or the vectors have another width.
        """
        if self.weights is None:
            raise InputError("the map is not fitted: call fit(new, old) first")
        return _mapped(self.weights, checked("vectors", vectors, self.new_dim))

    def _measure(self, asked: Floats, answers: Floats, before: Floats | None, corpus: Floats, *, trained: bool) -> None:
        """Say what the map finds among the answers and the corpus."""
        if len(asked) < _FEWEST or self.weights is None:
            return
        documents = np.concatenate([answers, corpus])
        scores = _mapped(self.weights, asked) @ documents.T
        kept = task_old = float("nan")
        if before is not None:
            wanted = before @ documents.T
            kept = float(np.mean(shared(nearest(scores), nearest(wanted))))
            task_old = float(np.mean(reciprocal_ranks(wanted, np.arange(len(asked)))))
        self.report = UpgradeReport(
            kept, float(np.mean(reciprocal_ranks(scores, np.arange(len(asked))))), task_old, trained, len(asked)
        )


def _mapped(weights: Floats, rows: Floats) -> Floats:
    return unit(rows @ weights)


def _ridge(new: Floats, old: Floats, ridge: float) -> Floats:
    """Solve for the weights, scaled so that mapped vectors have about unit length."""
    rows = new.astype(np.float64)
    weights = np.linalg.solve(rows.T @ rows + ridge * len(rows) * np.eye(rows.shape[1]), rows.T @ old)
    return np.asarray(weights / np.linalg.norm(rows @ weights, axis=1).mean(), np.float32)


def _agreement(weights: Floats, new: Floats, old: Floats) -> float:
    return float(np.vecdot(_mapped(weights, new), old).mean()) if len(new) else 0.0


def _aligned(first: tuple[str, ArrayLike, int], second: tuple[str, ArrayLike, int]) -> tuple[Floats, Floats]:
    rows = [unit(checked(name, vectors, width)) for name, vectors, width in (first, second)]
    if len(rows[0]) != len(rows[1]):
        raise InputError(f"{first[0]} and {second[0]} have {len(rows[0])} and {len(rows[1])} rows: one for each text")
    return rows[0], rows[1]
