"""Data sets: their sizes, their known oddities, and what is said when they are not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from embedlab._core.errors import InputError, MissingDataError
from embedlab.data import loaders
from embedlab.data.files import find_files, read_file
from embedlab.data.passages import split_passages

needs_data = pytest.mark.skipif("EMBEDLAB_DATA" not in os.environ, reason="EMBEDLAB_DATA is not set")


@needs_data
def test_scifact() -> None:
    data = loaders.load_scifact()
    assert (len(data.corpus), len(data.queries), sum(map(len, data.qrels.values()))) == (5183, 300, 339)
    assert data.corpus["4983"].text.startswith("Alterations of the architecture of cerebral white matter")
    assert "disabilities. A line scan" in data.corpus["4983"].text
    train = loaders.load_scifact("train")
    assert len(train.queries) == 809
    assert not train.queries.keys() & data.queries.keys()


@needs_data
def test_cranfield() -> None:
    data = loaders.load_cranfield()
    assert (len(data.corpus), len(data.queries)) == (1400, 225)
    assert [key for key, entry in data.corpus.items() if not str(entry)] == ["471", "995"]
    assert {grade for grades in data.qrels.values() for grade in grades.values()} == {1}
    assert data.queries["3"].startswith("what problems of heat conduction")  # printed as number 4
    assert sum(not split_passages(document) for document in data.documents()) == 2


@needs_data
def test_cacm() -> None:
    data = loaders.load_cacm()
    assert (len(data.corpus), len(data.queries), sum(map(len, data.qrels.values()))) == (3204, 52, 796)
    assert all(document in data.corpus for grades in data.qrels.values() for document in grades)
    assert data.corpus["CACM-3000"].title == "Segment Sizes and Lifetimes in Algol 60 Programs"
    assert "CA770105" not in data.corpus["CACM-3000"].text


@needs_data
@pytest.mark.parametrize(("split", "size"), [("train", 5749), ("dev", 1500), ("test", 1379)])
def test_stsb(split: str, size: int) -> None:
    data = loaders.load_stsb(split)
    assert len(data.first) == len(data.second) == len(data.scores) == size
    assert (min(data.scores), max(data.scores)) == (0, 5)


@needs_data
def test_sick_banking_and_packages() -> None:
    sick = loaders.load_sick()
    assert len(sick.first) == len(sick.labels) == 4927
    assert set(sick.labels) == {"NEUTRAL", "ENTAILMENT", "CONTRADICTION"}
    banking = loaders.load_banking77("train")
    assert len(set(banking.labels)) == 77
    first = next(loaders.load_debian_packages())
    assert (first.name, first.section, first.tags[0]) == ("0ad", "games", "game::strategy")
    assert next(each for each in loaders.load_debian_packages() if each.name == "0ad-data").suggests == ("0ad",)


def test_beir_folder(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    corpus = [{"_id": "1", "title": "Tea", "text": "Boil."}, {"_id": "2", "title": "", "text": ""}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "how"}\n{"_id": "unjudged", "text": "x"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t2\nq\t2\t0\n")
    data = loaders.load_beir(tmp_path)
    assert (data.queries, data.qrels) == ({"q": "how"}, {"q": {"1": 2}})
    assert [(document.source, document.text) for document in data.documents()] == [("1", "Tea\n\nBoil."), ("2", "")]
    with pytest.raises(MissingDataError, match=r"dev\.tsv is missing"):
        loaders.load_beir(tmp_path, split="dev")
    (tmp_path / "queries.jsonl").write_text('{"text": "how"}\n')
    with pytest.raises(InputError, match=r"queries\.jsonl, line 1: an object with _id is needed"):
        loaders.load_beir(tmp_path)


def test_without_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EMBEDLAB_DATA", raising=False)
    with pytest.raises(MissingDataError, match="set EMBEDLAB_DATA"):
        loaders.load_cranfield()
    monkeypatch.setenv("EMBEDLAB_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match="is not in EMBEDLAB_DATA"):
        loaders.load_stsb()


def test_unknown_split_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'train'"):
        loaders.load_scifact("trian")


@pytest.mark.slow
def test_standard_library_is_a_corpus_of_ten_thousand_passages() -> None:
    found = list(find_files(loaders.stdlib_folder(), exclude=loaders.STDLIB_EXCLUDE))
    assert not any(part in ("test", "site-packages") for file in found for part in file.source.split("/"))
    assert "json/decoder.py" in {file.source for file in found}
    documents = [document for file in found for document in read_file(file)]
    assert all(not hasattr(document, "reason") for document in documents)
    assert sum(len(split_passages(document)) for document in documents) > 10_000
