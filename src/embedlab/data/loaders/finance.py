"""Finance: reports with tables and questions, sentences with sentiment."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from embedlab._core.errors import unknown_name
from embedlab.data.datasets import LabelData, RetrievalData, Text
from embedlab.data.loaders.opening import data_file, open_text

_TATQA_FILES = {"dev": "tatqa_dataset_dev.json.gz", "train": "tatqa_dataset_test_gold.json.gz"}
_PHRASEBANK_FILES = {"all": "Sentences_AllAgree.txt.gz", "half": "Sentences_50Agree.txt.gz"}


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of a financial report, with the paragraphs around it.

    Args:
        id: Its id in the set.
        rows: Cells as printed, row by row; a cell may be empty.
        paragraphs: Ids of the paragraphs printed with it, in order.
    """

    id: str
    rows: tuple[tuple[str, ...], ...]
    paragraphs: tuple[str, ...]


def load_tatqa(split: str = "dev") -> RetrievalData:
    """Load TAT-QA as retrieval: paragraphs of financial reports, and questions whose answer is in the text.

    Questions answered from the table alone are left out. A paragraph is relevant if the annotators name it.

    Args:
        split: ``"dev"`` to measure on: 1,356 paragraphs and 896 questions. ``"train"``: what is published as the test
            part with its answers, to train on, without the paragraphs (and their questions) that also occur in dev.

    Returns:
        The collection; ids are those of the set.

    Raises:
        InputError: there is no such split.
        MissingDataError: the files are not in ``EMBEDLAB_DATA``.

    References:
        Zhu et al. (2021), TAT-QA: A Question Answering Benchmark on a Hybrid of Tabular and Textual Content in Finance.
    """
    contexts = _tatqa(split)
    corpus = {entry["uid"]: Text("", entry["text"]) for each in contexts for entry in each["paragraphs"]}
    if split == "train":
        seen = {_plain(entry["text"]) for each in _tatqa("dev") for entry in each["paragraphs"]}
        corpus = {uid: text for uid, text in corpus.items() if _plain(text.text) not in seen}
    queries, qrels = {}, {}
    for each in contexts:
        by_order = {str(entry["order"]): entry["uid"] for entry in each["paragraphs"]}
        for question in each["questions"]:
            relevant = [by_order[order] for order in question["rel_paragraphs"] if order in by_order]
            grades = {uid: 1 for uid in relevant if uid in corpus}
            if question["answer_from"] != "table" and grades:
                queries[question["uid"]], qrels[question["uid"]] = question["question"], grades
    return RetrievalData(f"tatqa-{split}", corpus, queries, qrels)


def load_tatqa_tables(split: str = "dev") -> list[ReportTable]:
    """Load the tables of TAT-QA.

    Args:
        split: ``"dev"`` or ``"train"``, as for ``load_tatqa``.

    Returns:
        One table for each report context.

    Raises:
        InputError: there is no such split.
        MissingDataError: the files are not in ``EMBEDLAB_DATA``.
    """
    return [
        ReportTable(
            each["table"]["uid"],
            tuple(tuple(row) for row in each["table"]["table"]),
            tuple(entry["uid"] for entry in sorted(each["paragraphs"], key=lambda entry: int(entry["order"]))),
        )
        for each in _tatqa(split)
    ]


def load_phrasebank(agreement: str = "all") -> LabelData:
    """Load the Financial PhraseBank: sentences of company news, positive, negative or neutral for an investor.

    The licence (CC BY-NC-SA 3.0) allows no commercial use.

    Args:
        agreement: ``"all"`` for sentences on which all annotators agree, ``"half"`` where at least half of them do.

    Returns:
        Sentences and sentiments.

    Raises:
        InputError: there is no such agreement.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Malo et al. (2014), Good debt or bad debt: Detecting semantic orientations in economic texts.
    """
    if agreement not in _PHRASEBANK_FILES:
        raise unknown_name("agreement", agreement, _PHRASEBANK_FILES)
    path = data_file("financial-phrasebank", _PHRASEBANK_FILES[agreement])
    lines = gzip.decompress(path.read_bytes()).decode("latin-1").splitlines()
    rows = [line.rpartition("@") for line in lines if line.strip()]
    return LabelData([sentence.strip() for sentence, _, _ in rows], [label.strip() for _, _, label in rows])


def _tatqa(split: str) -> list[dict[str, Any]]:
    if split not in _TATQA_FILES:
        raise unknown_name("split", split, _TATQA_FILES)
    contexts: list[dict[str, Any]] = _read_json(_TATQA_FILES[split])
    return contexts


@cache
def _read_json(name: str) -> Any:
    return json.loads(open_text("tat-qa", name))


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
