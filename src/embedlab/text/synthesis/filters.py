"""Which drafts are good enough: length, copies, and overlap with the texts that will be evaluated on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.models.encoder import Encoder
from embedlab.text.synthesis.journal import job_id
from embedlab.text.synthesis.writers import Draft, plain_words

_BLOCK = 4096  # evaluation texts compared at once


class QualityFilter:
    """Refuse drafts that are too short or long, repeat another, or overlap with evaluation texts.

    Overlap is looked for in two ways. A run of ``ngram`` words that also occurs in an evaluation text refuses the
    draft, and so does an equal text of fewer words. With ``encoder``, so does a cosine of ``max_cosine`` or more
    between the query or the positive and any evaluation text, which catches rewordings.

    Args:
        evaluation_texts: Queries and documents that the trained model will be measured on.
        encoder: A small encoder, or None to compare words only.
        ngram: Words in a row that count as overlap, at least 3. Fewer are stricter, and refuse more boilerplate.
        max_cosine: Cosine from which two texts count as the same, in (0, 1].
        query_chars: Shortest and longest query, in characters.
        passage_chars: Shortest and longest positive, in characters.
        max_copied: Largest share of the query's words that may occur in the positive, in (0, 1]; 1 for no limit.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> from embedlab.text.synthesis import Draft, plain_words
        >>> quality = QualityFilter(["How much did revenue grow in the third quarter of 2019?"], ngram=5)
        >>> drafts = ("Did revenue grow in the third quarter?", "What is owed to suppliers?", "Debt?")
        >>> quality.reasons([Draft(query, "Trade payables were 4 million at the end of May.", ()) for query in drafts])
        ['overlap', '', 'length']
    """

    def __init__(
        self,
        evaluation_texts: Iterable[str] = (),
        *,
        encoder: Encoder | None = None,
        ngram: int = 13,
        max_cosine: float = 0.95,
        query_chars: tuple[int, int] = (8, 600),
        passage_chars: tuple[int, int] = (30, 20_000),
        max_copied: float = 1.0,
    ) -> None:
        if ngram < 3:
            raise InputError(f"ngram={ngram}: must be at least 3")
        for name, value in (("max_cosine", max_cosine), ("max_copied", max_copied)):
            if not 0 < value <= 1:
                raise InputError(f"{name}={value}: must be above 0 and at most 1")
        for name, (low, high) in (("query_chars", query_chars), ("passage_chars", passage_chars)):
            if not 0 < low <= high:
                raise InputError(f"{name}=({low}, {high}): must be above 0 and in order")
        self._ngram, self._max_cosine, self._max_copied = ngram, max_cosine, max_copied
        self._query_chars, self._passage_chars = query_chars, passage_chars
        texts = list(dict.fromkeys(evaluation_texts))
        self._banned: set[tuple[str, ...]] = set()
        for text in texts:
            self._banned |= self._runs(text)
        self._encoder = encoder if texts else None
        self._vectors = encoder.encode_document(texts) if encoder is not None and texts else None
        self._seen: set[str] = set()
        self._settings = {
            "evaluation_texts": job_id(*texts),
            "ngram": ngram,
            "max_cosine": max_cosine,
            "encoder": encoder.fingerprint if encoder is not None else None,
            "query_chars": list(query_chars),
            "passage_chars": list(passage_chars),
            "max_copied": max_copied,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the verdicts, for the journal."""
        return dict(self._settings)

    def remember(self, queries: Iterable[str]) -> None:
        """Count queries as taken.

        Args:
            queries: Queries of rows that were kept earlier.
        """
        self._seen.update(" ".join(plain_words(query)) for query in queries)

    def reasons(self, drafts: Sequence[Draft]) -> list[str]:
        """Judge drafts in order, and remember the queries of those that pass.

        Args:
            drafts: The drafts.

        Returns:
            For each an empty text if it is kept, otherwise ``"length"``, ``"copied"``, ``"overlap"``, ``"similar"`` or
            ``"duplicate"``.
        """
        found = [self._quick(draft) for draft in drafts]
        left = [place for place, reason in enumerate(found) if not reason]
        if self._encoder is not None and left:
            near = self._near([drafts[place] for place in left])
            for place, too_near in zip(left, near, strict=True):
                found[place] = "similar" if too_near else ""
        for place in left:
            query = " ".join(plain_words(drafts[place].query))
            if not found[place] and query in self._seen:
                found[place] = "duplicate"
            elif not found[place]:
                self._seen.add(query)
        return found

    def _quick(self, draft: Draft) -> str:
        limits = ((draft.query, self._query_chars), (draft.positive, self._passage_chars))
        if any(not low <= len(text.strip()) <= high for text, (low, high) in limits):
            return "length"
        if self._max_copied < 1 and copied_share(draft.query, draft.positive) > self._max_copied:
            return "copied"
        return "overlap" if (self._runs(draft.query) | self._runs(draft.positive)) & self._banned else ""

    def _runs(self, text: str) -> set[tuple[str, ...]]:
        words = plain_words(text)
        if len(words) < self._ngram:
            return {tuple(words)} if words else set()
        return {tuple(words[i : i + self._ngram]) for i in range(len(words) - self._ngram + 1)}

    def _near(self, drafts: list[Draft]) -> NDArray[np.bool_]:
        if self._encoder is None or self._vectors is None:
            return np.zeros(len(drafts), dtype=bool)
        rows = np.stack(
            [
                self._encoder.encode_document([draft.query for draft in drafts]),
                self._encoder.encode_document([draft.positive for draft in drafts]),
            ]
        )  # (2, N, D)
        nearest = np.full(len(drafts), -1.0)
        for start in range(0, len(self._vectors), _BLOCK):
            cosines = rows @ self._vectors[start : start + _BLOCK].T  # (2, N, block)
            nearest = np.maximum(nearest, cosines.max(axis=(0, 2)))
        return nearest >= self._max_cosine - 1e-6  # a copy must not pass because of rounding


def copied_share(query: str, passage: str) -> float:
    """Measure which share of a query's distinct words its passage holds too.

    A query that copies its passage teaches to compare words. Queries of people share about half of theirs.

    Args:
        query: The query.
        passage: The passage.

    Returns:
        The share, in [0, 1]; 0 for a query without words.

    Example:
        >>> copied_share("Why does heat flow?", "Heat flows from hot to cold.")
        0.25
    """
    words = set(plain_words(query))
    return len(words & set(plain_words(passage))) / max(len(words), 1)
