"""A model whose vectors are taken to those of an earlier one, so that the index of the earlier one stays."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import CollectionError, InputError
from embedlab._core.files import atomic_write
from embedlab.search.places import Description, Place, copy_folder, is_uri

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder
    from embedlab.search.bebr.upgrade import QueryMap

Floats = NDArray[np.float32]
_FILE = "bridge.safetensors"


def save_bridge(bridge: QueryMap, address: str, *, source: str, target: str) -> str:
    """Keep a map with a collection.

    Args:
        bridge: The map, fitted.
        address: Folder or URI of the collection.
        source: Fingerprint of the model whose vectors it takes.
        target: Fingerprint of the model whose vectors it gives.

    Returns:
        The map's fingerprint.
    """
    from safetensors.numpy import save

    if bridge.weights is None:
        raise InputError("bridge: the map is not fitted")
    fingerprint = _fingerprint(bridge, source, target)
    folder, written = (
        _folder(address, fingerprint),
        save({"weights": bridge.weights}),
    )
    if not is_uri(address):
        atomic_write(Path(folder) / _FILE, written)
        return fingerprint
    with tempfile.TemporaryDirectory() as local:
        atomic_write(Path(local) / _FILE, written)
        copy_folder(local, folder)
    return fingerprint


def open_bridge(spot: Place, description: Description) -> QueryMap:
    """Load the map of a collection.

    Args:
        spot: The collection's place.
        description: What the collection says about itself.

    Returns:
        The map.

    Raises:
        CollectionError: it is missing, damaged, or between other models or widths.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from embedlab.search.bebr.upgrade import QueryMap

    where = _folder(spot.address, description.bridge)
    try:
        with tempfile.TemporaryDirectory() as local:
            if is_uri(spot.address):
                copy_folder(where, local)
            weights = load((Path(local if is_uri(spot.address) else where) / _FILE).read_bytes())["weights"]
        bridge = QueryMap(*weights.shape)
        bridge.weights = weights
        held = _fingerprint(bridge, description.fingerprint, description.stored_model)
        if (held, bridge.old_dim) != (description.bridge, description.dim):
            raise InputError(f"what lies at {where} is {held} to {bridge.old_dim} dimensions")
    except (OSError, SafetensorError, KeyError, TypeError, InputError) as error:
        raise CollectionError(
            f"the map that takes queries to the index of collection {spot.name!r} can't be used: {error}. Search by "
            f"words (mode 'lexical') still works; restore the folder from a backup, or make the map anew with "
            f"`embedlab upgrade {spot.name} --model {description.model} --force`"
        ) from error
    return bridge


class Bridged:
    """A model behind a bridge: an encoder whose vectors lie among those of the earlier model.

    Args:
        encoder: The model.
        bridge: Takes its vectors to those that are stored.
    """

    def __init__(self, encoder: Encoder, bridge: QueryMap) -> None:
        self._encoder, self._bridge = encoder, bridge
        self.name, self.dim = encoder.name, bridge.old_dim
        self.fingerprint = encoder.fingerprint

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> Floats:
        """Embed passages; see ``Encoder``.

        Args:
            texts: The passages (N).
            batch_size: Passages embedded at once.
            on_progress: Told how many are done.

        Returns:
            Unit vectors (N, D_old).
        """
        vectors = self._encoder.encode_document(texts, batch_size=batch_size, on_progress=on_progress)
        return self._bridge.transform(vectors)

    def encode_query(self, texts: Sequence[str]) -> Floats:
        """Embed queries; see ``Encoder``.

        Args:
            texts: The queries (N).

        Returns:
            Unit vectors (N, D_old).
        """
        return self._bridge.transform(self._encoder.encode_query(texts))


def in_place(spot: Place, description: Description, encoder: Encoder) -> Encoder:
    """Return a collection's model as searches use it: behind the bridge, if there is one.

    Args:
        spot: The collection's place.
        description: What the collection says about itself.
        encoder: The model it names.

    Returns:
        The encoder whose vectors can be compared with those that are stored.

    Raises:
        CollectionError: the model is another one, or the bridge can't be used.
    """
    bridge = open_bridge(spot, description) if description.bridge else None
    dim = description.dim if bridge is None else bridge.new_dim
    if encoder.fingerprint != description.fingerprint or encoder.dim != dim:
        raise CollectionError(
            f"collection {spot.name!r} holds vectors of model {description.model!r} ({description.fingerprint}, "
            f"{dim}-d), but the model at hand is {encoder.name!r} ({encoder.fingerprint}, {encoder.dim}-d), and "
            f"vectors of two models can't be compared: use the recorded model, keep the index with `embedlab upgrade "
            f"{spot.name} --model {encoder.name}`, or make the collection anew with `embedlab remove {spot.name}` and "
            f"`embedlab index PATH --into {spot.name} --model {encoder.name}`"
        )
    return encoder if bridge is None else Bridged(encoder, bridge)


def loaded(spot: Place, description: Description, model: Encoder | None) -> Encoder:
    """Return a collection's model as searches use it, loaded by its recorded name unless it is at hand.

    Args:
        spot: The collection's place.
        description: What the collection says about itself.
        model: The model, if it is at hand.

    Returns:
        The encoder.
    """
    from embedlab.models import load_model

    return in_place(spot, description, load_model(description.model) if model is None else model)


def _fingerprint(bridge: QueryMap, source: str, target: str) -> str:
    weights = np.empty(0) if bridge.weights is None else bridge.weights
    return f"bridge:{hashlib.sha256(f'{source} {target}'.encode() + weights.tobytes()).hexdigest()[:16]}"


def _folder(address: str, fingerprint: str) -> str:
    return f"{address}/bridges/{fingerprint.replace(':', '-')}"
