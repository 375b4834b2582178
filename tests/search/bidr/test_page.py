"""The page on two-stage search: its Python runs, its tables are those of the results."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "two-stage.md"


def test_its_python_runs(capsys):
    pytest.importorskip("faiss")
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert "[0 1 2] Cost(memory_bytes=16000" in capsys.readouterr().out


def test_its_tables_are_fresh():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "make_two_stage_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    if not (tables.RESULT.is_file() and tables.BENCHMARK.is_file()):
        pytest.skip("not measured yet")
    page = PAGE.read_text(encoding="utf-8")
    assert tables.filled(page) == page, "run python docs/make_two_stage_tables.py"
