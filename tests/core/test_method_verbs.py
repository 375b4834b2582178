"""papers, show and reproduce, for people and for machines."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from embedlab._core.claims import STATES
from embedlab._core.errors import InputError
from embedlab.cli import app


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_papers_are_listed_with_their_state() -> None:
    rows = json.loads(run("papers", "--json"))
    assert [row["card"] for row in rows] == list(range(1, 53))
    assert {row["state"] for row in rows} <= set(STATES)
    by_card = {row["card"]: row for row in rows}
    assert by_card[1]["state"] == "missing"
    assert by_card[41]["methods"].keys() == {"gist"}
    assert by_card[6]["methods"].keys() == {"debias", "alignment", "numbers", "topics"}


def test_the_list_can_be_narrowed_to_a_room() -> None:
    text = run("papers", "--room", "understand")
    assert "tte_depth" in text
    assert "gist" not in text
    with pytest.raises(InputError, match="did you mean 'text'"):
        CliRunner().invoke(app, ["papers", "--room", "tex"], catch_exceptions=False)


def test_show_tells_how_to_call_a_method() -> None:
    shown = json.loads(run("show", "tte-depth", "--json"))
    assert shown["card"] == 44
    assert shown["objects"]["probe"]["signature"].startswith("TextDepth(")
    assert "Args:" in shown["objects"]["probe"]["docstring"]
    assert shown["state"] in STATES
    text = run("show", "tte_depth")
    assert "from embedlab.understand.tte_depth import TextDepth" in text


def test_show_knows_what_is_planned_and_what_is_not() -> None:
    assert "not written yet" in run("show", "neti")
    assert json.loads(run("show", "neti", "--json"))["state"] == "missing"
    with pytest.raises(InputError, match="did you mean"):
        CliRunner().invoke(app, ["show", "gits"], catch_exceptions=False)


def test_reproduce_wants_one_method_or_all() -> None:
    for words in (["reproduce"], ["reproduce", "gist", "--all"]):
        with pytest.raises(InputError, match="--all"):
            CliRunner().invoke(app, words, catch_exceptions=False)
    with pytest.raises(InputError, match="unknown level"):
        CliRunner().invoke(app, ["reproduce", "tte_depth", "--level", "quick"], catch_exceptions=False)
