"""Test collections: documents, queries, and which documents answer which query."""

from __future__ import annotations

import ast
import html
import re
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from embedlab._core.errors import unknown_name
from embedlab.data.datasets import RetrievalData, Text
from embedlab.data.loaders.opening import csv_rows, data_file, open_text


def load_scifact(split: str = "test") -> RetrievalData:
    """Load SciFact: 5,183 abstracts and scientific claims; the abstracts that speak to a claim are relevant.

    Args:
        split: ``"test"``, the 300 claims of BEIR, or ``"train"``, 809 others.

    Returns:
        The collection.

    Raises:
        InputError: there is no such split.
        MissingDataError: the files are not in ``EMBEDLAB_DATA``.

    References:
        Wadden et al. (2020), Fact or Fiction: Verifying Scientific Claims; Thakur et al. (2021), BEIR.
    """
    if split not in ("test", "train"):
        raise unknown_name("split", split, ["test", "train"])
    with zipfile.ZipFile(data_file("scifact", "scifact.zip")) as archive:
        rows = list(csv_rows(archive.read("corpus_train.csv").decode()))
        claims = list(csv_rows(archive.read("claims_train.csv").decode())) if split == "train" else []
    corpus = {row["doc_id"]: Text(row["title"], _sentences(row["abstract"])) for row in rows}
    if split == "train":
        queries = {row["id"]: row["claim"] for row in claims}
        qrels: dict[str, dict[str, int]] = {}
        for row in claims:
            qrels.setdefault(row["id"], {}).update(dict.fromkeys(re.findall(r"\d+", row["cited_doc_ids"]), 1))
    else:
        topics = open_text("beir-qrels", "topics.beir-v1.0.0-scifact.test.tsv.gz").splitlines()
        queries = dict(line.split("\t", 1) for line in topics)
        qrels = _qrels(open_text("beir-qrels", "qrels.beir-v1.0.0-scifact.test.txt"))
    return _judged("scifact", corpus, queries, qrels)


def load_cranfield() -> RetrievalData:
    """Load Cranfield: 1,400 abstracts on aerodynamics, two of them empty, and 225 questions.

    The judgements number the questions by position, not by their printed number; a grade above 0 is relevant.

    Returns:
        The collection.

    Raises:
        MissingDataError: the files are not in ``EMBEDLAB_DATA``.

    References:
        Cleverdon (1967), The Cranfield tests on index language devices.
    """
    corpus = {
        _tag("docno", entry): Text(_flat(_tag("title", entry)), _flat(_tag("text", entry)))
        for entry in _entries("doc", open_text("cranfield", "cran.all.1400.xml.gz"))
    }
    topics = _entries("top", open_text("cranfield", "cran.qry.xml.gz"))
    queries = {str(place): _flat(_tag("title", entry)) for place, entry in enumerate(topics, start=1)}
    qrels = _qrels(open_text("cranfield", "cranqrel.trec.txt.gz"))
    return _judged("cranfield", corpus, queries, {query: dict.fromkeys(grades, 1) for query, grades in qrels.items()})


def load_cacm() -> RetrievalData:
    """Load CACM: 3,204 titles and abstracts of the Communications of the ACM, and the judged questions.

    Returns:
        The collection; citation lists and dates are left out, authors and keywords stay.

    Raises:
        MissingDataError: the files are not in ``EMBEDLAB_DATA``.

    References:
        Fox (1983), Characterization of two new experimental collections.
    """
    corpus: dict[str, Text] = {}
    with tarfile.open(data_file("cacm", "cacm.tar.gz")) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            page = html.unescape(_tag("pre", stream.read().decode("utf-8", "replace")))
            page = re.sub(r"(?m)^(\d+\t\d+\t\d+|CACM [A-Z][a-z]+, \d{4}|CA\d{6}.*)$", "", page)
            title, _, rest = page.strip().partition("\n\n")
            corpus[f"CACM-{int(Path(member.name).stem.split('-')[1])}"] = Text(_flat(title), _flat(rest))
    topics = _entries("DOC", open_text("beir-qrels", "topics.cacm.txt"))
    queries = {_tag("DOCNO", entry): _flat(entry.split("</DOCNO>")[1]) for entry in topics}
    qrels = _qrels(open_text("beir-qrels", "qrels.cacm.txt"))
    return _judged(
        "cacm", corpus, queries, {q: {f"CACM-{int(d[5:])}": g for d, g in r.items()} for q, r in qrels.items()}
    )


def _judged(
    name: str, corpus: dict[str, Text], queries: dict[str, str], qrels: dict[str, dict[str, int]]
) -> RetrievalData:
    """Keep the queries that have something to find."""
    kept = {query: grades for query, grades in qrels.items() if query in queries}
    return RetrievalData(name, corpus, {query: text for query, text in queries.items() if query in kept}, kept)


def _grades(rows: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for query, document, grade in rows:
        if grade > 0:
            qrels.setdefault(query, {})[document] = grade
    return qrels


def _qrels(text: str) -> dict[str, dict[str, int]]:
    rows = (line.split() for line in text.splitlines() if line.strip())
    return _grades((query, document, int(grade)) for query, _, document, grade in rows)


def _entries(tag: str, text: str) -> list[str]:
    return re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)


def _tag(tag: str, text: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return found[1].strip() if found else ""


def _flat(text: str) -> str:
    return " ".join(text.split())


def _sentences(array: str) -> str:
    """Undo the printed form of an array of strings, which has no commas: read it literal by literal."""
    literals = re.findall(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", array, re.DOTALL)
    return " ".join(str(ast.literal_eval(literal)) for literal in literals)
