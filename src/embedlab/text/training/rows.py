"""From columns of any name to rows of one kind, checked: pairs, tuples, scored pairs, labelled texts, plain texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab.text.training.recipe import Kind, TrainingData

if TYPE_CHECKING:
    from datasets import Dataset

# what a column may be called, in lower case and with "_" for blanks and "-"
_ANCHOR = ("anchor", "query", "question", "claim", "title", "premise")
_POSITIVE = ("positive", "pos", "answer", "passage", "document", "context", "response", "abstract", "entailment")
_NEGATIVE = ("negative", "neg", "hard_negative", "contradiction")
_FIRST = ("sentence1", "sentence_1", "sentence_a", "text1", "text_1", "first")
_SECOND = ("sentence2", "sentence_2", "sentence_b", "text2", "text_2", "second")
_SCORE = ("score", "similarity", "similarity_score", "relatedness", "gold")
_LABEL = ("label", "class", "category", "intent", "topic", "label_text")
_TEXT = ("text", "sentence", "content", "body", "utterance", "passage", "document")
GROUP = "group"  # rows of one group are never parted into training and held-out data
_HELP = (
    "name the columns anchor, positive (and negative_1, ...); sentence1, sentence2, score; text, label; or text; "
    "or say which is which: columns: {anchor: ..., positive: ...}"
)


def read_columns(
    columns: Mapping[str, Sequence[Any]], *, name: str, chosen: Mapping[str, str] | None = None
) -> tuple[TrainingData, list[str] | None]:
    """Tell from the columns' names what the rows are, and check every one of them.

    Args:
        columns: Values by column; all of one length.
        name: What the data set is called.
        chosen: Our name of a column -> its name here, where the names alone do not say it.

    Returns:
        The rows under our names, and the group of each if there is a column ``group``.

    Raises:
        InputError: the columns are not recognised, or a row is empty, missing or of another type than the others.
    """
    if not columns or not len(next(iter(columns.values()))):
        raise InputError(f"data {name!r} holds no row: give at least two")
    kind, found = _recognise(list(columns), name, dict(chosen or {}))
    own = {key: list(columns[column]) for key, column in found.items()}
    groups = own.pop(GROUP, None)
    if kind == "tuples":
        own = _negatives_apart(own, name)
    checked: dict[str, Any] = {}
    for key, values in own.items():
        if key == "score":
            checked[key] = _scores(values, name)
        elif key == "label":
            checked[key] = values
        else:
            checked[key] = _texts(values, name, found.get(key, key))
    return TrainingData(name, kind, dataset_of(kind, checked, name)), None if groups is None else list(map(str, groups))


def dataset_of(kind: Kind, columns: Mapping[str, Sequence[Any]], name: str) -> Dataset:
    """Make the host's data set, classes of labelled texts as numbers that know their names."""
    datasets: Any = require("datasets", extra="train")
    if kind != "labels":
        return datasets.Dataset.from_dict(dict(columns))
    given = list(columns["label"])
    for row, label in enumerate(given):
        if label is None or label == "" or (isinstance(label, float) and math.isnan(label)):
            raise InputError(f"data {name!r}, row {row + 1}: label is missing: every text needs a class")
    if all(isinstance(label, float) and label != int(label) for label in given):
        raise InputError(f"data {name!r}: label holds fractions such as {given[0]}: a class is a name or whole number")
    numbers = all(isinstance(label, int) for label in given)
    classes = [str(label) for label in sorted(set(given), key=None if numbers else str)]
    if len(classes) < 2:
        raise InputError(f"data {name!r}: all labels are {classes[0]!r}: at least two classes are needed")
    places = {label: place for place, label in enumerate(classes)}
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=classes)})
    rows = {"text": list(columns["text"]), "label": [places[str(label)] for label in given]}
    return datasets.Dataset.from_dict(rows, features=features)


def _recognise(columns: list[str], name: str, chosen: dict[str, str]) -> tuple[Kind, dict[str, str]]:
    """Return the kind, and our name -> the column's own name."""
    if chosen:
        known = ("anchor", "positive", "negative", "sentence1", "sentence2", "score", "text", "label", GROUP)
        for own, column in chosen.items():
            if own not in known and not own.startswith("negative_"):
                raise unknown_name(f"column of data {name!r}", own, known)
            if column not in columns:
                raise unknown_name(f"column of data {name!r} (for {own})", column, columns)
        columns = list(chosen)
        back = chosen
    else:
        back = {_plain(column): column for column in reversed(columns)}
        columns = list(back)[::-1]

    def first(names: Sequence[str]) -> str | None:
        return next((back[each] for each in names if each in columns), None)

    group = {GROUP: back[GROUP]} if GROUP in columns else {}
    score, label = first(_SCORE), first(_LABEL)
    one, two = first(_FIRST), first(_SECOND)
    if one and two:
        if score or (label and not chosen):
            return "scored", {"sentence1": one, "sentence2": two, "score": score or str(label), **group}
        return "pairs", {"anchor": one, "positive": two, **group}
    anchor, positive = first(_ANCHOR), first(_POSITIVE)
    if anchor and not positive:
        positive = first([each for each in _TEXT if back.get(each) != anchor])
    if anchor and positive and not label:
        if score:
            return "scored", {"sentence1": anchor, "sentence2": positive, "score": score, **group}
        negatives = [each for each in columns if each.rstrip("s0123456789").rstrip("_") in _NEGATIVE]
        if not negatives:
            return "pairs", {"anchor": anchor, "positive": positive, **group}
        numbered = {f"negative_{place + 1}": back[each] for place, each in enumerate(negatives)}
        return "tuples", {"anchor": anchor, "positive": positive, **numbered, **group}
    text = first(_TEXT) or anchor or (back[columns[0]] if len(columns) == 1 else None)
    if text and label:
        return "labels", {"text": text, "label": label, **group}
    if text:
        return "texts", {"text": text, **group}
    raise InputError(f"data {name!r}: the columns {', '.join(columns)} do not tell what is what: {_HELP}")


def _plain(column: str) -> str:
    return "_".join(str(column).strip().lower().replace("-", " ").split())


def _negatives_apart(own: dict[str, list[Any]], name: str) -> dict[str, list[Any]]:
    """Give each negative of a column of lists a column of its own."""
    apart: dict[str, list[Any]] = {}
    place = 0
    for key, values in own.items():
        if not key.startswith("negative") or not any(isinstance(value, list | tuple) for value in values):
            place += key.startswith("negative")
            apart[f"negative_{place}" if key.startswith("negative") else key] = values
            continue
        counts = [len(value) if isinstance(value, list | tuple) else -1 for value in values]
        if len(set(counts)) > 1 or counts[0] < 1:
            odd = next((row for row, count in enumerate(counts) if count != counts[0]), 0)
            raise InputError(
                f"data {name!r}, row {odd + 1}: {_count(counts[odd])} negatives, the first row has "
                f"{_count(counts[0])}: all rows need the same number, at least one; cut the lists, or drop rows"
            )
        for number in range(counts[0]):
            place += 1
            apart[f"negative_{place}"] = [value[number] for value in values]
    return apart


def _count(number: int) -> str:
    return "no list of" if number < 0 else str(number)


def _texts(values: list[Any], name: str, column: str) -> list[str]:
    for row, value in enumerate(values):
        if isinstance(value, str) and value.strip():
            continue
        if value is None or value == "" or (isinstance(value, str)) or (isinstance(value, float) and math.isnan(value)):
            why = "is empty"
            what = "drop the row or fill it"
        else:
            why = f"is {value!r:.60} of type {type(value).__name__}, not a text"
            what = "mixed kinds cannot be trained on: make all values of the column texts"
        raise InputError(f"data {name!r}, row {row + 1}: {column} {why}: {what}")
    return values


def _scores(values: list[Any], name: str) -> list[float]:
    """Bring scores to [0, 1]; a scale that starts at 0 and ends above 1 is divided by its end (5, 10, 100)."""
    numbers = []
    for row, value in enumerate(values):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"data {name!r}, row {row + 1}: score is {value!r}: expected a finite number")
        numbers.append(number)
    low, high = min(numbers), max(numbers)
    if low == high:
        raise InputError(f"data {name!r}: all scores are {low}: pairs must be more and less alike")
    if low < 0:
        raise InputError(f"data {name!r}: scores go from {low} to {high}: bring them to 0..1 (1 is the same meaning)")
    end = next((each for each in (1.0, 5.0, 10.0, 100.0) if high <= each), None)
    if end is None:
        raise InputError(f"data {name!r}: scores go up to {high}: bring them to 0..1 (1 is the same meaning)")
    return [number / end for number in numbers]
