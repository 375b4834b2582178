"""Folders of data become tasks: every form is recognised, and every fault is told with its file and line."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mteb")

from embedlab._core.errors import EmbedlabError, InputError, MissingDataError
from embedlab.evaluate.folder_tables import COLUMN_NAMES, read_table
from embedlab.evaluate.folders import languages, tasks_from_folder

PAGE = Path(__file__).parents[2] / "docs" / "data-folders.md"
LABELLED = "text,label\na dog,animal\na cat,animal\na car,thing\na cup,thing\n"


def fill(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def kinds(folder: Path, **settings: Any) -> dict[str, str]:
    return {task.metadata.name: task.metadata.type for task in tasks_from_folder(folder, **settings)}


def beir(**changes: str) -> dict[str, str | bytes]:
    files = {
        "corpus.jsonl": '{"_id": "d1", "title": "Tea", "text": "Boil."}\n{"_id": "d2", "text": "Drive."}\n',
        "queries.jsonl": '{"_id": "q1", "text": "how to brew"}\n',
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
    }
    return {**files, **changes}


def test_all_forms_in_one_folder(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            **{f"search/{name}": content for name, content in beir().items()},
            "topics.csv": LABELLED,
            "near.tsv": 's1\ts2\tscore\na "dog\ta hound\t5\na\tb\t1\nc\td\t0\n',
            "same.jsonl": "".join(
                json.dumps({"question1": "a", "question2": "b", "is_duplicate": value}) + "\n" for value in (0, 1)
            ),
            "talks.eng": "One.\nTwo.\n",
            "talks.deu.gz": gzip.compress(b"Eins.\nZwei.\n"),
            "more/phrases.csv": "fra;eng\nun;one\ndeux;two\n",
            "README.md": "not data",
            ".hidden.csv": "nonsense",
        },
    )
    assert kinds(tmp_path) == {
        "near": "STS",
        "same": "PairClassification",
        "topics": "Classification",
        "topics-clusters": "Clustering",
        "talks": "BitextMining",
        "phrases": "BitextMining",
        "search": "Retrieval",
    }
    by_name = {task.metadata.name: task for task in tasks_from_folder(tmp_path)}
    assert by_name["talks"].metadata.eval_langs == ["deu-Latn", "eng-Latn"]
    assert by_name["near"].dataset["test"][0]["sentence1"] == 'a "dog'
    assert by_name["phrases"].dataset["test"]["sentence2"][:] == ["one", "two"]


def test_parts_of_one_set_belong_together(tmp_path: Path) -> None:
    fill(tmp_path, {"train.csv": LABELLED, "test.csv": "TEXT,Label\na mouse,animal\na plate,thing\n"})
    fill(
        tmp_path,
        {
            "pairs-train.csv": "broken",
            "pairs_dev.csv": "broken",
            "pairs.test.csv": "text1,text2,Score\na,b,1\nc,d,2\ne,f,3\n",
        },
    )
    found = {task.metadata.name: task for task in tasks_from_folder(tmp_path)}
    name = tmp_path.name
    assert set(found) == {name, f"{name}-clusters", "pairs"}
    parts = found[name].dataset["default"]
    assert (len(parts["train"]), parts["test"]["text"][:]) == (4, ["a mouse", "a plate"])


def test_several_languages_meet_in_english(tmp_path: Path) -> None:
    fill(tmp_path, {"t.de.txt": "a\nb\n", "t.en.txt": "c\nd", "t.mr.txt": "e\r\nf\r\n"})
    assert kinds(tmp_path) == {"t-de": "BitextMining", "t-mr": "BitextMining"}
    assert languages()["mr"] == "mar-Deva"
    assert languages()["deu"] == "deu-Latn"


def test_language_column_and_language_of_all(tmp_path: Path) -> None:
    fill(tmp_path, {"x.csv": "lang,sentence1,sentence2,score\nmr,a,b,1\nen,c,d,2\nen,e,f,3\n"})
    [task] = tasks_from_folder(tmp_path, language="mar-Deva")
    assert task.metadata.eval_langs == ["mar-Deva"]
    assert task.item_languages == ("mr", "en", "en")  # type: ignore[attr-defined]


def test_names_that_are_taken_get_another(tmp_path: Path) -> None:
    fill(tmp_path, {f"SciFact/{name}": content for name, content in beir().items()})
    fill(tmp_path, {"a/x.csv": LABELLED, "b/x.csv": LABELLED})
    assert set(kinds(tmp_path)) == {"SciFact-local", "x", "x-clusters", "b-x", "b-x-clusters"}


def test_one_other_split_of_a_collection_is_taken(tmp_path: Path) -> None:
    files = beir()
    files["qrels/dev.tsv"] = files.pop("qrels/test.tsv")
    assert kinds(fill(tmp_path, files)) == {tmp_path.name: "Retrieval"}
    fill(tmp_path, {"qrels/train.tsv": "q1 0 d1 1\n"})
    with pytest.raises(MissingDataError, match=r"test\.tsv is missing: choose another split \(there are: dev, train\)"):
        tasks_from_folder(tmp_path)
    assert kinds(tmp_path, split="train") == {tmp_path.name: "Retrieval"}


@pytest.mark.parametrize("meaning", ["text", "label", "score", "first", "second"])
def test_every_synonym_is_known(meaning: str, tmp_path: Path) -> None:
    others = {
        "text": ["label"],
        "label": ["text"],
        "score": ["s1", "s2"],
        "first": ["s2", "score"],
        "second": ["s1", "score"],
    }
    for name in COLUMN_NAMES[meaning]:
        for spelled in (name, name.title().replace(" ", "_"), name.upper().replace(" ", "-")):
            path = tmp_path / "x.csv"
            path.write_text(",".join([spelled, *others[meaning]]) + "\n" + ",".join("1" for _ in [0, *others[meaning]]))
            assert meaning in read_table(path, languages={}).columns, spelled


FAULTS: list[tuple[dict[str, str | bytes], str]] = [
    ({}, r"holds nothing, which makes no task; expected are corpus\.jsonl"),
    ({"notes.md": "x"}, r"holds notes\.md, which makes no task"),
    ({"x.csv": ""}, r"x\.csv: is empty"),
    ({"x.csv": "\n \n"}, r"x\.csv: is empty"),
    ({"x.csv": "text,label\n"}, r"x\.csv: has a header and no rows"),
    ({"x.csv": "a girl,a boy,2.5\nb,c,1\n"}, r"x\.csv, line 1: the columns 'a girl', 'a boy', '2\.5' make no task"),
    ({"x.csv": "text,label\na,b,c\n"}, r"x\.csv, line 2: has 3 fields, the header has 2; quote fields that hold ','"),
    ({"x.csv": 'text,label\n"a,b\nc,d\n'}, r"x\.csv, line 3: broken row .*check its quotes"),
    ({"x.tsv": "text\tlabel\na\tb\tc\n"}, r"x\.tsv, line 2: has 3 fields.*a TSV field cannot hold a tab"),
    ({"x.csv": b"text,label\na,b\n\xff,c\n"}, r"x\.csv, line 3: not UTF-8"),
    ({"x.csv": "text,label\na\0,b\n"}, r"x\.csv, line 2: holds a NUL byte"),
    ({"x.csv.gz": b"no gzip"}, r"x\.csv\.gz: cannot be read or unzipped"),
    ({"x.csv.gz": gzip.compress(b"text,label")[:-12] + b"12345678"}, r"x\.csv\.gz: cannot be read or unzipped"),
    ({"x.csv": "text,label\n  ,b\n"}, r"x\.csv, line 2: the text is empty"),
    ({"x.csv": "text,label\na,\nb,c\n"}, r"x\.csv, line 2: the label is empty"),
    ({"x.csv": "text,label\na,b\nc,b\n"}, r"x\.csv: labels are all 'b'"),
    ({"x.csv": "text,label\na,b\nc,d\n"}, r"x\.csv: labels holds 'b' once"),
    ({"x.csv": "s1,s2,score\na,b,1\nc,d,high\n"}, r"x\.csv, line 3: the score 'high' is not a finite number"),
    ({"x.csv": "s1,s2,score\na,b,nan\n"}, r"x\.csv, line 2: the score 'nan' is not a finite"),
    ({"x.csv": "s1,s2,score\na,b,1\nc,d,1\ne,f,1\n"}, r"x\.csv: scores are all 1\.0"),
    ({"x.csv": "s1,s2,label\na,b,2\n"}, r"x\.csv, line 2: the label '2' of a pair must be 1 or 0"),
    ({"x.csv": "s1,s2\na,b\n"}, r"x\.csv, line 1: pairs need a third column, score or label"),
    ({"x.jsonl": '{"text": "a", "label": 1}\n{"text": "b"}\n'}, r"x\.jsonl, line 2: has no 'label'"),
    ({"x.jsonl": "{\n"}, r"x\.jsonl, line 1: not JSON"),
    ({"x.jsonl": "[1]\n"}, r"x\.jsonl, line 1: an object is needed"),
    ({"train.csv": "s1,s2,score\na,b,1\n", "test.csv": LABELLED}, r"train\.csv, line 1: expected text and label"),
    ({"train.csv": "text,label\na,x\nb,y\n", "test.csv": LABELLED}, r"test\.csv: labels holds 'animal', which train"),
    ({"x.csv": LABELLED, "x.tsv": "text\tlabel\n"}, r"x\.tsv: x\.csv is the same part of x; remove one"),
    ({"t.deu": "a\nb\n", "t.eng": "a\n"}, r"t\.deu: has 2 lines, t\.eng has 1"),
    ({"t.deu": "a\n\nb\n", "t.eng": "a\nb\nc\n"}, r"t\.deu, line 2: is empty"),
    (beir(**{"corpus.jsonl": "{\n"}), r"corpus\.jsonl, line 1: not JSON"),
    (beir(**{"corpus.jsonl": '{"_id": "d1", "text": "a"}\n' * 2}), r"corpus\.jsonl, line 2: the document 'd1' was"),
    (beir(**{"corpus.jsonl": '{"_id": "d1", "text": 3}\n'}), r"corpus\.jsonl, line 1: 'text' must be a text, got 3"),
    (beir(**{"queries.jsonl": '{"_id": "q1"}\n'}), r"queries\.jsonl, line 1: 'text' must be a text, got None"),
    (beir(**{"qrels/test.tsv": "q1\td1\n"}), r"test\.tsv, line 1: expected query, document and grade"),
    (beir(**{"qrels/test.tsv": "q1\td1\t-1\n"}), r"test\.tsv, line 1: the grade '-1' must be a whole number from 0"),
    (beir(**{"qrels/test.tsv": "q1\td9\t1\n"}), r"test\.tsv, line 1: the document 'd9' is in .*on_missing='drop'"),
    (beir(**{"qrels/test.tsv": "q9\td1\t1\n"}), r"test\.tsv, line 1: the query 'q9' is in no line"),
    (beir(**{"qrels/test.tsv": "q1\td1\t0\n"}), r"no query of test\.tsv has a relevant document"),
    (beir(**{"corpus.jsonl": ""}), r"test\.tsv, line 2: the document 'd1' is in no line"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "told"), FAULTS, ids=[re.sub(r"\W+", "-", told)[:50] for _, told in FAULTS])
def test_every_fault_is_told_with_file_and_line(files: dict[str, str | bytes], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        tasks_from_folder(fill(tmp_path, files))


def test_what_is_missing_from_a_collection(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        tasks_from_folder(tmp_path / "nowhere")
    files = beir()
    del files["queries.jsonl"]
    with pytest.raises(MissingDataError, match=r"queries\.jsonl is missing"):
        tasks_from_folder(fill(tmp_path, files))
    fill(tmp_path, beir(**{"qrels/test.tsv": "q1\td9\t1\nq1\td1\t1\nq9\td1\t1\n"}))
    assert kinds(tmp_path, on_missing="drop") == {tmp_path.name: "Retrieval"}


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=60), st.sampled_from(["x.csv", "x.tsv", "x.jsonl", "x.csv.gz", "corpus.jsonl"]), st.booleans()
)
def test_any_bytes_give_tasks_or_one_clear_error(content: bytes, name: str, headed: bool) -> None:
    head = b"text\tlabel\n" if "tsv" in name else b"text,label\n"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(head + content if headed else content)
        try:
            found = len(tasks_from_folder(folder))
            told = ""
        except EmbedlabError as error:
            found, told = 0, str(error)
        assert found > 0 or folder in told


def test_long_documents_are_read(tmp_path: Path) -> None:
    fill(tmp_path, {"x.csv": "text,label\n" + "".join(f"{'long ' * 40_000}{n},{n % 2}\n" for n in range(4))})
    assert kinds(tmp_path) == {"x": "Classification", "x-clusters": "Clustering"}


def test_examples_of_the_page_are_read(tmp_path: Path) -> None:
    examples = re.findall(r"`([\w./-]+)`:\n\n```\w*\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 10
    fill(tmp_path, {name: content.replace("⇥", "\t") for name, content in examples})
    assert sorted(kinds(tmp_path).values()) == [
        "BitextMining", "BitextMining", "Classification", "Clustering", "PairClassification", "Retrieval", "STS",
    ]  # fmt: skip


def test_every_column_name_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [name for names in COLUMN_NAMES.values() for name in names if f"`{name.replace(' ', '_')}`" not in page]
    assert not missing


def test_names_that_are_taken_get_the_folder_in_front(tmp_path: Path) -> None:
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "data.csv").write_text(
            f"sentence1,sentence2,score\n{side},a,1\nb,c,2\nd,e,3\n", encoding="utf-8"
        )
    first = tasks_from_folder(tmp_path / "ours")
    second = tasks_from_folder(tmp_path / "theirs", taken=[task.metadata.name for task in first])
    assert [task.metadata.name for task in (*first, *second)] == ["data", "theirs-data"]
