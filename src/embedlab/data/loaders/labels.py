"""Texts with one class each: one table of sets, one function that reads any of them."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from embedlab._core.errors import unknown_name
from embedlab.data.datasets import LabelData
from embedlab.data.loaders.opening import csv_rows, data_file, open_text

Rows = Iterable[tuple[str, str]]  # text, class

_RESEARCH = "not stated; research"
_STACKOVERFLOW_TAGS = (
    "wordpress", "oracle", "svn", "apache", "excel", "matlab", "visual-studio", "cocoa", "osx", "bash",
    "spring", "hibernate", "scala", "sharepoint", "ajax", "qt", "drupal", "linq", "haskell", "magento",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelSet:
    """What is known about a set of labelled texts, and how it is read.

    Args:
        about: One line with real counts.
        splits: What ``read`` needs to know for each split. ``"all"`` is the only split of sets that came without any;
            the last one is what a task tests on.
        read: Gives the rows of a split.
        language: Language and script.
        licence: As stated by the source.
    """

    about: str
    splits: Mapping[str, str]
    read: Callable[[str], Rows]
    language: str = "eng-Latn"
    licence: str = _RESEARCH


def load_labels(name: str, split: str | None = None) -> LabelData:
    """Load a set of texts with one class each.

    Args:
        name: One of ``LABEL_SETS``, which says what each holds.
        split: One of the set's splits; None for the one that is tested on, or all there is.

    Returns:
        Texts and classes.

    Raises:
        InputError: there is no such set or split.
        MissingDataError: its files are not in ``EMBEDLAB_DATA``.
    """
    if name not in LABEL_SETS:
        raise unknown_name("labelled set", name, LABEL_SETS)
    known = LABEL_SETS[name]
    split = split or list(known.splits)[-1]
    if split not in known.splits:
        raise unknown_name(f"split of {name}", split, known.splits)
    rows = list(known.read(known.splits[split]))
    return LabelData([text for text, _ in rows], [label for _, label in rows])


def load_banking77(split: str = "test") -> LabelData:
    """Load Banking77: questions of bank customers, 77 intents.

    Args:
        split: ``"train"``, 10,003 questions, or ``"test"``, 3,080.

    Returns:
        Questions and intents.

    Raises:
        InputError: there is no such split.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Casanueva et al. (2020), Efficient Intent Detection with Dual Sentence Encoders.
    """
    return load_labels("banking77", split)


def _csv_file(file: str, *, folder: str, text: str, label: str) -> Iterator[tuple[str, str]]:
    """Read columns of a CSV file; rows that repeat the header are left out."""
    for row in csv_rows(open_text(folder, file)):
        if row[label] != label:
            yield row[text], row[label]


def _tab_file(file: str, *, folder: str, label_first: bool) -> Iterator[tuple[str, str]]:
    for line in open_text(folder, file).splitlines():
        first, second = line.split("\t", 1)
        yield (second, first) if label_first else (first, second)


def _agnews(file: str) -> Iterator[tuple[str, str]]:
    classes = open_text("agnews", "classes.txt").split()
    for number, title, text in csv.reader(io.StringIO(open_text("agnews", file), newline="")):
        yield f"{title} {text}".replace("\\", " "), classes[int(number) - 1]


def _clinc(part: str) -> Iterator[tuple[str, str]]:
    yield from json.loads(open_text("clinc150", "data_full.json.gz"))[part]


def _medical(file: str) -> Iterator[tuple[str, str]]:
    listed = csv_rows(open_text("medical-abstracts", "medical_tc_labels.csv"))
    names = {row["condition_label"]: row["condition_name"] for row in listed}
    for row in csv_rows(open_text("medical-abstracts", file)):
        yield row["medical_abstract"], names[row["condition_label"]]


def _stackoverflow(file: str) -> Iterator[tuple[str, str]]:
    numbers = open_text("stackoverflow-titles", "label_StackOverflow.txt.gz").split()
    titles = open_text("stackoverflow-titles", file).splitlines()
    for title, number in zip(titles, numbers, strict=True):
        yield title, _STACKOVERFLOW_TAGS[int(number) - 1]


def _questions(file: str, *, fine: bool) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(data_file("nltk-classification", "qc.zip")) as archive:
        for line in archive.read(f"qc/{file}").decode("latin-1").splitlines():
            label, text = line.split(" ", 1)
            yield text, label if fine else label.split(":")[0]


def _two_files(archive_name: str, *, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(data_file("nltk-classification", f"{archive_name}.zip")) as archive:
        for file, label in files.items():
            for line in archive.read(f"{archive_name}/{file}").decode().split("\n"):
                if line.strip():
                    yield line.strip(), label


def _reviews(archive_name: str) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(data_file("nltk-classification", f"{archive_name}.zip")) as archive:
        for file in sorted(archive.namelist()):
            if file.endswith(".txt"):
                yield archive.read(file).decode("utf-8", "replace").strip(), file.split("/")[1]


def _text_graph(file: str) -> Iterator[tuple[str, str]]:
    for node in json.loads(open_text("text-graphs", file)):
        yield " ".join(node["text"].split()), str(node["label"])


def _mahasent(folder: str, pattern: str, splits: tuple[str, str, str], text: str, about: str) -> LabelSet:
    files = {key: pattern.format(part) for key, part in zip(("train", "validation", "test"), splits, strict=True)}
    read = partial(_csv_file, folder=folder, text=text, label="label")
    return LabelSet(about, files, read, "mar-Deva", "CC BY-NC-SA 4.0")


def _mahasents() -> dict[str, LabelSet]:
    head, folder = "L3Cube-MahaSent-MD__", "marathi-mahasent-md"
    counts = "12,000/1,500/1,500, 3 classes"
    short, long = ("train", "valid", "test"), ("Train", "Val", "Test")
    return {
        "mahasent-tweets": _mahasent(
            folder,
            head + "MahaSent_GT__tweets-{}.csv.gz",
            short,
            "tweet",
            f"Sentiment of Marathi tweets: {counts}, 2 texts empty",
        ),
        "mahasent-reviews": _mahasent(
            folder,
            head + "MahaSent_MR__MahaSent_MR_{}.csv.gz",
            long,
            "marathi_sentence",
            f"Sentiment of Marathi film reviews: {counts}",
        ),
        "mahasent-subtitles": _mahasent(
            folder,
            head + "MahaSent_ST__MahaSent_ST_{}.csv.gz",
            long,
            "marathi_text",
            f"Sentiment of Marathi subtitles: {counts}",
        ),
    }


_TRAIN_TEST = {"train": "train.csv.gz", "test": "test.csv.gz"}

#: Sets of labelled texts by name.
LABEL_SETS: dict[str, LabelSet] = {
    "agnews": LabelSet(
        "AG News: 7,600 news items, 4 sections", {"all": "test.csv.gz"}, _agnews, licence="non-commercial research"
    ),
    "banking77": LabelSet(
        "Banking77: 10,003/3,080 questions of bank customers, 77 intents",
        _TRAIN_TEST,
        partial(_csv_file, folder="banking77", text="text", label="category"),
        licence="CC BY 4.0",
    ),
    "biomedical-titles": LabelSet(
        "20,000 titles of biomedical papers, 20 subjects",
        {"all": "biomedical_true_text.gz"},
        partial(_tab_file, folder="biomedical-titles", label_first=True),
    ),
    "citeseer-texts": LabelSet(
        "1,274 abstracts of Citeseer, 6 fields", {"all": "SubCiteseer.json.gz"}, _text_graph, licence="MIT"
    ),
    "clinc150": LabelSet(
        "CLINC150: 15,000/3,000/4,500 requests to an assistant, 150 intents; oos_* are 100/100/1,000 out of scope",
        {part: part for part in ("oos_train", "oos_val", "oos_test", "train", "val", "test")},
        _clinc,
        licence="CC BY 3.0",
    ),
    "cora-texts": LabelSet("1,354 abstracts of Cora, 7 fields", {"all": "SubCora.json.gz"}, _text_graph, licence="MIT"),
    "mahanews": LabelSet(
        "MahaNews: 2,750/2,761 Marathi headlines, 12 sections; train is the published validation part",
        {"train": "SHC_Valid.csv.gz", "test": "SHC_Test.csv.gz"},
        partial(_csv_file, folder="marathi-mahanews", text="Text", label="Label"),
        "mar-Deva",
        "CC BY-NC-SA 4.0",
    ),
    **_mahasents(),
    "medical-abstracts": LabelSet(
        "2,888 medical abstracts, 5 conditions", {"all": "medical_tc_test.csv.gz"}, _medical, licence="CC BY-SA 3.0"
    ),
    "movie-reviews": LabelSet("2,000 long film reviews, 2 classes", {"all": "movie_reviews"}, _reviews),
    "sentence-polarity": LabelSet(
        "10,662 sentences of film reviews, 2 classes",
        {"all": "sentence_polarity"},
        partial(_two_files, files={"rt-polarity.neg": "neg", "rt-polarity.pos": "pos"}),
    ),
    "sst2": LabelSet(
        "SST-2: 6,920/872/1,821 sentences of film reviews, 2 classes",
        {"train": "train.tsv.gz", "dev": "dev.tsv.gz", "test": "test.tsv.gz"},
        partial(_tab_file, folder="sst2", label_first=False),
    ),
    "stackoverflow-titles": LabelSet(
        "20,000 titles of Stack Overflow, 20 tags",
        {"all": "title_StackOverflow.txt.gz"},
        _stackoverflow,
        licence="CC BY-SA",
    ),
    "subjectivity": LabelSet(
        "10,000 sentences, from plots (objective) or reviews (subjective)",
        {"all": "subjectivity"},
        partial(_two_files, files={"plot.tok.gt9.5000": "objective", "quote.tok.gt9.5000": "subjective"}),
    ),
    "trec": LabelSet(
        "TREC questions: 5,452/500, 6 kinds of answer",
        {"train": "train.txt", "test": "test.txt"},
        partial(_questions, fine=False),
    ),
    "trec-fine": LabelSet(
        "TREC questions: 5,452/500, 50 kinds of answer",
        {"train": "train.txt", "test": "test.txt"},
        partial(_questions, fine=True),
    ),
}
