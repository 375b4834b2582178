"""Better labels for pairs: another positive where a judge finds one, harder negatives, and neither kind of error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.models.encoder import Encoder, unit_rows
from embedlab.text.synthesis.consistency import query_and_passage
from embedlab.text.synthesis.judge import as_judge
from embedlab.text.synthesis.triplets import Triplet

_BLOCK = 512  # queries compared at once


@dataclass(frozen=True, slots=True)
class Relabelled:
    """What became of one pair.

    Attributes:
        triplet: The query with the positive that the judge likes best, and a negative it likes least.
        seed_positive: The positive before.
        seed_rank: Rank of that one in the judge's order, from 1.
        scores: The judge's scores of the new positive and of the negative.
    """

    triplet: Triplet
    seed_positive: str
    seed_rank: int
    scores: tuple[float, float]

    @property
    def changed(self) -> bool:
        """Whether another passage became the positive."""
        return self.triplet.positive != self.seed_positive


def relabel_with_ranker(
    pairs: Sequence[Any], passages: Sequence[str], encoder: Encoder, judge: Any, *, top_k: int = 20
) -> list[Relabelled]:
    """Give each query the best of its candidates as positive, and the worst of them as hard negative.

    The passage that a query was written from need not be the one that answers it best. The encoder finds candidates,
    the seed passage among them; the judge orders them; the first becomes the positive, and the last, which the encoder
    took for an answer and the judge does not, the hard negative.

    Args:
        pairs: Anything with ``query`` and ``passage`` (or ``positive``), or ``(query, passage)``.
        passages: All passages.
        encoder: Finds the candidates.
        judge: An ``LLMJudge``, a ``CrossEncoder``, or a function from (query, passage) pairs to scores.
        top_k: Candidates of each query beside its own passage, at least 1.

    Returns:
        What became of each pair. Among equal scores the seed passage comes first, then the nearer one.

    Raises:
        InputError: ``top_k`` is below 1, or there is no passage but the pair's own.

    Example:
        >>> from embedlab import load_model
        >>> passages = ["A cat sat on a mat.", "Cats sleep by day, twelve hours.", "Cats are sold in shops."]
        >>> judge = lambda pairs: [("sleep" in passage) - ("sold" in passage) for _, passage in pairs]
        >>> new = relabel_with_ranker([("when do cats sleep", passages[0])], passages, load_model(), judge)[0]
        >>> new.triplet.positive, new.triplet.negatives, new.seed_rank
        ('Cats sleep by day, twelve hours.', ('Cats are sold in shops.',), 2)

    References:
        Lee et al. (2024), Gecko, arXiv:2403.20327v1, section 3.2.
    """
    if top_k < 1:
        raise InputError(f"top_k={top_k}: must be at least 1")
    read = [query_and_passage(pair) for pair in pairs]
    pool = list(dict.fromkeys([*passages, *(passage for _, passage in read)]))
    near = _nearest([query for query, _ in read], pool, encoder, top_k + 1)
    scorer = as_judge(judge)
    found = []
    for (query, own), row in zip(read, near, strict=True):
        # a pair's passage may be part of a longer one (its first sentence became the query): not its own rival
        others = [pool[i] for i in row if pool[i] != own and own not in pool[i]][:top_k]
        if not others:
            raise InputError(f"query {query!r:.80} has no candidate but its own passage: give more passages")
        candidates = [own, *others]
        scores = scorer.relevance([(query, candidate) for candidate in candidates])
        order = np.argsort(-scores, kind="stable")
        best, worst = int(order[0]), int(order[-1])
        triplet = Triplet(query, candidates[best], (candidates[worst],))
        seed_rank = 1 + int(np.flatnonzero(order == 0)[0])
        found.append(Relabelled(triplet, own, seed_rank, (float(scores[best]), float(scores[worst]))))
    return found


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What a judge took out.

    Attributes:
        scores: The judge's score of every positive, in order.
        false_positives: Triplets dropped because their positive is none.
        false_negatives: Negatives dropped because they answer the query.
        emptied: Triplets dropped because no negative was left.
    """

    scores: NDArray[np.float64]
    false_positives: int
    false_negatives: int
    emptied: int


def drop_false_labels(
    triplets: Sequence[Triplet], judge: Any, *, least: float = -np.inf, margin: float = 0.0
) -> tuple[list[Triplet], JudgeReport]:
    """Take out positives that do not answer, and negatives that do.

    Args:
        triplets: The triplets; pairs are triplets without negatives.
        judge: An ``LLMJudge``, a ``CrossEncoder``, or a function from (query, passage) pairs to scores.
        least: A positive must score at least this, in the judge's unit.
        margin: A negative must score at least so much below its positive; at least 0.

    Returns:
        The triplets that are left, with as many negatives as each has left, and a report.

    Raises:
        InputError: ``margin`` is below 0.

    Example:
        >>> triplets = [Triplet("a", "a b", ("a b c", "d")), Triplet("a", "e", ("d",))]
        >>> judge = lambda pairs: [float(query in passage) for query, passage in pairs]
        >>> drop_false_labels(triplets, judge, least=0.5, margin=0.5)[0]
        [Triplet(query='a', positive='a b', negatives=('d',))]
    """
    if not margin >= 0:
        raise InputError(f"margin={margin}: must be at least 0")
    scorer = as_judge(judge)
    scores = scorer.relevance([(each.query, each.positive) for each in triplets])
    kept: list[Triplet] = []
    wrong = taken = emptied = 0
    for triplet, score in zip(triplets, scores, strict=True):
        if score < least:
            wrong += 1
            continue
        negatives = [(triplet.query, negative) for negative in triplet.negatives]
        below = scorer.relevance(negatives) < score - margin if negatives else np.zeros(0, dtype=bool)
        left = tuple(negative for (_, negative), keep in zip(negatives, below, strict=True) if keep)
        taken += len(negatives) - len(left)
        if negatives and not left:
            emptied += 1
            continue
        kept.append(Triplet(triplet.query, triplet.positive, left))
    return kept, JudgeReport(scores, wrong, taken, emptied)


def _nearest(queries: Sequence[str], pool: Sequence[str], encoder: Encoder, count: int) -> list[list[int]]:
    if not queries:
        return []
    vectors = unit_rows(np.array(encoder.encode_document(list(pool)), dtype=np.float32))  # (P, D)
    rows = unit_rows(np.array(encoder.encode_query(list(queries)), dtype=np.float32))  # (Q, D)
    found = []
    for start in range(0, len(rows), _BLOCK):
        cosines = rows[start : start + _BLOCK] @ vectors.T  # (block, P)
        found += np.argsort(-cosines, axis=1, kind="stable")[
            :, : count + 8
        ].tolist()  # a few may be the own, or hold it
    return found
