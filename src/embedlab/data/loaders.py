"""Data sets for measuring, from the ``EMBEDLAB_DATA`` folder or any folder in BEIR's form; nothing is fetched."""

from __future__ import annotations

import ast
import csv
import gzip
import html
import io
import json
import os
import re
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from embedlab._core.errors import InputError, MissingDataError, unknown_name
from embedlab.data.datasets import LabelData, Package, PairData, RetrievalData, Text

#: What `find_files` leaves out of the standard library: tests, demonstrations and other people's packages.
STDLIB_EXCLUDE = ("test", "tests", "idle_test", "idlelib", "turtledemo", "lib2to3", "*-packages", "*.txt", "*.rst")


def data_file(*parts: str) -> Path:
    """Find a file of the ``EMBEDLAB_DATA`` folder.

    Args:
        *parts: Path below the folder.

    Returns:
        The path of an existing file.

    Raises:
        MissingDataError: the variable is not set, or the file is not there.
    """
    folder = os.environ.get("EMBEDLAB_DATA")
    wanted = "/".join(parts)
    if not folder:
        raise MissingDataError(
            f"{wanted} is needed: set EMBEDLAB_DATA to the folder that holds it (nothing is fetched)"
        )
    path = Path(folder, *parts)
    if not path.is_file():
        raise MissingDataError(f"{wanted} is not in EMBEDLAB_DATA ({folder}): put it there or set another folder")
    return path


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
        rows = list(_csv(archive.read("corpus_train.csv").decode()))
        claims = list(_csv(archive.read("claims_train.csv").decode())) if split == "train" else []
    corpus = {row["doc_id"]: Text(row["title"], _sentences(row["abstract"])) for row in rows}
    if split == "train":
        queries = {row["id"]: row["claim"] for row in claims}
        qrels: dict[str, dict[str, int]] = {}
        for row in claims:
            qrels.setdefault(row["id"], {}).update(dict.fromkeys(re.findall(r"\d+", row["cited_doc_ids"]), 1))
    else:
        topics = _open_text("beir-qrels", "topics.beir-v1.0.0-scifact.test.tsv.gz").splitlines()
        queries = dict(line.split("\t", 1) for line in topics)
        qrels = _qrels(_open_text("beir-qrels", "qrels.beir-v1.0.0-scifact.test.txt"))
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
        for entry in _entries("doc", _open_text("cranfield", "cran.all.1400.xml.gz"))
    }
    topics = _entries("top", _open_text("cranfield", "cran.qry.xml.gz"))
    queries = {str(place): _flat(_tag("title", entry)) for place, entry in enumerate(topics, start=1)}
    qrels = _qrels(_open_text("cranfield", "cranqrel.trec.txt.gz"))
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
    topics = _entries("DOC", _open_text("beir-qrels", "topics.cacm.txt"))
    queries = {_tag("DOCNO", entry): _flat(entry.split("</DOCNO>")[1]) for entry in topics}
    qrels = _qrels(_open_text("beir-qrels", "qrels.cacm.txt"))
    return _judged(
        "cacm", corpus, queries, {q: {f"CACM-{int(d[5:])}": g for d, g in r.items()} for q, r in qrels.items()}
    )


def load_beir(folder: str | Path, *, split: str = "test") -> RetrievalData:
    """Load a retrieval set in the form BEIR gave them: corpus.jsonl, queries.jsonl and qrels/<split>.tsv.

    Args:
        folder: The folder of the set; its name becomes the name.
        split: Which judgements.

    Returns:
        The collection.

    Raises:
        MissingDataError: one of the three files is not there.
        InputError: a line is not what it should be.

    References:
        Thakur et al. (2021), BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models.
    """
    root = Path(folder)
    corpus = {
        str(row["_id"]): Text(row.get("title") or "", row.get("text") or "")
        for row in _json_lines(root / "corpus.jsonl")
    }
    queries = {str(row["_id"]): row["text"] for row in _json_lines(root / "queries.jsonl")}
    judgements = root / "qrels" / f"{split}.tsv"
    if not judgements.is_file():
        raise MissingDataError(f"{judgements} is missing: choose another split or complete the folder")
    lines = (line.split("\t") for line in judgements.read_text(encoding="utf-8").splitlines()[1:])
    rows = [(query, document, int(float(grade))) for query, document, grade in lines]
    return _judged(root.name, corpus, queries, _grades(rows))


def load_stsb(split: str = "test", *, language: str = "en") -> PairData:
    """Load the STS benchmark: sentence pairs, scored 0 (unrelated) to 5 (same meaning).

    Args:
        split: ``"train"``, ``"dev"`` or ``"test"``.
        language: ``"en"``, or for the test split ``"de"``, ``"es"``, ``"fr"`` or ``"zh"``, machine translated.

    Returns:
        The pairs.

    Raises:
        MissingDataError: there is no such file in ``EMBEDLAB_DATA``.

    References:
        Cer et al. (2017), SemEval-2017 Task 1.
    """
    rows = list(csv.reader(io.StringIO(_open_text("stsb", f"stsb-{language}-{split}.csv.gz"), newline="")))
    return PairData([row[0] for row in rows], [row[1] for row in rows], [float(row[2]) for row in rows], [])


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
    rows = list(csv.DictReader(_open_text("sick", names[split]).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    return PairData(
        [row["sentence_A"] for row in rows],
        [row["sentence_B"] for row in rows],
        [float(row["relatedness_score"]) for row in rows],
        [row["entailment_judgment"] for row in rows],
    )


def load_banking77(split: str = "test") -> LabelData:
    """Load Banking77: questions of bank customers, 77 intents.

    Args:
        split: ``"train"`` or ``"test"``.

    Returns:
        Questions and intents.

    Raises:
        MissingDataError: there is no such file in ``EMBEDLAB_DATA``.

    References:
        Casanueva et al. (2020), Efficient Intent Detection with Dual Sentence Encoders.
    """
    rows = list(_csv(_open_text("banking77", f"{split}.csv.gz")))
    return LabelData([row["text"] for row in rows], [row["category"] for row in rows])


def load_debian_packages() -> Iterator[Package]:
    """Go through the 63,436 packages of Debian 12.

    Yields:
        Packages by name.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.
    """
    with gzip.open(data_file("debian-packages", "packages.jsonl.gz"), "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            long = re.sub(r"(?m)^\.$", "", row["long"])
            yield Package(row["name"], row["section"], row["short"], long, tuple(row["tags"]), tuple(row["depends"]))


def stdlib_folder() -> Path:
    """Return the folder of the running interpreter's standard library, whose documentation is everywhere at hand."""
    return Path(sysconfig.get_paths()["stdlib"])


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


def _open_text(*parts: str) -> str:
    path = data_file(*parts)
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")


def _csv(text: str) -> Iterator[dict[str, str]]:
    return iter(csv.DictReader(io.StringIO(text, newline="")))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise MissingDataError(f"{path} is missing: a BEIR folder has corpus.jsonl, queries.jsonl and qrels/")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict) or "_id" not in row:
                    raise InputError(f"{path}, line {number}: an object with _id is needed, got {line[:80]!r}")
                yield row


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
