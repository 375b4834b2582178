"""Small data of every type, and models whose scores are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

TOPICS = ("tea", "law", "sea", "code", "bird", "moon")
WORDS = ("old", "new", "red", "tall", "warm", "late", "odd", "calm", "dry", "loud", "sour", "flat")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    return


class VectorEncoder:
    """An encoder given by a function from text to vector."""

    dim: int

    def __init__(self, vector: Callable[[str], NDArray[np.floating]], name: str = "given", number: int = 0) -> None:
        self.vector, self.name = vector, name
        self.fingerprint = f"given:{number:08x}"
        self.dim = len(vector("x"))
        self.seen: list[str] = []

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        self.seen += texts
        rows = np.array([self.vector(text) for text in texts], dtype=np.float32).reshape(-1, self.dim)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(lengths > 0, lengths, 1)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode_document(texts)


def constant(name: str = "constant") -> VectorEncoder:
    return VectorEncoder(lambda text: np.ones(4), name, 1)


def random_vectors(seed: int = 0) -> VectorEncoder:
    def vector(text: str) -> NDArray[np.floating]:
        return np.random.default_rng([seed, *text.encode()]).standard_normal(16)

    return VectorEncoder(vector, f"random-{seed}", 100 + seed)


def topic_model() -> VectorEncoder:
    """Mostly the topic's direction, and a little of every other word."""

    def vector(text: str) -> NDArray[np.floating]:
        row = 0.3 * random_vectors(7).vector(text)
        for place, topic in enumerate(TOPICS):
            row[place] += 3.0 * (topic in text)
        return row

    return VectorEncoder(vector, "topics", 2)


def texts_about(count: int) -> tuple[list[str], list[str]]:
    """Texts and the topic of each."""
    texts, topics = [], []
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        first, second = WORDS[number % 11], WORDS[(number * 5 + 3) % 12]
        texts.append(f"{first} {topic} {second} {number}")
        topics.append(topic)
    return texts, topics


def corpus_data(count: int = 60) -> tuple[dict[str, Any], dict[str, str], dict[str, dict[str, int]]]:
    texts, topics = texts_about(count)
    corpus = {f"d{place}": text for place, text in enumerate(texts)}
    queries = {f"q-{topic}": f"about {topic}" for topic in TOPICS}
    qrels = {
        f"q-{topic}": {f"d{place}": 1 + place % 2 for place in range(count) if topics[place] == topic}
        for topic in TOPICS
    }
    return corpus, queries, qrels


def all_tasks(prefix: str = "small") -> list[AbsTask]:
    """One task of each of mteb's eight text types."""
    from embedlab.evaluate import tasks

    corpus, queries, qrels = corpus_data()
    texts, topics = texts_about(120)
    others = texts[1:] + texts[:1]
    same = [int(one == other) for one, other in zip(topics, topics[2:] + topics[:2], strict=True)]
    near = [texts[(place * 5) % 120] for place in range(120)]
    alike = [float(topics[place] == topics[(place * 5) % 120]) + place % 3 for place in range(120)]
    clusters = tasks.from_labels(texts, topics, name=f"{prefix}-clusters", kind="clustering")
    type(clusters).max_documents_per_cluster = 1024  # mteb's 16,384 draws take seconds
    return [
        tasks.from_corpus(corpus, queries, qrels, name=f"{prefix}-retrieval"),
        tasks.from_reranking(
            corpus, queries, qrels, {query: list(corpus)[:30] for query in queries}, name=f"{prefix}-reranking"
        ),
        tasks.from_scored_pairs(texts, near, alike, name=f"{prefix}-sts"),
        tasks.from_labelled_pairs(
            texts,
            texts[2:] + texts[:2],
            [max(label, place % 2) for place, label in enumerate(same)],
            name=f"{prefix}-pairs",
        ),
        tasks.from_labels(texts, topics, name=f"{prefix}-classes"),
        clusters,
        tasks.from_bitext(texts[:60], [f"{text} again" for text in texts[:60]], name=f"{prefix}-bitext"),
        tasks.from_summaries(
            ["a report", "a story", "a speech"] * 4,
            [[texts[place], texts[place + 6]] for place in range(12)],
            [[texts[place + 12], others[place], "nothing at all", texts[place + 13]] for place in range(12)],
            [[1.0, 0.5, 0.0, 0.7]] * 12,
            name=f"{prefix}-summaries",
        ),
    ]
