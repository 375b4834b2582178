"""What a rewriting is judged by: queries made from the collection's own texts, exact neighbours, recall and time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import CollectionError
from embedlab.search.codecs.scanning import best_of
from embedlab.search.compression.rewriting import rows_of
from embedlab.search.matrix import Floats, RowIds
from embedlab.search.store import CONTENT, VECTOR, lance_errors

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder
    from embedlab.search.snapshot import Snapshot
    from embedlab.search.store import Store

TOP_K = 10
_DEPTH = 100  # candidates of a search, as in ``searching``
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class Question:
    """A query with the passage it was made from.

    Args:
        query: The query.
        content: What was embedded for the passage.
        row: Row number of the passage in the version it was read from.
    """

    query: str
    content: str
    row: int


@dataclass(frozen=True, slots=True)
class Lookups:
    """What some queries found, and how long each took.

    Args:
        rows: Rows found for each query, best first.
        p50_ms: Median time of one look-up.
        p95_ms: Time that 95 % of look-ups stay below.
        bytes_held: Bytes of memory that vectors or codes take.
    """

    rows: list[RowIds]
    p50_ms: float
    p95_ms: float
    bytes_held: int


def questions(store: Store, count: int, *, seed: int = 0) -> list[Question]:
    """Make queries from passages of a collection: headings, first sentences, telling phrases.

    Args:
        store: The collection's tables.
        count: Most queries.
        seed: Decides which passages are taken.

    Returns:
        The queries, in random order; fewer where passages offer none.
    """
    from embedlab.text.synthesis.offline import offline_queries

    with lance_errors("reading", store.address):
        total = store.passages.count_rows()
        # some passages offer no query
        picked = np.random.default_rng(seed).permutation(total)[: count + count // 4 + 16]
        query = store.passages.take_offsets(picked.tolist()).select([CONTENT, "prefix", "headings"]).with_row_id()
        read = query.to_arrow().to_pylist()
    rows = [row for row in read if row[CONTENT][row["prefix"] :].strip()]
    made = offline_queries([_Passage(row[CONTENT][row["prefix"] :], tuple(row["headings"])) for row in rows], seed=seed)
    order = np.random.default_rng(seed).permutation(len(made))[:count]
    return [Question(made[i].query, rows[made[i].source][CONTENT], rows[made[i].source]["_rowid"]) for i in order]


@dataclass(frozen=True, slots=True)
class _Passage:
    text: str
    headings: tuple[str, ...]


def query_vectors(encoder: Encoder, asked: Sequence[Question]) -> Floats:
    """Embed queries; those of which the model knows no word are left out.

    Args:
        encoder: The model.
        asked: The queries.

    Returns:
        Unit vectors (Q, D).

    Raises:
        CollectionError: none is left.
    """
    texts = [each.query for each in asked]
    vectors = np.asarray(encoder.encode_query(texts), np.float32) if texts else np.empty((0, encoder.dim), np.float32)
    vectors = vectors[vectors.any(axis=1)]
    if not len(vectors):
        raise CollectionError(
            "no query could be made from the texts of the collection, so nothing can be measured: index documents first"
        )
    return vectors


def sample_vectors(store: Store, count: int, *, seed: int = 0) -> Floats:
    """Read some of the vectors, those that are zero left out.

    Args:
        store: The collection's tables.
        count: Most vectors.
        seed: Decides which.

    Returns:
        Vectors (N, D).
    """
    with lance_errors("reading", store.address):
        total = store.passages.count_rows()
        picked = np.sort(np.random.default_rng(seed).permutation(total)[:count])
        read = [
            store.vectors_in(store.passages.take_offsets(part.tolist()).select([VECTOR]).to_arrow())
            for part in np.array_split(picked, max(1, len(picked) // _ROWS_AT_ONCE))
        ]
    vectors = np.concatenate(read)
    return vectors[vectors.any(axis=1)]


def exact(store: Store, queries: Floats, top_k: int = TOP_K) -> list[RowIds]:
    """Find the nearest vectors of each query by going through all of them, a batch at a time.

    Args:
        store: The collection's tables; they have vectors.
        queries: Unit vectors (Q, D).
        top_k: Number of rows.

    Returns:
        Row numbers of the present version for each query, best first.
    """

    def scored() -> Iterator[tuple[NDArray[np.int64], Floats]]:
        for read in rows_of(store, [VECTOR], row_ids=True):
            vectors = store.vectors_in(read)
            there = vectors.any(axis=1)
            yield read["_rowid"].to_numpy().astype(np.int64)[there], queries @ vectors[there].T  # (n,), (Q, n)

    _, rows = best_of(scored(), len(queries), top_k)
    return [found[found >= 0].astype(np.uint64) for found in rows]


def look_up(snapshot: Snapshot, queries: Floats) -> Lookups:
    """Look queries up one by one, as searches do, and take the time.

    Args:
        snapshot: The version to search.
        queries: Unit vectors (Q, D).

    Returns:
        What was found.
    """
    held = snapshot.bytes_held  # reads what is to be held
    found = [snapshot.dense(query, None, _DEPTH).rows for query in queries]
    seconds = []
    for query in queries:  # again, now that everything is compiled and cached, as it is in a service
        started = time.perf_counter()
        snapshot.dense(query, None, _DEPTH)
        seconds.append(time.perf_counter() - started)
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return Lookups(found, float(p50), float(p95), held)


def overlap(found: Sequence[RowIds], wanted: Sequence[RowIds], top_k: int = TOP_K) -> float:
    """Return which share of the wanted rows is among the first that were found.

    Args:
        found: Rows found for each query, best first.
        wanted: Rows that should have been, best first.
        top_k: How many of both count.

    Returns:
        The mean share, in [0, 1]; queries that want nothing do not count.
    """
    shares = [np.isin(w[:top_k], f[:top_k]).mean() for f, w in zip(found, wanted, strict=True) if len(w)]
    return float(np.mean(shares)) if shares else 1.0
