"""Pairs of sentences: with how alike people found them, or translations of one another."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from embedlab._core.errors import unknown_name
from embedlab.data.datasets import BitextData, PairData
from embedlab.data.loaders.opening import csv_rows, open_text

Rows = Iterable[tuple[str, str, float]]  # first, second, score


@dataclass(frozen=True, slots=True)
class PairSet:
    """What is known about a set of scored pairs, and how it is read.

    Args:
        about: One line with real counts.
        splits: What ``read`` needs to know for each split; the last one is what a task tests on.
        read: Gives the rows of a split.
        language: Language and script.
        licence: As stated by the source.
    """

    about: str
    splits: Mapping[str, str]
    read: Callable[[str], Rows]
    language: str = "eng-Latn"
    licence: str = "SemEval STS"


def load_pairs(name: str, split: str | None = None) -> PairData:
    """Load a set of sentence pairs that people scored.

    Args:
        name: One of ``PAIR_SETS``, which says what each holds.
        split: One of the set's splits; None for the one that is tested on.

    Returns:
        The pairs; without labels.

    Raises:
        InputError: there is no such set or split.
        MissingDataError: its files are not in ``EMBEDLAB_DATA``.
    """
    if name not in PAIR_SETS:
        raise unknown_name("scored set", name, PAIR_SETS)
    known = PAIR_SETS[name]
    split = split or list(known.splits)[-1]
    if split not in known.splits:
        raise unknown_name(f"split of {name}", split, known.splits)
    rows = list(known.read(known.splits[split]))
    return PairData([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], [])


def load_stsb(split: str = "test", *, language: str = "en") -> PairData:
    """Load the STS benchmark: sentence pairs, scored 0 (unrelated) to 5 (same meaning).

    Args:
        split: ``"train"``, 5,749 pairs, ``"dev"``, 1,500, or ``"test"``, 1,379.
        language: ``"en"``, or for the test split ``"de"``, ``"es"``, ``"fr"``, ``"hi"``, ``"mr"`` or ``"zh"``, machine
            translated; ``"mr"`` has the dev split too.

    Returns:
        The pairs.

    Raises:
        InputError: there is no such language or split.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Cer et al. (2017), SemEval-2017 Task 1.
    """
    name = "stsb" if language == "en" else f"stsb-{language}"
    if name not in PAIR_SETS:
        known = [key.partition("-")[2] or "en" for key in PAIR_SETS if key.partition("-")[0] == "stsb"]
        raise unknown_name("language of stsb", language, known)
    return load_pairs(name, split)


def load_sick(split: str = "test") -> PairData:
    """Load SICK: sentence pairs with relatedness from 1 to 5 and entailment.

    Args:
        split: ``"train"``, ``"trial"`` or ``"test"``.

    Returns:
        The pairs with their labels.

    Raises:
        InputError: there is no such split.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Marelli et al. (2014), A SICK cure for the evaluation of compositional distributional semantic models.
    """
    names = {"train": "SICK_train.txt.gz", "trial": "SICK_trial.txt.gz", "test": "SICK_test_annotated.txt.gz"}
    if split not in names:
        raise unknown_name("split", split, names)
    rows = list(csv.DictReader(open_text("sick", names[split]).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    return PairData(
        [row["sentence_A"] for row in rows],
        [row["sentence_B"] for row in rows],
        [float(row["relatedness_score"]) for row in rows],
        [row["entailment_judgment"] for row in rows],
    )


def load_tatoeba(language: str) -> BitextData:
    """Load 1,000 sentences of Tatoeba with their English translations.

    Args:
        language: One of ``TATOEBA_LANGUAGES``, by its code of three letters.

    Returns:
        The sentences and their translations.

    Raises:
        InputError: there is no such language.
        MissingDataError: the files are not in ``EMBEDLAB_DATA``.

    References:
        Artetxe and Schwenk (2019), Massively Multilingual Sentence Embeddings for Zero-Shot Cross-Lingual Transfer.
    """
    if language not in TATOEBA_LANGUAGES:
        raise unknown_name("language of tatoeba", language, TATOEBA_LANGUAGES)
    first, second = (
        open_text("tatoeba", f"tatoeba.{language}-eng.{side}.gz").removesuffix("\n").split("\n")
        for side in (language, "eng")
    )
    return BitextData(first, second, (f"{language}-{TATOEBA_LANGUAGES[language]}", "eng-Latn"))


def _csv_file(file: str, *, folder: str) -> Iterator[tuple[str, str, float]]:
    for first, second, score in csv.reader(io.StringIO(open_text(folder, file), newline="")):
        yield first, second, float(score)


def _tab_file(file: str, *, folder: str) -> Iterator[tuple[str, str, float]]:
    """Read the benchmark's own form: genre, file, year, number, score and the two sentences."""
    for line in open_text(folder, file).splitlines():
        *_, score, first, second = line.split("\t")
        yield first, second, float(score)


def _mahasts(file: str) -> Iterator[tuple[str, str, float]]:
    for row in csv_rows(open_text("indic-sts", file)):
        yield row["Sentence1"], row["Sentence2"], float(row["Label"])


def _semeval(files: str, *, year: int) -> Iterator[tuple[str, str, float]]:
    """Read the files of one year; pairs that were published without a score are left out."""
    for part in files.split():
        text = open_text("semeval-sts", f"data__sts__semeval-sts__{year}__{part}.tsv.gz")
        for line in text.split("\n"):
            score, _, pair = line.partition("\t")
            if score.strip():
                first, second = pair.split("\t")
                yield first.strip(), second.strip(), float(score)


def _stsb(language: str, code: str) -> PairSet:
    about = f"STS benchmark, machine translated into {code}: 1,379 pairs"
    read = partial(_csv_file, folder="stsb")
    return PairSet(about, {"test": f"stsb-{language}-test.csv.gz"}, read, code, "CC BY-SA 4.0, as STS-B")


_MAHA = "L3Cube-MahaSTS__{}.csv.gz"
_INDIC = "STSb-translated__{}.tsv.gz"

#: Sets of scored pairs by name.
PAIR_SETS: dict[str, PairSet] = {
    "mahasts": PairSet(
        "MahaSTS: 840/1,692 pairs of Marathi sentences",
        {"validation": _MAHA.format("val"), "test": _MAHA.format("test")},
        _mahasts,
        "mar-Deva",
        "not stated; research",
    ),
    "sts12": PairSet(
        "STS 2012 without its video captions: 1,484/2,358 pairs",
        {"train": "MSRpar.train SMTeuroparl.train", "test": "MSRpar.test OnWN.test SMTeuroparl.test SMTnews.test"},
        partial(_semeval, year=2012),
    ),
    "sts13": PairSet(
        "STS 2013: 1,500 pairs", {"test": "FNWN.test OnWN.test headlines.test"}, partial(_semeval, year=2013)
    ),
    "sts14": PairSet(
        "STS 2014: 3,750 pairs",
        {"test": "OnWN.test deft-forum.test deft-news.test headlines.test images.test tweet-news.test"},
        partial(_semeval, year=2014),
    ),
    "sts15": PairSet(
        "STS 2015: 3,000 pairs",
        {"test": "answers-forums.test answers-students.test belief.test headlines.test images.test"},
        partial(_semeval, year=2015),
    ),
    "sts16": PairSet(
        "STS 2016: 1,186 pairs",
        {"test": "answer-answer.test headlines.test plagiarism.test postediting.test question-question.test"},
        partial(_semeval, year=2016),
    ),
    "stsb": PairSet(
        "STS benchmark: 5,749/1,500/1,379 pairs",
        {split: f"stsb-en-{split}.csv.gz" for split in ("train", "dev", "test")},
        partial(_csv_file, folder="stsb"),
        licence="CC BY-SA 4.0",
    ),
    "stsb-de": _stsb("de", "deu-Latn"),
    "stsb-es": _stsb("es", "spa-Latn"),
    "stsb-fr": _stsb("fr", "fra-Latn"),
    "stsb-hi": PairSet(
        "STS benchmark, machine translated into hin-Deva: 1,379 pairs",
        {"test": _INDIC.format("hindi__sts-test-hi")},
        partial(_tab_file, folder="indic-sts"),
        "hin-Deva",
        "not stated; research",
    ),
    "stsb-mr": PairSet(
        "STS benchmark, machine translated into mar-Deva: 1,500/1,379 pairs",
        {"dev": _INDIC.format("marathi__sts-dev-mr"), "test": _INDIC.format("marathi__sts-test-mr")},
        partial(_tab_file, folder="indic-sts"),
        "mar-Deva",
        "not stated; research",
    ),
    "stsb-zh": _stsb("zh", "cmn-Hans"),
}

#: Languages of Tatoeba and their scripts.
TATOEBA_LANGUAGES: dict[str, str] = {
    "ara": "Arab",
    "cmn": "Hans",
    "deu": "Latn",
    "fra": "Latn",
    "hin": "Deva",
    "ita": "Latn",
    "jpn": "Jpan",
    "mar": "Deva",
    "nld": "Latn",
    "por": "Latn",
    "rus": "Cyrl",
    "spa": "Latn",
    "tur": "Latn",
    "vie": "Latn",
}
