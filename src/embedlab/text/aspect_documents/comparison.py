"""Does it help here? Plain vectors and every way of specialising them, on documents held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.aspect_documents.heads import AspectHead
from embedlab.text.aspect_documents.measures import AspectScores, aspect_bias, aspect_scores, mean_scores, nearest
from embedlab.text.aspect_documents.names import GENERIC
from embedlab.text.aspect_documents.pairs import AspectPairs, Rows
from embedlab.text.aspect_documents.retrofit import ExplicitRetrofit
from embedlab.text.aspect_documents.training import WAYS, HeadSettings, Way, train_head

Floats = NDArray[np.float32]
Shown = ("precision", "recall", "mrr", "map", "ndcg")

_MOST_QUERIES = 3000  # of a fold: ranking costs their square


@dataclass(frozen=True, slots=True)
class AspectComparison:
    """Scores on held-out documents.

    Args:
        scores: System -> aspect -> scores fold by fold; the system ``"generic"`` is the plain vectors.
        matrix: Aspect trained on -> aspect asked for -> precision fold by fold, of the first system that is trained.
        bias: Aspect -> share of the plain neighbours that are also neighbours in its space, fold by fold.
        top_k: Length of the ranked lists.
        documents: Number of documents.
    """

    scores: Mapping[str, Mapping[str, Sequence[AspectScores]]]
    matrix: Mapping[str, Mapping[str, Sequence[float]]]
    bias: Mapping[str, Sequence[float]]
    top_k: int
    documents: int

    def gain(self, aspect: str, *, system: str | None = None, metric: str = "precision") -> list[float]:
        """Return by how much a system beats the plain vectors, fold by fold.

        Args:
            aspect: The aspect.
            system: The system; None takes the first that is trained.
            metric: One of the scores.

        Returns:
            Differences, above 0 where the system is better.
        """
        name = system or next(name for name in self.scores if name != GENERIC)
        pairs = zip(self.scores[name][aspect], self.scores[GENERIC][aspect], strict=True)
        return [getattr(ours, metric) - getattr(plain, metric) for ours, plain in pairs]

    def helps(self, aspect: str) -> bool:
        """Tell whether the first trained system is better than the plain vectors in every fold."""
        return min(self.gain(aspect)) > 0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, means with their spread over folds."""
        return {
            "documents": self.documents,
            "top_k": self.top_k,
            "scores": {
                system: {aspect: mean_scores(list(folds)) for aspect, folds in by_aspect.items()}
                for system, by_aspect in self.scores.items()
            },
            "matrix": {a: {b: _spread(folds) for b, folds in row.items()} for a, row in self.matrix.items()},
            "bias": {aspect: _spread(folds) for aspect, folds in self.bias.items()},
            "helps": {aspect: self.helps(aspect) for aspect in self.matrix},
        }

    def to_table(self) -> str:
        """Return three tables as text: systems by aspects, spaces by aspects, and the bias of the plain vectors."""
        aspects, k = list(self.matrix), self.top_k
        first = [["system", "aspect", f"P@{k}", f"R@{k}", "MRR", "MAP", "nDCG"]]
        for aspect in aspects:
            for system, by_aspect in self.scores.items():
                means = mean_scores(list(by_aspect[aspect]))
                first.append([system, aspect, *(f"{means[m][0]:.3f} ±{means[m][1]:.3f}" for m in Shown)])
        second = [[f"P@{k} of the space for", *aspects]]
        plain = [[each.precision for each in self.scores[GENERIC][aspect]] for aspect in aspects]
        second.append([GENERIC, *(_shown(folds) for folds in plain)])
        second += [[aspect, *(_shown(self.matrix[aspect][b]) for b in aspects)] for aspect in aspects]
        third = [[f"of the plain {k} nearest", *aspects], ["also near in its space", *map(_shown, self.bias.values())]]
        return "\n\n".join(_table(rows) for rows in (first, second, third))


def compare_aspects(
    pairs: AspectPairs,
    vectors: Floats,
    *,
    ways: Sequence[Way] = ("siamese",),
    settings: HeadSettings | None = None,
    retrofit: Callable[[], ExplicitRetrofit] = ExplicitRetrofit,
    top_k: int = 10,
    folds: int | None = None,
    seed: int = 0,
) -> AspectComparison:
    """Train on the documents of all folds but one, and look for what is alike among those of that one; for each fold.

    Candidates are the documents of the held-out fold that have a label of the aspect, not the whole corpus.

    Args:
        pairs: Documents and labels.
        vectors: Vectors of the documents by the model that stays frozen.
        ways: Ways of training, the first of which also fills the matrix.
        settings: How Siamese and classification heads are trained; None for the defaults.
        retrofit: Makes a fresh ``ExplicitRetrofit``.
        top_k: Length of the ranked lists.
        folds: How many folds take their turn; None for all.
        seed: Decides first weights and order.

    Shape:
        vectors (N, D)

    Returns:
        Scores of all systems.

    Raises:
        InputError: an unknown way, numbers that do not fit, or an aspect without pairs to learn from or to test on.
        MissingExtraError: the extra ``train`` is not installed.
    """
    if len(vectors) != len(pairs):
        raise InputError(f"vectors: {len(vectors)} rows for {len(pairs)} documents")
    if not ways:
        raise InputError(f"ways: none given; choose among {', '.join(WAYS)}")
    for way in ways:
        if way not in WAYS:
            raise unknown_name("way", way, WAYS)
    turns = range(pairs.num_folds if folds is None else min(folds, pairs.num_folds))
    aspects = pairs.aspects
    scores: dict[str, dict[str, list[AspectScores]]] = {s: {a: [] for a in aspects} for s in (GENERIC, *ways)}
    matrix: dict[str, dict[str, list[float]]] = {a: {b: [] for b in aspects} for a in aspects}
    bias: dict[str, list[float]] = {a: [] for a in aspects}
    for fold in turns:
        train, test = pairs.rows(fold), pairs.rows(fold, test=True)
        tests = {aspect: _Test.of(pairs, aspect, test, top_k, seed) for aspect in aspects}
        options = {"rows": train, "settings": settings, "retrofit": retrofit, "seed": seed}
        heads = {
            way: {a: fit_head(pairs, a, vectors, way=way, **options) for a in aspects}  # type: ignore[arg-type]
            for way in ways
        }
        for b, asked in tests.items():
            rows = vectors[asked.rows]
            scores[GENERIC][b].append(asked.scores(rows))
            for way in ways:
                scores[way][b].append(asked.scores(heads[way][b](rows)))
            for a in aspects:
                matrix[a][b].append(asked.scores(heads[ways[0]][a](rows)).precision)
        some = vectors[test[:_MOST_QUERIES]]
        own = {a: head(some) for a, head in heads[ways[0]].items()}
        for aspect, share in aspect_bias(some, own, top_k=min(top_k, len(some) - 1)).overlap.items():
            bias[aspect].append(share)
    return AspectComparison(scores, matrix, bias, top_k, len(pairs))


def fit_head(
    pairs: AspectPairs,
    aspect: str,
    vectors: Floats,
    *,
    rows: Rows | None = None,
    way: Way = "siamese",
    settings: HeadSettings | None = None,
    retrofit: Callable[[], ExplicitRetrofit] = ExplicitRetrofit,
    seed: int = 0,
) -> AspectHead:
    """Train the head of one aspect in one of the three ways.

    Args:
        pairs: Documents and labels.
        aspect: The aspect.
        vectors: Vectors of the documents.
        rows: Places of the documents to learn from; None for all.
        way: ``"siamese"``, ``"classification"`` or ``"retrofitting"``.
        settings: How the first two are trained; None for the defaults.
        retrofit: Makes a fresh ``ExplicitRetrofit`` for the third.
        seed: Decides first weights and order.

    Shape:
        vectors (N, D)

    Returns:
        The head.

    Raises:
        InputError: an unknown way or aspect, or no pair to learn from.
    """
    chosen = pairs.sample(aspect, rows)
    if way == "retrofitting":
        fitted = retrofit().fit(vectors, chosen).head_
        if fitted is None:
            raise InputError("retrofit: it gave no map")
        return fitted
    return train_head(vectors, chosen, pairs.relation(aspect, rows), way=way, settings=settings, seed=seed)


@dataclass(frozen=True, slots=True)
class _Test:
    """Candidates of one aspect in one fold, and who is relevant to whom."""

    rows: Rows
    relevant: NDArray[np.bool_]
    apart: NDArray[np.bool_]
    top_k: int

    @classmethod
    def of(cls, pairs: AspectPairs, aspect: str, test: Rows, top_k: int, seed: int) -> _Test:
        relation = pairs.relation(aspect, test)
        rows = relation.labelled
        if len(rows) > _MOST_QUERIES:
            rows = np.sort(np.random.default_rng(seed).choice(rows, _MOST_QUERIES, replace=False))
        relevant = relation.alike(rows, rows)
        if len(rows) <= 2 or not relevant.any():
            raise InputError(
                f"aspect {aspect!r}: {len(rows)} labelled documents in a fold and no two of them alike, so it cannot "
                "be tested; give more labels or fewer folds"
            )
        return cls(rows, relevant, relation.together(rows, rows), min(top_k, len(rows) - 1))

    def scores(self, rows: Floats) -> AspectScores:
        return aspect_scores(nearest(rows, top_k=self.top_k, apart=self.apart), self.relevant)


def _spread(folds: Sequence[float]) -> tuple[float, float]:
    values = np.array(folds, np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _shown(folds: Sequence[float]) -> str:
    mean, spread = _spread(folds)
    return f"{mean:.3f} ±{spread:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
