"""The collections that are served, opened once and shared by all calls."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from embedlab._core.errors import CollectionError, InputError
from embedlab.search import Collection, remove_collection
from embedlab.search.places import Place, named_places, place
from embedlab.search.records import Hit, PassageInfo
from embedlab.serve.encoders import Encoders
from embedlab.serve.errors import ApiError
from embedlab.serve.schemas import (
    CollectionOut,
    ContextOut,
    DocumentOut,
    DocumentsOut,
    FacetsOut,
    HitOut,
    MapOut,
    PassageOut,
    PlacesOut,
    SearchQuery,
)
from embedlab.serve.views import Views

UPLOADS = "uploads"
_OPEN_AT_ONCE = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Shelf:
    """Finds collections by the name callers use. Every method may run in any thread.

    Args:
        served: Names or paths of the collections to serve; empty serves all of this user.
        encoders: Models that are shared with ``/v1/embeddings``, so that each is in memory once.

    Raises:
        InputError: A collection to serve does not exist, or two have the same name.
    """

    def __init__(self, served: Sequence[str], encoders: Encoders) -> None:
        self._encoders = encoders
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[object, Views]] = OrderedDict()
        self._places: dict[str, Place] | None = None
        if served:
            self._places = {}
            for given in served:
                spot = place(given)
                spot.read()  # says what is wrong with it, before anything is served
                if spot.name in self._places:
                    raise InputError(f"collections={list(served)}: two are called {spot.name!r}; serve one of them")
                self._places[spot.name] = spot

    @property
    def can_create(self) -> bool:
        """Whether callers may make and delete collections."""
        return self._places is None

    def all(self) -> list[CollectionOut]:
        """Describe all collections, by name."""
        names = sorted(self._places) if self._places is not None else [spot.name for spot in named_places()]
        found = []
        for name in names:
            try:
                found.append(self.describe(name))
            except (ApiError, CollectionError):
                continue  # removed meanwhile, or damaged: `embedlab doctor` tells about it, and the others are shown
        return found

    def describe(self, name: str) -> CollectionOut:
        """Describe a collection."""
        collection = self.open(name)
        info = collection.info()
        return CollectionOut(
            name=info.name,
            model=info.model,
            dim=info.dim,
            fingerprint=info.fingerprint,
            documents=info.documents,
            passages=info.passages,
            bytes=info.bytes_on_disk,
            version=collection.version,
            created=datetime.fromisoformat(info.created_at).timestamp(),
            updated=datetime.fromisoformat(info.updated_at).timestamp(),
            writing=False,
            aspects=_aspects(collection),
        )

    def create(self, name: str, model: str) -> CollectionOut:
        """Make a collection.

        Raises:
            ApiError: 403, only chosen collections are served; 409, it exists.
        """
        self._check_changeable()
        if place(name).exists():
            raise ApiError(409, f"collection {name!r} exists already: choose another name", field="name")
        Collection.create(name, model=self._encoders.get(model))
        return self.describe(name)

    def remove(self, name: str) -> None:
        """Delete a collection.

        Raises:
            ApiError: 403, only chosen collections are served; 404, there is none.
        """
        self._check_changeable()
        self._place(name)
        with self._lock:
            self._open.pop(name, None)
        remove_collection(name)

    def open(self, name: str) -> Collection:
        """Return an open collection.

        Raises:
            ApiError: 404, there is none of this name.
        """
        return self._views(name).collection

    def upload_folder(self, collection: Collection) -> Path:
        """Return the folder that uploaded documents of a collection lie in.

        Raises:
            ApiError: 400, the collection lies on object storage, which has no such folder.
        """
        folder = Path(collection.path)
        if not folder.is_dir():
            raise ApiError(400, f"collection {collection.name!r} is not on this machine's disk: index it from a folder")
        return folder / UPLOADS

    def interrupted(self) -> list[str]:
        """Return the collections with uploaded documents that were not indexed when the service last ended."""
        served = self._places.values() if self._places is not None else named_places()
        return [
            spot.name for spot in served if spot.folder is not None and pending_mark(spot.folder / UPLOADS).exists()
        ]

    def documents(self, name: str, offset: int, limit: int, prefix: str) -> DocumentsOut:
        """Return one page of the documents, by source."""
        views = self._views(name)
        uploads = str(Path(views.collection.path) / UPLOADS)
        found = [info for info in views.documents() if info.source.startswith(prefix)]
        shown = [
            DocumentOut(
                source=info.source,
                title=info.title,
                format=info.format,
                passages=info.passages,
                metadata=dict(info.metadata),
                uploaded=info.root == uploads,
            )
            for info in found[offset : offset + limit]
        ]
        return DocumentsOut(total=len(found), offset=offset, limit=limit, documents=shown)

    def delete_documents(self, name: str, sources: Sequence[str]) -> int:
        """Delete documents and, where they were uploaded, their files; returns how many documents."""
        views = self._views(name)
        uploads = Path(views.collection.path) / UPLOADS
        wanted = set(sources)
        files = {info.source for info in views.documents() if info.source in wanted and info.root == str(uploads)}
        deleted = views.collection.delete(wanted)
        for source in files:
            (uploads / source).unlink(missing_ok=True)  # a record such as x.csv#row=2 is no file and goes alone
        return deleted

    def search(self, name: str, query: SearchQuery) -> tuple[int, list[HitOut]]:
        """Search, and say in which version."""
        collection = self.open(name)
        version = collection.version
        hits = collection.search(
            query.query,
            top_k=query.top_k,
            mode=query.mode,
            filter=query.filter,
            explain=query.explain,
            weight=query.weight,
            aspects=query.aspects or None,
        )
        return version, [_hit_out(hit, query.explain) for hit in hits]

    def similar(
        self, name: str, passage_id: str, top_k: int, condition: str | None, aspects: dict[str, float] | None = None
    ) -> tuple[int, list[HitOut]]:
        """Find passages like one of them, and say in which version.

        Raises:
            ApiError: 404, there is no such passage.
        """
        collection = self.open(name)
        version = collection.version
        try:
            hits = collection.similar(passage_id, top_k, filter=condition, aspects=aspects)
        except InputError as error:
            if str(error).startswith("passage_id="):
                raise ApiError(404, str(error), field="id") from None
            raise
        return version, [_hit_out(hit, False) for hit in hits]

    def passage(self, name: str, passage_id: str, context: int) -> ContextOut:
        """Return a passage with its neighbours in the document.

        Raises:
            ApiError: 404, there is no such passage.
        """
        found = {info.id: info for info in self.open(name).passages(filter=_around(passage_id, context))}
        if passage_id not in found:
            raise ApiError(404, f"passage {passage_id[:80]!r} is not in {name!r} (any more)", field="id")
        here = found.pop(passage_id)
        others = sorted(found.values(), key=lambda info: _ordinal(info.id))
        return ContextOut(
            passage=_passage_out(here),
            before=[_passage_out(info) for info in others if _ordinal(info.id) < _ordinal(passage_id)],
            after=[_passage_out(info) for info in others if _ordinal(info.id) > _ordinal(passage_id)],
        )

    def facets(self, name: str) -> FacetsOut:
        """Return values to filter by."""
        return self._views(name).facets()

    def map(self, name: str, limit: int) -> MapOut:
        """Return the map."""
        return self._views(name).map(limit)

    def places(self, name: str, ids: Sequence[str]) -> PlacesOut:
        """Return the places of some passages on the map."""
        return self._views(name).places(ids)

    def _check_changeable(self) -> None:
        if not self.can_create:
            raise ApiError(403, "this service shows chosen collections only: make and delete them with `embedlab`")

    def _place(self, name: str) -> Place:
        known = self._places
        if known is None and _NAME.fullmatch(name):
            known = {name: place(name)}
        spot = known.get(name) if known else None
        if spot is None or not spot.exists():
            raise ApiError(404, f"there is no collection {name[:100]!r}: see /api/collections", field="name")
        return spot

    def _views(self, name: str) -> Views:
        spot = self._place(name)
        # removed and made again, also by another process, a collection has another description file
        stamp: object = None
        if spot.folder is not None:
            state = os.stat(spot.folder / "collection.json")  # noqa: PTH116 - on the path of every call
            stamp = (state.st_ino, state.st_mtime_ns)
        with self._lock:
            known = self._open.get(name)
            if known is not None and known[0] == stamp:
                self._open.move_to_end(name)
                return known[1]
        views = Views(self._opened(spot))
        with self._lock:
            self._open[name] = (stamp, views)
            while len(self._open) > _OPEN_AT_ONCE:
                self._open.popitem(last=False)
        return views

    def _opened(self, spot: Place) -> Collection:
        address = spot.address if spot.folder is None else spot.folder
        collection = Collection.open(address)
        if collection.model in self._encoders.names:
            encoder = self._encoders.get(collection.model)
            if encoder.fingerprint == collection.fingerprint:
                return Collection.open(address, model=encoder)
        return collection


def pending_mark(uploads: Path) -> Path:
    """Return the file that says that a folder of uploads is not fully indexed."""
    return uploads.with_name(f"{uploads.name}.pending")


def _aspects(collection: Collection) -> list[str]:
    try:
        return list(collection.aspects.names)
    except CollectionError:
        return []  # damaged or of another model: a search by aspect says so, and all others work


def _around(passage_id: str, context: int) -> str:
    """Ids are the document's key and the passage's place in it, so neighbours' ids are known without a look."""
    document, _, _ = passage_id.rpartition("-")
    here = _ordinal(passage_id)
    ids = [f"{document}-{place}" for place in range(max(0, here - context), here + context + 1)] if document else []
    return "id IN (" + ", ".join("'" + each.replace("'", "''") + "'" for each in {passage_id, *ids}) + ")"


def _ordinal(passage_id: str) -> int:
    digits = passage_id.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0


def _passage_out(info: PassageInfo) -> PassageOut:
    return PassageOut(
        id=info.id,
        source=info.source,
        title=info.title,
        format=info.format,
        text=info.text,
        start=info.start,
        end=info.end,
        page=info.page,
        headings=list(info.headings),
        metadata=dict(info.metadata),
    )


def _hit_out(hit: Hit, explain: bool) -> HitOut:
    # the values come from our own tables: checking them once more would cost as much as the search
    return HitOut.model_construct(
        id=hit.id,
        source=hit.source,
        title=hit.title,
        format=hit.format,
        text=hit.text,
        start=hit.start,
        end=hit.end,
        page=hit.page,
        headings=list(hit.headings),
        metadata=dict(hit.metadata),
        score=hit.score,
        highlights=list(hit.highlights),
        best_sentence=hit.best_sentence,
        parts=dict(hit.parts) if explain else None,
        matched=list(hit.matched) if explain else None,
        shared=list(hit.shared) if explain else None,
    )
