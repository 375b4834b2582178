"""Another model for the queries of a collection, while its index stays: a map learned from the collection's own texts.

The new model embeds some passages and queries made from them; a map takes these vectors to the ones that the
collection stores, and to those that the old model gives the same queries. From then on queries and new documents pass
the new model and the map, so everything in the index stays comparable. What that costs is measured on other queries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from embedlab._core.errors import CollectionError, EmbedlabError, InputError
from embedlab.search.compression.bridge import Bridged, loaded, save_bridge
from embedlab.search.compression.probing import TOP_K, Question, overlap, questions
from embedlab.search.compression.reports import OnPhase, UpgradeReport
from embedlab.search.compression.rewriting import tidy
from embedlab.search.intake import patient_interrupt
from embedlab.search.matrix import Floats, RowIds
from embedlab.search.places import Description, Place, place
from embedlab.search.snapshot import Snapshot
from embedlab.search.store import Store

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder
    from embedlab.search.bebr.upgrade import QueryMap

MAX_LOSS = 0.02
SAMPLE = 4000
_QUERIES = 400
_FEWEST = 20
_AT_ONCE = 256


def upgrade_collection(
    name_or_path: str | os.PathLike[str],
    *,
    model: str | Encoder,
    max_loss: float = MAX_LOSS,
    force: bool = False,
    sample: int = SAMPLE,
    old_model: Encoder | None = None,
    on_progress: OnPhase | None = None,
) -> UpgradeReport:
    """Search a collection with another model and keep its index.

    Args:
        name_or_path: As for ``Collection.open``.
        model: Name for ``embedlab.models.load_model``, or a model.
        max_loss: Most recall that may be lost, in [0, 1]; with more, the collection stays as it is.
        force: Take the new model whatever is lost, also if the loss can't be measured.
        sample: Passages that the new model embeds to learn the map.
        old_model: The collection's present model, if it is at hand.
        on_progress: Told the phase and the share of it that is done.

    Returns:
        Recall before and after, and whether the new model is in use.

    Raises:
        InputError: an argument is out of range, or there is no such model.
        CollectionError: it does not exist, has too few texts, is being written, or its model does not load.
        KeyboardInterrupt: Ctrl-C; the collection is as it was.
    """
    from embedlab.models import load_model

    if not 0.0 <= max_loss <= 1.0:
        raise InputError(f"max_loss={max_loss!r}: must lie in [0, 1] (recall that may be lost)")
    if isinstance(sample, bool) or sample < _FEWEST:
        raise InputError(f"sample={sample!r}: must be at least {_FEWEST} passages")
    told = on_progress or _silent
    started = time.perf_counter()
    spot = place(name_or_path)
    new = load_model(model) if isinstance(model, str) else model
    with spot.writing(), patient_interrupt() as stop:
        description = spot.read()
        if new.fingerprint == description.fingerprint and not force:  # forced, a map that was lost is made anew
            raise InputError(f"model={new.name!r} is what collection {spot.name!r} is searched with already")
        store = Store.at(spot, description)
        tidy(store)
        old = _present(spot, description, old_model, force)
        asked = questions(store, _QUERIES + sample)
        tested, learned = _split(asked, sample, store.name)
        snapshot = Snapshot(store)

        def tell(share: float) -> None:
            told("embedding", share)
            if stop.asked:
                raise KeyboardInterrupt

        bridge = None
        if new.fingerprint != description.stored_model:  # back to the model of the index: nothing to learn
            bridge = _learned(snapshot, old, new, learned, tell)
        told("measuring", 0.0)
        after = _found(snapshot, new if bridge is None else Bridged(new, bridge), tested)
        before = after if old is None else _found(snapshot, old, tested)
        recalls = [_recall(found, tested) for found in (before, after)]
        kept = force or recalls[0] - recalls[1] <= max_loss
        tell(1.0)
        if kept:
            spot.write(_upgraded(description, new, bridge, spot.address))
    return UpgradeReport(
        collection=spot.name,
        before=description.model,
        after=new.name,
        recall_before=None if old is None else recalls[0],
        recall_after=recalls[1],
        overlap=None if old is None else overlap(after, before),
        trained_on=len(learned) if bridge is not None else 0,
        queries=len(tested),
        kept=kept,
        seconds=time.perf_counter() - started,
    )


def _learned(
    snapshot: Snapshot, old: Encoder | None, new: Encoder, learned: Sequence[Question], tell: Callable[[float], None]
) -> QueryMap:
    """Learn the map from passages and, if the old model is there, their queries, as both models embed them."""
    from embedlab.search.bebr.upgrade import QueryMap

    passages: list[Floats] = []
    for start in range(0, len(learned), _AT_ONCE):
        passages.append(new.encode_document([each.content for each in learned[start : start + _AT_ONCE]]))
        tell(min(1.0, (start + _AT_ONCE) / len(learned)))
    texts = [each.query for each in learned]
    stored = snapshot.vectors(np.array([each.row for each in learned], np.uint64))
    embedded, queries = np.concatenate(passages), new.encode_query(texts)
    old_queries = stored if old is None else old.encode_query(texts)
    known = np.logical_and.reduce([each.any(axis=1) for each in (embedded, stored, queries, old_queries)])
    steps = {} if find_spec("torch") else {"steps": 0}  # the closed form needs numpy alone
    both = [embedded[known]] if old is None else [embedded[known], queries[known]]
    targets = [stored[known], old_queries[known]][: len(both)]
    return QueryMap(new.dim, stored.shape[1], **steps).fit(
        np.concatenate(both), np.concatenate(targets), pairs=(queries[known], stored[known])
    )


def _present(spot: Place, description: Description, model: Encoder | None, force: bool) -> Encoder | None:
    """Return the model that is in use; None if it can't be used and that was foreseen."""
    try:
        return loaded(spot, description, model)
    except (EmbedlabError, OSError, ValueError) as error:
        if force:
            return None
        raise CollectionError(
            f"the present model {description.model!r} of collection {spot.name!r} can't be used, so what an upgrade "
            f"loses can't be measured: {error}. Make it available, or take the new model unmeasured with --force"
        ) from error


def _split(asked: list[Question], sample: int, name: str) -> tuple[list[Question], list[Question]]:
    """Take some queries to measure with; their passages are not learned from."""
    tested = asked[: min(_QUERIES, len(asked) // 2)]
    if len(tested) < _FEWEST:
        raise CollectionError(
            f"the texts of collection {name!r} give {len(asked)} queries, and a map can be neither learned nor "
            f"measured with fewer than {2 * _FEWEST}: index more documents, or index them anew with the new model"
        )
    return tested, asked[len(tested) :][:sample]


def _found(snapshot: Snapshot, encoder: Encoder, tested: Sequence[Question]) -> list[RowIds]:
    vectors = encoder.encode_query([each.query for each in tested])
    return [snapshot.dense(vector, None, 10 * TOP_K).rows for vector in vectors]


def _recall(found: Sequence[RowIds], tested: Sequence[Question]) -> float:
    return float(np.mean([each.row in rows[:TOP_K] for rows, each in zip(found, tested, strict=True)]))


def _upgraded(description: Description, new: Encoder, bridge: QueryMap | None, address: str) -> Description:
    """Keep the map, and return what the collection shall say about itself."""
    fingerprint = space = ""
    if bridge is not None:
        space = description.stored_model
        fingerprint = save_bridge(bridge, address, source=new.fingerprint, target=space)
    return replace(
        description, model=new.name, fingerprint=new.fingerprint, bridge=fingerprint, space=space, schema_version=2
    )


def _silent(_phase: str, _share: float) -> None:
    """Tell nobody."""
