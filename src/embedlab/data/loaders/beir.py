"""Test collections in the form BEIR gave them, read strictly: what is wrong is said with its file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from embedlab._core.errors import InputError, MissingDataError
from embedlab.data.datasets import RetrievalData, Text

_HEADER_WORDS = ("score", "query-id", "query_id", "qid", "corpus-id", "grade", "relevance")


def load_beir(
    folder: str | Path, *, split: str = "test", on_missing: Literal["error", "drop"] = "error"
) -> RetrievalData:
    """Load a retrieval set in the form BEIR gave them: corpus.jsonl, queries.jsonl and qrels/<split>.tsv.

    Args:
        folder: The folder of the set; its name becomes the name.
        split: Which judgements.
        on_missing: What to do with judgements of a query or a document that is not there: ``"error"``, or ``"drop"``.

    Returns:
        The collection; a judgement of 0 and a query without a relevant document are left out.

    Raises:
        MissingDataError: one of the three files is not there.
        InputError: a line is not what it should be; the message names the file and the line.

    References:
        Thakur et al. (2021), BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models.
    """
    if on_missing not in ("error", "drop"):
        raise InputError(f"on_missing={on_missing!r}: expected 'error' or 'drop'")
    root = Path(folder)
    corpus: dict[str, Text] = {}
    for where, key, row in _entries(root, "corpus.jsonl"):
        if key in corpus:
            raise InputError(f"{where}: the document {key!r} was there before; every _id may occur once")
        corpus[key] = Text(_text(where, row, "title", needed=False), _text(where, row, "text"))
    queries: dict[str, str] = {}
    for where, key, row in _entries(root, "queries.jsonl"):
        if key in queries:
            raise InputError(f"{where}: the query {key!r} was there before; every _id may occur once")
        queries[key] = _text(where, row, "text")
    qrels: dict[str, dict[str, int]] = {}
    for where, query, document, grade in _judgements(root / "qrels" / f"{split}.tsv"):
        unknown = f"query {query!r}" if query not in queries else f"document {document!r}"
        if query in queries and document in corpus:
            if grade > 0:
                qrels.setdefault(query, {})[document] = grade
        elif on_missing == "error":
            raise InputError(f"{where}: the {unknown} is in no line of the set; add it, or pass on_missing='drop'")
    return RetrievalData(root.name, corpus, {key: text for key, text in queries.items() if key in qrels}, qrels)


def read_queries(path: str | Path) -> dict[str, str]:
    """Read a file of queries: JSON lines with ``_id`` and ``text``, or lines of id, tab and query; zipped or not.

    Args:
        path: The file.

    Returns:
        Query by id.

    Raises:
        MissingDataError: it is not there.
        InputError: a line is not what it should be, or an id comes twice; the message names the line.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingDataError(f"{file} is missing: give a file of queries, JSON lines or id, tab and query")
    queries: dict[str, str] = {}
    for where, key, text in _asked(file):
        if key in queries:
            raise InputError(f"{where}: the query {key!r} was there before; every id may occur once")
        queries[key] = text
    return queries


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read a file of judgements: query, document and grade, or TREC's four columns, parted by tabs or blanks.

    Args:
        path: The file, zipped or not.

    Returns:
        For each query the grades of documents, 0 among them.

    Raises:
        MissingDataError: it is not there.
        InputError: a line is not what it should be; the message names it.
    """
    qrels: dict[str, dict[str, int]] = {}
    for _, query, document, grade in _judgements(Path(path)):
        qrels.setdefault(query, {})[document] = grade
    return qrels


def splits_of(folder: str | Path) -> list[str]:
    """Return the splits that a folder in BEIR's form has judgements for, by name."""
    return sorted(path.stem for path in (Path(folder) / "qrels").glob("*.tsv"))


def _entries(root: Path, name: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Go through (file and line, id, object) of JSON lines, zipped or not."""
    path = next((found for found in (root / name, root / f"{name}.gz") if found.is_file()), None)
    if path is None:
        raise MissingDataError(f"{root / name} is missing: a BEIR folder has corpus.jsonl, queries.jsonl and qrels/")
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({error}); every line is one object") from error
        if not isinstance(row, dict) or not isinstance(row.get("_id"), str | int):
            raise InputError(f"{where}: an object with _id is needed, got {line.strip()[:80]!r}")
        yield where, str(row["_id"]), row


def _asked(path: Path) -> Iterator[tuple[str, str, str]]:
    """Go through (file and line, id, query)."""
    if ".jsonl" in path.suffixes[-2:]:
        for where, key, row in _entries(path.parent, path.name.removesuffix(".gz")):
            yield where, key, _text(where, row, "text")
        return
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        key, tab, text = line.strip("\r").partition("\t")
        if not tab or not key.strip() or not text.strip():
            raise InputError(f"{path}, line {number}: expected id, tab and query, got {line.strip()[:80]!r}")
        yield f"{path}, line {number}", key.strip(), text.strip()


def _judgements(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """Go through (file and line, query, document, grade); three columns, or TREC's four."""
    if not path.is_file():
        others = ", ".join(splits_of(path.parent.parent)) or "none"
        raise MissingDataError(f"{path} is missing: choose another split (there are: {others}) or complete the folder")
    for number, line in enumerate(_lines(path), start=1):
        fields = [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
        if not fields or (number == 1 and fields[-1].lower() in _HEADER_WORDS):
            continue
        where = f"{path}, line {number}"
        if len(fields) not in (3, 4):
            raise InputError(f"{where}: expected query, document and grade, parted by tabs, got {line.strip()[:80]!r}")
        try:
            grade = float(fields[-1])
        except ValueError:
            grade = -1.0
        if grade < 0 or grade != int(grade):
            raise InputError(f"{where}: the grade {fields[-1]!r} must be a whole number from 0")
        yield where, fields[0], fields[-2], int(grade)


def _text(where: str, row: dict[str, Any], key: str, *, needed: bool = True) -> str:
    value = row.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {key!r} must be a text, got {value!r:.80}")
    return value


def _lines(path: Path) -> Iterator[str]:
    """Go through the lines of a text; only line feeds part them, as JSON may hold other separators."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the file in that encoding") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read or unzipped ({error}); make the file anew") from error
    yield from text.split("\n")
