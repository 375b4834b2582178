"""The part of the check-up that looks at codes: are they usable, in step with the vectors, and is nothing left over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedlab._core.errors import CollectionError, EmbedlabError
from embedlab.search.compression.bridge import loaded, open_bridge
from embedlab.search.compression.column import CODE, codes_of, in_step, vectors_from
from embedlab.search.compression.compressing import embed_again
from embedlab.search.compression.rewriting import drop_codes, leftovers, rows_of, tidy
from embedlab.search.intake import Stop
from embedlab.search.places import Description, Place
from embedlab.search.records import Finding
from embedlab.search.store import VECTOR, Store

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder


def check_codes(
    spot: Place, description: Description, store: Store, *, model: Encoder | None, repair: bool
) -> list[Finding]:
    """Check what compressing and upgrading left in a collection.

    Args:
        spot: The collection's place.
        description: What it says about itself.
        store: Its tables.
        model: Its model, if it is at hand.
        repair: Put right what is wrong; the caller holds the lock.

    Returns:
        One finding per check; none for a collection that was never compressed nor upgraded.
    """
    found: list[Finding] = []
    left = leftovers(store)
    if left:
        if repair:
            tidy(store)
        action = "" if repair else "run with --repair, or write to it"
        message = f"an interrupted compression left {', '.join(left)}; searches do not look at it"
        found.append(Finding("compression", "warn", message, action, spot.name, repair))
    if description.bridge:
        found.append(_bridge(spot, description))
    if store.coded() is not None:
        found.append(_codes(spot, description, store, model, repair))
    return found


def _bridge(spot: Place, description: Description) -> Finding:
    try:
        open_bridge(spot, description)
    except CollectionError as error:
        action = "restore it from a backup, or upgrade again: --force, as the loss can't be measured"
        return Finding("bridge", "error", str(error), action, spot.name)
    return Finding("bridge", "ok", f"{description.bridge} takes queries to the index", collection=spot.name)


def _codes(spot: Place, description: Description, store: Store, model: Encoder | None, repair: bool) -> Finding:
    wrong = _wrong(store)
    kept = VECTOR in store.passages.schema.names
    if not wrong:
        column = store.coded()
        beside = "beside the vectors" if kept else "instead of the vectors"
        codec = column.codec if column is not None else ""
        return Finding("codes", "ok", f"{codec}, {beside}, in step with them", collection=spot.name)
    way = "fall back to the vectors" if kept else "embed the stored texts again"
    if not repair:
        return Finding("codes", "error", wrong, f"run with --repair to {way}, then compress again", spot.name)
    try:
        if not kept:
            embed_again(store, loaded(spot, description, model), told=_silent, stop=Stop())
        drop_codes(store)
    except EmbedlabError as error:
        return Finding("codes", "error", f"{wrong}; mending it failed: {error}", "make the model available", spot.name)
    done = "vectors are searched again" if kept else "all passages were embedded again"
    return Finding("codes", "error", wrong, f"{done}; compress it again if you like", spot.name, repaired=True)


def _wrong(store: Store) -> str:
    """Say what is wrong with the codes; empty if nothing is."""
    column = store.coded()
    if column is None:
        return ""
    try:
        codec = store.codec(column)
        names = [name for name in (VECTOR, CODE) if name in store.passages.schema.names]
        for rows in rows_of(store, names):
            codes, there = codes_of(rows[CODE], column.bytes_per_vector)
            if VECTOR not in names:
                if not np.isfinite(vectors_from(codec, rows[CODE])).all():
                    return "some codes stand for no vector"
                continue
            if not in_step(codec, codes, there, store.vectors_in(rows)):
                return "some codes are not those of their vectors, or are missing"
    except CollectionError as error:
        return str(error)
    except EmbedlabError as error:  # NaN or infinity in a vector, which the check of vectors tells about
        return f"codes can't be compared with their vectors: {error}"
    return ""


def _silent(_phase: str, _share: float) -> None:
    """Tell nobody."""
