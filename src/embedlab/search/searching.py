"""From a query to ranked passages: both lookups at once, one blend, one read of the rows that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedlab._core.errors import InputError
from embedlab.search.feedback import towards
from embedlab.search.filters import normalise_filter
from embedlab.search.matrix import Floats, RowIds
from embedlab.search.ranking import MAX_QUERY_CHARS, Terms, fuse, ranks
from embedlab.search.records import Hit, Mode
from embedlab.search.snapshot import Found, Snapshot
from embedlab.search.store import CONTENT, from_json

if TYPE_CHECKING:
    import pyarrow as pa

    from embedlab.models.encoder import Encoder
    from embedlab.search.aspects import AspectView

_DEPTH = 100  # candidates of each list; more of them change no top ten (measured on the development sets)
_MODES = ("hybrid", "dense", "lexical")
Shared = tuple[tuple[str, float], ...]


@dataclass(slots=True)
class Ranked:
    """Rows in order with their scores and what these are made of."""

    rows: RowIds
    scores: Floats
    parts: dict[str, Floats] = field(default_factory=dict)  # NaN: the row was not in that list
    table: pa.Table = None
    query: Floats | None = None  # its vector, if there is one
    shared: list[Shared] = field(default_factory=list)

    def keep(self, chosen: np.ndarray) -> Ranked:
        """Return some of the rows."""
        parts = {name: values[chosen] for name, values in self.parts.items()}
        return Ranked(self.rows[chosen], self.scores[chosen], parts, query=self.query)


def find(
    snapshot: Snapshot,
    query: str,
    terms: Terms | None,
    *,
    encoder: Encoder | None,
    top_k: int,
    mode: Mode,
    where: str | None,
    weight: float,
    per_document: bool,
    explain: bool = False,
    near: AspectView | None = None,
    feedback: tuple[int, float] = (0, 0.0),
) -> Ranked:
    """Rank passages for a query; arguments as for ``Collection.search``.

    ``near`` compares in aspects. ``feedback`` is how many passages of a first search the query moves towards, and how
    far; aspects know nothing of it.
    """
    _check(query, top_k, mode, weight)
    if terms is None or not query.strip():
        return Ranked(np.empty(0, np.uint64), np.empty(0, np.float32))
    condition = normalise_filter(where, snapshot.columns) if where is not None else None
    depth = max(_DEPTH, (8 if per_document else 2) * top_k)
    if mode == "lexical":
        found = snapshot.lexical(terms.text, condition, depth)()
        ranked = Ranked(found.rows, found.scores, {"bm25": found.scores, "lexical_rank": _counted(found)})
    else:
        if encoder is None:
            raise InputError(f"mode={mode!r} needs a model")
        words = snapshot.lexical(terms.text, condition, depth) if mode == "hybrid" else None  # goes on while we embed
        vector = np.asarray(encoder.encode_query([query])[0], np.float32)  # (D,)
        dense = (near or snapshot).dense(vector, condition, depth)
        lexical = None if words is None else words()
        ranked = _blended(near or snapshot, vector, lexical, dense, weight)
        passages, step = feedback
        if passages and near is None and vector.any():
            best = ranked.rows[np.argsort(-ranked.scores, kind="stable")[:passages]]
            vector = towards(vector, snapshot.vectors(best), weight=step)
            ranked = _blended(snapshot, vector, lexical, snapshot.dense(vector, condition, depth), weight)
    order = np.argsort(-ranked.scores, kind="stable")
    ranked = ranked.keep(order)
    if per_document and len(ranked.rows):
        docs = snapshot.take(ranked.rows, ["doc"])["doc"].to_numpy()
        ranked = ranked.keep(np.sort(np.unique(docs, return_index=True)[1]))
    ranked = _fetched(snapshot, ranked.keep(np.arange(len(ranked.rows))[:top_k]))
    if explain and near is not None and ranked.query is not None:
        cosines = near.parts(ranked.query, ranked.rows)
        ranked.parts.update({f"aspect {name}": found for name, found in cosines.items()})
    elif explain:
        _share(snapshot, ranked, getattr(encoder, "dimensions", ()))
    return ranked


def _blended(near: Snapshot | AspectView, vector: Floats, lexical: Found | None, dense: Found, weight: float) -> Ranked:
    if lexical is None:
        return Ranked(dense.rows, dense.scores, {"cosine": dense.scores, "dense_rank": _counted(dense)}, query=vector)
    rows = np.union1d(lexical.rows, dense.rows)  # ascending
    bm25, cosine = np.zeros(len(rows), np.float32), np.empty(len(rows), np.float32)
    in_words, in_dense = np.searchsorted(rows, lexical.rows), np.searchsorted(rows, dense.rows)
    bm25[in_words] = lexical.scores
    only_words = np.ones(len(rows), np.bool_)
    only_words[in_dense] = False
    cosine[in_dense] = dense.scores
    cosine[only_words] = near.cosines(vector, rows[only_words])
    # a query whose words the model does not know says nothing about nearness: the words decide alone
    share = weight if vector.any() else 0.0
    scores, bm25_part, cosine_part = fuse(bm25, cosine, weight=share)
    nan = np.full(len(rows), np.nan, np.float32)
    lexical_rank, dense_rank = nan.copy(), nan.copy()
    lexical_rank[in_words], dense_rank[in_dense] = _counted(lexical), _counted(dense)
    parts = {
        "bm25": bm25,
        "bm25_normalised": bm25_part,
        "cosine": cosine,
        "cosine_normalised": cosine_part,
        "weight": np.full(len(rows), share, np.float32),
        "lexical_rank": lexical_rank,
        "dense_rank": dense_rank,
    }
    return Ranked(rows, scores, parts, query=vector)


def neighbours(
    snapshot: Snapshot, passage_id: str, top_k: int, where: str | None = None, *, near: AspectView | None = None
) -> Ranked:
    """Rank passages by cosine with one of them."""
    _check("", top_k, "dense", 0.0)
    if not isinstance(passage_id, str):
        raise InputError(f"passage_id={passage_id!r}: must be the id of a hit")
    table = snapshot.find("id = '" + passage_id.replace("'", "''") + "'", ["ordinal"])
    if not table.num_rows:
        raise InputError(f"passage_id={passage_id!r}: there is no such passage (any more): take it from a recent hit")
    vector = snapshot.vectors(table["_rowid"].to_numpy())[0]
    found = (near or snapshot).dense(vector, normalise_filter(where) if where is not None else None, top_k + 1)
    others = np.flatnonzero(found.rows != table["_rowid"][0].as_py())[:top_k]
    return _fetched(snapshot, Ranked(found.rows, found.scores, {"cosine": found.scores}).keep(others))


def hits_of(ranked: Ranked, terms: Terms | None, *, explain: bool) -> list[Hit]:
    """Dress ranked rows for people: passages without their prefix, highlights, and the reasons if wanted."""
    hits = []
    for index, row in enumerate(ranked.table.to_pylist() if ranked.table is not None else []):
        text = row[CONTENT][row["prefix"] :]
        spans, matched = terms.find(text) if terms is not None else ((), ())
        parts = {}
        if explain:
            parts = {name: float(values[index]) for name, values in ranked.parts.items() if not np.isnan(values[index])}
        hits.append(
            Hit(
                id=row["id"],
                source=row["source"],
                title=row["title"],
                text=text,
                start=row["start"],
                end=row["end"],
                score=float(ranked.scores[index]),
                format=row["format"],
                page=row["page"],
                headings=tuple(row["headings"]),
                highlights=spans,
                best_sentence=terms.best_sentence(text, spans) if terms is not None else None,
                metadata=from_json(row["metadata"]),
                parts=parts,
                matched=matched if explain else (),
                shared=ranked.shared[index] if ranked.shared else (),
            )
        )
    return hits


def _fetched(snapshot: Snapshot, ranked: Ranked) -> Ranked:
    if len(ranked.rows):
        ranked.table = snapshot.shown(ranked.rows)
    return ranked


def _share(snapshot: Snapshot, ranked: Ranked, names: Sequence[str]) -> None:
    """Say which named dimensions the query shares with each row, and what they add to the cosine."""
    if ranked.query is None or not names or not len(ranked.rows):
        return
    for added in snapshot.vectors(ranked.rows) * ranked.query:  # (D,), sums to the cosine
        order = np.argsort(-added, kind="stable")
        ranked.shared.append(tuple((names[place], float(added[place])) for place in order if added[place] != 0))


def _counted(found: Found) -> Floats:
    return ranks(found.scores).astype(np.float32)


def _check(query: str, top_k: int, mode: str, weight: float) -> None:
    if not isinstance(query, str):
        raise InputError(f"query={query!r:.80}: must be a text")
    if len(query) > MAX_QUERY_CHARS:
        raise InputError(f"query has {len(query)} characters: at most {MAX_QUERY_CHARS} are allowed; shorten it")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= 10_000:
        raise InputError(f"top_k={top_k!r}: must be a whole number from 1 to 10000")
    if mode not in _MODES:
        raise InputError(f"mode={mode!r}: must be one of {', '.join(_MODES)}")
    if not 0.0 <= weight <= 1.0:
        raise InputError(f"weight={weight!r}: must lie in [0, 1] (share of the dense part)")
