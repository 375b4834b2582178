"""A smaller retrieval task that is as hard: the answers, and the documents that a retriever confuses with them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_folder
from embedlab.data.datasets import RetrievalData, Text
from embedlab.evaluate.ranking import best_first, similarities

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from embedlab.models.encoder import Encoder

JUDGED = "judged"  # who put a relevant document into the pool that no retriever found
_BLOCK = 1 << 22  # similarities held at once


class Retriever(Protocol):
    """Anything that scores documents for queries and knows who it is; an ``Encoder`` or a fitted lexical model."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """A retrieval task reduced to pools, and where every document of them came from.

    Attributes:
        data: The reduced task: documents in their old order, all relevant ones among them.
        pools: Query -> document -> names of the retrievers that found it; ``("judged",)`` for a relevant document that
            none found.
        retrievers: Name -> fingerprint of the retrievers that built the pools.
        depth: Documents taken from each retriever and query.
        seed: What decided the sample of queries.
        documents_before: Documents of the full task.
        queries_before: Queries of the full task.
    """

    data: RetrievalData
    pools: dict[str, dict[str, tuple[str, ...]]]
    retrievers: dict[str, str]
    depth: int
    seed: int
    documents_before: int
    queries_before: int

    def task(self, *, name: str | None = None, language: str = "eng-Latn") -> AbsTask:
        """Make the mteb task; its description says which retrievers built the pools.

        Args:
            name: What the task is called; by default the data's name.
            language: Language and script of the data.

        Returns:
            The task, registered with mteb under its name.

        Raises:
            MissingExtraError: the extra ``evaluate`` is not installed.
        """
        from embedlab.evaluate.tasks import from_corpus

        data = self.data
        return from_corpus(
            data.corpus, data.queries, data.qrels, name=name or data.name, language=language, description=self.words()
        )

    def words(self) -> str:
        """Return the provenance as one sentence."""
        return (
            f"The {self.depth} best documents of {', '.join(self.retrievers)} for each query and all relevant ones: "
            f"{len(self.data.corpus)} of {self.documents_before} documents, {len(self.data.queries)} of "
            f"{self.queries_before} queries."
        )

    def on_own_pool(self, models: Iterable[Retriever]) -> tuple[str, ...]:
        """Name the models that helped to build the pools: their scores here are too low beside those of others.

        Every negative was chosen because a pooling model ranks it high; a model that did not pool meets fewer
        documents that are hard for it.

        Args:
            models: Models to be evaluated, known by their fingerprints.

        Returns:
            The names of those that pooled.
        """
        known = set(self.retrievers.values())
        return tuple(model.name for model in models if model.fingerprint in known)

    def write(self, folder: str | Path) -> None:
        """Write the task as a folder in BEIR's form, with ``provenance.json`` beside it.

        Args:
            folder: A folder that does not exist, or is replaced as a whole.
        """
        with atomic_folder(Path(folder)) as made:
            write_beir(self.data, made)
            (made / "provenance.json").write_text(json.dumps(self.provenance(), ensure_ascii=False, indent=1) + "\n")

    def provenance(self) -> dict[str, Any]:
        """Return where the pools come from, as plain values."""
        return {
            "retrievers": self.retrievers,
            "depth": self.depth,
            "seed": self.seed,
            "documents": len(self.data.corpus),
            "documents_before": self.documents_before,
            "queries": len(self.data.queries),
            "queries_before": self.queries_before,
            "pools": {query: {key: list(who) for key, who in pool.items()} for query, pool in self.pools.items()},
        }


def hard_negative_subset(
    data: RetrievalData | AbsTask,
    retrievers: Sequence[Encoder | str],
    *,
    depth: int = 250,
    max_queries: int = 1000,
    seed: int = 0,
) -> HardNegatives:
    """Reduce a retrieval task to the documents that are hard to tell from answers.

    For each query the best ``depth`` documents of every retriever are taken together with all relevant documents; the
    new corpus is the union over queries. Several retrievers of different kinds are needed: pools of one kind favour
    models of another. Pools that are too shallow do not keep the order of models: see ``rank_agreement``.

    Args:
        data: The full task: documents, queries and judgements, or a retrieval task of mteb's.
        retrievers: Models, or names: ``"bm25"``, ``"tfidf"``, ``"lsa"`` and ``"bow"`` are fitted on the corpus, others
            are loaded. Published: BM25, multilingual-e5-large and e5-mistral-7b-instruct.
        depth: Documents from each retriever and query, at least 1.
        max_queries: Most queries, at least 1; beyond, a random sample is taken.
        seed: Decides the sample of queries, and equal scores.

    Returns:
        The reduced task with its provenance; ``.task()`` makes it a task of mteb's.

    Raises:
        InputError: there are no documents, queries or retrievers, two retrievers have one name, a relevant document is
            missing, or a number is below 1.

    Example:
        >>> pets = {"d1": Text("", "cats purr"), "d2": Text("", "dogs bark"), "d3": Text("", "tax law")}
        >>> data = RetrievalData("pets", pets, {"q": "a barking dog"}, {"q": {"d2": 1}})
        >>> small = hard_negative_subset(data, ["default"], depth=2)
        >>> list(small.data.corpus), small.pools["q"]["d2"]
        (['d1', 'd2'], ('default',))

    References:
        Enevoldsen et al. (2025), MMTEB, arXiv:2502.13595v1, section 2.4; official code embeddings-benchmark/mteb (read,
        not copied).
    """
    if depth < 1 or max_queries < 1:
        raise InputError(f"depth={depth}, max_queries={max_queries}: both must be at least 1")
    full = as_retrieval(data)
    queries = sorted(full.queries)
    if len(queries) > max_queries:
        queries = sorted(random.Random(seed).sample(queries, max_queries))
    texts, documents = [full.queries[query] for query in queries], [str(text) for text in full.corpus.values()]
    models = ready("retrievers", retrievers, documents)
    ids = list(full.corpus)
    pools: dict[str, dict[str, tuple[str, ...]]] = {query: {} for query in queries}
    for name, model in models.items():
        places = nearest(model, texts, documents, top_k=depth, seed=seed)
        for query, row in zip(queries, places, strict=True):
            for place in row.tolist():
                pools[query][ids[place]] = (*pools[query].get(ids[place], ()), name)
    for query in queries:
        for key in full.qrels[query]:
            pools[query].setdefault(key, (JUDGED,))
    kept = {key for pool in pools.values() for key in pool}
    reduced = RetrievalData(
        f"{full.name}-hard-{depth}",
        {key: text for key, text in full.corpus.items() if key in kept},
        {query: full.queries[query] for query in full.queries if query in pools},
        {query: full.qrels[query] for query in full.queries if query in pools},
    )
    who = {name: model.fingerprint for name, model in models.items()}
    return HardNegatives(reduced, pools, who, depth, seed, len(full.corpus), len(full.queries))


def as_retrieval(data: RetrievalData | AbsTask) -> RetrievalData:
    """Take a test collection of ours or a retrieval task of mteb's (its first subset and split), and check it.

    Args:
        data: The collection or task.

    Returns:
        The collection; judgements of grade 0 and queries without a relevant document are left out.

    Raises:
        InputError: it is neither, there is nothing in it, or a relevant document is missing.
    """
    if not isinstance(data, RetrievalData):
        data = _from_task(data)
    qrels = {q: {key: grade for key, grade in found.items() if grade > 0} for q, found in data.qrels.items()}
    queries = {query: text for query, text in data.queries.items() if qrels.get(query)}
    if not data.corpus or not queries:
        raise InputError(
            f"data {data.name!r} holds {len(data.corpus)} documents and {len(queries)} queries with answers"
        )
    for query in queries:
        for key in qrels[query]:
            if key not in data.corpus:
                raise InputError(f"data {data.name!r}: {key!r}, relevant for {query!r}, is not among its documents")
    return RetrievalData(data.name, data.corpus, queries, {query: qrels[query] for query in queries})


def ready(name: str, models: Sequence[Any], documents: Sequence[str]) -> dict[str, Any]:
    """Load models given by name, and fit the lexical ones on the documents.

    Args:
        name: The argument's name, for messages.
        models: Models or names.
        documents: The corpus.

    Returns:
        Name -> model.

    Raises:
        InputError: there is none, or two of one name.
    """
    from embedlab.models import load_model
    from embedlab.models.lexical import LEXICAL

    found: dict[str, Any] = {}
    for given in models:
        model = given
        if isinstance(given, str):
            model = LEXICAL[given]().fit(list(documents)) if given in LEXICAL else load_model(given)
        if model.name in found:
            raise InputError(f"{name} holds {model.name!r} twice: give different models, of different names")
        found[model.name] = model
    if not found:
        raise InputError(f"{name} is empty: at least one model is needed, and better several of different kinds")
    return found


def nearest(
    model: Any, queries: Sequence[str], documents: Sequence[str], *, top_k: int, seed: int
) -> list[NDArray[np.intp]]:
    """Return the places of each query's best documents, best first, ties drawn by seed.

    Args:
        model: An encoder or a fitted lexical model.
        queries: The queries.
        documents: The documents.
        top_k: How many.
        seed: Decides ties.

    Returns:
        One array of places per query.
    """
    rows = scores_of(model, queries, documents)
    return [best_first(row, top_k=top_k, lot=(seed, place))[0] for place, row in enumerate(rows)]


def scores_of(model: Any, queries: Sequence[str], documents: Sequence[str]) -> Iterable[NDArray[np.float64]]:
    """Yield the similarities of each query with all documents, a block of queries at a time in memory.

    Args:
        model: An encoder or a fitted lexical model.
        queries: The queries.
        documents: The documents.

    Yields:
        One row (N,) per query.
    """
    step = max(1, _BLOCK // len(documents))
    sparse = hasattr(model, "sparse_documents")
    held = model.sparse_documents(list(documents)) if sparse else model.encode_document(list(documents))
    asked = model.sparse_queries(list(queries)) if sparse else model.encode_query(list(queries))
    for start in range(0, len(queries), step):
        block = asked[start : start + step]
        if sparse:
            found = block @ held.T
            yield from np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)
        else:
            yield from similarities(block, held)


def write_beir(data: RetrievalData, folder: Path) -> None:
    """Write a test collection in BEIR's form: corpus.jsonl, queries.jsonl and qrels/test.tsv.

    Args:
        data: The collection.
        folder: An existing folder.
    """
    corpus = [{"_id": key, "title": text.title, "text": text.text} for key, text in data.corpus.items()]
    queries = [{"_id": key, "text": text} for key, text in data.queries.items()]
    for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    (folder / "qrels").mkdir()
    lines = [f"{query}\t{key}\t{grade}\n" for query, found in data.qrels.items() for key, grade in found.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), "utf-8")


def _from_task(task: Any) -> RetrievalData:
    if getattr(getattr(task, "metadata", None), "type", "") not in ("Retrieval", "InstructionRetrieval"):
        raise InputError(f"data is a {type(task).__name__}: expected RetrievalData or a retrieval task of mteb's")
    if not task.data_loaded:
        task.load_data()
    split: Mapping[str, Any] = next(iter(next(iter(task.dataset.values())).values()))
    corpus = {row["id"]: Text(row.get("title") or "", row["text"]) for row in split["corpus"]}
    queries = {row["id"]: row["text"] for row in split["queries"]}
    qrels = {query: dict(found) for query, found in split["relevant_docs"].items() if query in queries}
    return RetrievalData(task.metadata.name, corpus, queries, qrels)
