"""Compressing a collection and undoing it: codes for all vectors, measured before anything is switched."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import CollectionError, InputError
from embedlab.search.compression.bridge import loaded
from embedlab.search.compression.column import (
    CODE,
    PENDING,
    CodeColumn,
    codes_array,
    codes_of,
    forget_codecs,
    in_step,
    save_codec,
)
from embedlab.search.compression.probing import (
    Lookups,
    exact,
    look_up,
    overlap,
    query_vectors,
    questions,
    sample_vectors,
)
from embedlab.search.compression.reports import CompressionReport, Form, OnPhase, UndoReport
from embedlab.search.compression.rewriting import drop_codes, fill, gone_if_it_fails, rows_of, switch, tidy
from embedlab.search.compression.rewriting import drop_vectors as without_vectors
from embedlab.search.intake import Stop, encode, patient_interrupt
from embedlab.search.matrix import Floats
from embedlab.search.places import place
from embedlab.search.snapshot import Snapshot
from embedlab.search.store import CONTENT, VECTOR, Store, passage_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from embedlab.models.encoder import Encoder
    from embedlab.search.codecs import Codec

VERIFY = 100
_QUERIES = 200
_FIT_BYTES = 64 << 20  # vectors that a codec learns from
_PAIRS = 20_000


def compress_collection(
    name_or_path: str | os.PathLike[str],
    *,
    codec: str,
    bits: float | None = None,
    dim: int | None = None,
    verify: int | None = None,
    drop_vectors: bool = False,
    model: Encoder | None = None,
    on_progress: OnPhase | None = None,
) -> CompressionReport:
    """Encode the vectors of a collection, so that searches hold codes in memory instead of vectors.

    The codec learns from the collection itself: its vectors and, if it wants pairs, queries made of its texts. Codes
    are written beside the vectors; when they are complete and measured, one commit makes searches use them. Until then,
    and whenever anything goes wrong, the collection is as it was. Searches take candidates from the codes and score the
    first ``verify`` of them by the vectors on disk.

    Args:
        name_or_path: As for ``Collection.open``.
        codec: Name of the codec; see ``embedlab.search.codecs.codec_names``.
        bits: Bits per dimension; None for the codec's own default.
        dim: Dimensions of the code, for codecs that let one choose; None for the codec's own default.
        verify: How many candidates to score by their vectors, 0 for none; None for 100, or 0 without vectors.
        drop_vectors: Take the vectors away afterwards; undoing it then embeds all passages again.
        model: The collection's model, if it is at hand; otherwise it is loaded by its recorded name.
        on_progress: Told the phase and the share of it that is done.

    Returns:
        Recall, bytes and time before and after.

    Raises:
        InputError: there is no such codec, or an argument is out of range.
        CollectionError: it does not exist, is empty, has no vectors any more, is being written, or the codes are wrong.
        KeyboardInterrupt: Ctrl-C; the collection is as it was.
    """
    candidates = _checked_verify(verify, drop_vectors)
    told = on_progress or _silent
    started = time.perf_counter()
    spot = place(name_or_path)
    with spot.writing(), patient_interrupt() as stop:
        description = spot.read()
        store = Store.at(spot, description)
        encoder = loaded(spot, description, model)
        tidy(store)
        _demand_vectors(store)
        told("learning", 0.0)
        made = _fitted(store, encoder, codec, bits, dim, told)
        _go_on(stop)
        queries = query_vectors(encoder, questions(store, _QUERIES, seed=1))
        bytes_before = store.stats("total_bytes")
        before, bytes_each = _present(store, queries)
        forget_codecs(store.address, keep={made.fingerprint, *_in_use(store)})
        save_codec(made, store.address)
        column = CodeColumn(made.fingerprint, description.stored_model, candidates, made.bytes_per_vector)
        fill(
            store,
            column.field(),
            [VECTOR],
            lambda rows: codes_array(made, store.vectors_in(rows)),
            told=lambda share: told("encoding", share),
            stop=stop,
        )
        with gone_if_it_fails(store):
            told("verifying", 0.0)
            passages = _demand_same_codes(store, column)
            wanted = exact(store, queries)
            after = look_up(Snapshot(store, code=PENDING), queries)
            alone = look_up(Snapshot(store, code=PENDING, verify=0), queries) if candidates else after
            told("verifying", 1.0)
            _go_on(stop)
            spot.write(replace(description, schema_version=2))  # earlier releases would add rows without codes
            switch(store, CODE)
        tidy(store)
        if drop_vectors:
            told("rewriting", 0.0)
            without_vectors(store)
        bytes_after = store.stats("total_bytes")

    def form(found: Lookups, each: int, on_disk: int) -> Form:
        return Form(overlap(found.rows, wanted), each, found.bytes_held, on_disk, found.p50_ms, found.p95_ms)

    return CompressionReport(
        collection=spot.name,
        codec=made.fingerprint,
        passages=passages,
        verify=candidates,
        vectors_kept=not drop_vectors,
        before=form(before, bytes_each, bytes_before),
        after=form(after, made.bytes_per_vector, bytes_after),
        recall_of_codes=overlap(alone.rows, wanted),
        queries=len(queries),
        seconds=time.perf_counter() - started,
    )


def undo_compression(
    name_or_path: str | os.PathLike[str], *, model: Encoder | None = None, on_progress: OnPhase | None = None
) -> UndoReport:
    """Make a compressed collection search its vectors again.

    Vectors that were kept are used at once. Those that were dropped are made again from the stored texts; until all
    are there, searches use the codes.

    Args:
        name_or_path: As for ``Collection.open``.
        model: The collection's model, if it is at hand.
        on_progress: Told the phase and the share of it that is done.

    Returns:
        What was done.

    Raises:
        CollectionError: it does not exist, is not compressed, is being written, or its model does not fit.
        KeyboardInterrupt: Ctrl-C; the collection is as it was.
    """
    started = time.perf_counter()
    spot = place(name_or_path)
    with spot.writing(), patient_interrupt() as stop:
        description = spot.read()
        store = Store.at(spot, description)
        tidy(store)
        column = store.coded()
        if column is None:
            raise CollectionError(f"collection {spot.name!r} is not compressed: there is nothing to undo")
        embedded = 0
        if VECTOR not in store.passages.schema.names:
            embed_again(store, loaded(spot, description, model), told=on_progress or _silent, stop=stop)
            embedded = store.passages.count_rows()
        drop_codes(store)
    return UndoReport(spot.name, column.codec, embedded, time.perf_counter() - started)


def embed_again(store: Store, encoder: Encoder, *, told: OnPhase, stop: Stop) -> None:
    """Make the vectors of a collection from its stored texts.

    Args:
        store: The collection's tables; the caller holds the lock.
        encoder: The collection's model.
        told: Told the phase and the share of it that is done.
        stop: Asked between batches whether to stop.

    Raises:
        KeyboardInterrupt: it was asked to stop; the collection is as it was.
        CollectionError: the model gives vectors that would spoil the collection; it is as it was.
    """
    import pyarrow as pa

    field = passage_schema(store.dim, store.settings.vector_type).field(VECTOR)
    kind = np.float16 if store.settings.vector_type == "float16" else np.float32

    def vectors(rows: pa.Table) -> pa.Array:
        flat = encode(encoder, rows[CONTENT].to_pylist()).astype(kind).ravel()
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type)

    fill(store, field, [CONTENT], vectors, told=lambda share: told("embedding", share), stop=stop)
    switch(store, VECTOR)
    tidy(store)


def _fitted(store: Store, encoder: Encoder, name: str, bits: float | None, dim: int | None, told: OnPhase) -> Codec:
    from embedlab.search.codecs import make_codec

    settings: dict[str, Any] = {} if dim is None else {"code_dim": dim}
    whole = int(bits) if bits is not None and bits == int(bits) else bits
    codec = make_codec(name, store.dim, bits=whole, **settings)
    vectors = sample_vectors(store, _FIT_BYTES // (4 * store.dim))
    pairs = _pairs(store, encoder) if codec.learns_from_pairs else None
    return codec.fit(vectors, pairs=pairs, on_progress=lambda share: told("learning", share))


def _pairs(store: Store, encoder: Encoder) -> tuple[Floats, Floats]:
    """Embed queries made of the texts, and the passages they were made from."""
    asked = questions(store, _PAIRS)
    queries = np.asarray(encoder.encode_query([each.query for each in asked]), np.float32)
    passages = np.asarray(encoder.encode_document([each.content for each in asked]), np.float32)
    known = queries.any(axis=1) & passages.any(axis=1)
    return queries[known], passages[known]


def _present(store: Store, queries: Floats) -> tuple[Lookups, int]:
    """Look queries up as the collection is now; and return the bytes that one passage takes in memory."""
    snapshot = Snapshot(store)
    each = snapshot.coded.bytes_per_vector if snapshot.coded is not None else 4 * store.dim
    return look_up(snapshot, queries), each


def _demand_same_codes(store: Store, column: CodeColumn) -> int:
    """Check that the codes that were written are those the stored codec makes, one for every vector; count them.

    Raises:
        CollectionError: they are not.
    """
    codec = store.codec(column)
    passages = 0
    for rows in rows_of(store, [VECTOR, PENDING]):
        vectors = store.vectors_in(rows)
        codes, there = codes_of(rows[PENDING], column.bytes_per_vector)
        if not in_step(codec, codes, there, vectors):
            raise CollectionError(
                f"the codes written for collection {store.name!r} are not those of its vectors, so they were taken "
                f"away again and nothing has changed: run `embedlab doctor {store.name}`, then try again"
            )
        passages += int(there.sum())
    return passages


def _demand_vectors(store: Store) -> None:
    if VECTOR not in store.passages.schema.names:
        raise CollectionError(
            f"collection {store.name!r} keeps codes only: `embedlab compress {store.name} --undo` makes its vectors "
            "again, then it can be compressed in another way"
        )
    if not store.passages.count_rows():
        raise CollectionError(f"collection {store.name!r} is empty: index documents first, then compress it")


def _in_use(store: Store) -> set[str]:
    column = store.coded()
    return {column.codec} if column is not None else set()


def _checked_verify(verify: int | None, drop_vectors: bool) -> int:
    chosen = (0 if drop_vectors else VERIFY) if verify is None else verify
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen <= 10_000:
        raise InputError(f"verify={verify!r}: must be a whole number from 0 (codes alone) to 10000")
    if chosen and drop_vectors:
        raise InputError(f"verify={verify}: without vectors there is nothing to verify by; leave it out, or keep them")
    return chosen


def _go_on(stop: Stop) -> None:
    if stop.asked:
        raise KeyboardInterrupt


def _silent(_phase: str, _share: float) -> None:
    """Tell nobody."""
