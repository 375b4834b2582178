"""`embedlab merge` and the recipes of the trainer, from files to a model that loads."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from embedlab.cli import app
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.training import train

ANCHORS = [f"{text} {word}" for text in ("a cat sat", "rain fell", "the dog ran", "stocks rose") for word in "pqrst"]
POSITIVES = [" ".join(reversed(text.split())) for text in ANCHORS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, two models of it, and rows of two tasks."""
    folder = tmp_path_factory.mktemp("merge")
    base = tiny_encoder(ANCHORS)
    base.save(str(folder / "base"))
    for number, name in enumerate(("one", "two")):
        model = copy.deepcopy(base)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
        model.save(str(folder / name))
    pairs = [{"anchor": a, "positive": p} for a, p in zip(ANCHORS, POSITIVES, strict=True)]
    scored = [
        {"sentence1": a, "sentence2": p, "score": n / 19}
        for n, (a, p) in enumerate(zip(ANCHORS, POSITIVES, strict=True))
    ]
    for name, rows in (("pairs", pairs), ("scored", scored)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(place: Path, *words: str) -> Any:
    models = [str(place / name) for name in ("one", "two")]
    return CliRunner().invoke(app, ["merge", *models, "--base", str(place / "base"), *words])


def test_search_writes_a_model_with_its_record(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    words = ["--probe", str(place / "pairs.jsonl"), "--probe", str(place / "scored.jsonl"), "--batch-size", "10"]
    result = run(place, *words, "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["models"] == ["one", "two"]
    assert len(found["weights"]) == 2
    assert found["steps"] == 8
    assert json.loads((out / "merge.json").read_text())["loss_after"] == found["loss_after"]
    assert "one" in (out / "README.md").read_text()
    assert SentenceTransformer(str(out), device="cpu").encode(["a cat"]).shape == (1, 32)


@pytest.mark.parametrize("method", ["average", "slerp", "barycentric", "ties", "fisher", "regmean"])
def test_fixed_merges_from_the_command_line(place: Path, tmp_path: Path, method: str) -> None:
    data = ["--probe", str(place / "pairs.jsonl"), "--probe", str(place / "scored.jsonl")]
    words = data if method in ("fisher", "regmean") else ["--weight", "2", "--weight", "1"]
    result = run(place, "--method", method, *words, "--out", str(tmp_path / "merged"))
    assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    assert "angle" in result.stdout
    assert (tmp_path / "merged" / "modules.json").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--probe"),
        (["--method", "fisher"], "one file per model"),
        (["--method", "slerp", "--weight", "1"], "weights"),
    ],
)
def test_what_is_missing_is_named(place: Path, tmp_path: Path, words: list[str], says: str) -> None:
    result = run(place, *words, "--out", str(tmp_path / "merged"))
    assert result.exit_code != 0
    assert says in str(result.exception)
    assert not (tmp_path / "merged").exists()


def rows() -> dict[str, Dataset]:
    scores = [place / 19 for place in range(20)]
    return {
        "pairs": Dataset.from_dict({"anchor": ANCHORS, "positive": POSITIVES}),
        "scored": Dataset.from_dict({"sentence1": ANCHORS, "sentence2": POSITIVES, "score": scores}),
    }


@pytest.mark.parametrize("pipeline", ["separate", "sequential"])
def test_the_recipe_trains_a_model_per_data_set_and_merges(tmp_path: Path, pipeline: str) -> None:
    base = tiny_encoder(ANCHORS)
    before = [p.clone() for p in base.parameters()]
    options = {"pipeline": pipeline, "probe": 10, "search_epochs": 1, "batch_size": 5, "steps": 4}
    report = train("self_positioning", model=base, data=rows(), out=tmp_path / "model", **options)
    merged = SentenceTransformer(str(report.folder), device="cpu")
    assert merged.encode(["a cat"]).shape == (1, 32)
    assert any(not torch.equal(p, old) for p, old in zip(merged.parameters(), before, strict=True))
    assert all(torch.equal(p, old) for p, old in zip(base.parameters(), before, strict=True))


def test_joint_training_takes_kinds_together(tmp_path: Path) -> None:
    report = train("joint", model=tiny_encoder(ANCHORS), data=rows(), out=tmp_path / "model", batch_size=5, steps=4)
    assert (report.folder / "modules.json").is_file()


def test_the_python_of_the_page_runs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of docs/merging.md in order, on tiny models of the names that it uses."""
    page = (Path(__file__).parents[2] / "docs" / "merging.md").read_text(encoding="utf-8")
    (tmp_path / "models").mkdir()
    names = {"base": "base-model", "one": "models/sts", "two": "models/search"}
    for name, there in {**names, "scored.jsonl": "sts.jsonl", "pairs.jsonl": "search.jsonl"}.items():
        (tmp_path / there).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    scope: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "merging.md", "exec"), scope)
    assert (tmp_path / "merged" / "modules.json").is_file()


def test_the_table_of_the_page_is_that_of_the_result() -> None:
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("make_merging_figure", root / "docs" / "make_merging_figure.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.with_table(page, made.table(made.level())) == page, "run docs/make_merging_figure.py"
