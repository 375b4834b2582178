"""Learning the aspects of a collection from what is known of its documents, and saying whether it helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import InputError, unknown_name
from embedlab.search.places import timestamp
from embedlab.text.aspect_documents.comparison import AspectComparison, compare_aspects, fit_head
from embedlab.text.aspect_documents.labels import entity_labels, split_labels
from embedlab.text.aspect_documents.measures import mean_scores
from embedlab.text.aspect_documents.names import GENERIC, check_aspect
from embedlab.text.aspect_documents.pairs import AspectPairs
from embedlab.text.aspect_documents.training import WAYS, HeadSettings, Way

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedlab.search.collection import Collection

Labels = Mapping[str, Mapping[str, Set[str]]]

_PASSAGES_PER_DOCUMENT = 8  # the first ones: a long document must not outweigh the others
_MOST_PASSAGES = 10_000  # to learn from; all are searched
_PARTNERS = 5  # of a passage and a label: a frequent label must not outweigh the others


@dataclass(frozen=True, slots=True)
class Learnt:
    """What came of learning aspects.

    Args:
        aspects: The aspects that can be searched by now.
        documents: Documents with a label of each.
        comparison: Scores on held-out documents, beside those of the plain vectors; None if it was not asked for.
    """

    aspects: tuple[str, ...]
    documents: Mapping[str, int]
    comparison: AspectComparison | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        compared = None if self.comparison is None else self.comparison.to_dict()
        return {"aspects": list(self.aspects), "documents": dict(self.documents), "comparison": compared}


def learn_aspects(
    collection: Collection,
    *,
    labels: Labels | None = None,
    columns: Sequence[str] = (),
    separator: str = ";",
    entities: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    examples: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    way: Way = "siamese",
    settings: HeadSettings | None = None,
    folds: int | None = 4,
    seed: int = 0,
) -> Learnt:
    """Learn aspects of a collection on its stored vectors, whatever model made them, and keep them with it.

    Args:
        collection: The collection.
        labels: Aspect -> source of a document -> its labels.
        columns: Keys of the documents' metadata, each an aspect whose labels are its values.
        separator: What stands between two labels of a metadata text.
        entities: Aspect -> name -> spellings to look for in the text; a document has the names that stand in it.
        examples: Aspect -> pairs of sources that are alike.
        way: ``"siamese"``, ``"classification"`` or ``"retrofitting"``.
        settings: How heads are trained; None for the defaults.
        folds: Folds of documents to compare with the plain vectors on; None skips the comparison.
        seed: Decides folds, draws and first weights.

    Returns:
        What was learnt, and how well it does.

    Raises:
        InputError: nothing to learn from, an unknown column or source, or an aspect without a pair.
        CollectionError: another process is writing, or the collection is damaged.
        MissingExtraError: the extra ``train`` is not installed.
    """
    if way not in WAYS:
        raise unknown_name("way", way, WAYS)
    texts = _texts(collection)
    known: dict[str, dict[str, set[str]]] = {}
    for part in (labels or {}, _from_columns(collection, columns, separator), _from_entities(texts, entities or {})):
        _join(known, part, texts)
    for aspect, given in (examples or {}).items():
        by_pair: dict[str, set[str]] = {}
        for number, pair in enumerate(given):
            for source in pair:
                by_pair.setdefault(source, set()).add(f"pair {number}")
        _join(known, {aspect: by_pair}, texts, strict=True)
    if not known:
        raise InputError("nothing to learn from: give labels, columns, entities or examples")
    pairs, vectors = _pairs(collection, known, folds=folds or 4, seed=seed)
    compared = None
    if folds is not None:
        compared = compare_aspects(pairs, vectors, ways=(way,), settings=settings, seed=seed)
    heads = {a: fit_head(pairs, a, vectors, way=way, settings=settings, seed=seed) for a in pairs.aspects}
    counts = {aspect: sum(bool(own) for own in by_source.values()) for aspect, by_source in known.items()}
    about = {aspect: _about(aspect, way, counts[aspect], compared) for aspect in heads}
    collection.aspects.keep(heads, about)
    return Learnt(tuple(heads), counts, compared)


def _texts(collection: Collection) -> dict[str, list[tuple[str, str]]]:
    """Source -> (passage id, text) of its passages, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for passage in collection.passages():
        if passage.text.strip():
            found.setdefault(passage.source, []).append((passage.id, passage.text))
    return found


def _from_columns(collection: Collection, columns: Sequence[str], separator: str) -> dict[str, dict[str, set[str]]]:
    documents = collection.documents() if columns else []
    keys = sorted({key for info in documents for key in info.metadata})
    found: dict[str, dict[str, set[str]]] = {}
    for column in columns:
        if column not in keys:
            raise unknown_name("column", column, keys)
        values = ((info.source, split_labels(info.metadata.get(column), separator=separator)) for info in documents)
        found[check_aspect(column)] = {source: own for source, own in values if own}
    return found


def _from_entities(
    texts: Mapping[str, Sequence[tuple[str, str]]], entities: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, dict[str, set[str]]]:
    if not entities:
        return {}
    whole = {source: "\n".join(text for _, text in passages) for source, passages in texts.items()}
    return {
        check_aspect(aspect): dict(zip(whole, entity_labels(whole.values(), names), strict=True))
        for aspect, names in entities.items()
    }


def _join(
    known: dict[str, dict[str, set[str]]], part: Labels, texts: Mapping[str, object], *, strict: bool = False
) -> None:
    for aspect, by_source in part.items():
        there = {source: own for source, own in by_source.items() if source in texts}
        if (strict and len(there) < len(by_source)) or (by_source and not there):
            missing = next(source for source in by_source if source not in texts)
            raise InputError(
                f"aspect {aspect!r}: there is no document {missing!r} with text in the collection; sources are written "
                f"as search results show them, for example {next(iter(texts), '')!r}"
            )
        own = known.setdefault(aspect, {})
        for source, labels in there.items():
            own.setdefault(source, set()).update(labels)


def _pairs(collection: Collection, known: Labels, *, folds: int, seed: int) -> tuple[AspectPairs, NDArray[np.float32]]:
    """Passages of labelled documents with their vectors; a document lies in one fold, its passages are no pairs."""
    labelled = {source for by_source in known.values() for source, own in by_source.items() if own}
    ids, vectors = collection.vectors()
    rows = {passage: row for row, passage in enumerate(ids)}
    chosen = [
        (passage, text, source)
        for source, passages in _texts(collection).items()
        if source in labelled
        for passage, text in passages[:_PASSAGES_PER_DOCUMENT]
        if vectors[rows[passage]].any()
    ]
    if len(chosen) > _MOST_PASSAGES:
        drawn = np.sort(np.random.default_rng(seed).choice(len(chosen), _MOST_PASSAGES, replace=False))
        chosen = [chosen[place] for place in drawn]
    if len(chosen) < 2:
        raise InputError(f"{len(chosen)} passages have a label and a vector: at least 2 are needed")
    pairs = AspectPairs.from_labels(
        [text for _, text, _ in chosen],
        {aspect: [by_source.get(source, set()) for *_, source in chosen] for aspect, by_source in known.items()},
        ids=[passage for passage, *_ in chosen],
        groups=[source for *_, source in chosen],
        max_label_freq=None,
        max_partners=_PARTNERS,
        folds=min(folds, len({source for *_, source in chosen})),
        seed=seed,
    )
    return pairs, vectors[[rows[passage] for passage, *_ in chosen]]


def _about(aspect: str, way: str, documents: int, compared: AspectComparison | None) -> dict[str, Any]:
    about: dict[str, Any] = {"way": way, "documents": documents, "learnt_at": timestamp()}
    if compared is not None:
        for name, system in (("precision", way), ("generic_precision", GENERIC)):
            about[name] = round(mean_scores(list(compared.scores[system][aspect]))["precision"][0], 4)
        about |= {"top_k": compared.top_k, "helps": compared.helps(aspect)}
    return about
