"""Sentences with marked entities: diseases, and the tasks, methods and materials of papers."""

from __future__ import annotations

import json
from dataclasses import dataclass

from embedlab._core.errors import unknown_name
from embedlab.data.loaders.opening import open_text

#: Sets of tagged sentences by name, with real counts of sentences in train, dev and test.
ENTITY_SETS: dict[str, str] = {
    "ncbi-disease": "NCBI disease: 5,424/923/940 sentences of biomedical abstracts; B- and I-Disease",
    "sciie": "SciERC: 1,861/275/551 sentences of papers on computing; I- and B- of six kinds of term",
}


@dataclass(frozen=True, slots=True)
class Tagged:
    """A sentence with a tag for each token.

    Args:
        tokens: The tokens.
        tags: ``O`` outside of entities, or ``B-`` or ``I-`` and the kind.
        document: Number of the document in its file, from 0; 0 throughout where the file does not part documents.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    document: int

    def entities(self) -> list[tuple[str, str]]:
        """Return (kind, text) of each entity: a run of one kind, ended by the next ``B-``."""
        found: list[tuple[str, list[str]]] = []
        last = ""
        for token, tag in zip(self.tokens, self.tags, strict=True):
            kind = tag[2:] if tag != "O" else ""
            if kind and kind == last and not tag.startswith("B-"):
                found[-1][1].append(token)
            elif kind:
                found.append((kind, [token]))
            last = kind
        return [(kind, " ".join(words)) for kind, words in found]


@dataclass(frozen=True, slots=True)
class AspectPaper:
    """The opening of a paper and what it is about.

    Args:
        id: The paper's id.
        text: Its first part.
        aspects: Names by aspect: ``"task"``, ``"method"``, ``"dataset"`` and ``"metric"``.
    """

    id: str
    text: str
    aspects: dict[str, tuple[str, ...]]


def load_entities(name: str, split: str = "test") -> list[Tagged]:
    """Load sentences with marked entities.

    Args:
        name: One of ``ENTITY_SETS``, which says what each holds.
        split: ``"train"``, ``"dev"`` or ``"test"``.

    Returns:
        The sentences, in order.

    Raises:
        InputError: there is no such set or split.
        MissingDataError: its files are not in ``EMBEDLAB_DATA``.

    References:
        Dogan et al. (2014), NCBI disease corpus; Luan et al. (2018), Multi-Task Identification of Entities, Relations,
        and Coreference for Scientific Knowledge Graph Construction.
    """
    if name not in ENTITY_SETS:
        raise unknown_name("tagged set", name, ENTITY_SETS)
    if split not in ("train", "dev", "test"):
        raise unknown_name("split", split, ["train", "dev", "test"])
    sentences: list[Tagged] = []
    document = -1
    for block in open_text(name, f"{split}.txt.gz").split("\n\n"):
        rows = [line.split() for line in block.splitlines() if line.strip()]
        if rows and rows[0][0] == "-DOCSTART-":
            document += 1
            rows = rows[1:]
        if rows:
            tokens, tags = tuple(row[0] for row in rows), tuple(row[-1] for row in rows)
            sentences.append(Tagged(tokens, tags, max(document, 0)))
    return sentences


def load_scirex() -> list[AspectPaper]:
    """Load SciREX: the openings of 306 papers with the tasks, methods, datasets and metrics they report on.

    Returns:
        The papers.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Jain et al. (2020), SciREX: A Challenge Dataset for Document-Level Information Extraction.
    """
    rows = map(json.loads, open_text("scirex-aspects", "papers.jsonl.gz").splitlines())
    kinds = ("task", "method", "dataset", "metric")
    return [AspectPaper(row["id"], row["opening"], {kind: tuple(row[kind]) for kind in kinds}) for row in rows]
