"""A check-up of the installation and of collections: what is wrong, and what to do about it."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import CollectionError, EmbedlabError
from embedlab._core.files import embedlab_home
from embedlab.search.aspects.files import read_heads
from embedlab.search.compression.mending import check_codes
from embedlab.search.places import Description, Place, home, place
from embedlab.search.records import Finding, Level
from embedlab.search.store import Store, document_key, lance_errors

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder

_LOW_DISK_BYTES = 1 << 30
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")  # what an interrupted atomic folder leaves


def doctor(
    name_or_path: str | os.PathLike[str] | None = None, *, repair: bool = False, model: Encoder | None = None
) -> list[Finding]:
    """Check the installation and one collection, or all named ones.

    Args:
        name_or_path: The collection; None for all.
        repair: Put right what can be put right without losing anything that could not be indexed again.
        model: The loaded model of the collection, if it is at hand; otherwise it is loaded by its recorded name.

    Returns:
        One finding per check, the good ones included.
    """
    findings = list(_installation())
    if name_or_path is not None:
        spots = [place(name_or_path)]
    else:
        folders = [folder for folder in home().iterdir() if folder.is_dir()] if home().is_dir() else []
        findings += _leftovers([folder.name for folder in folders if _LEFTOVER.fullmatch(folder.name)], repair)
        spots = [Place(f.name, str(f)) for f in sorted(folders) if not _LEFTOVER.fullmatch(f.name)]
    for spot in spots:
        findings += _Checkup(spot, repair, model).run()
    return findings


def _installation() -> Iterator[Finding]:
    names = ("embedlab", "lancedb", "pyarrow", "numpy", "tokenizers")
    yield Finding("versions", "ok", ", ".join(f"{name} {version(name)}" for name in names))
    try:
        from embedlab.models import load_model

        model = load_model()
        yield Finding("default model", "ok", f"loads, {model.dim}-d, {model.fingerprint}")
    except (EmbedlabError, OSError, ValueError) as error:
        yield Finding("default model", "error", f"does not load: {error}", "install embedlab again")
    folder = next(parent for parent in (embedlab_home(), *embedlab_home().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    level: Level = "ok" if free >= _LOW_DISK_BYTES else "warn"
    action = "" if level == "ok" else "free some space: commits fail on a full disk, though nothing committed is lost"
    yield Finding("disk space", level, f"{free / 2**30:.1f} GiB free at {folder}", action)
    if not os.access(folder, os.W_OK):
        yield Finding("home", "error", f"{folder} can't be written to", "set EMBEDLAB_HOME or change the owner")


def _leftovers(names: list[str], repair: bool) -> Iterator[Finding]:
    if not names:
        return
    if repair:
        for name in names:
            shutil.rmtree(home() / name, ignore_errors=True)
    message = f"{len(names)} folder(s) left by an interrupted creation: {', '.join(names[:3])}"
    yield Finding("leftovers", "warn", message, "" if repair else "run with --repair to delete them", repaired=repair)


@dataclass(slots=True)
class _Checkup:
    spot: Place
    repair: bool
    model: Encoder | None

    def run(self) -> Iterator[Finding]:
        try:
            description = self.spot.read()
            store = Store.at(self.spot, description)
            yield self._finding("opening", "ok", f"{store.passages.count_rows()} rows at {self.spot.address}")
        except CollectionError as error:
            yield self._finding(
                "opening", "error", str(error), "restore it from a backup, or remove it and index again"
            )
            return
        writer = self.spot.writer()
        if writer is not None:
            yield self._finding("writer", "warn", f"{writer} is writing; figures move", "wait for it to finish")
            yield from self._look(description, store, repair=False)
            return
        yield self._finding("writer", "ok", "nobody is writing")
        if not self.repair:
            yield from self._look(description, store, repair=False)
            return
        with self.spot.writing():
            yield from self._look(description, store, repair=True)

    def _look(self, description: Description, store: Store, *, repair: bool) -> Iterator[Finding]:
        yield self._model(description)
        try:
            with lance_errors("checking", self.spot.address):
                codes = check_codes(self.spot, description, store, model=self.model, repair=repair)
                yield from codes
                yield self._documents(store, repair)
                if not any(finding.level == "error" and not finding.repaired for finding in codes):
                    yield self._vectors(store, repair)
                yield self._files(store, repair)
                yield self._text_index(store, repair)
                yield from self._aspects(description)
        except CollectionError as error:
            yield self._finding(
                "reading", "error", str(error), "restore it from a backup, or remove it and index again"
            )

    def _aspects(self, description: Description) -> Iterator[Finding]:
        try:
            heads = read_heads(self.spot, model=description.stored_model)
        except CollectionError as error:
            yield self._finding("aspects", "error", str(error), f"learn them with `embedlab aspects {self.spot.name}`")
            return
        if heads is not None:
            yield self._finding("aspects", "ok", ", ".join(heads.heads))

    def _model(self, description: Description) -> Finding:
        from embedlab.models import load_model

        try:
            encoder = self.model or load_model(description.model)
        except (EmbedlabError, OSError, ValueError) as error:
            action = "make the model available; lexical search works without it"
            return self._finding("model", "error", f"{description.model!r} does not load: {error}", action)
        if encoder.fingerprint == description.fingerprint:
            return self._finding("model", "ok", f"{description.model!r} loads, {encoder.fingerprint}")
        message = f"{description.model!r} is now {encoder.fingerprint}, the vectors are of {description.fingerprint}"
        action = f"bring the old model back, or `embedlab remove {self.spot.name}` and index again"
        return self._finding("model", "error", message, action)

    def _documents(self, store: Store, repair: bool) -> Finding:
        rows = store.scan(["id", "doc", "doc_passages", "root", "file"])
        held = Counter(rows["doc"].to_pylist())
        meant = dict(zip(rows["doc"].to_pylist(), rows["doc_passages"].to_pylist(), strict=True))
        twice = rows.num_rows - len(set(rows["id"].to_pylist()))
        broken = [doc for doc, count in held.items() if count != max(1, meant[doc])]
        if not broken:
            return self._finding("documents", "ok", f"{len(held)} documents, all whole, no passage twice")
        message = f"{len(broken)} documents are not whole or hold passages twice ({twice} duplicates)"
        return self._drop(store, "documents", message, broken, rows, repair)

    def _vectors(self, store: Store, repair: bool) -> Finding:
        bad: list[str] = []
        rows, zero = 0, 0
        query = store.passages.search().select(["doc", "content", store.vector_column()]).limit(None)
        import pyarrow as pa

        for batch in query.to_batches(8192):
            vectors = store.vectors_in(pa.Table.from_batches([batch]))
            finite = np.isfinite(vectors).all(axis=1)
            docs = batch.column("doc").to_pylist()
            bad += [docs[row] for row in np.flatnonzero(~finite)]
            filled = np.array([bool(text) for text in batch.column("content").to_pylist()], np.bool_)
            zero += int((filled & ~vectors.any(axis=1)).sum())
            rows += batch.num_rows
        if bad:
            table = store.scan(["doc", "root", "file"])
            return self._drop(
                store, "vectors", f"{len(bad)} vectors are NaN or infinite", sorted(set(bad)), table, repair
            )
        if zero > rows // 20:
            message = f"{zero} of {rows} passages have no vector: the model knows none of their words"
            return self._finding("vectors", "warn", message, "use a model for this language; lexical search finds them")
        return self._finding("vectors", "ok", f"{rows} vectors, all finite, {zero} of text the model knows no word of")

    def _files(self, store: Store, repair: bool) -> Finding:
        with lance_errors("reading", self.spot.address):
            notes = store.files.search().select(["key", "file", "documents"]).limit(None).to_arrow().to_pylist()
        known = store.known("root != ''")
        held = Counter(
            document_key(root, file)
            for root, file in zip(known["root"].to_pylist(), known["file"].to_pylist(), strict=True)
        )
        wrong = [note["key"] for note in notes if note["documents"] != held[note["key"]]]
        if not wrong:
            return self._finding("files", "ok", f"{len(notes)} files noted as taken in, all with their documents")
        if repair:
            store.forget_files(wrong)
        message = f"{len(wrong)} files are noted as taken in, but documents of theirs are missing (deleted by hand?)"
        action = "" if repair else "run with --repair, then index again"
        return self._finding("files", "warn", message, action, repaired=repair)

    def _text_index(self, store: Store, repair: bool) -> Finding:
        rows, outside = store.passages.count_rows(), store.unindexed_rows()
        if outside <= max(256, rows // 50):
            return self._finding(
                "full-text index", "ok", f"covers {rows - outside} of {rows} rows; the rest is scanned"
            )
        if repair:
            store.index_text()
        message = f"does not cover {outside} of {rows} rows: they are found, but slowly"
        action = "" if repair else "run with --repair, or index again"
        return self._finding("full-text index", "warn", message, action, repaired=repair)

    def _drop(self, store: Store, check: str, message: str, docs: list[str], rows: Any, repair: bool) -> Finding:
        if not repair:
            return self._finding(
                check, "error", message, "run with --repair, then index (or add) these documents again"
            )
        wanted = set(docs)
        places = zip(*(rows[name].to_pylist() for name in ("doc", "root", "file")), strict=True)
        store.forget_files(sorted({document_key(root, file) for doc, root, file in places if doc in wanted and root}))
        store.delete(docs)
        action = f"{len(docs)} documents were taken out: index (or add) them again"
        return self._finding(check, "error", message, action, repaired=True)

    def _finding(self, check: str, level: Level, message: str, action: str = "", *, repaired: bool = False) -> Finding:
        return Finding(check, level, message, action, self.spot.name, repaired)
