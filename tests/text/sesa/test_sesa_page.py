"""The Python on the page runs, and says what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "explicit-semantics.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "explicit-semantics.md", "exec"), names)
    assert names["esa"].explain("queries over tables", "rows of tables") == [("databases", pytest.approx(1.0))]
    pair = "rows of a table", names["Item"](concepts=["databases"])
    parts = names["sesa"].explain(*pair, top_k=None)
    assert parts[0][0] == "databases"
    assert sum(weight for _, weight in parts) == pytest.approx(names["sesa"].score(*pair))
