"""What a data set is made of, whatever form it comes in: plain texts, our loaders' data, or an mteb task."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from embedlab._core.errors import InputError
from embedlab.data.loaders import LabelData, PairData, RetrievalData, Text
from embedlab.models.encoder import checked_texts

Data: TypeAlias = LabelData | PairData | RetrievalData | Sequence[str]


def as_data(given: Any) -> Data:
    """Bring a data set into one of our forms.

    Args:
        given: Texts, ``LabelData``, ``PairData``, ``RetrievalData``, or an mteb task of retrieval, reranking, STS, pair
            classification, classification, clustering, bitext mining or summarization.

    Returns:
        The data; of a task the test split of its first subset. Labelled pairs become scores of 0 and 1.

    Raises:
        InputError: it is none of these, or a task of another type.

    Example:
        >>> as_data(["one text", "another"])
        ['one text', 'another']
    """
    if isinstance(given, LabelData | PairData | RetrievalData):
        return given
    if hasattr(given, "metadata") and hasattr(given, "load_data"):
        return _of_task(given)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return checked_texts(given)
    raise InputError(
        f"datasets holds a {type(given).__name__}: give texts, LabelData, PairData, RetrievalData or an mteb task"
    )


def texts_of(data: Data, *, num_texts: int, seed: int = 0) -> list[str]:
    """Draw texts of a data set.

    Args:
        data: What ``as_data`` gave.
        num_texts: How many at most. Of a retrieval set half are queries and half documents, as far as there are any:
            documents alone would drown the queries.
        seed: Decides which.

    Returns:
        Texts that are not blank, in their order.
    """
    if isinstance(data, RetrievalData):
        half = num_texts // 2
        queries = _drawn(list(data.queries.values()), half, seed)
        return queries + _drawn([str(text) for text in data.corpus.values()], num_texts - len(queries), seed)
    if isinstance(data, PairData):
        texts = list(dict.fromkeys([*data.first, *data.second]))
    else:
        texts = list(data.texts if isinstance(data, LabelData) else data)
    return _drawn(texts, num_texts, seed)


def _drawn(texts: list[str], count: int, seed: int) -> list[str]:
    kept = [text for text in texts if text.strip()]
    if len(kept) <= count:
        return kept
    return [kept[place] for place in sorted(random.Random(seed).sample(range(len(kept)), count))]


def _of_task(task: Any) -> Data:
    kind, name = task.metadata.type, task.metadata.name
    if not getattr(task, "data_loaded", False):
        task.load_data()
    split = _first_split(task)
    if kind in ("Retrieval", "Reranking"):
        corpus = {row["id"]: Text(row.get("title") or "", row.get("text") or "") for row in split["corpus"]}
        return RetrievalData(
            name=name,
            corpus=corpus,
            queries={row["id"]: str(row["text"]) for row in split["queries"]},
            qrels={query: dict(grades) for query, grades in split["relevant_docs"].items()},
        )
    columns = split.to_dict() if hasattr(split, "to_dict") else dict(split)
    if kind in ("STS", "PairClassification", "BitextMining"):
        first, second, scores = (
            _column(columns, name, names)
            for names in (("sentence1", "text1"), ("sentence2", "text2"), ("score", "labels", "label", "sentence1"))
        )
        numbers = [1.0] * len(first) if kind == "BitextMining" else [float(score) for score in scores]
        return PairData(first, second, numbers, [])
    if kind in ("Classification", "Clustering"):
        texts, labels = (
            _column(columns, name, names) for names in (("text", "sentences", "sentence"), ("label", "labels"))
        )
        if texts and not isinstance(texts[0], str):  # older clustering tasks: lists of sets
            texts, labels = ([item for part in column for item in part] for column in (texts, labels))
        return LabelData(texts, [str(label) for label in labels])
    if kind == "Summarization":
        return [str(text) for text in _column(columns, name, ("text",))]
    raise InputError(f"datasets: {name} is a task of type {kind}: give its texts as a list instead")


def _first_split(task: Any) -> Any:
    """Subsets hold splits, or there are splits only."""
    wanted: Iterable[str] = task.metadata.eval_splits
    part: Any = task.dataset
    for _ in range(2):
        chosen = next((part[name] for name in wanted if name in part), None)
        if chosen is not None:
            return chosen
        if not isinstance(part, Mapping) or not part:
            break
        part = next(iter(part.values()))
    raise InputError(f"datasets: {task.metadata.name} has no split {', '.join(wanted)}")


def _column(columns: Mapping[str, Any], task: str, names: Sequence[str]) -> list[Any]:
    for name in names:
        if name in columns:
            return list(columns[name])
    raise InputError(f"datasets: {task} has no column {' or '.join(names)}, only {', '.join(columns)}")
