"""Tasks from your own data: each function checks what it is given and returns an instance of mteb's own task class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.evaluate.retrieval_tasks import from_collection, from_corpus, from_reranking
from embedlab.evaluate.task_data import (
    ENGLISH,
    Label,
    classes_in,
    dataset_of,
    half_of_each,
    languages_of,
    made,
    numbers_in,
    same_length,
    several_classes,
)
from embedlab.models.encoder import checked_texts

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

__all__ = [
    "from_bitext",
    "from_collection",
    "from_corpus",
    "from_document_summary_scores",
    "from_labelled_pairs",
    "from_labels",
    "from_reranking",
    "from_scored_pairs",
    "from_summaries",
]

_log = logging.getLogger(__name__)


def from_scored_pairs(
    first: Sequence[str],
    second: Sequence[str],
    scores: Sequence[float],
    *,
    name: str,
    language: str = ENGLISH,
    languages: Sequence[str] | None = None,
    description: str = "",
) -> AbsTask:
    """Make a task of semantic similarity (STS): do cosines order pairs as people do? The main score is Spearman's.

    Args:
        first: First texts.
        second: Second texts.
        scores: How alike each pair is; larger is nearer, on any scale.
        name: What the task is called.
        language: Language and script of the data.
        languages: Language of each pair.
        description: One sentence about the data.

    Returns:
        The task, registered with mteb under its name.

    Raises:
        InputError: lengths differ, fewer than three pairs, scores that are not finite or all equal.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    gold = numbers_in("scores", scores)
    columns: dict[str, Any] = {"sentence1": checked_texts(first), "sentence2": checked_texts(second), "score": gold}
    same_length(columns, at_least=3)
    if min(gold) == max(gold):
        raise InputError(f"scores are all {gold[0]}: a correlation needs pairs that are more and less alike")
    given = {"test": dataset_of(columns)}
    bounds = {"min_score": min(gold), "max_score": max(gold)}
    return made(
        "STS", name, columns, [language], description, given, languages_of(range(len(gold)), languages), **bounds
    )


def from_document_summary_scores(
    documents: Sequence[str],
    summaries: Sequence[str],
    scores: Sequence[float],
    *,
    name: str,
    language: str = ENGLISH,
    languages: Sequence[str] | None = None,
    description: str = "",
) -> AbsTask:
    """Make a summarization task as FinMTEB does it: STS between each document and its summary.

    mteb's own summarization compares with human summaries: see ``from_summaries``.

    Args:
        documents: The documents, repeated for several summaries.
        summaries: One summary each.
        scores: How good each summary is; larger is better.
        name: What the task is called.
        language: Language and script of the data.
        languages: Language of each pair.
        description: One sentence about the data.

    Returns:
        The task, of mteb's type STS, registered with mteb under its name.

    Raises:
        InputError: as in ``from_scored_pairs``.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    text = description or "Similarity of documents and their summaries, against judgements of the summaries."
    return from_scored_pairs(
        documents, summaries, scores, name=name, language=language, languages=languages, description=text
    )


def from_labelled_pairs(
    first: Sequence[str],
    second: Sequence[str],
    labels: Sequence[int | bool],
    *,
    name: str,
    language: str = ENGLISH,
    languages: Sequence[str] | None = None,
    description: str = "",
) -> AbsTask:
    """Make a task of pair classification: do cosines part pairs that match from pairs that do not?

    The main score is the largest average precision over cosine, dot product and two distances.

    Args:
        first: First texts.
        second: Second texts.
        labels: 1 or True for pairs that match, 0 or False for others.
        name: What the task is called.
        language: Language and script of the data.
        languages: Language of each pair.
        description: One sentence about the data.

    Returns:
        The task, registered with mteb under its name.

    Raises:
        InputError: lengths differ, a label other than 0 or 1, or only one label.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    bad = [label for label in labels if label not in (0, 1)]
    if bad:
        raise InputError(f"labels holds {bad[0]!r}: a pair is 1 (matches) or 0 (does not)")
    whole = [int(label) for label in labels]
    columns: dict[str, Any] = {"sentence1": checked_texts(first), "sentence2": checked_texts(second), "labels": whole}
    same_length(columns, at_least=2)
    several_classes("labels", whole)
    given = {"test": dataset_of(columns)}
    return made(
        "PairClassification", name, columns, [language], description, given, languages_of(range(len(whole)), languages)
    )


def from_labels(
    texts: Sequence[str],
    labels: Sequence[Label],
    *,
    name: str,
    kind: Literal["classification", "clustering"] = "classification",
    train: tuple[Sequence[str], Sequence[Label]] | None = None,
    language: str = ENGLISH,
    languages: Sequence[str] | None = None,
    description: str = "",
    samples_per_label: int = 8,
    seed: int = 0,
) -> AbsTask:
    """Make a task of classification or clustering from texts with one class each.

    Classification trains a logistic regression on a few texts of each class, ten times, and scores accuracy on all test
    texts. Clustering compares k-means with the classes by V-measure, which is above 0 for random vectors when the texts
    are few; the adjusted mutual information beside it (``ami``) is not.

    Args:
        texts: The texts to test on; with ``train=None`` and classification, all texts.
        labels: Their classes.
        name: What the task is called.
        kind: ``"classification"`` or ``"clustering"``.
        train: Texts and classes to train on; None takes half of each class, and the other half is tested.
        language: Language and script of the data.
        languages: Language of each text.
        description: One sentence about the data.
        samples_per_label: Training texts of each class in one experiment, at least 1.
        seed: Decides the halves.

    Returns:
        The task, registered with mteb under its name.

    Raises:
        InputError: lengths differ, only one class, a class that is tested but never trained on, or an unknown kind.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    if kind not in ("classification", "clustering"):
        raise InputError(f"kind={kind!r}: expected 'classification' or 'clustering'")
    if samples_per_label < 1:
        raise InputError(f"samples_per_label={samples_per_label}: must be at least 1")
    test, classes = checked_texts(texts), classes_in("labels", labels)
    same_length({"texts": test, "labels": classes}, at_least=2)
    several_classes("labels", classes)
    places = list(range(len(test)))
    if kind == "clustering":
        numbers = {label: number for number, label in enumerate(sorted(set(classes)))}
        columns: dict[str, Any] = {"sentences": test, "labels": [numbers[label] for label in classes]}
        given = {"test": dataset_of(columns)}
        return made("Clustering", name, columns, [language], description, given, languages_of(places, languages))
    if train is None:
        trained = half_of_each(classes, seed)
        rest = sorted(set(places) - set(trained))
        train, places = ([test[i] for i in trained], [classes[i] for i in trained]), rest
        test, classes = [test[i] for i in rest], [classes[i] for i in rest]
    train_texts, train_classes = checked_texts(train[0]), classes_in("train", train[1])
    same_length({"train texts": train_texts, "train labels": train_classes}, at_least=2)
    never = sorted(set(classes) - set(train_classes))
    if never:
        raise InputError(f"labels holds {never[0]!r}, which train does not: every class needs at least one such text")
    shared = len(set(test) & set(train_texts))
    if shared:
        _log.warning("task %s: %d of %d test texts are among the training texts", name, shared, len(test))
    numbers = {label: number for number, label in enumerate(sorted(set(train_classes)))}
    data = {
        "train": {"text": train_texts, "label": [numbers[label] for label in train_classes]},
        "test": {"text": test, "label": [numbers[label] for label in classes]},
    }
    splits = require("datasets", extra="evaluate").DatasetDict(
        {split: dataset_of(part) for split, part in data.items()}
    )
    return made(
        "Classification",
        name,
        {**data, "samples_per_label": samples_per_label},
        [language],
        description,
        {"default": splits},
        languages_of(places, languages),
        samples_per_label=samples_per_label,
    )


def from_bitext(
    first: Sequence[str],
    second: Sequence[str],
    *,
    name: str,
    language_pair: tuple[str, str] = (ENGLISH, ENGLISH),
    languages: Sequence[str] | None = None,
    description: str = "",
) -> AbsTask:
    """Make a task of bitext mining: is the translation the nearest neighbour? The main score is F1.

    Args:
        first: Sentences in one language.
        second: Their translations, in the same order.
        name: What the task is called.
        language_pair: The two languages with their scripts, e.g. ``("deu-Latn", "eng-Latn")``.
        languages: Language of each pair, where ``first`` holds several.
        description: One sentence about the data.

    Returns:
        The task, registered with mteb under its name.

    Raises:
        InputError: lengths differ, or fewer than two pairs.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    columns: dict[str, Any] = {"sentence1": checked_texts(first), "sentence2": checked_texts(second)}
    same_length(columns, at_least=2)
    codes = list(dict.fromkeys(language_pair))
    given = {"test": dataset_of(columns)}
    return made("BitextMining", name, columns, codes, description, given, languages_of(range(len(first)), languages))


def from_summaries(
    texts: Sequence[str],
    human_summaries: Sequence[Sequence[str]],
    machine_summaries: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]],
    *,
    name: str,
    language: str = ENGLISH,
    languages: Sequence[str] | None = None,
    description: str = "",
) -> AbsTask:
    """Make a summarization task by mteb's protocol: is a good machine summary near a human one?

    For each text, the machine summaries' largest cosines to a human summary are compared with people's scores by
    Spearman's correlation; the main score is its mean. Texts whose scores or cosines are all equal are left out of it.

    Args:
        texts: The texts that were summarised; they are not embedded.
        human_summaries: For each text its human summaries.
        machine_summaries: For each text its machine summaries.
        scores: For each text the scores of its machine summaries; larger is better.
        name: What the task is called.
        language: Language and script of the data.
        languages: Language of each text.
        description: One sentence about the data.

    Returns:
        The task, registered with mteb under its name.

    Raises:
        InputError: lengths differ, a text without a human or with fewer than two machine summaries, scores that are
            not finite, or no text whose scores differ.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    gold = [numbers_in(f"scores[{place}]", row) for place, row in enumerate(scores)]
    human = [checked_texts(row) for row in human_summaries]
    machine = [checked_texts(row) for row in machine_summaries]
    columns: dict[str, Any] = {
        "text": checked_texts(texts),
        "human_summaries": human,
        "machine_summaries": machine,
        "relevance": gold,
    }
    same_length(columns, at_least=1)
    for place, (people, machines, row) in enumerate(zip(human, machine, gold, strict=True)):
        if not people or len(machines) < 2 or len(machines) != len(row):
            raise InputError(
                f"text {place} has {len(people)} human summaries, {len(machines)} machine summaries and {len(row)} "
                "scores: it needs a human summary, two machine summaries and a score for each of these"
            )
    if all(len(set(row)) == 1 for row in gold):
        raise InputError("scores are equal within every text: a correlation needs better and worse summaries")
    flat = [score for row in gold for score in row]
    bounds = {"min_score": min(flat), "max_score": max(flat)}
    given = {"test": dataset_of(columns)}
    places = languages_of(range(len(gold)), languages)
    return made("Summarization", name, columns, [language], description, given, places, **bounds)
