"""How the collection behaves as a guest in a process: quiet, quick to import, gone when the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from tiny_model import HashingEncoder
from embedlab.search import Collection, doctor, list_collections, remove_collection
c = Collection.create("c", model=HashingEncoder())
c.index({folder!r}, processes={processes})
c.add([{{"source": "x", "text": "added text", "metadata": {{"lang": "en"}}}}])
for mode in ("hybrid", "dense", "lexical"):
    assert c.search("text seven", mode=mode, filter="format = 'txt'", explain=True)
c._tables().compact()
assert c.search("added", filter='lang = "en"')
c.similar(c.search("text")[0].id)
c.delete("x")
c.export({folder!r} + "/out.parquet")
list_collections()
remove_collection("c")
print("fine")
"""


def run(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"EMBEDLAB_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_script_without_main_guard_runs_quietly_and_ends(tmp_path: Path, processes: int) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(12):
        (folder / f"d{number}.txt").write_text(f"Text number {number}, seven words in all.")
    tests = str(Path(__file__).parent)
    done = run(SCRIPT.format(tests=tests, folder=str(folder), processes=processes), tmp_path / "home")
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


def test_importing_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, embedlab.search; print(sorted({'lancedb', 'pyarrow', 'torch', 'fastapi'} & set(sys.modules)))"
    assert run(code, tmp_path).stdout == "[]\n"


def test_a_search_by_words_needs_no_model(tmp_path: Path) -> None:
    code = """
import sys
from embedlab.search import Collection
c = Collection.create("c")
c.add(["some words"])
again = Collection.open("c")
assert again.search("words", mode="lexical")
assert again._encoder is None
"""
    done = run(code, tmp_path / "home")
    assert (done.stderr, done.returncode) == ("", 0)
