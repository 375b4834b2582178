"""`embedlab domain`, from passages to a report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from embedlab._core.errors import InputError, MissingDataError
from embedlab.cli.domain import app
from embedlab.data import load_stsb, load_tatqa
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.synthesis import read_rows, read_triplets

pytest.importorskip("mteb")

NAMES = ["Alpine", "Harbour", "Meadow", "Cedar", "Quarry", "Lagoon", "Summit", "Prairie"]
PASSAGES = [
    f"Deferred revenue of segment {name} fell. Customers renewed {name} contracts late. Cash was stable."
    for name in NAMES
]


def invoke(*args: object) -> Any:
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    path = tmp_path / "passages.txt"
    path.write_text("\n".join(PASSAGES) + "\n", encoding="utf-8")
    return path


def test_passages_become_triplets_and_triplets_a_model(tmp_path: Path, passages: Path) -> None:
    rows, triplets, model = tmp_path / "rows.jsonl", tmp_path / "triplets.jsonl", tmp_path / "adapted"
    options = ["--rows", rows, "--triplets", triplets, "--per-seed", 3, "--json"]
    first = json.loads(invoke("synthesize", passages, *options).stdout)
    again = json.loads(invoke("synthesize", passages, *options).stdout)
    assert (first["resumed"], again["resumed"]) == (0, 24)
    assert first["balance"] == again["balance"]
    assert len(read_triplets(triplets)) == first["rows"] == len(read_rows(rows))
    start = tmp_path / "tiny"
    tiny_encoder(PASSAGES, seed=0).save(str(start))
    options = ["--out", model, "--steps", 2, "--batch-size", 4, "--instruction", "find: ", "--json"]
    found = json.loads(invoke("adapt", start, triplets, *options).stdout)
    assert found["steps"] == 2
    prompts = json.loads((model / "config_sentence_transformers.json").read_text())["prompts"]
    assert prompts["query"] == "find: "
    assert not prompts.get("document")


def test_what_will_be_measured_is_kept_out(tmp_path: Path, passages: Path) -> None:
    avoid = tmp_path / "avoid.txt"
    avoid.write_text(PASSAGES[0] + "\n", encoding="utf-8")
    shown = invoke("synthesize", passages, "--rows", tmp_path / "r.jsonl", "--avoid", avoid).stdout
    assert "overlap: 1" in shown
    assert {row.seed for row in read_rows(tmp_path / "r.jsonl")}.isdisjoint({"1"})


def test_json_lines_as_passages(tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    path.write_text(json.dumps({"_id": "a", "title": "Leases", "text": PASSAGES[0]}) + "\n", encoding="utf-8")
    invoke("synthesize", path, "--rows", tmp_path / "r.jsonl", "--cast", "general")
    assert read_rows(tmp_path / "r.jsonl", refused=True)[0].seed == "a"
    path.write_text('{"body": "no text"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 1"):
        invoke("synthesize", path, "--rows", tmp_path / "other.jsonl")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--cast", "sports"], "finance"),
        (["--judge"], "--llm"),
        (["--avoid", "gone.txt"], "gone.txt"),
    ],
)
def test_bad_options(tmp_path: Path, passages: Path, args: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        invoke("synthesize", passages, "--rows", tmp_path / "r.jsonl", *args)


def test_build_lists_the_tasks() -> None:
    try:
        load_tatqa()
    except MissingDataError as error:
        pytest.skip(str(error))
    found = json.loads(invoke("build", "--tasks", "number-edits, sp500-sectors", "--max-items", 40, "--json").stdout)
    assert [(task["task"], task["type"]) for task in found["tasks"]] == [
        ("number-edits", "STS"),
        ("sp500-sectors", "Clustering"),
    ]
    with pytest.raises(InputError, match="number-edits"):
        invoke("build", "--tasks", "number-edit")


def test_a_report_on_data_of_ones_own(tmp_path: Path) -> None:
    try:
        load_stsb()
    except MissingDataError as error:
        pytest.skip(str(error))
    folder = tmp_path / "domain"
    folder.mkdir()
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "score"])
        writer.writerows((PASSAGES[0], text, 8 - place) for place, text in enumerate(PASSAGES))
    options = ["--general", "stsb", "--data", folder, "--cache", tmp_path / "cache"]
    found = json.loads(invoke("report", "default", *options, "--out", tmp_path / "out", "--json").stdout)
    assert list(found["means"]["embedlab-general"]["default"]) == ["STS", "average"]
    assert (tmp_path / "out" / "domain.md").read_text().startswith("# your-domain")
    assert "General against domain" in invoke("report", "default", *options).stdout
