"""The verb ``embedlab evaluate``: data of one's own, collections, reports, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedlab._core.errors import InputError, MissingDataError
from embedlab.cli import app

from .conftest import TOPICS, texts_about


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "home"))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder with one file of scored pairs."""
    folder = tmp_path / "own"
    folder.mkdir()
    texts, topics = texts_about(60)
    rows = ["sentence1,sentence2,score"]
    for place, text in enumerate(texts):
        other = (place * 5) % 60
        rows.append(f"{text},{texts[other]},{5 if topics[place] == topics[other] else place % 3}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["evaluate", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_folder_is_evaluated_compared_and_written(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    text = run("default", "bow", "--data", str(pairs), "--out", str(out), "--slices")
    assert "default" in text
    assert "bow" in text
    assert "interval" in text
    assert "better" in text or "not distinguishable" in text
    entry = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert [model["model"] for model in entry["models"]] == ["default", "bow"]
    assert "| default |" in (out / "evaluation.md").read_text(encoding="utf-8")


def test_json_for_machines(pairs: Path) -> None:
    entry = json.loads(run("default", "--data", str(pairs), "--json", "--no-costs"))
    (score,) = entry["models"][0]["tasks"].values()
    assert score["type"] == "STS"
    assert score["interval"][0] < score["score"] < score["interval"][1]
    assert "values" not in score
    assert entry["comparison"] is None
    assert entry["models"][0]["cost"] is None


@pytest.mark.parametrize("kind", ["title", "first-sentence"])
def test_a_collection_is_evaluated_by_name(kind: str) -> None:
    from embedlab.search import Collection

    notes = Collection.create("notes")
    body = "{} comes up again and again in this text about it. Whoever reads on learns more of the {} and its {}."
    notes.add(
        {"source": f"{topic}-{word}", "title": f"The {word} {topic}", "text": body.format(topic, word, topic)}
        for topic in TOPICS
        for word in ("first", "second")
    )
    entry = json.loads(run("default", "--data", "notes", "--queries", kind, "--json", "--no-costs"))
    (score,) = entry["models"][0]["tasks"].values()
    assert score["type"] == "Retrieval"
    assert score["score"] > 0.3


def test_what_cannot_be_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"give --tasks .* or --data"):
        run("default")
    with pytest.raises(InputError, match="unknown task 'scifakt': did you mean 'scifact'"):
        run("default", "--tasks", "scifakt")
    with pytest.raises(InputError, match="no such folder, and no such collection"):
        run("default", "--data", str(tmp_path / "gone"))
    monkeypatch.delenv("EMBEDLAB_DATA", raising=False)
    with pytest.raises(MissingDataError, match="EMBEDLAB_DATA"):
        run("default", "--tasks", "scifact")
