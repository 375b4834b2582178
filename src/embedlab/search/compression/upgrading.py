"""Another model for the queries of a collection, while its index stays: a map learned from the collection's own texts.

The new model embeds some passages and queries made from them; a linear map takes these vectors to the ones that the
collection stores, and to those that the old model gives the same queries. From then on queries and new documents pass
the new model and the map, so everything in the index stays comparable. What that costs is measured on other queries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedlab._core.errors import CollectionError, InputError
from embedlab.search.compression.bridge import Bridge, Bridged, loaded
from embedlab.search.compression.probing import TOP_K, Question, overlap, questions
from embedlab.search.compression.reports import OnPhase, UpgradeReport
from embedlab.search.compression.rewriting import tidy
from embedlab.search.intake import patient_interrupt
from embedlab.search.matrix import Floats, RowIds
from embedlab.search.places import Description, place
from embedlab.search.snapshot import Snapshot
from embedlab.search.store import Store

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder

MAX_LOSS = 0.02
SAMPLE = 4000
_QUERIES = 400
_FEWEST = 20
_DEVELOPMENT_SHARE = 10  # one pair in so many is kept to choose the penalty
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # in units of the mean eigenvalue
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
        if new.fingerprint == description.fingerprint:
            raise InputError(f"model={new.name!r} is what collection {spot.name!r} is searched with already")
        store = Store.at(spot, description)
        tidy(store)
        old = loaded(spot, description, old_model)
        asked = questions(store, _QUERIES + sample)
        tested, learned = _split(asked, store.name)
        snapshot = Snapshot(store)

        def tell(share: float) -> None:
            told("embedding", share)
            if stop.asked:
                raise KeyboardInterrupt

        bridge = None
        if new.fingerprint != description.stored_model:  # back to the model of the index: nothing to learn
            bridge = _learned(snapshot, old, new, learned, description, tell)
        told("measuring", 0.0)
        before = _found(snapshot, old, tested)
        after = _found(snapshot, new if bridge is None else Bridged(new, bridge), tested)
        recalls = [_recall(found, tested) for found in (before, after)]
        kept = force or recalls[0] - recalls[1] <= max_loss
        tell(1.0)
        if kept:
            if bridge is not None:
                bridge.save(spot.address)
            spot.write(_upgraded(description, new, bridge))
    return UpgradeReport(
        collection=spot.name,
        before=description.model,
        after=new.name,
        recall_before=recalls[0],
        recall_after=recalls[1],
        overlap=overlap(after, before),
        trained_on=len(learned) if bridge is not None else 0,
        queries=len(tested),
        kept=kept,
        seconds=time.perf_counter() - started,
    )


def fit_bridge(pairs: tuple[Floats, Floats], *, source: str, target: str, seed: int = 0) -> Bridge:
    """Learn the linear map that takes vectors of one model to those of another.

    Ridge regression ``W = (X'X + a I)^-1 X'Y``; the penalty is the one of four whose images, brought to unit length,
    are nearest to their targets on pairs that were held back.

    Args:
        pairs: Vectors of the same texts by both models, (N, D_new) and (N, D_old).
        source: Fingerprint of the first model.
        target: Fingerprint of the second.
        seed: Decides which pairs are held back.

    Returns:
        The map.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
        >>> x /= np.linalg.norm(x, axis=1, keepdims=True)
        >>> turned = np.roll(x, 1, axis=1)
        >>> bool(np.vecdot(fit_bridge((x, turned), source="a", target="b")(x), turned).min() > 0.999)
        True
    """
    inputs, targets = (each.astype(np.float64) for each in pairs)
    held_back = np.zeros(len(inputs), np.bool_)
    held_back[np.random.default_rng(seed).permutation(len(inputs))[: len(inputs) // _DEVELOPMENT_SHARE]] = True

    def solve(rows: np.ndarray, penalty: float) -> Floats:
        x, y = inputs[rows], targets[rows]
        gram = x.T @ x  # (D_new, D_new)
        ridge = penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
        return np.linalg.solve(gram + ridge, x.T @ y).astype(np.float32)

    def nearness(penalty: float) -> float:
        mapped = Bridge(solve(~held_back, penalty), source, target)(pairs[0][held_back])
        return float(np.vecdot(mapped, pairs[1][held_back]).sum())

    return Bridge(solve(np.full(len(inputs), True), max(_PENALTIES, key=nearness)), source, target)


def _learned(
    snapshot: Snapshot,
    old: Encoder,
    new: Encoder,
    learned: Sequence[Question],
    description: Description,
    tell: Callable[[float], None],
) -> Bridge:
    stored = snapshot.vectors(np.array([each.row for each in learned], np.uint64))
    queries = [each.query for each in learned]
    passages: list[Floats] = []
    for start in range(0, len(learned), _AT_ONCE):
        passages.append(new.encode_document([each.content for each in learned[start : start + _AT_ONCE]]))
        tell(min(1.0, (start + _AT_ONCE) / len(learned)))
    inputs = np.concatenate([*passages, new.encode_query(queries)])
    targets = np.concatenate([stored, old.encode_query(queries)])
    known = inputs.any(axis=1) & targets.any(axis=1)
    return fit_bridge((inputs[known], targets[known]), source=new.fingerprint, target=description.stored_model)


def _split(asked: list[Question], name: str) -> tuple[list[Question], list[Question]]:
    """Take some queries to measure with; their passages are not learned from."""
    tested = asked[: min(_QUERIES, len(asked) // 2)]
    if len(tested) < _FEWEST:
        raise CollectionError(
            f"the texts of collection {name!r} give {len(asked)} queries, and a map can be neither learned nor "
            f"measured with fewer than {2 * _FEWEST}: index more documents, or index them anew with the new model"
        )
    return tested, asked[len(tested) :]


def _found(snapshot: Snapshot, encoder: Encoder, tested: Sequence[Question]) -> list[RowIds]:
    vectors = encoder.encode_query([each.query for each in tested])
    return [snapshot.dense(vector, None, 10 * TOP_K).rows for vector in vectors]


def _recall(found: Sequence[RowIds], tested: Sequence[Question]) -> float:
    return float(np.mean([each.row in rows[:TOP_K] for rows, each in zip(found, tested, strict=True)]))


def _upgraded(description: Description, new: Encoder, bridge: Bridge | None) -> Description:
    return replace(
        description,
        model=new.name,
        fingerprint=new.fingerprint,
        bridge="" if bridge is None else bridge.fingerprint,
        space="" if bridge is None else description.stored_model,
        schema_version=2,
    )


def _silent(_phase: str, _share: float) -> None:
    """Tell nobody."""
