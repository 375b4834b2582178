"""A searchable collection of documents: the one class people hold."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import CollectionError
from embedlab._core.files import atomic_folder
from embedlab.search import contents
from embedlab.search.aspects import Aspects
from embedlab.search.compression.bridge import in_place
from embedlab.search.compression.rewriting import tidy
from embedlab.search.holdings import Holdings
from embedlab.search.indexing import places_of, sync, take_in
from embedlab.search.intake import patient_interrupt
from embedlab.search.places import Description, Place, place, timestamp
from embedlab.search.ranking import Terms
from embedlab.search.records import (
    AddReport,
    CollectionInfo,
    Hit,
    IndexReport,
    Mode,
    OnProgress,
    Settings,
)
from embedlab.search.searching import find, hits_of, neighbours
from embedlab.search.snapshot import Snapshot
from embedlab.search.store import Store, document_key

if TYPE_CHECKING:
    from embedlab.data.documents import Document
    from embedlab.models.encoder import Encoder


class Collection(Holdings):
    """Documents, split into passages, embedded and full-text indexed, in a folder or on object storage.

    Make one with ``Collection.create`` or ``Collection.open``. Any number of threads and processes may search while
    one writes; every search sees whole documents only, and the latest commit.

    Example:
        >>> notes = Collection.create("notes")  # doctest: +SKIP
        >>> notes.add(["The cat sat on the mat.", "Stocks fell."])  # doctest: +SKIP
        >>> notes.search("a feline")[0].text  # doctest: +SKIP
        'The cat sat on the mat.'
    """

    def __init__(self, spot: Place, description: Description, encoder: Encoder | None = None) -> None:
        """Use ``create`` or ``open`` instead."""
        self._place, self._description = spot, description
        self._encoder = in_place(spot, description, encoder) if encoder is not None else None
        self._guard = threading.RLock()
        self._store: Store | None = None
        self._snapshot: Snapshot | None = None

    # making and opening

    @classmethod
    def create(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        model: str | Encoder | None = None,
        exist_ok: bool = False,
        settings: Settings | None = None,
    ) -> Collection:
        """Make an empty collection.

        Args:
            name_or_path: A name, a path (with a slash) or a URI such as ``s3://bucket/folder``.
            model: Name for ``embedlab.models.load_model``, or a model; None for the embedded default, or for the model
                of the collection that is there already.
            exist_ok: Open the collection if it is there already; a model that is given must be the same.
            settings: Passage size, text analysis, fusion weight, storage; None for the defaults.

        Returns:
            The collection.

        Raises:
            CollectionError: it exists already, or exists with another model.
            InputError: the name is not allowed.
        """
        spot = place(name_or_path)
        if spot.exists():
            if not exist_ok:
                raise CollectionError(
                    f"collection {spot.name!r} exists already: open it, pass exist_ok=True, or choose another name"
                )
            found = cls.open(name_or_path)
            if model is not None and model != found.model:
                in_place(spot, found._description, _load(model))
            return found
        encoder = _load("default" if model is None else model)
        chosen = settings or Settings()
        description = Description(encoder.name, encoder.fingerprint, encoder.dim, timestamp(), chosen)
        if spot.folder is None:
            Store(spot.address, settings=chosen, dim=encoder.dim, create=True)
            spot.write(description)
        else:
            with atomic_folder(spot.folder) as fresh:  # half a collection is never seen under its name
                Store(str(fresh), settings=chosen, dim=encoder.dim, create=True)
                Place(spot.name, str(fresh)).write(description)
        return cls(spot, description, encoder)

    @classmethod
    def open(cls, name_or_path: str | os.PathLike[str], *, model: Encoder | None = None) -> Collection:
        """Open a collection.

        Args:
            name_or_path: As for ``create``.
            model: The loaded model, if it is at hand; otherwise it is loaded by its recorded name when first needed.

        Returns:
            The collection.

        Raises:
            CollectionError: it does not exist, is damaged, or was made with another model.
        """
        spot = place(name_or_path)
        return cls(spot, spot.read(), model)

    @property
    def name(self) -> str:
        """Its name."""
        return self._place.name

    @property
    def path(self) -> str:
        """Folder or URI that holds it."""
        return self._place.address

    @property
    def model(self) -> str:
        """Name its model is loaded by."""
        return self._description.model

    @property
    def encoder(self) -> Encoder:
        """The model itself, loaded on first use."""
        return self._model()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made its vectors."""
        return self._description.fingerprint

    @property
    def dim(self) -> int:
        """Width of its vectors."""
        return self._description.dim

    @property
    def version(self) -> int:
        """Number of the latest commit, of whatever process; what is worked out from a collection holds for one."""
        return int(self._tables().passages.version)

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return self._description.settings

    @cached_property
    def aspects(self) -> Aspects:
        """What it can be searched by besides the plain vectors, and where that is learnt."""
        return Aspects(self._place, self)

    @property
    def vector_fingerprint(self) -> str:
        """Fingerprint of the model whose vectors are stored; another one than the queries' after an upgrade."""
        return self._description.stored_model

    def configure(
        self,
        *,
        weight: float | None = None,
        feedback_passages: int | None = None,
        feedback_weight: float | None = None,
    ) -> None:
        """Store other settings of the ranking; None leaves one as it is.

        Args:
            weight: Share of the dense part, in [0, 1]; 0 is lexical alone, 1 dense alone.
            feedback_passages: As in ``Settings``.
            feedback_weight: As in ``Settings``.

        Raises:
            InputError: a value is out of range; nothing is stored then.
        """
        wanted = {"weight": weight, "feedback_passages": feedback_passages, "feedback_weight": feedback_weight}
        with self._place.writing():
            latest = self._place.read()
            given = {name: value for name, value in wanted.items() if value is not None}
            settings = Settings.from_dict({**_fields(latest.settings), **given})
            self._description = Description(**{**_fields(latest), "settings": settings})
            self._place.write(self._description)

    # writing

    def index(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        exclude: Sequence[str] = (),
        processes: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> IndexReport:
        """Bring the collection in line with folders or files: add new, replace changed, remove gone documents.

        Files whose size and time of change are as before are not read again; documents whose content is as before are
        not embedded again. Commits happen about every second, so an interruption loses little and the next run goes
        on from there. Documents from other folders stay.

        Args:
            paths: Folders or files.
            exclude: Patterns of files and folders inside to leave out, such as ``drafts`` or ``*.min.html``; one with a
                slash is held against the path below the folder given. Documents left out now are removed.
            processes: How many processes read files beside this one; 0 reads in this one, None chooses.
            on_progress: Told how far things are, at most ten times a second.

        Returns:
            What was done, with the documents that could not be read and why.

        Raises:
            InputError: a path does not exist.
            CollectionError: another process is writing, the model does not fit, or the disk is full.
            KeyboardInterrupt: Ctrl-C; what was embedded is committed.
        """
        places = places_of(paths)
        encoder = self._model()
        with patient_interrupt() as stop, self._writing() as store:
            return sync(
                store,
                encoder,
                places,
                exclude=exclude,
                processes=processes,
                on_progress=on_progress,
                stop=stop,
            )

    def add(
        self, documents: Iterable[Document | str | Mapping[str, Any]], *, on_progress: OnProgress | None = None
    ) -> AddReport:
        """Add documents; those with a source that is there already replace it if their content differs.

        Args:
            documents: Documents, plain texts (named after their content) or mappings with ``text`` and, if known,
                ``source``, ``title``, ``format`` and ``metadata``; any iterable, read as it is needed.
            on_progress: Told how far things are.

        Returns:
            What was done.

        Raises:
            InputError: an item is none of these.
            CollectionError: as for ``index``.
        """
        encoder = self._model()
        with patient_interrupt() as stop, self._writing() as store:
            return take_in(store, encoder, documents, on_progress=on_progress, stop=stop)

    def delete(self, sources: str | Iterable[str]) -> int:
        """Delete documents by source.

        Args:
            sources: One source or several; those that are not there are passed over.

        Returns:
            How many documents were deleted.
        """
        wanted = {sources} if isinstance(sources, str) else set(sources)
        with self._writing() as store:
            rows = [row for row in store.known().to_pylist() if row["source"] in wanted]
            store.forget_files([document_key(row["root"], row["file"]) for row in rows if row["file"]])
            store.delete([row["doc"] for row in rows])
        return len(rows)

    # reading

    def search(
        self,
        query: str,
        *,
        top_k: int = 10,
        mode: Mode = "hybrid",
        filter: str | None = None,  # noqa: A002 - the word people know
        explain: bool = False,
        weight: float | None = None,
        per_document: bool = False,
        aspects: Mapping[str, float] | None = None,
    ) -> list[Hit]:
        """Find the passages that answer a query best.

        Args:
            query: Any text; a blank one finds nothing.
            top_k: Most hits to return, 1 to 10,000.
            mode: ``"hybrid"`` (BM25 and vectors), ``"dense"`` (vectors) or ``"lexical"`` (BM25).
            filter: SQL condition over the columns that ``info().columns`` lists, e.g. ``lang = "en"``.
            explain: Fill ``Hit.parts``, ``Hit.matched`` and, with a model of named dimensions, ``Hit.shared``.
            weight: Share of the dense part for this search; None takes the collection's setting.
            per_document: Return at most the best passage of each document.
            aspects: Compare vectors in these aspects (``aspects.names``), mixed by weight, such as ``{"method": 1}``;
                lexical search compares none.

        Returns:
            The hits, best first.

        Raises:
            InputError: an argument is out of range, or the filter can't be used.
            CollectionError: the model is not the one the collection was made with, or the collection is damaged.
        """
        share = self.settings.weight if weight is None else weight
        terms = Terms(query, self.settings) if isinstance(query, str) else None
        snapshot = self._latest()
        ranked = find(
            snapshot,
            query,
            terms,
            encoder=None if mode == "lexical" else self._model(),
            top_k=top_k,
            mode=mode,
            where=filter,
            weight=share,
            per_document=per_document,
            feedback=(self.settings.feedback_passages, self.settings.feedback_weight),
            explain=explain,
            near=self.aspects.view(snapshot, aspects) if aspects and mode != "lexical" else None,
        )
        return hits_of(ranked, terms, explain=explain)

    def similar(
        self,
        passage_id: str,
        top_k: int = 10,
        *,
        filter: str | None = None,  # noqa: A002
        aspects: Mapping[str, float] | None = None,
    ) -> list[Hit]:
        """Find the passages nearest to a passage, itself left out.

        Args:
            passage_id: ``Hit.id`` of the passage.
            top_k: Most hits to return.
            filter: SQL condition as for ``search``.
            aspects: As for ``search``.

        Returns:
            The hits, best first, scored by cosine.

        Raises:
            InputError: there is no such passage, or the filter can't be used.
        """
        snapshot = self._latest()
        near = self.aspects.view(snapshot, aspects) if aspects else None
        return hits_of(neighbours(snapshot, passage_id, top_k, filter, near=near), None, explain=False)

    def info(self) -> CollectionInfo:
        """Return what the collection is and holds."""
        return contents.describe(self._place, self._description, self._tables())

    # inside

    def _tables(self) -> Store:
        with self._guard:
            if self._store is None:
                self._store = Store.at(self._place, self._description)
            return self._store

    @contextmanager
    def _writing(self) -> Iterator[Store]:
        with self._place.writing():
            store = self._tables()
            tidy(store)
            yield store

    def _latest(self) -> Snapshot:
        """Return a snapshot of the latest version; the one in use until then is left as it is."""
        store = self._tables()
        snapshot = self._snapshot
        if snapshot is not None and snapshot.is_latest():
            return snapshot
        with self._guard:
            if self._snapshot is None or not self._snapshot.is_latest():
                self._snapshot = Snapshot(store, self._snapshot)
            return self._snapshot

    def _model(self) -> Encoder:
        with self._guard:
            if self._encoder is None:
                self._encoder = in_place(self._place, self._description, _load(self._description.model))
            return self._encoder


def _load(model: str | Encoder) -> Encoder:
    if not isinstance(model, str):
        return model
    from embedlab.models import load_model

    is_folder = model != "default" and Path(model).is_dir()  # its full path is recorded: it is found from anywhere
    return load_model(str(Path(model).resolve()) if is_folder else model)


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
