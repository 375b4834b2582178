"""The page on false negatives shows what its result file says, and its Python runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from embedlab.text.training.plan import read_plan

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "false-negatives.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figure", ROOT / "docs" / "make_negatives_figure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_its_tables_are_those_of_the_result_file(script):
    page = PAGE.read_text(encoding="utf-8")
    tables = script.tables(script.level())
    assert all(text in page for text in tables.values()), "run `python docs/make_negatives_figure.py`"
    assert script.with_tables(page, tables) == page


def test_its_figure_draws_every_arm(script):
    drawn = script.PICTURE.read_text(encoding="utf-8")
    assert all(words in drawn for arm, words in script.ARMS.items() if arm != "untrained")


def test_its_python_runs(capsys):
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)
    assert "dropped" in capsys.readouterr().out
    assert callable(names["fine_tune"])


def test_its_recipe_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("questions.csv").write_text("anchor,positive\na cat,a tom\nan oak,a tree\n")
    (recipe,) = blocks("yaml")
    plan = read_plan(yaml.safe_load(recipe))
    assert (plan.base, plan.options["guide"], plan.arguments["learning_rate"]) == ("gist", "my-large-model", 2e-5)
