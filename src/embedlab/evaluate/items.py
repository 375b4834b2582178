"""A value for every item of a task, taken from mteb's own evaluation while it runs. Imports mteb; load it late."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mteb
import numpy as np
from mteb.abstasks import (
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.abstask import AbsTask
from numpy.typing import NDArray

from embedlab._core.errors import EmbedlabError
from embedlab.evaluate.encoders import document_texts, query_texts

_TREC = {"ndcg": "ndcg_cut_", "map": "map_cut_", "recall": "recall_", "precision": "P_", "hit_rate": "success_"}


@dataclass(slots=True)
class Seen:
    """What mteb's evaluation let through, by split and subset.

    Attributes:
        predictions: What the task would save as its predictions.
        queries: Metrics of each query, under the names of trec_eval.
    """

    predictions: dict[tuple[str, str], Any] = field(default_factory=dict)
    queries: dict[tuple[str, str], dict[str, dict[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Items:
    """Values of the items of one split and subset, in the terms of ``TaskScore``."""

    unit: str
    names: list[str]
    values: NDArray[np.float64]
    gold: NDArray[np.float64] | None = None
    lengths: NDArray[np.int64] | None = None


@contextmanager
def watched(task: AbsTask) -> Iterator[Seen]:
    """Keep a task's predictions and per-query metrics in memory, instead of having it write them to a file.

    Args:
        task: The task; it is itself again after the block.

    Yields:
        What was seen so far.

    Raises:
        EmbedlabError: this version of mteb has other inner names.
    """
    seen = Seen()
    hooks: dict[str, Callable[..., Any]] = {}

    def keep(predictions: Any, model: Any, prediction_folder: Any, hf_split: str, hf_subset: str) -> None:
        seen.predictions[hf_split, hf_subset] = predictions

    hooks["_save_task_predictions"] = keep
    if isinstance(task, AbsTaskRetrieval):
        own = task.task_specific_scores

        def per_query(scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str) -> dict[str, float]:
            seen.queries[hf_split, hf_subset] = scores
            return own(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)

        hooks["task_specific_scores"] = per_query
    missing = [name for name in hooks if not hasattr(task, name)]
    if missing:
        raise EmbedlabError(
            f"mteb {mteb.__version__} has no {missing[0]}: scores of single items need mteb 2.26 to 2.x"
        )
    for name, hook in hooks.items():
        setattr(task, name, hook)
    try:
        yield seen
    finally:
        for name in hooks:
            delattr(task, name)


def items_of(task: AbsTask, split: str, subset: str, seen: Seen, scores: dict[str, Any], model: Any) -> Items:
    """Return the values of all items.

    Args:
        task: The task, with its data.
        split: Which split.
        subset: Which subset.
        seen: What the evaluation let through.
        scores: mteb's scores for the split and subset.
        model: The model, for what it must encode again (from its cache).

    Returns:
        The values; where mteb gives nothing about items, its main score as the only repeat.
    """
    found: Items | None = None
    predictions = seen.predictions.get((split, subset))
    metric = task.metadata.main_score
    if isinstance(task, AbsTaskRetrieval):
        found = _queries(task.dataset[subset][split], metric, seen.queries[split, subset])
    elif isinstance(task, AbsTaskClustering):
        levels = np.array(list(scores["v_measures"].values()), dtype=np.float64)  # (levels, repeats)
        found = _repeats(levels.mean(axis=0))
    elif isinstance(task, AbsTaskSTS):
        found = _pairs(task, data_of(task, split, subset), "score", predictions)
    elif isinstance(task, AbsTaskPairClassification):
        found = _pairs(task, data_of(task, split, subset), task.label_column_name, predictions)
    elif isinstance(task, AbsTaskBitextMining):
        found = _translations(task, split, subset, seen)
    elif isinstance(task, AbsTaskSummarization):
        found = _summaries(task, data_of(task, split, subset), model, split, subset)
    elif task.metadata.type == "Classification" and predictions is not None:  # regression has the same class
        found = _classified(task, data_of(task, split, subset), predictions)
    if found is None and "scores_per_experiment" in scores:
        found = _repeats(np.array([each[metric] for each in scores["scores_per_experiment"]]))
    return found if found is not None else _repeats(np.array([scores["main_score"]]))


def data_of(task: AbsTask, split: str, subset: str) -> Any:
    """Return the table of a split and subset."""
    dataset: Any = task.dataset
    return dataset[subset][split] if subset in dataset else dataset[split]


def _repeats(values: NDArray[np.float64]) -> Items:
    return Items("repeat", [str(number) for number in range(len(values))], values.astype(np.float64))


def _queries(data: Any, metric: str, found: dict[str, dict[str, float]]) -> Items:
    name, _, depth = metric.rpartition("_at_")
    key = f"{_TREC.get(name, 'ndcg_cut_')}{depth or 10}"
    texts = dict(zip(data["queries"]["id"][:], query_texts(data["queries"]), strict=True))
    asked = [query for query in texts if query in found]
    values = [found[query].get(key, found[query]["ndcg_cut_10"]) for query in asked]
    return Items("query", asked, np.array(values, dtype=np.float64), lengths=_lengths(texts[query] for query in asked))


def _pairs(task: Any, data: Any, gold: str, predictions: Any) -> Items:
    first, second = _pair_columns(task)
    lengths = _lengths(data[first][:]) + _lengths(data[second][:])
    values = np.array(predictions["cosine_scores"], dtype=np.float64)
    return Items("pair", _numbered(values), values, np.array(data[gold][:], dtype=np.float64), lengths)


def _pair_columns(task: Any) -> tuple[str, str]:
    if isinstance(task, AbsTaskSTS):
        first, second = task.column_names
    else:
        first, second = task.input1_column_name, task.input2_column_name
    return str(first), str(second)


def _classified(task: Any, data: Any, predictions: list[list[Any]]) -> Items | None:
    labels = np.asarray(data[task.label_column_name][:], dtype=object)
    if any(len(each) != len(labels) for each in predictions) or labels.ndim > 1 or task.is_cross_validation:
        return None  # folds or several labels: no text is predicted in every experiment
    right = np.array([np.asarray(each, dtype=object) == labels for each in predictions], dtype=np.float64)
    return Items("text", _numbered(labels), right.mean(axis=0), lengths=_lengths(data[task.input_column_name][:]))


def _translations(task: AbsTaskBitextMining, split: str, subset: str, seen: Seen) -> Items | None:
    parallel = task.parallel_subsets
    neighbours = seen.predictions.get((split, "parallel" if parallel else subset), {})
    found = neighbours.get(subset if parallel else "sentence1-sentence2")
    data = data_of(task, split, subset)
    columns = getattr(data, "column_names", ())
    if found is None or "gold" in columns:
        return None
    right = np.array([float(each["corpus_id"] == place) for place, each in enumerate(found)])
    column = subset.split("-")[0] if parallel else "sentence1"
    return Items("text", _numbered(right), right, lengths=_lengths(data[column][:]))


def _summaries(task: AbsTaskSummarization, data: Any, model: Any, split: str, subset: str) -> Items | None:
    """Correlations text by text, which mteb only gives as their mean; a text with equal cosines counts 0 here."""
    from scipy.stats import spearmanr

    def vectors(lists: list[list[str]]) -> list[NDArray[np.float64]]:
        texts = [text for row in lists for text in row]
        rows = model.encode([{"text": texts}], task_metadata=task.metadata, hf_split=split, hf_subset=subset)
        return np.split(np.asarray(rows, dtype=np.float64), np.cumsum([len(row) for row in lists])[:-1])

    gold = data[task.relevancy_column_name][:]
    people = vectors(data[task.human_summaries_column_name][:])
    machines = vectors(data[task.machine_summaries_column_name][:])
    names, values = [], []
    for place, (row, human, machine) in enumerate(zip(gold, people, machines, strict=True)):
        if len(set(row)) == 1:
            continue
        cosines = (machine @ human.T).max(axis=1)
        names.append(place)
        values.append(float(spearmanr(row, cosines).statistic) if np.ptp(cosines) > 1e-9 else 0.0)
    texts = data[task.text_column_name][:]
    lengths = _lengths(texts[place] for place in names)
    return Items("text", [str(place) for place in names], np.array(values), lengths=lengths)


def _lengths(texts: Any) -> NDArray[np.int64]:
    return np.array([len(text) for text in texts], dtype=np.int64)


def _numbered(values: Any) -> list[str]:
    return [str(number) for number in range(len(values))]


def texts_in(task: AbsTask) -> tuple[list[str], list[str]]:
    """Return the texts that a task's data hold, and its queries: for cost, progress and models that count words."""
    texts: list[str] = []
    queries: list[str] = []
    for split in {*task.eval_splits, *([task.train_split] if isinstance(task, AbsTaskClassification) else [])}:
        for subset in task.hf_subsets:
            if isinstance(task, AbsTaskRetrieval):
                data = task.dataset[subset][split]
                texts += document_texts(data["corpus"])
                queries += query_texts(data["queries"])
            else:
                texts += _texts_of_table(data_of(task, split, subset))
    return texts, queries


def _texts_of_table(table: Any) -> list[str]:
    found: list[str] = []
    for name in table.column_names:
        if re.fullmatch(r"labels?|score|relevance|id|idx|lang", name):
            continue
        for entry in table[name][:]:
            found += [each for each in (entry if isinstance(entry, list) else [entry]) if isinstance(each, str)]
    return found
