"""Search vectors that one encoder made with queries by another, without embedding the texts again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.understand.relative.alignment import align
from embedlab.understand.relative.anchors import AnchorSet
from embedlab.understand.relative.rows import Floats, blocks, matrix, unit

if TYPE_CHECKING:
    from embedlab.models import Encoder

Method: TypeAlias = Literal["relative", "procrustes", "least_squares"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Recall:
    """What searching over the bridge keeps of the new encoder's own results, estimated on texts embedded by both.

    Attributes:
        by_method: Method -> share of the new encoder's k nearest that are among the bridge's k nearest.
        old_encoder: The same share for the old encoder's own vectors: what searching with the old encoder gives.
        chance: The share that random results would have.
        k: Size of the result lists.
        num_texts: Texts searched, each with all others as queries; among more texts recall is lower.
    """

    by_method: dict[Method, float]
    old_encoder: float
    chance: float
    k: int
    num_texts: int


class MigratedIndex:
    """An index of vectors by one encoder, that takes the queries of another. Make one with ``migrate_index``.

    With relative coordinates nothing of size N x K is held: for a query with relative vector q, anchors A and a stored
    x, q . (A x) = (A^T q) . x, so the query is carried back into the old space and compared with the vectors that are
    there; the lengths |A x| are known beforehand.

    Args:
        vectors: Vectors by the old encoder, (N, D).
        encoder: The new encoder.
        anchors: The anchors, rows of the index.
        bridge: What carries queries over.
        recall: What that keeps, estimated.
        method: How queries are carried over.
    """

    def __init__(
        self, vectors: Floats, encoder: Encoder, anchors: AnchorSet, bridge: _Bridge, recall: Recall, method: Method
    ) -> None:
        """Use ``migrate_index`` instead."""
        self.method, self.recall, self.anchors = method, recall, anchors
        self._vectors, self._encoder, self._bridge = vectors, encoder, bridge
        self._scales = bridge.scales(vectors)

    def search(self, queries: Sequence[str] | ArrayLike, *, top_k: int = 10) -> tuple[NDArray[np.intp], Floats]:
        """Find the stored rows nearest to some queries.

        Args:
            queries: Texts, or their vectors by the new encoder.
            top_k: Most rows to return for each.

        Shape:
            queries Q -> rows (Q, top_k), scores (Q, top_k)

        Returns:
            Rows of the index and their cosines, best first.

        Raises:
            InputError: ``queries`` are no texts or vectors of the new encoder, or ``top_k`` is below 1.
        """
        if top_k < 1:
            raise InputError(f"top_k={top_k} must be at least 1")
        if isinstance(queries, str):
            raise InputError(f"queries={queries[:40]!r} is one text: put it into a list")
        texts = isinstance(queries, list | tuple) and bool(queries) and isinstance(queries[0], str)
        rows = matrix("queries", self._encoder.encode_query(queries) if texts else queries, dim=self._encoder.dim)  # type: ignore[arg-type]
        scores = self._bridge.score(rows, self._vectors, self._scales)  # (Q, N)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return order, np.take_along_axis(scores, order, axis=1)


def migrate_index(
    vectors: ArrayLike,
    texts: Sequence[str],
    encoder: Encoder,
    *,
    num_anchors: int = 300,
    method: Method | Literal["best"] = "best",
    num_checked: int = 500,
    k: int = 10,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> MigratedIndex:
    """Let the queries of a new encoder search an index made by an old one, and say how well that works.

    Only the anchors and the texts of the check are embedded by the new encoder. Queries are carried over by their
    similarities to the anchors (``"relative"``, both spaces centred), or by a map fitted on the anchors
    (``"procrustes"``, ``"least_squares"``).

    Args:
        vectors: The index: vectors by the old encoder, one row per text.
        texts: The texts of the rows.
        encoder: The new encoder.
        num_anchors: Texts that both encoders are tied together by; more is better, and costs their embedding.
        method: How; ``"best"`` takes the one with the highest estimated recall.
        num_checked: Further texts embedded to estimate recall.
        k: Length of the result lists for which it is estimated.
        seed: Decides anchors and checked texts.
        on_progress: Called with the number of texts just embedded.

    Shape:
        vectors (N, D) -> MigratedIndex

    Returns:
        The index, with the estimate for all methods as ``recall``.

    Raises:
        InputError: ``vectors`` and ``texts`` differ in length, there are too few of them, or an option is out of range.

    References:
        Moschella et al. (2023), arXiv:2209.15430v4, section 4 (retrieval across spaces).
    """
    if method not in (*METHODS, "best"):
        raise unknown_name("method", method, (*METHODS, "best"))
    rows = matrix("vectors", vectors, at_least=3)
    if len(rows) != len(texts):
        raise InputError(f"texts has {len(texts)} entries for {len(rows)} vectors: give the text of every row")
    if k < 1 or num_checked < k + 2 or num_anchors < 2:
        raise InputError(f"k={k}, num_checked={num_checked}, num_anchors={num_anchors}: at least 1, k + 2 and 2")
    # one draw for both: the first are anchors, the rest is the check
    wanted = min(num_anchors + num_checked, len(_distinct(rows, texts)))
    if wanted < num_anchors + k + 2:
        raise InputError(
            f"num_anchors={num_anchors} leaves {max(wanted - num_anchors, 0)} of {len(rows)} texts for the check, "
            f"at least {k + 2} are needed: take fewer anchors, or embed all texts anew, which costs little here"
        )
    drawn = AnchorSet.select(list(texts), wanted, vectors=rows, seed=seed)
    new = encoder.encode_document(list(drawn.texts), on_progress=on_progress)
    known = new.any(axis=1)  # texts without a word that the new encoder knows tie nothing together
    places, new = drawn.indices[known], matrix("encoder", new[known])
    anchor_places, anchors_new = places[:num_anchors], new[:num_anchors]
    anchors = AnchorSet.of([texts[i] for i in anchor_places])
    anchors = AnchorSet(anchors.hash, anchor_places, len(rows), anchors.texts)
    bridges: dict[Method, _Bridge] = {
        name: _Bridge.fit(name, rows[anchor_places], anchors_new, rows) for name in METHODS if method in (name, "best")
    }
    recall = _estimate(bridges, rows[places[num_anchors:]], new[num_anchors:], k)
    best = max(recall.by_method, key=lambda name: recall.by_method[name]) if method == "best" else method
    return MigratedIndex(rows, encoder, anchors, bridges[best], recall, best)


@dataclass(frozen=True, slots=True)
class _Bridge:
    """Carries queries into the old space: cosine of ``carry(q)`` with ``(x - mean)``, lengths after ``through``."""

    mean: Floats  # of the old space, (D,)
    through: Floats | None  # anchors of the old space, unit rows (K, D), for relative coordinates
    carry: Callable[[Floats], Floats]  # queries (Q, D_new) -> directions in the old space (Q, D)

    @classmethod
    def fit(cls, method: Method, old: Floats, new: Floats, rows: Floats) -> _Bridge:
        mean = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
        if method != "relative":
            linear = align(new, old, method=method)
            return cls(mean, None, lambda queries: (linear.transform(queries) - mean).astype(rows.dtype))
        new_mean = new.mean(axis=0)
        left, right = unit(new - new_mean), unit(old - mean)  # (K, D_new), (K, D)
        return cls(mean, right, lambda queries: unit(unit(queries - new_mean) @ left.T).astype(rows.dtype) @ right)

    def scales(self, rows: Floats) -> Floats:
        """One over the length of each stored row as the query meets it, (N,); 0 for rows without direction."""
        found = np.empty(len(rows), dtype=rows.dtype)
        for part in blocks(len(rows)):
            moved = rows[part] - self.mean
            lengths = np.linalg.norm(moved if self.through is None else moved @ self.through.T, axis=1)
            usable = (lengths > 0) & rows[part].any(axis=1)
            found[part] = np.where(usable, 1 / np.where(usable, lengths, 1), 0)
        return found

    def score(self, queries: Floats, rows: Floats, scales: Floats) -> Floats:
        """Cosines (Q, N)."""
        carried = self.carry(queries)  # (Q, D)
        if self.through is None:
            carried = unit(carried)
        return np.asarray((carried @ rows.T - (carried @ self.mean)[:, None]) * scales)


def _estimate(bridges: dict[Method, _Bridge], old: Floats, new: Floats, k: int) -> Recall:
    """Search the checked texts with each other; what the new encoder itself finds is right."""
    right = _nearest(unit(new) @ unit(new).T, k)
    found = {name: _nearest(bridge.score(new, old, bridge.scales(old)), k) for name, bridge in bridges.items()}
    return Recall(
        by_method={name: _share(places, right) for name, places in found.items()},
        old_encoder=_share(_nearest(unit(old) @ unit(old).T, k), right),
        chance=k / (len(old) - 1),
        k=k,
        num_texts=len(old),
    )


def _nearest(scores: Floats, k: int) -> NDArray[np.intp]:
    scores = scores.copy()
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]


def _share(found: NDArray[np.intp], right: NDArray[np.intp]) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, right, strict=True)]))


def _distinct(rows: Floats, texts: Sequence[str]) -> set[str]:
    return {text for text, row in zip(texts, rows, strict=True) if row.any()}


def describe(recall: Recall) -> dict[str, Any]:
    """Return an estimate as plain data, for JSON.

    Args:
        recall: The estimate.

    Returns:
        Its figures by name.
    """
    return {
        "recall": dict(recall.by_method),
        "old_encoder": recall.old_encoder,
        "chance": recall.chance,
        "k": recall.k,
        "texts_checked": recall.num_texts,
    }
