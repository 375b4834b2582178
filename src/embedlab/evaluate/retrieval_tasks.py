"""Tasks of finding: retrieval and reranking from a corpus, and retrieval from a collection without any judgements."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from embedlab._core.errors import InputError
from embedlab.evaluate.task_data import ENGLISH, dataset_of, languages_of, made

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

_log = logging.getLogger(__name__)

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
OnMissing: TypeAlias = Literal["error", "drop"]
_FIRST_SENTENCE = re.compile(r"\s*(\S.*?[.!?])(?=\s)", re.DOTALL)
_LEAST_CHARS = 40  # of a passage without its query, and of a first sentence: shorter ones say too little


class _Passage(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def text(self) -> str: ...


class _Collection(Protocol):
    @property
    def name(self) -> str: ...
    def passages(self) -> Iterable[_Passage]: ...


def from_corpus(
    corpus: Mapping[str, Any],
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    name: str,
    language: str = ENGLISH,
    languages: Sequence[str] | None = None,
    description: str = "",
    on_missing: OnMissing = "error",
) -> AbsTask:
    """Make a retrieval task: find, for each query, the documents that answer it.

    The main score is nDCG@10. Queries without a relevant document are left out, as no ranking could score on them; how
    many is logged.

    Args:
        corpus: Documents by id: a text, or anything with ``title`` and ``text`` as attributes or keys.
        queries: Queries by id.
        qrels: For each query id the grades of documents by id: 0 judged and not relevant, above 0 relevant.
        name: What the task is called, other than mteb's own tasks.
        language: Language and script of the data, e.g. ``"eng-Latn"``.
        languages: Language of each query, in the order of ``queries``, for scores by language.
        description: One sentence about the data.
        on_missing: What to do with judgements of documents or queries that are not there: ``"error"``, or ``"drop"``.

    Returns:
        The task, registered with mteb under its name.

    Raises:
        InputError: no documents, queries or usable judgements; judgements of what is missing; grades below 0.
        MissingExtraError: the extra ``evaluate`` is not installed.

    Example:
        >>> task = from_corpus({"d1": "cats purr", "d2": "dogs bark"}, {"q": "purring"}, {"q": {"d1": 1}}, name="pets")
        >>> task.metadata.type, task.metadata.main_score
        ('Retrieval', 'ndcg_at_10')
    """
    data, kept = _checked(corpus, queries, qrels, on_missing)
    split = _split(data, None)
    return made(
        "Retrieval", name, data, [language], description, {"default": {"test": split}}, languages_of(kept, languages)
    )


def from_reranking(
    corpus: Mapping[str, Any],
    queries: Mapping[str, str],
    qrels: Qrels,
    candidates: Mapping[str, Sequence[str]],
    *,
    name: str,
    language: str = ENGLISH,
    languages: Sequence[str] | None = None,
    description: str = "",
    on_missing: OnMissing = "error",
) -> AbsTask:
    """Make a reranking task: order the given candidates of each query. The main score is mean average precision.

    Args:
        corpus: Documents by id, as in ``from_corpus``.
        queries: Queries by id.
        qrels: Grades, as in ``from_corpus``. A relevant document that is no candidate counts as not found.
        candidates: For each query id the ids of the documents to order.
        name: What the task is called.
        language: Language and script of the data.
        languages: Language of each query.
        description: One sentence about the data.
        on_missing: As in ``from_corpus``.

    Returns:
        The task, registered with mteb under its name.

    Raises:
        InputError: as in ``from_corpus``; a query without candidates; a candidate that is not in the corpus.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    data, kept = _checked(corpus, queries, qrels, on_missing)
    lists: dict[str, list[str]] = {}
    for query in data["qrels"]:
        lists[query] = list(dict.fromkeys(candidates.get(query, ())))
        if not lists[query]:
            raise InputError(f"candidates has none for the query {query!r}: every query needs documents to order")
        unknown = [document for document in lists[query] if document not in corpus]
        if unknown:
            raise InputError(f"candidates[{query!r}] holds {unknown[0]!r}, which is not in the corpus")
    data["candidates"] = lists
    split = _split(data, lists)
    return made(
        "Reranking", name, data, [language], description, {"default": {"test": split}}, languages_of(kept, languages)
    )


def from_collection(
    collection: _Collection,
    *,
    queries: Literal["title", "first_sentence"] = "title",
    name: str | None = None,
    language: str = ENGLISH,
    max_queries: int = 1000,
    seed: int = 0,
) -> AbsTask:
    """Make a retrieval task from a collection: find documents by their title, or passages by their first sentence.

    No judgements are needed.

    What serves as a query is removed from the passages it should find. Such a task favours lexical models, as authors
    repeat the words of their titles; it tells models apart, not how good they are for real queries.

    Args:
        collection: A collection of ours, or any object with its ``name`` and ``passages()``.
        queries: ``"title"``: each title, for which all passages of documents with that title count as relevant.
            ``"first_sentence"``: the first sentence of each passage, for which the rest of that passage is relevant.
        name: What the task is called; None for the collection's name and the kind of query.
        language: Language and script of the texts.
        max_queries: Most queries, at least 1; beyond, a random sample is taken.
        seed: Decides the sample.

    Returns:
        The task, registered with mteb under its name.

    Raises:
        InputError: no passage gives a query, for want of titles or of sentences.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    if queries not in ("title", "first_sentence"):
        raise InputError(f"queries={queries!r}: expected 'title' or 'first_sentence'")
    if max_queries < 1:
        raise InputError(f"max_queries={max_queries}: must be at least 1")
    take = _titles if queries == "title" else _first_sentences
    corpus, asked, qrels = take(collection.passages())
    if not asked:
        raise InputError(f"the collection {collection.name!r} gives no query of kind {queries!r}: try the other kind")
    chosen = sorted(asked)
    if len(chosen) > max_queries:
        chosen = sorted(random.Random(seed).sample(chosen, max_queries))
    return from_corpus(
        corpus,
        {query: asked[query] for query in chosen},
        {query: qrels[query] for query in chosen},
        name=name or f"{collection.name}-{queries}",
        language=language,
        description=f"Passages of the collection {collection.name}, found by their {queries.replace('_', ' ')}.",
    )


_Found = tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]  # corpus, queries, qrels


def _titles(passages: Iterable[_Passage]) -> _Found:
    corpus: dict[str, str] = {}
    asked: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for passage in passages:
        title = " ".join(passage.title.split())
        text = passage.text
        if title:
            text = re.sub(r"\s+".join(map(re.escape, title.split())), " ", text, flags=re.IGNORECASE).strip()
        if len(text) < _LEAST_CHARS:
            continue
        corpus[passage.id] = text
        if title:
            key = title.casefold()
            asked.setdefault(key, title)
            qrels.setdefault(key, {})[passage.id] = 1
    return corpus, asked, qrels


def _first_sentences(passages: Iterable[_Passage]) -> _Found:
    corpus: dict[str, str] = {}
    asked: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    seen: dict[str, str] = {}
    for passage in passages:
        found = _FIRST_SENTENCE.match(passage.text)
        rest = passage.text[found.end() :].strip() if found else passage.text
        corpus[passage.id] = rest
        if found is None or len(found[1]) < _LEAST_CHARS or len(rest) < _LEAST_CHARS:
            continue
        first = seen.setdefault(found[1], passage.id)  # the same sentence may begin several passages
        asked.setdefault(first, found[1])
        qrels.setdefault(first, {})[passage.id] = 1
    return corpus, asked, qrels


def _checked(
    corpus: Mapping[str, Any], queries: Mapping[str, str], qrels: Qrels, on_missing: OnMissing
) -> tuple[dict[str, Any], list[int]]:
    """Return the data that can be used, and the places of the queries that are."""
    if on_missing not in ("error", "drop"):
        raise InputError(f"on_missing={on_missing!r}: expected 'error' or 'drop'")
    if not corpus:
        raise InputError("corpus is empty: a retrieval task needs documents")
    if not queries:
        raise InputError("queries is empty: a retrieval task needs queries")
    judged = _usable(corpus, queries, qrels, on_missing)
    places = [place for place, query in enumerate(queries) if query in judged]
    if not places:
        raise InputError("qrels judges no document as relevant to any of the queries: nothing could be scored")
    if len(places) < len(queries):
        _log.warning("%d of %d queries have no relevant document: left out", len(queries) - len(places), len(queries))
    data = {
        "corpus": {str(key): _title_and_text(key, entry) for key, entry in corpus.items()},
        "queries": {query: _text(f"queries[{query!r}]", text) for query, text in queries.items() if query in judged},
        "qrels": {query: judged[query] for query in queries if query in judged},
    }
    return data, places


def _usable(
    corpus: Mapping[str, Any], queries: Mapping[str, str], qrels: Qrels, on_missing: OnMissing
) -> dict[str, dict[str, int]]:
    """Return the judgements of queries that have a relevant document."""
    judged: dict[str, dict[str, int]] = {}
    for query, grades in qrels.items():
        if query not in queries:
            if on_missing == "error":
                raise InputError(
                    f"qrels judges documents for {query!r}, which is no query; on_missing='drop' ignores it"
                )
            continue
        for document, grade in grades.items():
            if document not in corpus:
                if on_missing == "error":
                    raise InputError(
                        f"qrels[{query!r}] judges {document!r}, not in the corpus; on_missing='drop' ignores it"
                    )
                continue
            if int(grade) != grade or grade < 0:
                raise InputError(f"qrels[{query!r}][{document!r}]={grade!r}: a grade is a whole number from 0")
            judged.setdefault(query, {})[document] = int(grade)
    return {query: grades for query, grades in judged.items() if max(grades.values()) > 0}


def _title_and_text(key: str, entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        return "", entry
    if isinstance(entry, Mapping):
        title, text = entry.get("title") or "", entry.get("text")
    else:
        title, text = getattr(entry, "title", ""), getattr(entry, "text", None)
    return _text(f"the title of corpus[{key!r}]", title), _text(f"corpus[{key!r}]", text)


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} is {value!r:.80}: expected a text")
    return value


def _split(data: dict[str, Any], candidates: dict[str, list[str]] | None) -> dict[str, Any]:
    """Put the data into mteb's shape."""
    titles, texts = zip(*data["corpus"].values(), strict=True)
    corpus = {"id": list(data["corpus"]), "title": list(titles), "text": list(texts)}
    return {
        "corpus": dataset_of(corpus),
        "queries": dataset_of({"id": list(data["queries"]), "text": list(data["queries"].values())}),
        "relevant_docs": data["qrels"],
        "top_ranked": candidates,
    }
