"""Labels from tables, lists of names and examples, as people write them and as they get them wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedlab._core.errors import InputError
from embedlab.text.aspect_documents import entity_labels, read_entities, read_examples, read_labels
from embedlab.text.aspect_documents.names import check_weights, parse_weights


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_labels_of_a_table(tmp_path):
    table = written(
        tmp_path, "l.csv", '\ufeffsource,task,method\na.md,parsing; tagging,"LSTM, deep"\nb.md,,CRF\na.md,chunking,\n'
    )
    assert read_labels(table) == {
        "task": {"a.md": {"parsing", "tagging", "chunking"}, "b.md": set()},
        "method": {"a.md": {"LSTM, deep"}, "b.md": {"CRF"}},
    }
    assert read_labels(table, separator=",")["method"]["a.md"] == {"LSTM", "deep"}
    tabs = written(tmp_path, "l.tsv", "source\ttask\na,b.md\tparsing\n")
    assert read_labels(tabs) == {"task": {"a,b.md": {"parsing"}}}


def test_labels_of_json_lines(tmp_path):
    path = written(
        tmp_path,
        "l.jsonl",
        lines({"source": "a", "task": ["x", "y; z"], "year": 2020}, {"source": "b", "task": "x; y"}),
    )
    assert read_labels(path) == {"task": {"a": {"x", "y; z"}, "b": {"x", "y"}}, "year": {"a": {"2020"}}}


def test_entities_and_examples(tmp_path):
    names = written(
        tmp_path,
        "e.jsonl",
        lines({"aspect": "method", "name": "U-Net", "aliases": ["UNet"]}, {"aspect": "data", "name": "COCO"}),
    )
    assert read_entities(names) == {"method": {"U-Net": ("U-Net", "UNet")}, "data": {"COCO": ("COCO",)}}
    table = written(tmp_path, "e.csv", "aspect,name,aliases\nmethod,U-Net,UNet;unet 2\n")
    assert read_entities(table) == {"method": {"U-Net": ("U-Net", "UNet", "unet 2")}}
    pairs = written(tmp_path, "p.csv", "aspect,first,second\nmethod,a.md,b.md\nmethod,b.md,c.md\n")
    assert read_examples(pairs) == {"method": [("a.md", "b.md"), ("b.md", "c.md")]}


def test_names_are_found_as_whole_words():
    names = {"U-Net": ("U-Net", "UNet"), "SVM": ("SVM",), "boosting": ("boosting", "Boosted Trees"), "it": ("IT",)}
    texts = ["A u - net and boosted  trees.", "svms, svm; it boosts", "SVM-based IT", "Unet unets", "", "BOOSTING"]
    assert entity_labels(texts, names) == [{"U-Net", "boosting"}, set(), {"SVM", "it"}, set(), set(), {"boosting"}]
    with pytest.raises(InputError, match=r"the spelling '--' holds no word"):
        entity_labels([], {"x": ("--",)})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.txt", "", r"must end in \.csv"),
        ("l.csv", "doc,task\na,b\n", "line 2: no 'source'"),
        ("l.csv", "source,task\na,b,c\n", "more cells than columns"),
        ("l.csv", 'source,task\na,"b\n', "can't be read"),
        ("l.csv", "source\na\n", "no aspect in it"),
        ("l.csv", "source,a task\na,b\n", "aspect 'a task'"),
        ("l.csv", "source,generic\na,b\n", "aspect 'generic'"),
        ("l.jsonl", '{"source": "a"\n', "can't be read"),
        ("l.jsonl", "[1]\n", "line 1: no 'source'"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_line(tmp_path, name, text, said):
    with pytest.raises(InputError, match=said):
        read_labels(written(tmp_path, name, text))


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "l.csv").write_bytes(b"source,task\n\xff\xfe,b\n")
    with pytest.raises(InputError, match="can't be read"):
        read_labels(tmp_path / "l.csv")


def test_weights_as_people_write_them():
    assert parse_weights(["method", "data.set=-0.5"]) == {"method": 1.0, "data.set": -0.5}
    assert check_weights({"method": 1, "task": -1, "generic": 2, "other": 0}, ["method", "task", "other"]) == {
        "method": 0.25,
        "task": -0.25,
        "generic": 0.5,
    }
    for given, said in ((["a=b"], "write NAME=WEIGHT"), (["a=1", "a"], "given already")):
        with pytest.raises(InputError, match=said):
            parse_weights(given)
    for weights, said in (
        ({"taks": 1}, "did you mean 'task'"),
        ({"task": float("nan")}, "finite"),
        ({"task": "1"}, "finite"),
        ({"task": 0}, "other than 0"),
        ({}, "other than 0"),
    ):
        with pytest.raises(InputError, match=said):
            check_weights(weights, ["task"])
