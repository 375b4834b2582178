"""What is worked out from a whole collection (documents, facets, map) and kept until the collection changes."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedlab.search import Collection
from embedlab.search.records import DocumentInfo
from embedlab.search.store import document_key
from embedlab.serve.projection import even_sample, fit_axes
from embedlab.serve.schemas import FacetOut, FacetsOut, FacetValueOut, MapOut, PlacesOut, PointsOut

_MOST_VALUES = 50
_PLACED_AT_ONCE = 100_000


@dataclass(slots=True)
class _Plane:
    """Every passage's place. ids ascend; places (N, 2)."""

    ids: list[str]
    places: NDArray[np.float32]
    explained: tuple[float, float]


@dataclass(slots=True)
class _Kept:
    """What is known of one version."""

    version: int
    documents: list[DocumentInfo] | None = None
    by_key: dict[str, DocumentInfo] = field(default_factory=dict)
    facets: FacetsOut | None = None
    plane: _Plane | None = None


class Views:
    """Views of one open collection.

    Args:
        collection: The collection.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._lock = threading.RLock()  # a second caller waits for the first one's work instead of doing it again
        self._kept = _Kept(-1)

    def documents(self) -> list[DocumentInfo]:
        """Return all documents, by source."""
        with self._lock:
            kept = self._current()
            if kept.documents is None:
                kept.documents = self.collection.documents()
                kept.by_key = {document_key(info.root, info.source): info for info in kept.documents}
            return kept.documents

    def facets(self) -> FacetsOut:
        """Return the values of format, top folder and such metadata as takes few values."""
        with self._lock:
            documents = self.documents()
            kept = self._kept
            if kept.facets is None:
                columns = self.collection.info().columns
                kept.facets = FacetsOut(version=kept.version, facets=_facets(documents, set(columns)))
            return kept.facets

    def map(self, limit: int) -> MapOut:
        """Return up to ``limit`` passages on the map."""
        with self._lock:
            plane, version = self._plane(), self._kept.version
            chosen = even_sample(len(plane.ids), limit)
            return MapOut(
                version=version,
                total=len(plane.ids),
                shown=len(chosen),
                explained=plane.explained,
                points=self._points(plane, chosen.tolist()),
            )

    def places(self, ids: Sequence[str]) -> PlacesOut:
        """Return the places of some passages; unknown ones are left out."""
        with self._lock:
            plane, version = self._plane(), self._kept.version
            rows = [bisect_left(plane.ids, each) for each in ids]
            found = [
                row for row, each in zip(rows, ids, strict=True) if row < len(plane.ids) and plane.ids[row] == each
            ]
            return PlacesOut(version=version, points=self._points(plane, found))

    def _current(self) -> _Kept:
        version = self.collection.version
        if self._kept.version != version:
            self._kept = _Kept(version)
        return self._kept

    def _plane(self) -> _Plane:
        self.documents()
        kept = self._kept
        if kept.plane is None:
            ids, vectors = self.collection.vectors()
            # in the order of ids, which begin with a hash: an even sample of it is spread over all documents
            order = sorted(range(len(ids)), key=ids.__getitem__)
            places = np.zeros((len(ids), 2), np.float32)
            explained = (0.0, 0.0)
            if ids:
                vectors = vectors[order]
                axes = fit_axes(vectors)
                explained = axes.explained
                for start in range(0, len(ids), _PLACED_AT_ONCE):
                    places[start : start + _PLACED_AT_ONCE] = axes.place(vectors[start : start + _PLACED_AT_ONCE])
            kept.plane = _Plane([ids[row] for row in order], places, explained)
        return kept.plane

    def _points(self, plane: _Plane, rows: Sequence[int]) -> PointsOut:
        ids = [plane.ids[row] for row in rows]
        known = self._kept.by_key
        # a passage committed since has no document in this version yet
        kept = [(row, each, known[key]) for row, each in zip(rows, ids, strict=True) if (key := _key(each)) in known]
        places = plane.places[[row for row, _, _ in kept]].round(4).astype(np.float64)
        documents = [info for _, _, info in kept]
        return PointsOut(
            id=[each for _, each, _ in kept],
            x=[round(value, 4) for value in places[:, 0].tolist()],
            y=[round(value, 4) for value in places[:, 1].tolist()],
            source=[info.source for info in documents],
            title=[info.title for info in documents],
            group=[_top_folder(info.source) or info.format for info in documents],
        )


def _facets(documents: Sequence[DocumentInfo], columns: set[str]) -> list[FacetOut]:
    facets = []
    formats = Counter(info.format for info in documents)
    folders = Counter(folder for info in documents if (folder := _top_folder(info.source)))
    facets.append(_facet("format", formats, "format = {}"))
    if folders:
        facets.append(_facet("folder", folders, "starts_with(source, {})", ending="/"))
    values: dict[str, Counter[str]] = {}
    for info in documents:
        for name, value in info.metadata.items():
            if isinstance(value, str) and name in columns:
                values.setdefault(name, Counter())[value] += 1
    for name in sorted(values):
        # a value for nearly every document, such as an author's address, is no help in filtering
        if 1 < len(values[name]) <= _MOST_VALUES:
            facets.append(_facet(name, values[name], f"`{name}` = {{}}"))
    return facets


def _facet(name: str, counts: Counter[str], condition: str, ending: str = "") -> FacetOut:
    values = [
        FacetValueOut(value=value, documents=count, filter=condition.format(_quoted(value + ending)))
        for value, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:_MOST_VALUES]
    ]
    return FacetOut(field=name, values=values)


def _top_folder(source: str) -> str:
    folder, slash, _ = source.partition("/")
    return folder if slash else ""


def _key(passage_id: str) -> str:
    return passage_id.rpartition("-")[0]


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
