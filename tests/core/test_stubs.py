"""`embedlab new` writes two files that are found, that lint, and that fail in red where something is missing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedlab._core.errors import InputError
from embedlab._core.papers import papers
from embedlab._core.registry import KINDS, ROOMS, read_record
from embedlab._core.stubs import USUAL_KIND, write_stubs
from embedlab.cli import app


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for room in ROOMS:
        (tmp_path / "src" / "embedlab" / room).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("room", ROOMS)
def test_stubs_are_valid_methods_with_gaps(checkout: Path, room: str) -> None:
    source, reproduction = write_stubs(room, "my_method", checkout)
    record = read_record(source)
    assert record is not None
    assert (record.name, record.room, record.card) == ("my_method", room, 53)
    assert set(record.kinds) == {USUAL_KIND[room]}
    assert record.authors == "?"
    ast.parse(reproduction.read_text())


def test_stubs_pass_the_linter(checkout: Path) -> None:
    for kind in KINDS:
        write_stubs("text", f"a_{kind}", checkout, kind=kind)
    ruff = [Path(sys.executable).with_name("ruff"), "check", "--config", Path(__file__).parents[2] / "pyproject.toml"]
    done = subprocess.run([*ruff, str(checkout)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_planned_method_knows_its_paper(checkout: Path) -> None:
    source, _ = write_stubs("text", "sesa", checkout)
    record = read_record(source)
    assert record is not None
    assert record.card == 5
    assert record.title == papers()[4].title


@pytest.mark.parametrize(
    "name", ["2fast", "my-method", "My_Method", "class", "match", "_hidden", "", "../evil", "naïve"]
)
def test_names_that_are_no_module_are_refused(checkout: Path, name: str) -> None:
    with pytest.raises(InputError, match="lower case"):
        write_stubs("text", name, checkout)


def test_nothing_is_overwritten(checkout: Path) -> None:
    source, reproduction = write_stubs("text", "my_method", checkout)
    source.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        write_stubs("text", "my_method", checkout)
    assert source.read_text() == "precious"
    source.unlink()
    reproduction.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        write_stubs("text", "my_method", checkout)
    assert not source.exists(), "neither file is written when one is there"


def test_unknown_rooms_kinds_and_places_are_refused(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'graphs'"):
        write_stubs("graph", "my_method", checkout)
    with pytest.raises(InputError, match="did you mean 'probe'"):
        write_stubs("text", "my_method", checkout, kind="prob")
    with pytest.raises(InputError, match="not a checkout"):
        write_stubs("text", "my_method", tmp_path / "elsewhere")


def test_contract_tests_name_what_a_stub_lacks(checkout: Path) -> None:
    """Put a stub in a copy of the package and run the contracts on it: all red, each with its reason."""
    import shutil

    root = Path(__file__).parents[2]
    shutil.copytree(
        root / "src", checkout / "src", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "default")
    )
    shutil.copytree(root / "tests" / "contract", checkout / "tests" / "contract")
    shutil.copy(root / "pyproject.toml", checkout)
    write_stubs("understand", "my_probe", checkout)
    ask = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "my_probe",
        "tests/contract/test_methods.py",
    ]
    ask += ["tests/contract/test_kinds.py"]
    environment = {"PYTHONPATH": str(checkout / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(ask, capture_output=True, text=True, check=False, cwd=checkout, env=environment)
    assert done.returncode == 1, done.stdout
    for words in (
        "METHOD still holds a '?'",
        "empty section",
        "example() of my_probe is not written yet",
        "the oracle of my_probe is not written yet",
        "claim '?' is not written yet",
    ):
        assert words in done.stdout, f"no test says {words!r}\n{done.stdout[-3000:]}"


def test_the_verb_writes_and_says_what_comes_next(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    result = CliRunner().invoke(app, ["new", "text", "my_method"])
    assert result.exit_code == 0, result.output
    assert (checkout / "src" / "embedlab" / "text" / "my_method.py").is_file()
    assert "pytest tests/contract -k my_method" in result.output
