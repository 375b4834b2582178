"""Hard negatives for synthetic rows, found by a small encoder, and how balanced the rows are."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.models.encoder import Encoder
from embedlab.text.synthesis.journal import SyntheticRow

_BLOCK = 512  # queries compared at once


@dataclass(frozen=True, slots=True)
class Triplet:
    """What an embedding model is trained on.

    Attributes:
        query: The query.
        positive: A passage that answers it.
        negatives: Passages that look as if they did; all triplets of a list have the same number.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Balance:
    """How evenly rows are spread.

    Attributes:
        rows: Number of rows.
        personas: Persona -> rows.
        tasks: Task -> rows.
        persona_evenness: Entropy over personas by the largest possible one, in [0, 1].
        task_evenness: The same over tasks.
    """

    rows: int
    personas: dict[str, int]
    tasks: dict[str, int]
    persona_evenness: float
    task_evenness: float


def mine_negatives(
    pairs: Sequence[tuple[str, str]],
    passages: Sequence[str],
    encoder: Encoder,
    *,
    num_negatives: int = 1,
    max_ratio: float | None = 0.95,
    known: Mapping[str, Sequence[str]] | None = None,
) -> list[Triplet]:
    """Find for every query the nearest passages that are not its answer.

    Args:
        pairs: Queries with their positives.
        passages: Where negatives come from.
        encoder: A small general encoder.
        num_negatives: Negatives a query, at least 1.
        max_ratio: A passage nearer to the query than this share of the positive's cosine is taken for another answer
            and passed over; None takes it all the same, as published.
        known: Query -> other passages that answer it, which are no negatives either.

    Returns:
        One triplet a pair; where too few passages are left, ones that ``max_ratio`` would pass over come last.

    Raises:
        InputError: ``num_negatives`` is below 1 or more than the passages allow, or ``max_ratio`` is not above 0.
    """
    if num_negatives < 1:
        raise InputError(f"num_negatives={num_negatives}: must be at least 1")
    if max_ratio is not None and not max_ratio > 0:
        raise InputError(f"max_ratio={max_ratio}: must be above 0, or None")
    pool = list(dict.fromkeys(passages))
    place = {text: number for number, text in enumerate(pool)}
    vectors = encoder.encode_document(pool)  # (P, D)
    triplets = []
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        queries = encoder.encode_query([query for query, _ in block])
        own = np.sum(queries * encoder.encode_document([positive for _, positive in block]), axis=1)  # (Q,)
        cosines = queries @ vectors.T  # (Q, P)
        for (query, positive), row, best in zip(block, cosines, own, strict=True):
            answers = {place.get(text) for text in (positive, *(known or {}).get(query, ()))}
            limit = np.inf if max_ratio is None else max_ratio * best
            chosen: list[str] = []
            suspected: list[str] = []
            for i in map(int, np.argsort(-row, kind="stable")):
                # a positive that is part of a passage (its first sentence became the query) must not meet the whole
                if i in answers or positive in pool[i]:
                    continue
                (chosen if row[i] <= limit else suspected).append(pool[i])
                if len(chosen) == num_negatives:
                    break
            chosen = (chosen + suspected)[:num_negatives]
            if len(chosen) < num_negatives:
                raise InputError(
                    f"num_negatives={num_negatives}: only {len(chosen)} passages are no answer to {query!r}"
                )
            triplets.append(Triplet(query, positive, tuple(chosen)))
    return triplets


def balance(rows: Sequence[SyntheticRow]) -> Balance:
    """Count rows by persona and by task.

    Args:
        rows: Rows of a journal.

    Returns:
        The counts, and how even they are.

    Example:
        >>> balance([]).rows
        0
    """
    personas, tasks = Counter(row.persona for row in rows), Counter(row.task for row in rows)
    return Balance(len(rows), dict(personas.most_common()), dict(tasks.most_common()), _even(personas), _even(tasks))


def write_triplets(triplets: Sequence[Triplet], path: str | os.PathLike[str]) -> None:
    """Write triplets as JSON lines.

    Args:
        triplets: The triplets.
        path: The file; it is replaced in one step.
    """
    lines = [{"query": each.query, "positive": each.positive, "negatives": each.negatives} for each in triplets]
    atomic_write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_triplets(path: str | os.PathLike[str]) -> list[Triplet]:
    """Read triplets from JSON lines: ``query``, ``positive``, and ``negatives`` or ``negative``, if any.

    Args:
        path: The file.

    Returns:
        The triplets.

    Raises:
        InputError: the file is not there, or a line is not a triplet.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(
            f"{source} is not there: triplets are what `embedlab synth` and `embedlab domain synthesize` write"
        )
    found = []
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            single = [row[key] for key in sorted(row) if re.fullmatch(r"negative(_\d+)?", key)]
            texts = [row["query"], row["positive"], *row.get("negatives", ()), *single]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{source}, line {number}: not a triplet: {line[:80]!r}") from error
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(f"{source}, line {number}: query, positive and negatives must be texts: {line[:80]!r}")
        found.append(Triplet(texts[0], texts[1], tuple(texts[2:])))
    return found


def _even(counts: Counter[str]) -> float:
    total = sum(counts.values())
    if len(counts) < 2:
        return 1.0
    return -sum(n / total * math.log(n / total) for n in counts.values()) / math.log(len(counts))
