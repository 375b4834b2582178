"""The page on language models as embedders names code and tests that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "llm-embedders.md").read_text(encoding="utf-8").split("## Everything")[1].splitlines()
    if line.startswith("| ") and "`embedlab." in line
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_row_leads_somewhere(row: list[str]) -> None:
    _, code, test, example = row
    module, _, name = code.strip("`").rpartition(".")
    assert hasattr(importlib.import_module(module), name), code
    assert (ROOT / test.strip("`")).is_file(), test
    for path in re.findall(r"reproductions/\w+\.py", example):
        assert (ROOT / path).is_file(), path


def test_every_part_is_there() -> None:
    assert len(ROWS) > 35
