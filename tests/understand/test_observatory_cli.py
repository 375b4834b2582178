"""`embedlab inspect tables`, as a person and as a machine read it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from embedlab._core.errors import InputError
from embedlab.cli.inspect import app


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "tables"
    where.mkdir()
    rows = "".join(f"{city},{i}\n" for i, city in enumerate(["Oslo", "Rome", "Lima", "Bern", "Paris", "Cairo"]))
    (where / "towns.csv").write_text("city,people\n" + rows, encoding="utf-8")
    (where / "firms.csv").write_text("firm;seat\nA;Oslo\nB;Rome\nC;Lima\nD;Oslo\nE;Quito\n", encoding="utf-8")
    return where


def invoke(*args):
    result = CliRunner().invoke(app, ["tables", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_a_folder_is_measured_and_written(folder, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    shown = invoke(folder, "--variants", 3, "--out", tmp_path / "report")
    for word in ("default: 2 tables, 11 rows", "row order", "sample fidelity", "cosine 0.5", "Different columns"):
        assert word in shown.stdout
    assert "not measured: entity stability" in shown.stderr
    assert "too few columns share values" in shown.stderr
    assert (tmp_path / "report" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")

    found = json.loads(invoke(folder, "--variants", 3, "--json", "--property", "row_order").stdout)
    assert list(found["properties"]) == ["row_order"]
    assert found["properties"]["row_order"]["measures"]["cosine"]["estimate"] == 1.0
    assert [table["name"] for table in found["tables"]] == ["firms", "towns"]


def test_what_cannot_be_measured_is_refused(folder, tmp_path):
    for args, says in (
        ((tmp_path / "nowhere",), "does not exist"),
        ((folder, "--property", "rows"), "unknown property"),
        ((folder, "--readout", "mark"), "no transformer"),
    ):
        with pytest.raises(InputError, match=says):
            CliRunner().invoke(app, ["tables", *map(str, args)], catch_exceptions=False)
