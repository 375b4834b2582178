"""The page that maps the survey to the code names only what exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from embedlab._core.registry import methods

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "llm-and-embeddings.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in PAGE.splitlines() if re.match(r"\| [123][a-d] ", line)]
PLAIN = {"contrastive", "cosent", "angle", "cosine", "triplet", "classes"}
HOST = {"Dense", "SparseEncoder", "prompt=", "lora="}


def test_every_leaf_has_a_row() -> None:
    leaves = {row[0].removeprefix("| ")[:2] for row in ROWS}
    assert leaves == {"1a", "1b", "1c", "1d", "2a", "2b", "2c", "2d", "3a", "3b"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].removeprefix("| ").replace(" ", "-"))
def test_what_a_row_names_is_there(row: list[str]) -> None:
    pytest.importorskip("torch")
    _, here, test, example = row
    recipes = PLAIN | {name for record in methods().values() for name in record.recipes}
    for name in re.findall(r"`([^`]+)`", f"{here} {example}"):
        if name.endswith(".py"):
            assert (ROOT / name).is_file()
        elif "." in name:
            module, _, attribute = name.rpartition(".")
            assert hasattr(import_module(f"embedlab.{module}"), attribute), name
        else:
            assert name in recipes | HOST, name
    for name in re.findall(r"`([^`]+)`", test):
        assert (ROOT / "tests" / name).is_file(), name


def test_the_python_of_the_page_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "llm-and-embeddings.md", "exec"), names)
    assert names["kept"]
    assert names["better"]
