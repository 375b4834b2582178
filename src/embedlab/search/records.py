"""What the collection hands out: hits, reports, findings and its settings, all plain and immutable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from embedlab._core.errors import InputError

Mode = Literal["hybrid", "dense", "lexical"]
Level = Literal["ok", "warn", "error"]
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage found by a search.

    Args:
        id: Passage id, stable as long as its document keeps its place; what ``Collection.similar`` takes.
        source: The document it comes from, as the collection names it.
        title: Title of the document.
        text: The passage.
        start: Offset of its first character in the document's text.
        end: Offset behind its last character.
        score: Larger is nearer: fused score in [0, 1] (hybrid), cosine in [-1, 1] (dense) or BM25 >= 0 (lexical).
        format: The document's format, e.g. ``"pdf"``.
        page: Page of the source, counted from 1, where it has pages.
        headings: The headings above the passage, outermost first.
        highlights: Spans ``(start, end)`` in ``text`` whose words match the query.
        best_sentence: Span in ``text`` of the sentence that answers the query best; None if no word matches.
        metadata: The document's metadata.
        parts: With ``explain=True``, how the score came about (``bm25``, ``bm25_normalised``, ``cosine``,
            ``cosine_normalised``, ``weight``, ``lexical_rank``, ``dense_rank``); a list that does not hold the passage
            leaves its entries out.
        matched: With ``explain=True``, the words of the passage that match the query.
        shared: With ``explain=True`` and a model whose dimensions have names, those that query and passage share with
            what each adds to the cosine, largest first; they sum to ``parts["cosine"]``.
    """

    id: str
    source: str
    title: str
    text: str
    start: int
    end: int
    score: float
    format: str = ""
    page: int | None = None
    headings: tuple[str, ...] = ()
    highlights: tuple[tuple[int, int], ...] = ()
    best_sentence: tuple[int, int] | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    matched: tuple[str, ...] = ()
    shared: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be taken in: its name and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of a running ``index`` or ``add``.

    Args:
        phase: ``"finding"``, ``"indexing"``, ``"removing"``, ``"text index"``, ``"compacting"`` or ``"done"``.
        files_done: Files dealt with, unchanged ones included (for ``add``: documents).
        files_total: Files found; None while it is not known.
        documents: Documents written so far.
        passages: Passages written so far.
        bytes_done: Bytes of the files dealt with.
        bytes_total: Bytes of all files found; None while it is not known.
        seconds: Time since the start.
        documents_per_s: Documents written per second.
        remaining_s: Estimate of the time left, by bytes; None while it is not known.
    """

    phase: str
    files_done: int = 0
    files_total: int | None = None
    documents: int = 0
    passages: int = 0
    bytes_done: int = 0
    bytes_total: int | None = None
    seconds: float = 0.0
    documents_per_s: float = 0.0
    remaining_s: float | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class AddReport:
    """What ``Collection.add`` did, in documents.

    Args:
        added: Documents that are new.
        changed: Documents that replaced an older version.
        unchanged: Documents that were there already with the same content.
        passages: Passages written.
        failed: Documents that could not be taken in.
        seconds: Time it took.
    """

    added: int
    changed: int
    unchanged: int
    passages: int
    failed: tuple[Failure, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What ``Collection.index`` did.

    Args:
        files: Files found.
        files_skipped: Files whose size and time of change say that they are as before; they were not read.
        added: Documents that are new.
        changed: Documents that replaced an older version.
        unchanged: Documents that were read and found to be as before.
        removed: Documents that are gone.
        passages: Passages written.
        unreadable: Files and records that could not be read, by name and reason.
        seconds: Time it took.
        documents_per_s: Documents written per second.
        stages: Seconds spent in each stage (``reading``, ``embedding``, ``writing``, ``text_index``); stages overlap.
    """

    files: int
    files_skipped: int
    added: int
    changed: int
    unchanged: int
    removed: int
    passages: int
    unreadable: tuple[Failure, ...]
    seconds: float
    documents_per_s: float
    stages: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """One document of a collection, without its text."""

    source: str
    title: str
    format: str
    root: str
    passages: int
    content_hash: str
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PassageInfo:
    """One passage of a collection as it is stored."""

    id: str
    source: str
    title: str
    text: str
    start: int
    end: int
    page: int | None
    headings: tuple[str, ...]
    format: str
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set per collection.

    Args:
        weight: Share of the dense part in the hybrid score, in [0, 1]; 0 is lexical alone, 1 dense alone.
        max_chars: Longest passage, in characters.
        overlap_chars: Characters that neighbouring passages share.
        language: Language of stemming and stop words in the full-text index, in English, e.g. ``"German"``.
        stem: Whether words are reduced to their stem.
        remove_stop_words: Whether words such as "the" are left out of the full-text index.
        phrase_search: Whether word positions are stored, so that quoted phrases can be searched; a larger index.
        vector_type: ``"float16"`` or ``"float32"``, how vectors are stored.
        cache_bytes: Largest matrix of vectors kept in memory for exact search; above it Lance searches on disk.
        feedback_passages: So many passages of a first search the query's vector moves towards before a second; 0 to
            search once.
        feedback_weight: How far it moves: 1 gives the mean of those passages as much weight as the query.
    """

    weight: float = 0.65
    max_chars: int = 1000
    overlap_chars: int = 0
    language: str = "English"
    stem: bool = True
    remove_stop_words: bool = True
    phrase_search: bool = False
    vector_type: Literal["float16", "float32"] = "float16"
    cache_bytes: int = 512 * 1024 * 1024
    feedback_passages: int = 0
    feedback_weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise InputError(f"weight={self.weight!r}: must lie in [0, 1] (share of the dense part in the score)")
        if self.max_chars < 50:
            raise InputError(f"max_chars={self.max_chars!r}: must be at least 50 characters")
        if not 0 <= self.overlap_chars < self.max_chars / 2:
            raise InputError(
                f"overlap_chars={self.overlap_chars!r}: must be less than half of max_chars={self.max_chars}"
            )
        if self.vector_type not in ("float16", "float32"):
            raise InputError(f"vector_type={self.vector_type!r}: must be 'float16' or 'float32'")
        if self.cache_bytes < 0:
            raise InputError(f"cache_bytes={self.cache_bytes!r}: must be 0 (no cache) or more")
        if not 0 <= self.feedback_passages <= 100:
            raise InputError(f"feedback_passages={self.feedback_passages!r}: must lie in 0 (none) to 100")
        if not 0.0 <= self.feedback_weight <= 10.0:
            raise InputError(f"feedback_weight={self.feedback_weight!r}: must lie in 0 to 10")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Build settings from stored values; names this version does not know are passed over."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What a collection is and holds.

    Args:
        name: Its name.
        path: Folder or address it is stored in.
        model: Name the model is loaded by.
        fingerprint: Fingerprint of the model that made the vectors.
        dim: Width of the vectors.
        documents: Number of documents.
        passages: Number of passages.
        bytes_on_disk: Size of the folder; None on object storage.
        created_at: Time of creation, ISO 8601, UTC.
        updated_at: Time of the last commit, ISO 8601, UTC.
        roots: Folders that were indexed into it.
        formats: Number of documents of each format.
        columns: Columns that ``filter`` may use, with their types.
        settings: Its settings.
        schema_version: Version of the layout on disk.
        codec: Fingerprint of the codec whose codes are searched; empty if vectors are.
        bytes_per_code: Bytes of one code; 0 without codes.
        verify: How many candidates of a search are scored again by their vectors.
        vectors_kept: Whether the vectors are stored.
        bridge: Fingerprint of the map that takes the model's vectors to those of the index; empty for none.
    """

    name: str
    path: str
    model: str
    fingerprint: str
    dim: int
    documents: int
    passages: int
    bytes_on_disk: int | None
    created_at: str
    updated_at: str
    roots: tuple[str, ...]
    formats: Mapping[str, int]
    columns: Mapping[str, str]
    settings: Settings
    schema_version: int
    codec: str = ""
    bytes_per_code: int = 0
    verify: int = 0
    vectors_kept: bool = True
    bridge: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of ``doctor``.

    Args:
        check: What was looked at, e.g. ``"vectors"``.
        level: ``"ok"``, ``"warn"`` or ``"error"``.
        message: What was found.
        action: What to do about it; empty if nothing.
        collection: The collection it is about; None for the installation.
        repaired: Whether ``repair=True`` has put it right.
    """

    check: str
    level: Level
    message: str
    action: str = ""
    collection: str | None = None
    repaired: bool = False
