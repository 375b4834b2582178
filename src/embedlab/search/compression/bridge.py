"""A model whose vectors are taken to those of an earlier one, so that the index of the earlier one stays."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import CollectionError
from embedlab._core.files import atomic_write
from embedlab.search.places import Description, Place, copy_folder, is_uri

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder

Floats = NDArray[np.float32]
_FILE = "bridge.safetensors"


@dataclass(frozen=True, slots=True)
class Bridge:
    """A linear map from the vectors of one model to those of another.

    Args:
        weights: The map (D_new, D_old).
        source: Fingerprint of the model whose vectors it takes.
        target: Fingerprint of the model whose vectors it gives.
    """

    weights: Floats
    source: str
    target: str

    @property
    def fingerprint(self) -> str:
        """Name that changes whenever vectors could change."""
        digest = hashlib.sha256(f"{self.source} {self.target}".encode() + self.weights.tobytes())
        return f"bridge:{digest.hexdigest()[:16]}"

    def __call__(self, vectors: Floats) -> Floats:
        """Map vectors (N, D_new) to unit vectors (N, D_old); zero rows stay zero."""
        mapped = vectors @ self.weights
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        return (mapped / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)

    def save(self, address: str) -> None:
        """Keep it with a collection.

        Args:
            address: Folder or URI of the collection.
        """
        from safetensors.numpy import save

        told = {"source": self.source, "target": self.target, "fingerprint": self.fingerprint}
        written = save({"weights": self.weights}, metadata=told)
        target = _folder(address, self.fingerprint)
        if not is_uri(address):
            atomic_write(Path(target) / _FILE, written)
            return
        with tempfile.TemporaryDirectory() as folder:
            atomic_write(Path(folder) / _FILE, written)
            copy_folder(folder, target)

    @classmethod
    def open(cls, spot: Place, fingerprint: str) -> Bridge:
        """Load the bridge of a collection.

        Args:
            spot: The collection's place.
            fingerprint: The bridge's.

        Returns:
            The bridge.

        Raises:
            CollectionError: it is missing or damaged.
        """
        from safetensors import SafetensorError, safe_open

        where = _folder(spot.address, fingerprint)
        try:
            with tempfile.TemporaryDirectory() as folder:
                if is_uri(spot.address):
                    copy_folder(where, folder)
                    where = folder
                with safe_open(Path(where) / _FILE, framework="numpy") as file:
                    told = file.metadata() or {}
                    bridge = cls(file.get_tensor("weights"), told.get("source", ""), told.get("target", ""))
            if bridge.fingerprint != fingerprint:
                raise CollectionError(f"it is {bridge.fingerprint}")
        except (OSError, SafetensorError, CollectionError) as error:
            raise CollectionError(
                f"the map {fingerprint} that takes queries to the index of collection {spot.name!r} can't be used: "
                f"{error}. Search by words (mode 'lexical') still works; restore the map from a backup, or make it "
                f"anew with `embedlab upgrade {spot.name} --model MODEL`"
            ) from error
        return bridge


class Bridged:
    """A model behind a bridge: an encoder whose vectors lie among those of the earlier model.

    Args:
        encoder: The model.
        bridge: Takes its vectors to those that are stored.
    """

    def __init__(self, encoder: Encoder, bridge: Bridge) -> None:
        self._encoder, self._bridge = encoder, bridge
        self.name, self.dim = encoder.name, int(bridge.weights.shape[1])
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
        return self._bridge(self._encoder.encode_document(texts, batch_size=batch_size, on_progress=on_progress))

    def encode_query(self, texts: Sequence[str]) -> Floats:
        """Embed queries; see ``Encoder``.

        Args:
            texts: The queries (N).

        Returns:
            Unit vectors (N, D_old).
        """
        return self._bridge(self._encoder.encode_query(texts))


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
    bridge = Bridge.open(spot, description.bridge) if description.bridge else None
    dim = description.dim if bridge is None else len(bridge.weights)
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


def _folder(address: str, fingerprint: str) -> str:
    return f"{address}/bridges/{fingerprint.replace(':', '-')}"
