"""What is wrong with synthetic pairs: do words give positives away, and do queries stray from people's?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedlab._core.errors import InputError
from embedlab.models.encoder import Encoder
from embedlab.models.lexical import Bm25
from embedlab.ops.significance import Interval, bootstrap_interval
from embedlab.text.synthesis.writers import plain_words
from embedlab.understand.tte_depth import DepthTest, corpus_shift

Pairs = Sequence[tuple[str, str]]  # query, positive


@dataclass(frozen=True, slots=True)
class WordLeak:
    """How far words alone lead from queries to their positives.

    Attributes:
        found_first: Share of queries for which BM25 ranks the positive first among all passages.
        shared_words: Mean share of a query's words that its positive holds.
    """

    found_first: Interval
    shared_words: Interval


@dataclass(frozen=True, slots=True)
class Audit:
    """What ``audit`` gives.

    Attributes:
        synthetic: The leak of the synthetic pairs.
        human: The leak of people's pairs; None if there are none.
        shift: Depth of synthetic queries among people's; Q far below 1/2 says that they stray. None without both an
            encoder and at least two human queries.
        straying: The synthetic queries that stray most.
    """

    synthetic: WordLeak
    human: WordLeak | None
    shift: DepthTest | None
    straying: tuple[str, ...]


def audit(
    pairs: Pairs, passages: Sequence[str], *, human: Pairs = (), encoder: Encoder | None = None, seed: int = 0
) -> Audit:
    """Measure what a model could learn from synthetic pairs without understanding them.

    A query that repeats its passage's words teaches to match words. Whether that is more than people do is seen by
    comparing with human pairs. Queries of another distribution than people's show as a shift of depth.

    Args:
        pairs: Synthetic queries with their positives, at least two.
        passages: All passages that a search would go through; positives among them count once.
        human: Questions of people with their passages, to compare with.
        encoder: Encodes queries for the shift; None leaves it out.
        seed: Decides the resamples of intervals.

    Returns:
        The leaks and the shift.

    Raises:
        InputError: fewer than two pairs.
    """
    if len(pairs) < 2:
        raise InputError(f"pairs has {len(pairs)} entries: at least 2 are needed")
    every = list(dict.fromkeys([*passages, *(positive for _, positive in (*pairs, *human))]))
    model = Bm25().fit(every)
    index = model.sparse_documents(every)
    place = {text: number for number, text in enumerate(every)}

    def leak(of: Pairs) -> WordLeak:
        first = model.rank([query for query, _ in of], index, top_k=1)[0][:, 0]
        hits = [float(found == place[positive]) for found, (_, positive) in zip(first, of, strict=True)]
        shares = [_shared(query, positive) for query, positive in of]
        return WordLeak(bootstrap_interval(hits, seed=seed), bootstrap_interval(shares, seed=seed))

    shift, straying = None, ()
    if encoder is not None and len(human) > 1:
        queries = list(dict.fromkeys(query for query, _ in pairs))
        own = encoder.encode_query(list(dict.fromkeys(query for query, _ in human)))
        rows = encoder.encode_query(queries)
        known = np.flatnonzero(rows.any(axis=1))
        found = corpus_shift(own[own.any(axis=1)], rows[known])
        shift, straying = found.test, tuple(queries[known[i]] for i in found.order[:5])
    return Audit(leak(pairs), leak(human) if len(human) > 1 else None, shift, straying)


def _shared(query: str, passage: str) -> float:
    words = set(plain_words(query))
    return len(words & set(plain_words(passage))) / max(1, len(words))
