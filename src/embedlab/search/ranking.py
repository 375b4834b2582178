"""Putting hits in order and showing why: score fusion, matching words, best sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.search.records import Settings

MAX_QUERY_CHARS = 100_000
MAX_QUERY_TERMS = 256  # beyond, a text is a document: its first terms say enough and every term costs a list
_WORD = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"\S.*?(?:[.!?。！？]+(?=\s|$)|\n\s*\n|\Z)", re.S)

_MOST_STEMS = 200_000

Floats = NDArray[np.float32]
# stems of words seen in hits, by language and whether they are stemmed: the same words come again and again
_KNOWN_STEMS: dict[tuple[str, bool], dict[str, str | None]] = {}


def fuse(bm25: Floats, cosine: Floats, *, weight: float) -> tuple[Floats, Floats, Floats]:
    """Blend lexical and dense scores of the same candidates into one score in [0, 1].

    Both are brought to a common scale by the lowest value they can have and the highest one of this query (the
    "theoretical" min-max): BM25 starts at 0, cosine at -1. Then ``score = weight * dense + (1 - weight) * lexical``.
    Unlike the range of the candidates, this scale does not turn a small difference between equally good passages into
    a large one. Measured against four other blends on CACM and on Debian's package descriptions it was never the
    worse one, and the least sensitive to the weight.

    Args:
        bm25: BM25 of every candidate, 0 where no term matches. (K,)
        cosine: Cosine of every candidate. (K,)
        weight: Share of the dense part, in [0, 1].

    Returns:
        Score, normalised BM25 and normalised cosine, each (K,) in [0, 1].

    Example:
        >>> score, lexical, dense = fuse(np.float32([4, 0]), np.float32([0.0, 1.0]), weight=0.25)
        >>> score.tolist(), lexical.tolist(), dense.tolist()
        ([0.875, 0.25], [1.0, 0.0], [0.5, 1.0])

    References:
        Bruch, Gai, Ingber (2023), An Analysis of Fusion Functions for Hybrid Retrieval, arXiv 2210.11934.
    """
    lexical = bm25 / max(float(bm25.max(initial=0.0)), 1e-9)
    dense = (cosine + 1.0) / (max(float(cosine.max(initial=-1.0)), -1.0 + 1e-6) + 1.0)
    return (weight * dense + (1.0 - weight) * lexical).astype(np.float32), lexical, dense


def ranks(scores: Floats) -> NDArray[np.int64]:
    """Return the rank of every score from 1, the largest first; equal scores keep their order."""
    order = np.argsort(-scores, kind="stable")
    places = np.empty(len(scores), np.int64)
    places[order] = np.arange(1, len(scores) + 1)
    return places


class Terms:
    """The words of one query as the full-text index sees them.

    Args:
        query: The query.
        settings: Stemming and stop words of the collection.
    """

    def __init__(self, query: str, settings: Settings) -> None:
        self._settings = settings
        words = list(dict.fromkeys(_WORD.findall(query.lower())))[:MAX_QUERY_TERMS]
        self.text = " ".join(words)
        self.stems = frozenset(filter(None, _stems(words, settings, stop_words=settings.remove_stop_words)))

    def find(self, text: str) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
        """Return the spans of ``text`` whose words match the query, and these words."""
        if not self.stems:
            return (), ()
        words = dict.fromkeys(_WORD.findall(text.lower()))
        known = _KNOWN_STEMS.setdefault((self._settings.language, self._settings.stem), {})
        unknown = [word for word in words if word not in known]
        if unknown:
            if len(known) > _MOST_STEMS:
                known.clear()
            known.update(zip(unknown, _stems(unknown, self._settings, stop_words=False), strict=True))
        matched = tuple(word for word in words if known.get(word) in self.stems)
        if not matched:
            return (), ()
        return tuple(m.span() for m in _WORD.finditer(text) if m.group().lower() in matched), matched

    def best_sentence(self, text: str, spans: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """Return the sentence with the most different matching words; of equals the shorter, then the earlier."""
        if not spans:
            return None
        best: tuple[int, int, int] | None = None
        for match in _SENTENCE.finditer(text):
            start, end = match.start(), match.start() + len(match.group().rstrip())
            words = {text[a:b].lower() for a, b in spans if start <= a and b <= end}
            if words and (best is None or (len(words), -(end - start)) > (best[0], -(best[2] - best[1]))):
                best = (len(words), start, end)
        return None if best is None else (best[1], best[2])


def _stems(words: Sequence[str], settings: Settings, *, stop_words: bool) -> list[str | None]:
    """Return the index form of every word; None for those the index leaves out."""
    from lancedb import tokenize

    stems: list[str | None] = [None] * len(words)
    if not words:
        return stems
    try:
        tokens = tokenize(
            " ".join(words),
            base_tokenizer="whitespace",  # the words are cut already: one token each, its position names the word
            language=settings.language,
            stem=settings.stem,
            remove_stop_words=stop_words,
        )
    except ValueError as error:
        raise InputError(f"language={settings.language!r} is not one the full-text index knows: {error}") from error
    for token in tokens:
        stems[token.position] = token.text
    return stems
