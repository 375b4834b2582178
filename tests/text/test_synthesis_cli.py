"""embedlab synth and judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedlab.cli.synth import judge, synth
from embedlab.text.synthesis import generators

TOPICS = ("boiler", "sonnet", "glacier", "ledger")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for topic in TOPICS:
        text = f"A {topic} is a thing of many uses. Every {topic} needs care, and wears out in time."
        text = f"# The {topic} in brief\n\n{text}\n"
        (folder / f"{topic}.md").write_text(text)
    return folder


def run(verb: object, *words: object) -> tuple[int, str]:
    import typer

    app = typer.Typer()
    app.command()(verb)  # type: ignore[type-var]
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 1, str(result.exception)
    return result.exit_code, result.stdout


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_without_a_model(docs: Path, tmp_path: Path) -> None:
    code, told = run(synth, docs, "--out", tmp_path / "rows.jsonl", "--json")
    assert code == 0
    found = rows(tmp_path / "rows.jsonl")
    assert json.loads(told)["rows"] == len(found) == 4
    assert {row["group"] for row in found} == {f"{topic}.md" for topic in TOPICS}
    for row in found:
        assert row["group"].removesuffix(".md") in row["query"] + row["positive"]
    code, told = run(synth, docs, "--out", tmp_path / "rows.jsonl")
    assert "4 rows of 4 passages" in told


def test_rows_by_a_model_and_a_judge(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Endpoint(generators.TemplateGenerator):
        def __init__(self, url: str, *, workers: int) -> None:
            super().__init__(name=url)

        def generate(self, prompts: list[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:  # type: ignore[override]
            asked.extend(prompts)
            return super().generate(prompts, max_tokens=max_tokens, seed=seed)

    monkeypatch.setattr(generators, "EndpointGenerator", Endpoint)
    words = [
        docs,
        "--out",
        tmp_path / "r.jsonl",
        "--llm",
        "http://h/v1#m",
        "--prompt",
        "negative",
        "--top-k",
        0,
        "--json",
    ]
    code, told = run(synth, *words)
    assert code == 0, told
    found = rows(tmp_path / "r.jsonl")
    assert len(found) == 4
    assert all(row["negative"] and row["kind"] == "http://h/v1#m" for row in found)
    assert (tmp_path / "r.answers.jsonl").is_file()
    assert len(asked) == 4
    run(synth, *words)
    assert len(asked) == 4  # nothing is asked twice
    code, told = run(
        judge, tmp_path / "r.jsonl", "--out", tmp_path / "j.jsonl", "--llm", "http://h/v1#m", "--least", 2, "--json"
    )
    assert code == 0, told
    report = json.loads(told)
    assert report["rows"] == 4
    assert report["kept"] + report["false_positives"] + report["without_negatives"] == 4
    assert len(rows(tmp_path / "j.jsonl")) == report["kept"]
    code, told = run(
        judge, tmp_path / "r.jsonl", "--out", tmp_path / "j.jsonl", "--llm", "http://h/v1#m", "--relabel", 2
    )
    assert "relabelled" in told


def test_what_is_missing_is_said(docs: Path, tmp_path: Path) -> None:
    for verb, words, says in (
        (synth, (tmp_path / "nowhere", "--out", tmp_path / "r"), "does not exist"),
        (synth, (docs, "--out", tmp_path / "r", "--llm", "http://h/v1#m", "--cast", "opera"), "unknown cast"),
        (judge, (docs, "--out", tmp_path / "r"), "either --llm or --cross-encoder"),
    ):
        code, told = run(verb, *words)
        assert code == 1
        assert says in told
