"""Training data from files, folders, collections and objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from embedlab._core.errors import InputError
from embedlab.search import Collection
from embedlab.text.training.queries import with_queries
from embedlab.text.training.recipe import TrainingData
from embedlab.text.training.sources import as_sources, load

ROWS = [{"query": 'what is "tea", then', "answer": "leaves\nin water"}, {"query": "what is law", "answer": "rules"}]


def only(given: Any) -> Any:
    (found,) = load(as_sources(given))
    return found


def write(path: Path) -> Path:
    if path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        quoted = [[f'"{value.replace(chr(34), chr(34) * 2)}"' for value in row.values()] for row in ROWS]
        path.write_text("\n".join(mark.join(line) for line in [["query", "answer"], *quoted]), encoding="utf-8")
    elif path.suffix == ".parquet":
        Dataset.from_list(ROWS).to_parquet(str(path))
    else:
        lines = json.dumps(ROWS) if path.suffix == ".json" else "\n".join(map(json.dumps, ROWS)) + "\n\n"
        path.write_text(lines, encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_every_table_gives_the_same_rows(ending: str, tmp_path: Path) -> None:
    found = only(write(tmp_path / f"faq{ending}"))
    assert (found.data.name, found.data.kind) == ("faq", "pairs")
    assert found.data.rows.to_list() == [{"anchor": row["query"], "positive": row["answer"]} for row in ROWS]


def test_objects_are_data_too() -> None:
    rows = Dataset.from_list(ROWS)
    assert only(rows).data.rows.column_names == ["anchor", "positive"]
    assert only(ROWS).data.kind == "pairs"
    given = TrainingData("own", "texts", Dataset.from_dict({"text": ["a", "b"]}))
    assert only(given).data.rows is given.rows
    named = load(as_sources(DatasetDict({"one": rows, "two": rows})))
    assert [each.data.name for each in named] == ["one", "two"]
    both = load(as_sources({"faq": rows, "more": ROWS}))
    assert [each.data.name for each in both] == ["faq", "more"]
    assert [each.data.name for each in load(as_sources([rows, rows]))] == ["data", "data2"]


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    paths = [write(tmp_path / "faq.csv"), write(tmp_path / "more" / "faq.csv")]
    assert [each.data.name for each in load(as_sources(paths))] == ["faq", "faq-2"]


def test_a_folder_of_documents_gives_passages_by_document(tmp_path: Path) -> None:
    for name in ("tea", "law"):
        sections = "\n\n".join(
            f"## {name} part {i}\n\nMost {name} of kind {i} is old. It grows in place {i}." for i in range(3)
        )
        (tmp_path / f"{name}.md").write_text(f"# All about {name}\n\n{sections}\n", encoding="utf-8")
    found = only({"path": str(tmp_path)})
    assert found.data.kind == "texts"
    assert sorted(set(found.groups)) == ["law.md", "tea.md"]
    assert any("part 1" in above[-1] for above in found.headings)
    asked = with_queries(found, folder=tmp_path)
    assert asked.made
    assert asked.data.kind == "pairs"
    assert set(asked.groups) == {"law.md", "tea.md"}


def test_a_collection_and_its_export_give_the_same(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "box")
    collection.add(
        [{"text": f"Some words on {name}. More of them.", "source": f"{name}.txt"} for name in ("tea", "law")]
    )
    found = only(collection)
    assert found.data.kind == "texts"
    collection.export(tmp_path / "box.parquet")
    again = only(tmp_path / "box.parquet")
    assert sorted(again.data.rows["text"]) == sorted(found.data.rows["text"])
    assert sorted(again.groups) == sorted(found.groups)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("query,answer\n", "no row below its header"),
        ("query,answer\na,b,c\n", "row 1: 3 cells under 2 headers"),
        ('query,answer\n"a,b\n', "no readable CSV"),
    ],
)
def test_a_broken_table_is_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="bad") as caught:
        load(as_sources(tmp_path / "bad.csv"))
    assert said in str(caught.value)


def test_broken_json_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"query": "a", "answer": "b"}\n{"query":\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2: no JSON"):
        load(as_sources(path))
    path.write_text('{"query": "a", "answer": "b"}\n{"query": "a"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"row 2: its columns are not those of the first row \(answer\)"):
        load(as_sources(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        load(as_sources(path))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "none given"),
        ([], "none given"),
        ("nowhere.csv", "does not exist"),
        ({"path": ".", "colums": {}}, "did you mean 'columns'"),
        ({"path": ".", "limit": 0}, "limit=0"),
        ({"queries": "offline"}, "no path"),
        (3, "type int"),
    ],
)
def test_what_is_no_data_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load(as_sources(given))
    assert said in str(caught.value)
