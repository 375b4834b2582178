"""Documents in, committed passages out: the steps that ``add`` and ``index`` share, one batch at a time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import CollectionError, InputError
from embedlab.search.records import Failure, Settings
from embedlab.search.store import Store, document_key, metadata_columns, now, to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from embedlab.data.documents import Document, FoundFile
    from embedlab.data.passages import Passage
    from embedlab.models.encoder import Encoder

_SMALLEST, _FIRST, _LARGEST = 64, 512, 4096  # passages in a batch
_SHORT_S, _LONG_S = 1.0, 5.0  # a commit is due about this often: not much work is lost, not much time spent on commits


@dataclass(frozen=True, slots=True)
class Piece:
    """A document with its passages and its place."""

    document: Document
    passages: Sequence[Passage]
    root: str = ""
    file: str = ""
    mtime_ns: int | None = None

    @property
    def key(self) -> str:
        """Key of the document."""
        return document_key(self.root, self.document.source)


@dataclass(slots=True)
class Tally:
    """Running counts of an intake."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    failed: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"embedding": 0.0, "writing": 0.0, "text_index": 0.0})

    @property
    def written(self) -> int:
        """Documents written."""
        return self.added + self.changed


class Intake:
    """Gathers documents until a batch is worth a commit, then embeds and commits it.

    Args:
        store: The collection's tables; the caller holds its lock.
        encoder: The collection's model.
        known: Content hash of every document that is there, by key.
    """

    def __init__(self, store: Store, encoder: Encoder, known: Mapping[str, str]) -> None:
        self._store, self._encoder = store, encoder
        self.known = dict(known)
        self.tally = Tally()
        self._pieces: dict[str, Piece] = {}
        self._drop: list[str] = []
        self._files: list[dict[str, Any]] = []
        self._waiting = 0
        self._batch = _FIRST

    def put(self, piece: Piece) -> None:
        """Take a document in, unless it is there with the same content; commits when the batch is full."""
        key = piece.key
        if self.known.get(key) == piece.document.content_hash and key not in self._pieces:
            self.tally.unchanged += 1
            return
        before = self._pieces.pop(key, None)  # the same source twice in a batch: the later one counts
        self._waiting -= len(before.passages) if before is not None else 0
        self._pieces[key] = piece
        self._waiting += max(1, len(piece.passages))
        if self._waiting >= self._batch:
            self.commit()

    def drop(self, keys: Sequence[str]) -> None:
        """Have documents removed with the next commit."""
        self._drop += keys
        self.tally.removed += len(keys)

    def finish_file(self, file: FoundFile, root: str, documents: int) -> None:
        """Note that all documents of a file were put; it is remembered once they are committed."""
        row = {"key": document_key(root, file.source), "root": root, "file": file.source, "size": file.size}
        self._files.append(row | {"mtime_ns": file.mtime_ns, "documents": documents, "indexed_at": now()})
        if len(self._files) >= _LARGEST:
            self.commit()

    def commit(self) -> None:
        """Embed and commit everything at hand: first the passages, then the note that their files are done."""
        pieces, drop, files = list(self._pieces.values()), self._drop, self._files
        started = time.perf_counter()
        if pieces or drop:
            rows = self._rows(pieces) if pieces else None
            writing = time.perf_counter()
            replaced = [piece.key for piece in pieces if piece.key in self.known]
            self._store.replace(rows, drop + replaced)
            self.tally.seconds["writing"] += time.perf_counter() - writing
            self.tally.added += len(pieces) - len(replaced)
            self.tally.changed += len(replaced)
            self.tally.passages += sum(len(piece.passages) for piece in pieces)
            self.known.update((piece.key, piece.document.content_hash) for piece in pieces)
            for key in drop:
                self.known.pop(key, None)
        self._pieces, self._drop, self._waiting = {}, [], 0
        self._store.remember_files(files)
        self._files = []
        took = time.perf_counter() - started
        if took < _SHORT_S:
            self._batch = min(self._batch * 2, _LARGEST)
        elif took > _LONG_S:
            self._batch = max(self._batch // 2, _SMALLEST)

    def _rows(self, pieces: Sequence[Piece]) -> pa.Table:
        started = time.perf_counter()
        content = [(piece, prefix(piece, index)) for piece in pieces for index in range(max(1, len(piece.passages)))]
        texts = []
        position = 0
        for piece in pieces:
            for index in range(max(1, len(piece.passages))):
                body = piece.passages[index].text if piece.passages else ""
                texts.append(content[position][1] + body)
                position += 1
        vectors = encode(self._encoder, texts)
        self.tally.seconds["embedding"] += time.perf_counter() - started
        columns = self._store.ensure_columns([piece.document.metadata for piece in pieces])
        return _table(pieces, [before for _, before in content], texts, vectors, columns, self._store)


def encode(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed texts and refuse vectors that would spoil the collection.

    Raises:
        CollectionError: the model gave another shape, NaN or infinity; nothing of the batch is stored.
    """
    vectors = np.asarray(encoder.encode_document(texts), dtype=np.float32)
    if vectors.shape != (len(texts), encoder.dim):
        raise CollectionError(
            f"model {encoder.name!r} gave vectors of shape {vectors.shape} for {len(texts)} texts, "
            f"expected {(len(texts), encoder.dim)}: nothing of this batch was stored"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise CollectionError(
            f"model {encoder.name!r} gave NaN or infinity for {len(bad)} of {len(texts)} texts "
            f"(the first: {texts[int(bad[0])][:80]!r}): nothing of this batch was stored; check the model"
        )
    return vectors


def prefix(piece: Piece, index: int) -> str:
    """Return what stands before a passage in the indexed text: title and headings, unless it begins with them."""
    document = piece.document
    if not piece.passages:
        return f"{document.title}\n" if document.title else ""
    passage = piece.passages[index]
    start = passage.text[:400]
    parts = dict.fromkeys(part.strip() for part in (document.title, *passage.headings))
    return "".join(f"{part}\n" for part in parts if part and not _names(start, part))


def _names(text: str, words: str) -> bool:
    """Tell whether a text holds some words as words (a compiled pattern per heading would cost more than embedding)."""
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        if not (text[at - 1 : at].isalnum() or text[end : end + 1].isalnum()):
            return True
        at = text.find(words, at + 1)
    return False


def _table(
    pieces: Sequence[Piece],
    prefixes: Sequence[str],
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    columns: Mapping[str, str],
    store: Store,
) -> pa.Table:
    import pyarrow as pa

    held = store.stored_vectors(vectors)
    rows: dict[str, list[Any]] = {name: [] for name in store.passages.schema.names if name not in held}
    facts = []
    stamp = now()
    for piece in pieces:
        document, key = piece.document, piece.key
        mtime = None if piece.mtime_ns is None else datetime.fromtimestamp(piece.mtime_ns // 1_000_000_000, UTC)
        fixed = {
            "doc": key,
            "doc_passages": len(piece.passages),
            "root": piece.root,
            "file": piece.file,
            "source": document.source,
            "title": document.title,
            "format": document.format,
            "content_hash": document.content_hash,
            "metadata": to_json(document.metadata),
            "mtime": mtime,
            "indexed_at": stamp,
        }
        for ordinal in range(max(1, len(piece.passages))):
            passage = piece.passages[ordinal] if piece.passages else None
            for name, value in fixed.items():
                rows[name].append(value)
            rows["id"].append(f"{key}-{ordinal}")
            rows["ordinal"].append(ordinal)
            rows["headings"].append(list(passage.headings) if passage else [])
            rows["start"].append(passage.start if passage else 0)
            rows["end"].append(passage.end if passage else 0)
            rows["page"].append(passage.page if passage else None)
            facts.append(document.metadata)
    rows["prefix"] = [len(before) for before in prefixes]
    rows["content"] = list(texts)
    schema = store.passages.schema
    rows |= metadata_columns(facts, columns, schema)
    count = len(texts)
    arrays = {name: pa.array(values or [None] * count, schema.field(name).type) for name, values in rows.items()}
    arrays |= held
    return pa.table([arrays[name] for name in schema.names], schema=schema)


class Stop:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def patient_interrupt() -> Iterator[Stop]:
    """Turn the first Ctrl-C into a request to stop after the batch in hand; the second one interrupts at once.

    Outside the main thread, where signals can't be caught, nothing changes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(_number: int, _frame: object) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, before)

    if before in (signal.SIG_IGN, None):
        yield stop
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def split(document: Document, settings: Settings) -> list[Passage]:
    """Split a document by the collection's settings."""
    from embedlab.data.passages import split_passages

    return split_passages(document, max_chars=settings.max_chars, overlap_chars=settings.overlap_chars)


def as_document(item: Document | str | Mapping[str, Any], number: int) -> Document:
    """Make a document of what ``Collection.add`` accepts.

    Raises:
        InputError: it is none of that.
    """
    from embedlab.data.documents import Document

    if isinstance(item, Document):
        return item
    values: dict[str, Any] = {"text": item} if isinstance(item, str) else {}
    if isinstance(item, Mapping):
        values = dict(item)
    unknown = set(values) - {"text", "source", "title", "format", "metadata"}
    if not isinstance(values.get("text"), str) or unknown:
        raise InputError(
            f"documents[{number}]={item!r:.80}: must be a Document, a text, or a mapping with 'text' and any of "
            f"'source', 'title', 'format', 'metadata'" + (f", not {sorted(unknown)}" if unknown else "")
        )
    text = values["text"]
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Document(
        source=str(values.get("source") or f"text-{digest}"),
        text=text,
        title=str(values.get("title") or ""),
        format=str(values.get("format") or "txt"),
        metadata=dict(values.get("metadata") or {}),
    )
