"""Which documents answer which queries: from people, or made from the documents themselves."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from embedlab._core.errors import InputError
from embedlab.data.documents import Block, Document

_LEAST_CHARS = 80  # of a document that is left when a query was taken out of it
_TITLE_WORDS = 3  # a shorter title says too little to be a query
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Judgements:
    """Queries with the documents that answer them.

    Attributes:
        queries: The queries (Q).
        relevant: For each query the grades, above 0, of its relevant documents by source.
        made: Whether the queries were made from the documents, not asked by people.
    """

    queries: tuple[str, ...]
    relevant: tuple[Mapping[str, float], ...]
    made: bool

    def __len__(self) -> int:
        return len(self.queries)

    def part(self, places: Sequence[int]) -> Judgements:
        """Return some of the queries, in the order given."""
        return replace(
            self,
            queries=tuple(self.queries[place] for place in places),
            relevant=tuple(self.relevant[place] for place in places),
        )

    def split(self, *, seed: int = 0) -> tuple[Judgements, Judgements]:
        """Split into development and test halves that share no relevant document.

        Args:
            seed: Decides who goes where.

        Returns:
            Development and test, each in an order drawn by the seed, so that any first n of it are a sample.

        Raises:
            InputError: all queries hang together by shared documents, or there are fewer than two.
        """
        groups = _linked(self.relevant)
        order = sorted(set(groups), key=lambda group: _draw(seed, f"{group}"))
        halves: tuple[list[int], list[int]] = ([], [])
        members: dict[int, list[int]] = {}
        for place, group in enumerate(groups):
            members.setdefault(group, []).append(place)
        for group in sorted(order, key=lambda group: -len(members[group])):  # the largest first: halves of one size
            min(halves, key=len).extend(members[group])
        if not all(halves):
            raise InputError(
                f"{len(self)} queries share their relevant documents, so they cannot be split into development and test"
                ": give queries about more documents"
            )
        mixed = [sorted(half, key=lambda place: _draw(seed, self.queries[place])) for half in halves]
        return self.part(mixed[0]), self.part(mixed[1])


def judged_by_people(
    queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, float]], sources: Sequence[str]
) -> Judgements:
    """Take judgements of people.

    Args:
        queries: Queries by id.
        qrels: For each query id the grades of documents by source or by the part of it that names the document:
            ``notes/a.md`` is also known as ``a.md`` and ``a``, if only one document is.
        sources: Sources of the collection's documents.

    Returns:
        The queries that have a relevant document in the collection.

    Raises:
        InputError: judged documents are not in the collection, or no query is left.
    """
    names = _names(sources)
    kept: list[tuple[str, dict[str, float]]] = []
    strange: list[str] = []
    for key, grades in qrels.items():
        if key not in queries:
            raise InputError(
                f"qrels judge query {key!r}, which is not among the queries: give files that belong together"
            )
        found = {names[doc]: float(grade) for doc, grade in grades.items() if doc in names and grade > 0}
        strange += [doc for doc, grade in grades.items() if doc not in names and grade > 0]
        if found and queries[key].strip():
            kept.append((queries[key], found))
    if strange and len(strange) > sum(len(found) for _, found in kept):
        raise InputError(
            f"{len(strange)} judged documents are not in the collection, the first {strange[0]!r}: qrels must name "
            f"documents by their source, such as {next(iter(sources), '')!r}"
        )
    if len(kept) < 2:
        raise InputError(f"{len(kept)} queries have a relevant document in the collection: give at least two")
    return Judgements(tuple(query for query, _ in kept), tuple(found for _, found in kept), made=False)


def made_from(documents: Sequence[Document], *, most: int = 400, seed: int = 0) -> tuple[Judgements, list[Document]]:
    """Make queries from documents: a title or a first sentence asks for the document it is taken out of.

    What became a query leaves its document, title and all, or every search by words would find it. Documents of one
    text answer the same query. A query that would ask for several texts is dropped.

    Args:
        documents: The documents.
        most: Largest number of queries; documents are drawn at random.
        seed: Decides which, and whether a title or a sentence is used where both could be.

    Returns:
        The judgements, and all documents in their order, those that gave a query without it.

    Raises:
        InputError: fewer than two documents offer a query.
    """
    from embedlab.text.synthesis.offline import offline_queries

    same: dict[str, list[str]] = {}
    for document in documents:
        same.setdefault(_plain(document.text), []).append(document.source)
    asked: dict[str, tuple[str, str, Document]] = {}  # plain query -> query, plain text, what is left
    ambiguous: set[str] = set()
    changed: dict[str, Document] = {}
    for document in sorted(documents, key=lambda each: _draw(seed, each.source)):
        if len(asked) >= most:
            break
        plain = _plain(document.text)
        if plain in changed or not plain:
            continue
        offered = []
        title = _BLANKS.sub(" ", document.title).strip()
        if len(title.split()) >= _TITLE_WORDS:
            offered.append((title, document.text))
        for pair in offline_queries([document.text], kinds=["first_sentence"], seed=seed):
            offered.append((pair.query, pair.passage))
        offered = [
            (query, left)
            for query, rest in offered
            if query[0].isalnum() and len(left := _without(rest, query)) >= _LEAST_CHARS  # no mark-up, no remarks
        ]
        if not offered:
            continue
        query, left = offered[_draw(seed, f"which {document.source}") % len(offered)]
        key = _plain(query)
        if key in asked or key in ambiguous:
            ambiguous.add(key)
            asked.pop(key, None)
            continue
        asked[key] = (query, plain, document)
        changed[plain] = replace(document, text=left, title="", blocks=(Block(0, len(left)),))
    if len(asked) < 2:
        raise InputError(
            f"only {len(asked)} of {len(documents)} documents offer a query (a title, or a first sentence with more "
            "text behind it): give --queries and --qrels"
        )
    relevant = tuple(dict.fromkeys(same[plain], 1.0) for _, plain, _ in asked.values())
    judgements = Judgements(tuple(query for query, _, _ in asked.values()), relevant, made=True)
    taken = {plain for _, plain, _ in asked.values()}
    return judgements, [
        replace(changed[plain], source=each.source) if (plain := _plain(each.text)) in taken else each
        for each in documents
    ]


def _without(text: str, query: str) -> str:
    """Take the query out wherever it stands."""
    words = [re.escape(word) for word in query.split()]
    return re.sub(r"\s+".join(words), " ", text, flags=re.IGNORECASE).strip()


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", text).strip().casefold()


def _draw(seed: int, text: str) -> int:
    digest = hashlib.blake2b(f"{seed} {text}".encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Map every name that only one document has to its source."""
    short: dict[str, set[str]] = {}
    for source in sources:
        last = source.rsplit("/", 1)[-1]
        for name in {last, last.rsplit(".", 1)[0]}:
            short.setdefault(name, set()).add(source)
    names = {name: next(iter(found)) for name, found in short.items() if len(found) == 1}
    return names | {source: source for source in sources}


def _linked(relevant: Sequence[Mapping[str, float]]) -> list[int]:
    """Number the groups of queries that are connected by shared documents."""
    parent = list(range(len(relevant)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[str, int] = {}
    for place, documents in enumerate(relevant):
        for document in documents:
            parent[root(place)] = root(first.setdefault(document, place))
    return [root(place) for place in range(len(relevant))]
