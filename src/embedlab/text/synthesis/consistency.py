"""Round trip: a query is kept if searching for it brings its own passage back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.models.encoder import Encoder, unit_rows

Pair = TypeVar("Pair")

_BLOCK = 512  # queries compared at once
_ROUNDING = 1e-6  # cosines nearer than this are equal: copies of a passage are no rivals


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """What a round-trip filter did.

    Attributes:
        top_k: How far down a query's own passage could stand.
        ranks: Rank of every pair's own passage, from 1, in the order of the pairs.
        kept: Whether each pair was kept.
        by_kind: Kind -> (kept, all), for pairs that say how they were made.
    """

    top_k: int
    ranks: NDArray[np.int64]
    kept: NDArray[np.bool_]
    by_kind: dict[str, tuple[int, int]]

    @property
    def share_kept(self) -> float:
        """Share of the pairs that were kept, in [0, 1]."""
        return float(self.kept.mean()) if len(self.kept) else 1.0


def consistency_filter(
    pairs: Sequence[Pair], passages: Sequence[Any], encoder: Encoder, *, top_k: int = 1
) -> tuple[list[Pair], ConsistencyReport]:
    """Keep the pairs whose query finds its own passage among the ``top_k`` nearest of all passages.

    A query that leads elsewhere is too vague, about something else, or answered better by another passage: as a
    training pair it would teach the wrong thing. The encoder must be able to tell; its errors become the data's.

    Args:
        pairs: Anything with ``query`` and ``passage`` (or ``positive``), or ``(query, passage)``.
        passages: All passages that are searched, as texts or with a ``text``. A passage that equals the pair's own, or
            holds it (its first sentence became the query), is no rival.
        encoder: Finds the nearest, by cosine.
        top_k: Lowest rank that is kept, at least 1.

    Returns:
        The pairs that are kept, in order, and a report on all of them.

    Raises:
        InputError: ``top_k`` is below 1, or something is neither pair nor passage.

    Example:
        >>> from embedlab import load_model
        >>> passages = ["The cat sat on the mat.", "Interest rates rose again."]
        >>> pairs = [("where does the cat sit", passages[0]), ("central bank interest", passages[0])]
        >>> kept, report = consistency_filter(pairs, passages, load_model())
        >>> kept == pairs[:1], report.ranks.tolist()
        (True, [1, 2])

    References:
        Alberti et al. (2019), Synthetic QA Corpora Generation with Roundtrip Consistency, arXiv:1906.05416;
        Dai et al. (2022), Promptagator, arXiv:2209.11755, which keeps a query if its passage comes first.
    """
    if top_k < 1:
        raise InputError(f"top_k={top_k}: must be at least 1")
    read = [query_and_passage(pair) for pair in pairs]
    ranks = round_trip_ranks(read, [_text(each) for each in passages], encoder)
    good = ranks <= top_k
    kinds = [str(getattr(pair, "kind", "")) for pair in pairs]
    every, kept = Counter(kinds), Counter(kind for kind, keep in zip(kinds, good, strict=True) if keep)
    by_kind = {kind: (kept[kind], count) for kind, count in sorted(every.items()) if kind}
    return [pair for pair, keep in zip(pairs, good, strict=True) if keep], ConsistencyReport(
        top_k, ranks, good, by_kind
    )


def round_trip_ranks(pairs: Sequence[tuple[str, str]], passages: Sequence[str], encoder: Encoder) -> NDArray[np.int64]:
    """Say at which rank each query finds its own passage among all of them.

    Args:
        pairs: Queries with their passages.
        passages: All passages.
        encoder: Compares, by cosine.

    Returns:
        Ranks from 1, (N,): one more than the number of passages that are nearer and do not hold the own one.
    """
    pool = list(dict.fromkeys(passages))
    place = {text: i for i, text in enumerate(pool)}
    extra = [text for text in dict.fromkeys(passage for _, passage in pairs) if text not in place]
    known = dict(zip([*pool, *extra], range(len(pool) + len(extra)), strict=True))
    ranks = np.ones(len(pairs), dtype=np.int64)
    if not pairs or not pool:
        return ranks
    vectors = unit_rows(np.array(encoder.encode_document([*pool, *extra]), dtype=np.float32))  # (P + E, D)
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        queries = unit_rows(np.array(encoder.encode_query([query for query, _ in block]), dtype=np.float32))
        own = np.einsum("qd,qd->q", queries, vectors[[known[passage] for _, passage in block]])
        nearer = queries @ vectors[: len(pool)].T > own[:, None] + _ROUNDING  # (Q, P)
        for row, (_, passage) in enumerate(block):
            rivals = np.flatnonzero(nearer[row])
            ranks[start + row] = 1 + len(rivals) - sum(passage in pool[i] for i in rivals)
    return ranks


def query_and_passage(pair: Any) -> tuple[str, str]:
    """Read a query and its passage out of a pair of any shape.

    Args:
        pair: Something with ``query`` and ``passage`` or ``positive``, or a sequence of the two.

    Returns:
        The two texts.

    Raises:
        InputError: it is no such thing.
    """
    if isinstance(pair, tuple | list):
        found: tuple[Any, Any] = (pair[0], pair[1]) if len(pair) >= 2 else (None, None)
    else:
        found = getattr(pair, "query", None), getattr(pair, "passage", getattr(pair, "positive", None))
    if not all(isinstance(text, str) for text in found):
        raise InputError(f"pair={pair!r:.120}: expected query and passage as texts")
    return found


def _text(passage: Any) -> str:
    text = passage if isinstance(passage, str) else getattr(passage, "text", None)
    if not isinstance(text, str):
        raise InputError(f"passage={passage!r:.120}: expected a text, or something with a text")
    return text
