"""Models as mteb wants them: named by their content, encoding each text once, ranking without favour to any order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.evaluate.cache import Role, VectorCache
from embedlab.evaluate.ranking import fair_keys, ranked, scores_by_id, similarities
from embedlab.models.encoder import Encoder

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

    from embedlab.models.lexical import LexicalModel

OnProgress = Callable[[int], None]
_DENSE_WORDS = 4096  # most frequent words that a counting model keeps where dense rows are needed
_SEARCHED = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")


class _Host:
    """What mteb asks of every model: who it is, and how alike two vectors are.

    Similarities are dot products in double precision; where they are equal, the nearest is drawn.
    """

    def __init__(
        self, name: str, fingerprint: str, dim: int, training_datasets: frozenset[str] | None, seed: int
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.dim = dim
        self.training_datasets = training_datasets
        self.seed = seed

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The fingerprint is the revision, so no two models share an entry in any cache of mteb's."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        last = re.sub(r"[^\w.-]+", "-", self.name.rstrip("/").rpartition("/")[2]).strip("-") or "model"
        return ModelMeta.create_empty(
            overwrites={
                "name": f"embedlab/{last}",
                "revision": self.fingerprint.replace(":", "-"),
                "embed_dim": self.dim or None,
                "similarity_fn_name": ScoringFunction.COSINE,
                "training_datasets": None if self.training_datasets is None else set(self.training_datasets),
                "modalities": ["text"],
            }
        )

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return all similarities (N, M) as a torch tensor; ties differ by less than a billionth, in a drawn order."""
        import torch

        found = similarities(np.atleast_2d(embeddings1), np.atleast_2d(embeddings2))
        keys = [fair_keys(row, lot=(self.seed, number)) / 1e9 for number, row in enumerate(found)]
        return torch.from_numpy(np.stack(keys))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the similarity of each row with its partner (N,) as a torch tensor."""
        import torch

        left, right = (np.atleast_2d(rows).astype(np.float64) for rows in (embeddings1, embeddings2))
        return torch.from_numpy(np.vecdot(left, right))


class HostedEncoder(_Host):
    """An encoder of ours as a model of mteb's: it encodes and searches, through a ``VectorCache``.

    Args:
        encoder: The encoder.
        cache: Where vectors are kept.
        training_datasets: Names of mteb's tasks whose data the model was trained on; None for unknown.
        seed: Decides ties.
        on_progress: Called with the number of texts just finished.

    Example:
        >>> import tempfile
        >>> from embedlab.models import load_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     HostedEncoder(load_model(), VectorCache(folder)).name
        'default'
    """

    def __init__(
        self,
        encoder: Encoder,
        cache: VectorCache,
        *,
        training_datasets: frozenset[str] | None = None,
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(encoder.name, encoder.fingerprint, encoder.dim, training_datasets, seed)
        self.encoder = encoder
        self.cache = cache
        self.on_progress = on_progress
        self._corpus: Any = None

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Encode the texts of mteb's batches; batches are made anew, sorted by length."""
        return self.vectors(texts_of(inputs), role_of(prompt_type))

    def vectors(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        """Return one row per text."""
        return self.cache.encode(self.encoder, texts, role=role, on_progress=self.on_progress)

    def index(self, corpus: Any, **options: Any) -> None:
        """Take the corpus in; it is encoded when searched."""
        self._corpus = corpus

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> dict[str, dict[str, float]]:
        """Rank the corpus, or each query's candidates, for every query."""
        ids = list(self._corpus["id"][:])
        documents = self.vectors(document_texts(self._corpus), "document")
        rows = self.vectors(query_texts(queries), "query")
        asked = list(queries["id"][:])
        if top_ranked is None:
            return ranked(rows, documents, ids, asked=asked, top_k=top_k, seed=self.seed)
        places = {key: place for place, key in enumerate(ids)}
        result: dict[str, dict[str, float]] = {}
        for query, row in zip(asked, rows, strict=True):
            among = [key for key in top_ranked.get(query, ()) if key in places]
            candidates = documents[[places[key] for key in among]]
            result |= ranked(row[None], candidates, among, asked=[query], top_k=top_k, seed=self.seed)
        return result


class HostedLexical(_Host):
    """A model that counts words, fitted on the texts of each task anew: the floor that any embedding should beat.

    For retrieval and reranking it is fitted on the corpus and scores stay sparse; for other tasks it is fitted on all
    texts of the task, without their labels, and keeps the 4096 most frequent words. BM25 only searches.

    Args:
        name: ``"bow"``, ``"tfidf"``, ``"lsa"`` or ``"bm25"``.
        seed: Decides ties.

    Raises:
        InputError: no such model.
        MissingExtraError: scikit-learn is not installed.
    """

    def __init__(self, name: str, *, seed: int = 0) -> None:
        from embedlab.models.lexical import LEXICAL

        if name not in LEXICAL:
            raise InputError(f"name={name!r}: a model that counts words is one of {', '.join(LEXICAL)}")
        super().__init__(name, f"{name}:{_settings_hash(name)}", 0, frozenset(), seed)
        self._model: LexicalModel | None = None
        self._task = ""
        self._corpus: Any = None

    def prepare(self, texts: Sequence[str], task: str) -> LexicalModel:
        """Fit on all texts of a task; without this, the texts that are encoded first have to do."""
        self._model, self._task = self._fresh(dense=True).fit(texts), task
        return self._model

    def applies_to(self, kind: str) -> bool:
        """Tell whether the model can be scored on tasks of a type."""
        return self.name != "bm25" or kind in _SEARCHED

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Encode the texts of mteb's batches; the first call for a task and subset fits the model."""
        texts = texts_of(inputs)
        task = f"{task_metadata.name} {task_metadata.revision}"
        model = self._model
        if model is None or self._task != task:
            model = self.prepare(texts, task)
        return model.encode_document(texts)

    def index(self, corpus: Any, **options: Any) -> None:
        """Fit the model on the corpus."""
        self._corpus = corpus
        self._model, self._task = self._fresh(dense=False).fit(document_texts(corpus)), ""

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> dict[str, dict[str, float]]:
        """Rank the corpus, or each query's candidates, for every query."""
        if self._model is None:
            raise InputError("index a corpus before searching it")
        ids = list(self._corpus["id"][:])
        columns = self._model.sparse_documents(document_texts(self._corpus)).T
        rows = self._model.sparse_queries(query_texts(queries))
        places = {key: place for place, key in enumerate(ids)}
        result = {}
        for number, query in enumerate(queries["id"][:]):
            found = rows[[number]] @ columns
            values = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)[0]
            among = ids
            if top_ranked is not None:
                among = [key for key in top_ranked.get(query, ()) if key in places]
                values = values[[places[key] for key in among]]
            result[query] = scores_by_id(values, among, query=query, top_k=top_k, seed=self.seed)
        return result

    def new(self) -> LexicalModel:
        """Return the model as it is before it is fitted for searching."""
        return self._fresh(dense=False)

    def _fresh(self, *, dense: bool) -> LexicalModel:
        from embedlab.models.lexical import LEXICAL

        settings: dict[str, Any] = {"max_features": _DENSE_WORDS} if dense and self.name in ("bow", "tfidf") else {}
        return LEXICAL[self.name](**settings)


def texts_of(inputs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the texts of mteb's data loader, in order; straight from its table where it has one.

    A column of a table is read row by row unless it is sliced, here and below: that takes a hundred times as long.
    """
    table = getattr(inputs, "dataset", None)
    if table is not None and "text" in getattr(table, "column_names", ()):
        return list(table["text"][:])
    return [text for batch in inputs for text in batch["text"]]


def document_texts(corpus: Any) -> list[str]:
    """Return documents as mteb reads them: title and text joined by a blank."""
    texts = list(corpus["text"][:])
    if "title" not in corpus.column_names:
        return [text.strip() for text in texts]
    titles = list(corpus["title"][:])
    return [f"{title} {text}".strip() if title else text.strip() for title, text in zip(titles, texts, strict=True)]


def query_texts(queries: Any) -> list[str]:
    """Return queries as mteb reads them: with their instruction, and conversations made one text."""
    texts = list(queries["text"][:])
    if all(isinstance(text, str) for text in texts) and "instruction" not in queries.column_names:
        return texts
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    return list(_retrieval_texts(queries, PromptType.query))


def role_of(prompt_type: Any) -> Role:
    """Return our name for mteb's kind of prompt."""
    value = getattr(prompt_type, "value", prompt_type)
    if value == "query":
        return "query"
    return "document" if value == "document" else "text"


def _settings_hash(name: str) -> str:
    """Hash the source of the counting models: another version of them is another model."""
    import hashlib
    import inspect

    from embedlab.models import lexical

    source = f"{name} {_DENSE_WORDS} {inspect.getsource(lexical)}"
    return hashlib.sha256(source.encode()).hexdigest()[:16]
