"""What the loaders of data sets give: test collections, sentence pairs, labelled texts, packages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from embedlab.data.documents import Document


@dataclass(frozen=True, slots=True)
class Text:
    """A document of a test collection.

    Args:
        title: May be empty.
        text: May be empty too; Cranfield holds two such documents, and they count.
    """

    title: str
    text: str

    def __str__(self) -> str:
        return self.text if self.text.startswith(self.title) else f"{self.title}\n\n{self.text}"


@dataclass(frozen=True, slots=True)
class RetrievalData:
    """A test collection: documents, queries, and which documents answer which query.

    Args:
        name: What it is called.
        corpus: Documents by id.
        queries: Queries by id, only such as have a relevant document.
        qrels: For each query the grades, above 0, of its relevant documents.
    """

    name: str
    corpus: dict[str, Text]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

    def documents(self) -> Iterator[Document]:
        """Give the corpus as documents whose ``source`` is the id.

        Yields:
            One document for each of the corpus, the empty ones too.
        """
        for key, entry in self.corpus.items():
            yield Document(key, str(entry), entry.title, self.name)


@dataclass(frozen=True, slots=True)
class PairData:
    """Pairs of sentences with how alike people found them, and for SICK what follows from what.

    Args:
        first: First sentences.
        second: Second sentences.
        scores: One number a pair, on the set's own scale; larger is nearer.
        labels: Entailment, contradiction or neutral for each pair; empty where the set has none.
    """

    first: list[str]
    second: list[str]
    scores: list[float]
    labels: list[str]


@dataclass(frozen=True, slots=True)
class BitextData:
    """Sentences and their translations.

    Args:
        first: Sentences in one language.
        second: Their translations, in the same order.
        languages: The two languages with their scripts.
    """

    first: list[str]
    second: list[str]
    languages: tuple[str, str]


@dataclass(frozen=True, slots=True)
class LabelData:
    """Texts with one class each.

    Args:
        texts: The texts.
        labels: Their classes.
    """

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True, slots=True)
class Package:
    """What Debian says about one of its packages.

    Args:
        name: Package name.
        section: Archive section.
        short: The one-line description.
        long: The long description, paragraphs parted by empty lines.
        tags: Facets such as ``role::program``.
        depends: Names of packages it depends on.
        recommends: Names of packages that are usually wanted with it.
        suggests: Names of packages that go well with it.
        origin: Name of the source package that it is built from; packages of one source are near copies.
    """

    name: str
    section: str
    short: str
    long: str
    tags: tuple[str, ...]
    depends: tuple[str, ...]
    recommends: tuple[str, ...] = ()
    suggests: tuple[str, ...] = ()
    origin: str = ""
