"""All collections of this user: list and remove."""

from __future__ import annotations

import os

from embedlab._core.errors import CollectionError
from embedlab.search.contents import describe
from embedlab.search.places import missing, named_places, place
from embedlab.search.records import CollectionInfo
from embedlab.search.store import Store


def list_collections() -> list[CollectionInfo]:
    """Describe the named collections of this user, sorted by name; ``doctor`` tells about damaged ones."""
    found = []
    for spot in named_places():
        try:
            description = spot.read()
            found.append(describe(spot, description, Store.at(spot, description)))
        except CollectionError:
            continue  # one damaged collection must not hide the others
    return found


def remove_collection(name_or_path: str | os.PathLike[str]) -> None:
    """Delete a collection and everything in it.

    Args:
        name_or_path: As for ``Collection.open``.

    Raises:
        CollectionError: it does not exist, or another process is writing to it.
    """
    spot = place(name_or_path)
    if not spot.exists():
        raise missing(spot)
    with spot.writing():
        spot.remove()
