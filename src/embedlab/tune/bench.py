"""The bench: documents cut, words looked up and vectors made once, so that trying a system costs arithmetic only.

A system is a mapping from knob to setting; what is missing stays as it is in the collection. Words go through the
collection's own full-text index, vectors are compared exactly, and both are blended by the collection's own functions:
what the bench ranks is what a collection with these settings would return, which the tests check.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.data.documents import Block, Document
from embedlab.search.feedback import towards
from embedlab.search.ranking import fuse
from embedlab.search.records import PassageInfo, Settings
from embedlab.tune.judgements import Judgements
from embedlab.tune.knob import Knob, Setting, Stage, settings_of
from embedlab.tune.measures import Goal, value_of

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder
    from embedlab.search import Collection

_log = logging.getLogger(__name__)

System: TypeAlias = Mapping[str, Setting]
Floats: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.int64]

_OF_COLLECTION: tuple[Stage, Stage] = ("passages", "ranking")
DEPTH = 100  # candidates of each list, as in a collection's search
_CODES_TRAINED_ON = 20_000  # vectors; more of them change a codec little


@dataclass(slots=True)
class _Cut:
    """Documents cut in one way."""

    collection: Collection
    ids: dict[str, int]  # passage id -> row
    sources: list[str]  # of documents
    document: Rows  # (N,) which document a row is of
    texts: list[str]  # what is embedded
    words: dict[str, tuple[Rows, Floats]] = field(default_factory=dict)  # query -> rows and BM25, best first


class Bench:
    """Tries systems on queries.

    Args:
        documents: The documents, without the queries that were made from them.
        settings: Those of the collection.
        encoder: Its model.
        knobs: What systems may set.
        folder: Where collections that are cut in other ways, and vectors, are kept between runs.
        seed: Decides what is random in models and codecs.
        models: Other encoders by name, for the knob ``model``.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        settings: Settings,
        encoder: Encoder,
        *,
        knobs: Mapping[str, Knob],
        folder: Path,
        seed: int = 0,
    ) -> None:
        self.documents, self.settings, self.encoder = list(documents), settings, encoder
        self.knobs, self.folder, self.seed = knobs, folder, seed
        digest = hashlib.blake2b(digest_size=8)
        for document in self.documents:
            digest.update(f"{document.source}\0{document.content_hash}\0".encode("utf-8", "surrogatepass"))
        self.data = digest.hexdigest()  #: changes with the documents
        self._cuts: dict[tuple[Any, ...], _Cut] = {}
        self._encoders: dict[str, Encoder] = {}
        self._vectors: dict[tuple[Any, ...], Floats] = {}
        self._queries: dict[tuple[str, str], Floats] = {}

    def values(self, system: System, judgements: Judgements, goal: Goal) -> NDArray[np.float64]:
        """Score a system on each query.

        Args:
            system: The system.
            judgements: Queries and what answers them.
            goal: What is measured.

        Returns:
            One value in [0, 1] for each query.
        """
        ranked = self.rank(system, judgements.queries, depth=goal.depth)
        return np.array([value_of(goal, *each) for each in zip(ranked, judgements.relevant, strict=True)])

    def rank(self, system: System, queries: Sequence[str], *, depth: int = 10) -> list[list[str]]:
        """Rank documents for queries by their best passage.

        Args:
            system: The system.
            queries: The queries.
            depth: Longest list to return.

        Returns:
            For each query the sources of documents, best first.
        """
        cut, settings = self._cut(system), self.settings_of(system)
        vectors, asked = self.vectors_of(system), self._asked(system, queries)
        weights = (settings.weight, settings.feedback_passages, settings.feedback_weight)
        found = []
        for query, vector in zip(queries, asked, strict=True):
            rows, scores = _blended(vectors, vector, self._words(cut, query), *weights)
            best = cut.document[rows[np.argsort(-scores, kind="stable")]]
            order = np.sort(np.unique(best, return_index=True)[1])[:depth]
            found.append([cut.sources[number] for number in best[order]])
        return found

    def settings_of(self, system: System) -> Settings:
        """Return the collection settings of a system."""
        cut, ranked = (settings_of(system, stage, self.knobs) for stage in _OF_COLLECTION)
        return replace(self.settings, **cut, **ranked)

    def encoder_of(self, system: System) -> Encoder:
        """Return the model of a system, made on first use."""
        key = _key(self._of_stage(system, "model"))
        if key not in self._encoders:
            encoder = self.encoder
            for name, setting in self._of_stage(system, "model"):
                texts = self._cut({}).texts
                encoder = self.knobs[name].make(setting, encoder, texts, self.seed)
            self._encoders[key] = encoder
        return self._encoders[key]

    def vectors_of(self, system: System) -> Floats:
        """Return the vectors of all passages as a system keeps them, decoded (N, D)."""
        cut_key = self._cut_key(system)
        codec = tuple(self._of_stage(system, "codec"))
        key = (cut_key, _key(self._of_stage(system, "model")), _key(codec))
        if key not in self._vectors:
            vectors = self._encoded(system, cut_key)
            for name, setting in codec:
                made = self.knobs[name].make(setting, vectors.shape[1], self.seed)
                picked = np.random.default_rng(self.seed).permutation(len(vectors))[:_CODES_TRAINED_ON]
                made.fit(vectors[np.sort(picked)])
                vectors = made.decode(made.encode(vectors))
            self._vectors[key] = vectors
        return self._vectors[key]

    def bytes_per_document(self, system: System) -> float:
        """Return the bytes that a system keeps of the vectors of one document, on average."""
        cut = self._cut(system)
        dim = self.encoder_of(system).dim
        per_vector = dim * (2 if self.settings.vector_type == "float16" else 4)
        for name, setting in self._of_stage(system, "codec"):
            per_vector = self.knobs[name].make(setting, dim, self.seed).bytes_per_vector
        return per_vector * len(cut.document) / max(len(cut.sources), 1)

    def collection_of(self, system: System) -> Collection:
        """Return a collection of the documents with the passages of a system, for measuring searches."""
        return self._cut(system).collection

    def _encoded(self, system: System, cut_key: tuple[Any, ...]) -> Floats:
        encoder, texts = self.encoder_of(system), self._cut(system).texts
        key = (cut_key, _key(self._of_stage(system, "model")), _key(()))
        if key in self._vectors:
            return self._vectors[key]
        name = hashlib.blake2b(f"{self.data} {cut_key} {encoder.fingerprint}".encode(), digest_size=8).hexdigest()
        file = self.folder / f"vectors-{name}.npy"
        if file.is_file():
            vectors: Floats = np.load(file, allow_pickle=False)
        else:
            vectors = np.asarray(encoder.encode_document(texts), np.float32)
            self.folder.mkdir(parents=True, exist_ok=True)
            with file.with_suffix(".part").open("wb") as out:
                np.save(out, vectors)
            file.with_suffix(".part").replace(file)
        self._vectors[key] = vectors
        return vectors

    def _asked(self, system: System, queries: Sequence[str]) -> Floats:
        encoder = self.encoder_of(system)
        missing = [query for query in dict.fromkeys(queries) if (encoder.fingerprint, query) not in self._queries]
        if missing:
            for query, vector in zip(missing, np.asarray(encoder.encode_query(missing), np.float32), strict=True):
                self._queries[encoder.fingerprint, query] = vector
        return np.stack([self._queries[encoder.fingerprint, query] for query in queries])

    def _words(self, cut: _Cut, query: str) -> tuple[Rows, Floats]:
        if query not in cut.words:
            hits = cut.collection.search(query, top_k=DEPTH, mode="lexical", explain=True)
            rows = np.array([cut.ids[hit.id] for hit in hits], np.int64)
            cut.words[query] = rows, np.array([hit.parts["bm25"] for hit in hits], np.float32)
        return cut.words[query]

    def _cut_key(self, system: System) -> tuple[Any, ...]:
        settings = self.settings_of(system)
        return settings.max_chars, settings.overlap_chars, settings.language, settings.stem, settings.remove_stop_words

    def _cut(self, system: System) -> _Cut:
        key = self._cut_key(system)
        if key not in self._cuts:
            self._cuts[key] = self._made_cut(self.settings_of(system), key)
        return self._cuts[key]

    def _made_cut(self, settings: Settings, key: tuple[Any, ...]) -> _Cut:
        from embedlab.search import Collection

        name = hashlib.blake2b(f"{self.data} {key} {self.encoder.fingerprint}".encode(), digest_size=8).hexdigest()
        path = self.folder / f"passages-{name}"
        plain = replace(settings, weight=self.settings.weight)
        if path.exists():
            collection = Collection.open(str(path), model=self.encoder)
        else:
            collection = Collection.create(str(path), model=self.encoder, settings=plain)
        report = collection.add(self.documents)  # what is there already is passed over: an interrupted run goes on
        if report.failed:
            raise InputError(f"{len(report.failed)} documents cannot be indexed, the first: {report.failed[0]}")
        ids, vectors = collection.vectors()
        row = {each: number for number, each in enumerate(ids)}
        sources = sorted({document.source for document in self.documents})
        number = {source: place for place, source in enumerate(sources)}
        document = np.zeros(len(ids), np.int64)
        texts = [""] * len(ids)
        for passage in collection.passages():
            if passage.id in row:
                document[row[passage.id]] = number[passage.source]
                texts[row[passage.id]] = embedded(passage)
        cut = _Cut(collection, row, sources, document, texts)
        self._vectors[key, _key(()), _key(())] = np.asarray(vectors, np.float32)
        return cut

    def _of_stage(self, system: System, stage: str) -> list[tuple[str, Setting]]:
        return [
            (name, setting)
            for name, setting in sorted(system.items())
            if self.knobs[name].stage == stage and setting != self.knobs[name].neutral
        ]


def embedded(passage: PassageInfo) -> str:
    """Return what a collection embeds of a passage: its title and headings, then its text.

    Args:
        passage: A passage of a collection.

    Returns:
        The text.
    """
    above = dict.fromkeys(part for part in (passage.title, *passage.headings) if part)
    return "\n".join([*above, passage.text])


def documents_of(collection: Collection) -> list[Document]:
    """Put the documents of a collection together again from their passages.

    Args:
        collection: The collection.

    Returns:
        One document for each that has text, in the order of their sources; text that was not indexed is blank.
    """
    by_source: dict[str, list[PassageInfo]] = {}
    for passage in collection.passages():
        by_source.setdefault(passage.source, []).append(passage)
    return [_whole(source, passages) for source, passages in sorted(by_source.items())]


def _whole(source: str, passages: Iterable[PassageInfo]) -> Document:
    ordered = sorted(passages, key=lambda passage: passage.start)
    parts: list[str] = []
    blocks: list[Block] = []
    end = 0
    for passage in ordered:
        parts.append("\n" * max(passage.start - end, 0) + passage.text[max(end - passage.start, 0) :])
        start = max(passage.start, end)
        end = max(end, passage.end)
        last = blocks[-1] if blocks else None
        if last is not None and last.headings == passage.headings and last.page == passage.page:
            blocks[-1] = replace(last, end=end)
        elif end > start:
            blocks.append(Block(start, end, passage.headings, passage.page))
    first = ordered[0]
    return Document(source, "".join(parts), first.title, first.format, blocks=tuple(blocks))


def _blended(
    vectors: Floats, vector: Floats, words: tuple[Rows, Floats], weight: float, feedback: int, step: float
) -> tuple[Rows, Floats]:
    """Rank passages as a collection does: rows and their scores."""
    rows, scores = _fused(vectors, vector, words, weight)
    if feedback and vector.any():
        best = rows[np.argsort(-scores, kind="stable")[:feedback]]
        rows, scores = _fused(vectors, towards(vector, vectors[best], weight=step), words, weight)
    return rows, scores


def _fused(vectors: Floats, vector: Floats, words: tuple[Rows, Floats], weight: float) -> tuple[Rows, Floats]:
    cosine = vectors @ vector  # (N,)
    depth = min(DEPTH, len(cosine))
    near = np.argpartition(cosine, len(cosine) - depth)[-depth:] if vector.any() else np.empty(0, np.int64)
    near = near[cosine[near] != 0.0]
    rows = np.union1d(words[0], near)
    bm25 = np.zeros(len(rows), np.float32)
    bm25[np.searchsorted(rows, words[0])] = words[1]
    share = weight if vector.any() else 0.0
    return rows, fuse(bm25, cosine[rows], weight=share)[0]


def _key(chosen: Iterable[tuple[str, Setting]]) -> str:
    return repr(list(chosen))


def describe(system: System) -> Iterator[str]:
    """Say what a system sets, in the order of its knobs.

    Args:
        system: The system.

    Yields:
        ``"knob setting"`` for each.
    """
    for name, setting in system.items():
        if isinstance(setting, Mapping):
            setting = " ".join(str(part) for part in setting.values())
        elif isinstance(setting, list | tuple):
            setting = "/".join(str(part) for part in setting)
        yield f"{name} {setting}"


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON can hold them.

    Args:
        settings: Settings of a collection.

    Returns:
        Field -> value.
    """
    return asdict(settings)
