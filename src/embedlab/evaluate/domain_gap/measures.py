"""Complexity of data sets: four measures of how hard they are, and a few plain descriptions beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab.evaluate.domain_gap.dependency import Distance, Parser, SpacyParser, dependency_distance
from embedlab.evaluate.domain_gap.difficulty import Reader
from embedlab.evaluate.domain_gap.entropy import corpus_entropy, entropy, window_entropy
from embedlab.evaluate.domain_gap.material import Data, as_data, texts_of
from embedlab.evaluate.domain_gap.readability import Counts, count, english, tokens

if TYPE_CHECKING:
    from pandas import DataFrame

MEASURES = ("llm_error", "entropy", "readability", "mdd")
_LEAST_WORDS = 5  # a grade of fewer words is noise
_MOST_PARSED = 300  # texts; the mean distance of so many is known to about 2 %


def measure(
    datasets: Mapping[str, Any] | Sequence[Any],
    *,
    measures: Sequence[str] | None = None,
    reader: Reader | None = None,
    parser: Parser | None = None,
    num_texts: int = 1500,
    window: int = 10,
    seed: int = 0,
) -> DataFrame:
    """Measure how complex data sets are: error of a reader, entropy, readability, mean dependency distance.

    Every measure is taken per text and averaged. Entropy grows with length, so ``entropy_window`` gives it on windows
    of equal length as well. Readability is Gunning's Fog (``fog``) and the Flesch-Kincaid grade, of texts of five words
    and more; Fog on lists and numbers is unstable, hence the medians. The dependency distance of a text leaves out the
    arcs of punctuation marks, which keep their places; up to 300 texts of a data set are parsed.

    Args:
        datasets: Name -> texts, ``LabelData``, ``PairData``, ``RetrievalData`` or an mteb task; or a list of tasks.
        measures: Some of ``"llm_error"``, ``"entropy"``, ``"readability"`` and ``"mdd"``; None for all that can be had,
            so ``"llm_error"`` only with a reader.
        reader: ``LLMErrorRate(...)``, or the offline stand-in ``ModelErrorRate()``, whose column is ``model_error``.
        parser: Parser for ``"mdd"``; None for the one that comes with the package. Use one parser for all data sets.
        num_texts: Texts of each data set, at most. Published: all.
        window: Words per window of ``entropy_window``.
        seed: Decides which texts.

    Returns:
        One row per data set. First the measures that a control should use (``llm_error`` or ``model_error``,
        ``entropy``, ``fog``, ``mdd``), then variants and descriptions; NaN where no text is long enough. ``attrs``
        holds parser, reader, prompts and sampled instances.

    Raises:
        InputError: a measure is unknown or lacks its reader, a data set is empty, is not in Latin letters, or has no
            right answers for the reader.
        MissingExtraError: the extra ``evaluate`` is not installed.

    Example:
        >>> frame = measure({"rhyme": ["a a b b"], "plain": ["The cat sat on the mat."]}, measures=["entropy"])
        >>> frame["entropy"].round(2).tolist()
        [1.0, 2.25]
    """
    require("pandas", extra="evaluate")
    from pandas import DataFrame

    chosen = _chosen(measures, reader)
    named = _named(datasets)
    if num_texts < 1:
        raise InputError(f"num_texts={num_texts} must be at least 1")
    parser = SpacyParser() if parser is None and "mdd" in chosen else parser
    data = {name: as_data(given) for name, given in named.items()}
    texts = {name: texts_of(each, num_texts=num_texts, seed=seed) for name, each in data.items()}
    for name, drawn in texts.items():
        if not drawn:
            raise InputError(f"datasets: {name} holds no text")
        english(drawn, name=f"datasets: {name}")
    rows: dict[str, dict[str, float]] = {name: {} for name in data}
    logged: dict[str, Any] = {"num_texts": num_texts, "seed": seed}
    if reader is not None and "llm_error" in chosen:
        logged |= _measure_errors(data, reader, rows)
    if "entropy" in chosen:
        _measure_entropy(texts, window, rows)
    if "readability" in chosen:
        _measure_readability(texts, rows)
    if parser is not None and "mdd" in chosen:
        logged["parser"] = parser.name
        for name, drawn in texts.items():
            rows[name]["mdd"] = _mean_distance(texts_of(drawn, num_texts=_MOST_PARSED, seed=seed), parser)
    for name, drawn in texts.items():
        rows[name] |= _described(drawn)
    frame = DataFrame.from_dict(rows, orient="index")
    frame.index.name = "dataset"
    first = [name for name in (*_controls(reader),) if name in frame.columns]
    frame = frame[first + [name for name in frame.columns if name not in first]]
    frame.attrs.update(logged)
    return frame


def controls_of(frame: DataFrame) -> DataFrame:
    """Keep the columns that a control should use: one per measure, without variants and descriptions.

    Args:
        frame: What ``measure`` gave.

    Returns:
        The frame with ``llm_error`` or ``model_error``, ``entropy``, ``fog`` and ``mdd``, as far as they were measured.

    Example:
        >>> list(controls_of(measure({"one": ["a b"]}, measures=["entropy"])).columns)
        ['entropy']
    """
    return frame[[name for name in ("llm_error", "model_error", "entropy", "fog", "mdd") if name in frame.columns]]


def _controls(reader: Reader | None) -> tuple[str, ...]:
    return (reader.column if reader is not None else "llm_error", "entropy", "fog", "mdd")


def _chosen(measures: Sequence[str] | None, reader: Reader | None) -> tuple[str, ...]:
    if measures is None:
        return MEASURES if reader is not None else MEASURES[1:]
    for name in measures:
        if name not in MEASURES:
            raise unknown_name("measure", name, MEASURES)
    if "llm_error" in measures and reader is None:
        raise InputError(
            "measures holds 'llm_error', which needs a reader: give reader=LLMErrorRate(answer), or the offline"
            " stand-in reader=ModelErrorRate()"
        )
    return tuple(measures)


def _named(datasets: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(datasets, Mapping):
        named = {str(name): given for name, given in datasets.items()}
    else:
        unnamed = [item for item in datasets if not hasattr(item, "metadata")]
        if unnamed:
            raise InputError(
                f"datasets holds a {type(unnamed[0]).__name__} without a name: give a dict from name to data set"
            )
        named = {task.metadata.name: task for task in datasets}
        if len(named) < len(datasets):
            raise InputError("datasets holds two tasks of the same name")
    if not named:
        raise InputError("datasets is empty: give at least one")
    return named


def _measure_errors(data: Mapping[str, Data], reader: Reader, rows: dict[str, dict[str, float]]) -> dict[str, Any]:
    logged: dict[str, Any] = {}
    for name, each in data.items():
        result = reader.error_rate(each)
        logged[name] = {"reader": result.reader, "prompts": result.prompts, "ids": list(result.ids)}
        column = reader.column
        rows[name] |= {
            column: result.rate.estimate,
            f"{column}_low": result.rate.low,
            f"{column}_high": result.rate.high,
        }
    return {"questions": logged}


def _measure_entropy(texts: Mapping[str, Sequence[str]], window: int, rows: dict[str, dict[str, float]]) -> None:
    words = {name: [tokens(text) for text in drawn] for name, drawn in texts.items()}
    smallest = min(sum(map(len, each)) for each in words.values())  # one size of sample for the whole comparison
    for name, each in words.items():
        rows[name] |= {
            "entropy": _mean([entropy(text) for text in each]),
            "entropy_window": _mean([window_entropy(text, window=window) for text in each]),
            "entropy_corpus": corpus_entropy(each, num_words=smallest),
        }


def _measure_readability(texts: Mapping[str, Sequence[str]], rows: dict[str, dict[str, float]]) -> None:
    for name, drawn in texts.items():
        counts = [found for text in drawn if (found := count(text)).words >= _LEAST_WORDS]
        for column, grades in (
            ("fog", [each.fog for each in counts]),
            ("flesch_kincaid", [each.flesch_kincaid for each in counts]),
        ):
            rows[name] |= {column: _mean(grades), f"{column}_median": float(np.median(grades)) if grades else math.nan}


def _mean_distance(texts: Sequence[str], parser: Parser) -> float:
    found = [dependency_distance(trees) for trees in parser.parse(texts)]
    return _mean([each.mean for each in found if isinstance(each, Distance)])


def _described(texts: Sequence[str]) -> dict[str, float]:
    counts = [count(text) for text in texts]
    total = Counts(*(sum(getattr(each, field) for each in counts) for field in Counts.__dataclass_fields__))
    return {
        "sentence_length": total.words / total.sentences if total.sentences else math.nan,
        "token_length": total.letters / total.words if total.words else math.nan,
        "syllables_per_token": total.syllables / total.words if total.words else math.nan,
        "texts": float(len(texts)),
    }


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
