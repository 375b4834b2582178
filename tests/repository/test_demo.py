"""`make demo` on a machine with nothing installed: the core alone, no torch, no network, five answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-demo" / "bin" / "python"


@pytest.fixture(scope="module")
def core() -> Path:
    """The environment that holds the core alone, made if it is not there or out of date."""
    done = subprocess.run(["make", ".venv-demo/stamp"], cwd=ROOT, capture_output=True, text=True, check=False)
    if re.search("NewConnectionError|Temporary failure in name resolution|No matching distribution", done.stderr):
        pytest.skip("no package registry is reachable")
    assert done.returncode == 0, done.stderr
    return PYTHON


def offline() -> list[str]:
    """Command prefix that takes the network away, where the system allows it."""
    prefix = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return prefix
    return []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_core_holds_no_torch(core: Path) -> None:
    listed = subprocess.run([core, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True)
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert "lancedb" in names
    assert not names & {"torch", "transformers", "sentence-transformers", "scipy", "scikit-learn", "pandas", "pytest"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_answers_and_exits(core: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "EMBEDLAB_HOME": str(tmp_path)}
    command = [*offline(), "make", "demo", "SERVE=0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\? ", done.stdout, re.MULTILINE)) == 5
    passages = re.search(r"([\d,]+) passages", done.stderr)
    assert passages is not None
    assert int(passages[1].replace(",", "")) > 10_000
    assert "zipfile" in done.stdout.partition("? run a function")[0], "reading a zip file leads to zipfile"


@pytest.mark.slow
def test_a_missing_extra_is_named(core: Path) -> None:
    code = "from embedlab.testing.tiny import tiny_encoder; tiny_encoder(['a b'])"
    done = subprocess.run([core, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'embedlab[train]'" in done.stderr
