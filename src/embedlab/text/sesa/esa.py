"""Explicit semantic analysis without supervision: texts and concepts meet in their words."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.models.encoder import checked_texts
from embedlab.models.word_concepts import WordConcepts, counted_words
from embedlab.text.sesa.explaining import Explaining
from embedlab.text.sesa.space import Comparable, ConceptSpace, Declared, as_item

Floats = NDArray[np.float32]


class ESA(Explaining):
    r"""Embed texts by the articles of concepts whose words they use.

    Every concept has an article: its name and description, and the texts that are known to be about it. With the
    weights :math:`T_{wk}` (log count times inverse document frequency, each article at length one) a text has
    :math:`a_k = \sum_w tfidf_w T_{wk}`; all but the ``top_k`` largest are 0. Needs no extra.

    Args:
        space: The concepts.
        top_k: How many concepts a text keeps. Published: the strongest few hundred of Wikipedia's articles.

    Shape:
        texts N -> (N, m) float32

    Raises:
        InputError: ``top_k`` is below 1.

    Example:
        >>> space = ConceptSpace(["Databases", "Carpentry"], ["tables and queries", "wood and nails"])
        >>> esa = ESA(space).fit(["a query over tables", "nails for the wood"])
        >>> esa.explain("queries", "two tables, three queries")
        [('Databases', 1.0)]
        >>> esa.score("queries", "nails")
        0.0

    References:
        Gabrilovich and Markovitch (2007), Computing Semantic Relatedness using Wikipedia-based Explicit Semantic
        Analysis, IJCAI; the unsupervised predecessor in Bogdanova and Yazdani (2017), arXiv:1708.03246v1.
    """

    def __init__(self, space: ConceptSpace, *, top_k: int = 100) -> None:
        if top_k < 1:
            raise InputError(f"top_k={top_k}: must be at least 1")
        self.space, self.top_k = space, top_k
        self._encoder: WordConcepts | None = None

    @property
    def encoder(self) -> WordConcepts:
        """The fitted model as any ``Encoder``: what ``load_model`` opens and a collection can be made with.

        Raises:
            InputError: not fitted.
        """
        if self._encoder is None:
            raise InputError("ESA has not seen any text: call fit(corpus) first")
        return self._encoder

    def get_params(self) -> dict[str, Any]:
        """Return the settings."""
        return {"space": self.space, "top_k": self.top_k}

    def fit(self, corpus: Sequence[str], concepts: Sequence[Declared] | None = None) -> Self:
        """Write the articles and weigh their words.

        Args:
            corpus: Texts that tell how common words are; may be empty, then the articles alone tell.
            concepts: The concepts that each text of the corpus declares: it becomes part of their articles. None
                leaves articles of names and descriptions. Never pass texts that are measured on.

        Returns:
            The model itself.

        Raises:
            InputError: a concept is unknown, or ``concepts`` are not as many as texts.
        """
        counts = [counted_words(text) for text in checked_texts(corpus)]
        if concepts is not None and len(concepts) != len(counts):
            raise InputError(f"concepts has {len(concepts)} entries for {len(counts)} texts: give the set of each")
        written = [counted_words(article) for article in self.space.articles]
        common = Counter(word for each in (*counts, *written) for word in each)  # in how many texts and articles
        total = len(counts) + len(written)
        for row, count in zip(self.space.multi_hot(concepts or ()), counts, strict=False):
            for place in np.flatnonzero(row):
                written[place].update(count)
        words = tuple(sorted({word for article in written for word in article}))
        idf = np.array([np.log((1 + total) / (1 + common[word])) for word in words])
        self._encoder = WordConcepts(
            self.space.names, words, idf, *_by_word(written, words, idf), top_k=self.top_k, name="esa"
        )
        return self

    def transform(self, corpus: Sequence[str]) -> Floats:
        """Encode texts; see ``encode``.

        Args:
            corpus: The texts.

        Returns:
            Rows (N, m).
        """
        return self.encode(corpus)

    def fit_transform(self, corpus: Sequence[str], concepts: Sequence[Declared] | None = None) -> Floats:
        """Fit on texts and encode them.

        Args:
            corpus: As in ``fit``.
            concepts: As in ``fit``.

        Returns:
            Rows (N, m).
        """
        return self.fit(corpus, concepts).encode(corpus)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Encode texts.

        Args:
            texts: The texts.

        Shape:
            texts N -> (N, m) float32

        Returns:
            What each text says about each concept, at least 0; the zero row for a text without any known word.

        Raises:
            InputError: not fitted, or something is not a text.
        """
        return self.encoder.activations(texts)

    def vectors(self, items: Sequence[Comparable]) -> Floats:
        """Encode items: by their text if they have one, otherwise by the concepts that they declare.

        Args:
            items: Texts or items.

        Shape:
            items N -> (N, m) float32

        Returns:
            Rows of numbers of at least 0.

        Raises:
            InputError: as for ``encode`` and ``ConceptSpace.multi_hot``.
        """
        known = [as_item(each) for each in items]
        rows = self.encode([each.text or "" for each in known])
        sets = [place for place, each in enumerate(known) if each.text is None]
        rows[sets] = self.space.multi_hot([known[place].concepts or () for place in sets])
        return rows

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted model to a folder that ``load_model`` opens and a collection can be made with.

        Args:
            folder: The folder; an existing one is replaced.
        """
        self.encoder.save(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save`` has written; descriptions are not kept, their words are.

        Args:
            folder: The folder.

        Returns:
            The fitted model.

        Raises:
            InputError: the folder holds no such model.
        """
        encoder = WordConcepts.load(folder)
        made = cls(ConceptSpace(encoder.dimensions), top_k=encoder.top_k)
        made._encoder = encoder
        return made


def _by_word(
    articles: Sequence[Counter[str]], words: Sequence[str], idf: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Turn articles into the entries of each word: starts (V + 1,), concepts (E,), weights (E,)."""
    places = {word: place for place, word in enumerate(words)}
    rows, columns, values = [], [], []
    for concept, article in enumerate(articles):
        found = np.array([places[word] for word in article], np.int64)
        weights = (1 + np.log(np.array(list(article.values()), np.float64))) * idf[found]
        length = np.sqrt(np.square(weights).sum())
        kept = weights > 0  # a word that every text has says nothing
        rows.append(found[kept])
        columns.append(np.full(int(kept.sum()), concept))
        values.append(weights[kept] / (length or 1.0))
    row, column, value = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
    order = np.lexsort((column, row))
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(words)))])
    return starts, column[order], value[order]
