"""Baselines that count words: bag of words, TF-IDF, latent semantic analysis and BM25, as ordinary encoders.

A model of this kind knows only the words of the texts it was fitted on. Inside, rows are sparse: ``sparse_documents``,
``scores`` and ``rank`` never fill a matrix of texts by words. ``encode_document`` and ``encode_query`` do, because
every encoder gives dense rows; ``max_features`` or ``Lsa`` keep these small.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.models.encoder import checked_texts, unit_rows
from embedlab.models.stems import Stems

Floats = NDArray[np.float32]

MAX_DENSE_BYTES = 4 * 2**30  #: Beyond this, dense rows are refused rather than a machine brought down.
_SCORES_AT_ONCE = 2**24  # entries of one block of scores, 64 MB


class LexicalModel(ABC):
    """What the four share: fit on texts, then sparse rows, dense rows, scores and ranking.

    Attributes:
        name: What the model is called in reports.
        dim: Length of the dense rows; 0 before ``fit``.
    """

    family: str

    def __init__(self, *, name: str | None = None) -> None:
        self.name = name or self.family
        self.dim = 0
        self._fingerprint = ""

    @property
    def fingerprint(self) -> str:
        """``"<family>:<16 hex>"`` over the settings and all that was learned from the texts.

        Raises:
            InputError: the model has not been fitted.
        """
        self._require_fit()
        return self._fingerprint

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn the words, and whatever else the model needs to know, from texts.

        Args:
            texts: The corpus; more than nothing.

        Returns:
            The model itself.

        Raises:
            InputError: something is not a text, or no text has a word.
        """
        checked = checked_texts(texts)
        learned = self._fit(checked)
        digest = hashlib.sha256()
        for part in learned:
            data = part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part).encode()
            digest.update(b"%d " % len(data) + data)
        self._fingerprint = f"{self.family}:{digest.hexdigest()[:16]}"
        return self

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 1024, on_progress: Callable[[int], None] | None = None
    ) -> Floats:
        """Encode texts as dense rows.

        Args:
            texts: The texts.
            batch_size: After how many texts ``on_progress`` is called; has no effect on the rows.
            on_progress: Called with the number of texts just finished.

        Shape:
            texts N -> (N, D) float32

        Returns:
            Unit rows; the zero row for a text without any known word.

        Raises:
            InputError: not fitted, something is not a text, or the rows would take more than ``MAX_DENSE_BYTES``.
        """
        self._require_fit()
        checked = checked_texts(texts)
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        if 4 * len(checked) * self.dim > MAX_DENSE_BYTES:
            raise InputError(
                f"{len(checked)} texts by {self.dim} words are {4 * len(checked) * self.dim / 2**30:.1f} GiB as dense "
                "rows: fit with max_features=20_000 or so, use Lsa, or use scores() and rank(), which stay sparse"
            )
        rows = np.zeros((len(checked), self.dim), dtype=np.float32)
        for start in range(0, len(checked), batch_size):
            batch = checked[start : start + batch_size]
            rows[start : start + len(batch)] = self._dense(batch)
            if on_progress is not None:
                on_progress(len(batch))
        return unit_rows(rows)

    def encode_query(self, texts: Sequence[str]) -> Floats:
        """Encode queries as documents are encoded; see ``encode_document``."""
        return self.encode_document(texts)

    def sparse_documents(self, texts: Sequence[str]) -> Any:
        """Return the documents' side of the scores as a ``scipy.sparse.csr_matrix`` (N, V) of float32."""
        self._require_fit()
        return self._sparse(checked_texts(texts))

    def sparse_queries(self, texts: Sequence[str]) -> Any:
        """Return the queries' side of the scores; the same as the documents' for all but BM25."""
        return self.sparse_documents(texts)

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> Floats:
        """Score every document for every query: the cosine of their rows, or for BM25 its score.

        Args:
            queries: The queries.
            documents: The documents.

        Shape:
            queries Q, documents N -> (Q, N) float32

        Returns:
            The scores, larger is nearer; 0 where no word is shared.

        Raises:
            InputError: not fitted, or something is not a text.
        """
        found = self.sparse_queries(queries) @ self.sparse_documents(documents).T
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float32)

    def rank(self, queries: Sequence[str], documents: Any, *, top_k: int = 10) -> tuple[NDArray[np.int64], Floats]:
        """Find the best documents for each query without filling a matrix of texts by words.

        Args:
            queries: The queries.
            documents: What ``sparse_documents`` gave for the documents, kept by the caller as its index.
            top_k: How many, at most.

        Shape:
            queries Q, documents (N, V) -> (Q, K) int64, (Q, K) float32

        Returns:
            Positions of documents and their scores, best first; of equal scores the earlier document first.

        Raises:
            InputError: not fitted, something is not a text, or ``top_k`` is below 1.
        """
        if top_k < 1:
            raise InputError(f"top_k={top_k}: must be at least 1")
        rows, columns = self.sparse_queries(queries), documents.T
        width = min(top_k, documents.shape[0])
        places = np.empty((rows.shape[0], width), np.int64)
        best = np.empty((rows.shape[0], width), np.float32)
        step = max(1, _SCORES_AT_ONCE // max(1, documents.shape[0]))
        for start in range(0, rows.shape[0], step):
            block = rows[start : start + step] @ columns
            dense = block.toarray() if hasattr(block, "toarray") else np.asarray(block)
            order = np.argsort(-dense, axis=1, kind="stable")[:, :width]
            places[start : start + step] = order
            best[start : start + step] = np.take_along_axis(dense, order, axis=1)
        return places, best

    @abstractmethod
    def _fit(self, texts: list[str]) -> list[Any]:
        """Learn, set ``dim``, and return everything the rows depend on, for the fingerprint."""

    @abstractmethod
    def _sparse(self, texts: list[str]) -> Any:
        """Return the rows as the scores need them."""

    def _dense(self, texts: list[str]) -> Floats:
        return np.asarray(self._sparse(texts).toarray(), dtype=np.float32)

    def _require_fit(self) -> None:
        if not self._fingerprint:
            raise InputError(f"{type(self).__name__} has not seen any text: call fit(texts) first")


class BagOfWords(LexicalModel):
    """Count the words of a text; the score of two texts is the cosine of their counts.

    Args:
        analyzer: ``"word"``, or ``"char"`` or ``"char_wb"`` for n-grams of characters, as scikit-learn has them.
        ngram_range: Shortest and longest n-gram.
        max_features: Keep only so many of the most frequent words; None keeps all.
        token_pattern: Regular expression of a word. The host's own default leaves out words of one character, and
            cuts Indic words at their vowel signs: for these take ``analyzer="char_wb"``.
        name: What the model is called.

    Raises:
        InputError: scikit-learn refuses the settings.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> model = BagOfWords().fit(["red tea", "green tea", "a car"])
        >>> model.scores(["tea"], ["red tea", "car", "unseen"]).round(3).tolist()
        [[0.7070000171661377, 0.0, 0.0]]

    References:
        Harris (1954), Distributional Structure.
    """

    family = "bow"
    _vectorizer = "CountVectorizer"

    def __init__(
        self,
        *,
        analyzer: str = "word",
        ngram_range: tuple[int, int] = (1, 1),
        max_features: int | None = None,
        token_pattern: str = r"(?u)\b\w\w+\b",
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self._settings: dict[str, Any] = {"analyzer": analyzer, "ngram_range": ngram_range}
        self._settings |= {"max_features": max_features, "token_pattern": token_pattern if analyzer == "word" else None}
        text = require("sklearn.feature_extraction.text", extra="evaluate")
        self._words = getattr(text, self._vectorizer)(dtype=np.float32, **self._settings)

    def _fit(self, texts: list[str]) -> list[Any]:
        try:
            self._words.fit(texts)
        except ValueError as error:
            raise InputError(f"{len(texts)} texts to fit {self.name} on: {error}") from error
        vocabulary = self._words.get_feature_names_out().tolist()
        self.dim = self._num_words = len(vocabulary)
        return [self._settings, vocabulary, *([self._words.idf_] if hasattr(self._words, "idf_") else [])]

    def _sparse(self, texts: list[str]) -> Any:
        preprocessing = require("sklearn.preprocessing", extra="evaluate")
        if not texts:
            return require("scipy.sparse", extra="evaluate").csr_matrix((0, self._num_words), dtype=np.float32)
        return preprocessing.normalize(self._words.transform(texts), copy=False)


class Tfidf(BagOfWords):
    r"""Count words, rare ones more: a count times :math:`1 + \ln\frac{1 + N}{1 + n_w}`, as scikit-learn has it.

    Arguments, rows and scores are those of ``BagOfWords``.

    Example:
        >>> model = Tfidf().fit(["red tea", "green tea", "black tea"])
        >>> red, tea = model.scores(["red", "tea"], ["red tea"]).ravel()
        >>> bool(red > tea)
        True

    References:
        Spärck Jones (1972), A statistical interpretation of term specificity and its application in retrieval.
    """

    family = "tfidf"
    _vectorizer = "TfidfVectorizer"


class Lsa(Tfidf):
    """Project TF-IDF rows onto their main directions, which brings words together that share company.

    Args:
        dim: Length of the rows; less where the corpus has fewer texts or words.
        seed: Seed of the randomised decomposition.
        name: What the model is called.
        **settings: As for ``Tfidf``.

    Raises:
        InputError: ``dim`` is below 1, or scikit-learn refuses the settings.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> model = Lsa(dim=2).fit(["ship boat", "boat ocean", "tree wood", "wood forest"])
        >>> near, far = model.scores(["ship"], ["ocean", "forest"])[0]
        >>> bool(near > 0.9 and abs(far) < 0.1)
        True

    References:
        Deerwester et al. (1990), Indexing by latent semantic analysis.
    """

    family = "lsa"

    def __init__(self, *, dim: int = 256, seed: int = 0, name: str | None = None, **settings: Any) -> None:
        super().__init__(name=name, **settings)
        if dim < 1:
            raise InputError(f"dim={dim}: must be at least 1")
        self._num_directions, self._seed = dim, seed

    def _fit(self, texts: list[str]) -> list[Any]:
        decomposition = require("sklearn.decomposition", extra="evaluate")
        learned = super()._fit(texts)
        width = min(self._num_directions, self.dim, len(texts))
        self._directions = decomposition.TruncatedSVD(width, random_state=self._seed)
        self._directions.fit(super()._sparse(texts))
        self.dim = width
        return [*learned, self._directions.components_]

    def _sparse(self, texts: list[str]) -> Floats:
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return unit_rows(np.ascontiguousarray(self._directions.transform(super()._sparse(texts)), dtype=np.float32))

    def _dense(self, texts: list[str]) -> Floats:
        return self._sparse(texts)


class Bm25(LexicalModel):
    r"""Score documents for queries by Okapi BM25 over word stems.

    With :math:`f` the count of word w in document d of length :math:`|d|`, N documents of mean length :math:`\bar d`
    and :math:`n_w` of them with w, the score is :math:`\sum_{w \in q} \ln(1 + \frac{N - n_w + 1/2}{n_w + 1/2})
    \frac{f (k_1 + 1)}{f + k_1 (1 - b + b |d| / \bar d)}`. ``scores`` and ``rank`` give it exactly. The dense rows, for
    tasks that compare like with like, are the documents' word weights brought to length one: a cosine relative of it.

    Args:
        k1: How soon more of the same word stops counting; (paper: k_1).
        b: How much long documents are held back, in [0, 1].
        language: Whose stems and stop words, by its English name as the full-text index has it; None for neither.
        name: What the model is called.

    Raises:
        InputError: ``k1`` or ``b`` out of range, or the language is not known.

    Example:
        >>> model = Bm25().fit(["Running shoes", "the run of a river", "tax law"])
        >>> model.scores(["runs"], ["Running shoes", "tax law"]).round(2).tolist()
        [[0.4699999988079071, 0.0]]

    References:
        Robertson and Zaragoza (2009), The Probabilistic Relevance Framework: BM25 and Beyond; the inverse document
        frequency is the one of Lucene, which is never negative.
    """

    family = "bm25"

    def __init__(
        self, *, k1: float = 1.2, b: float = 0.75, language: str | None = "English", name: str | None = None
    ) -> None:
        super().__init__(name=name)
        if not (k1 >= 0 and 0 <= b <= 1):
            raise InputError(f"k1={k1}, b={b}: k1 must be 0 or more and b in [0, 1]; usual are 1.2 and 0.75")
        self.k1, self.b, self._language = k1, b, language
        self._stems = Stems(language)

    def sparse_queries(self, texts: Sequence[str]) -> Any:
        """Return how often each known word stands in each query, as a ``scipy.sparse.csr_matrix`` (Q, V)."""
        self._require_fit()
        return self._counts(checked_texts(texts))[0]

    def _fit(self, texts: list[str]) -> list[Any]:
        found = self._stems(texts)
        self._places = {word: place for place, word in enumerate(sorted({word for words in found for word in words}))}
        if not self._places:
            raise InputError(f"{len(texts)} texts to fit {self.name} on: they hold no word to count")
        documents = np.zeros(len(self._places))
        for words in found:
            documents[[self._places[word] for word in set(words)]] += 1
        self.dim = len(self._places)
        self._idf = np.log1p((len(texts) - documents + 0.5) / (documents + 0.5))  # (V,)
        self._mean_length = sum(map(len, found)) / len(texts)
        return [[self.k1, self.b, self._language, self._mean_length], list(self._places), self._idf]

    def _sparse(self, texts: list[str]) -> Any:
        rows, lengths = self._counts(texts)
        slack = self.k1 * (1 - self.b + self.b * lengths / self._mean_length)
        counts = rows.data
        weights = self._idf[rows.indices] * counts * (self.k1 + 1) / (counts + np.repeat(slack, np.diff(rows.indptr)))
        rows.data = weights.astype(np.float32)
        return rows

    def _counts(self, texts: list[str]) -> tuple[Any, NDArray[np.float64]]:
        """Count the known words of each text, and all its words, known or not."""
        sparse = require("scipy.sparse", extra="evaluate")
        found = self._stems(texts)
        known = [[self._places[word] for word in words if word in self._places] for words in found]
        ends = np.cumsum([0, *map(len, known)])
        places = np.fromiter((place for row in known for place in row), np.int64, count=ends[-1])
        rows = sparse.csr_matrix((np.ones(len(places), np.float32), places, ends), shape=(len(texts), self.dim))
        rows.sum_duplicates()
        return rows, np.array([len(words) for words in found], dtype=np.float64)


#: The baselines by the name a command takes.
LEXICAL: dict[str, type[LexicalModel]] = {"bow": BagOfWords, "tfidf": Tfidf, "lsa": Lsa, "bm25": Bm25}
