"""A reproduction is run seed by seed, survives interruption, and goes stale when its code changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedlab._core import results
from embedlab._core.errors import InputError
from embedlab._core.registry import MethodRecord, read_record
from embedlab._core.reproduce import load_reproduction, measure, reproduce
from embedlab._core.results import ReproductionError, read_result, state_of

METHOD = '''
METHOD = {
    "card": 60, "title": "T", "authors": "A", "year": 2024, "source": "S 1", "kinds": {"probe": "double"}, "extras": [],
    "official_code": None, "deviations": [], "known_failures": [],
}


def double(x):
    """Double it."""
    return 2 * x
'''

REPRODUCTION = '''
"""Doubling is more. Small here: all of it. Falsified if it is less."""
from pathlib import Path

from embedlab.testing import Claim, data_hash

CLAIMS = (
    Claim(id="more", words="More.", metric="ours", baseline="plain", direction="higher", margin=0.5, seeds=3),
    Claim(id="big", words="Big.", metric="ours", baseline=0.0, direction="higher", margin=1.0, levels=("gpu",)),
)
CALLS = Path(__file__).with_name("calls.txt")


def oracle():
    """Nothing to check."""


def run(seed, level):
    with CALLS.open("a") as calls:
        calls.write(f"{seed} ")
    if (Path(__file__).with_name("interrupt")).exists() and seed == 2:
        raise KeyboardInterrupt
    return {"ours": 2.0 + seed, "plain": 1.0 + seed, "data": data_hash(seed)}
'''


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MethodRecord:
    source = tmp_path / "text" / "doubling.py"
    source.parent.mkdir()
    source.write_text(METHOD)
    (tmp_path / "doubling.py").write_text(REPRODUCTION)
    made = read_record(source)
    assert made is not None
    monkeypatch.setattr(results, "methods", lambda: {"doubling": made})
    return made


def test_a_run_writes_what_is_needed_to_trust_it(record: MethodRecord, tmp_path: Path) -> None:
    report = reproduce(load_reproduction(record, tmp_path), "cpu")
    stored = json.loads((tmp_path / "results" / "doubling.json").read_text())["levels"]["cpu"]
    assert stored == report
    assert report["verdict"] == "holds"
    assert report["seeds"] == [0, 1, 2]
    assert [claim["id"] for claim in report["claims"]] == ["more"], "a claim for the gpu level is not judged here"
    assert report["claims"][0]["gain_mean"] == 1.0
    assert len({run["data"] for run in report["runs"]}) == 3
    assert {"python", "embedlab", "numpy"} <= report["versions"].keys()
    assert report["hardware"]["cores"] >= 1
    assert report["command"] == "embedlab reproduce doubling --level cpu"
    assert not list((tmp_path / "results").glob(".unfinished/*"))


def test_states_run_from_missing_to_stale(record: MethodRecord, tmp_path: Path) -> None:
    assert state_of("tripling", tmp_path) == "missing"
    assert state_of("doubling", tmp_path) == "not run"
    reproduce(load_reproduction(record, tmp_path), "cpu")
    assert state_of("doubling", tmp_path) == "holds"
    record.path.write_text(METHOD.replace("Double it.", "Give twice as much."))
    assert state_of("doubling", tmp_path) == "holds", "words are not code"
    record.path.write_text(METHOD.replace("2 * x", "x + x"))
    assert state_of("doubling", tmp_path) == "stale"
    reproduce(load_reproduction(record, tmp_path), "gpu")
    assert state_of("doubling", tmp_path) == "holds", "the fresh level counts"
    assert read_result("doubling", tmp_path)["levels"].keys() == {"cpu", "gpu"}, "the other level is kept"


def test_an_interrupted_run_goes_on_where_it_stopped(record: MethodRecord, tmp_path: Path) -> None:
    (tmp_path / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        reproduce(load_reproduction(record, tmp_path), "cpu")
    assert not (tmp_path / "results" / "doubling.json").exists(), "half a result is no result"
    (tmp_path / "interrupt").unlink()
    report = reproduce(load_reproduction(record, tmp_path), "cpu")
    assert (tmp_path / "calls.txt").read_text().split() == ["0", "1", "2", "2"]
    assert report["seeds"] == [0, 1, 2]


def test_kept_seeds_are_dropped_when_the_code_changes_or_the_file_is_damaged(
    record: MethodRecord, tmp_path: Path
) -> None:
    (tmp_path / "interrupt").touch()
    for change in (lambda: record.path.write_text(METHOD.replace("2 * x", "x + x")), aside(tmp_path).touch):
        with pytest.raises(KeyboardInterrupt):
            reproduce(load_reproduction(record, tmp_path), "cpu")
        change()
    aside(tmp_path).write_text("{half")
    with pytest.raises(KeyboardInterrupt):
        reproduce(load_reproduction(record, tmp_path), "cpu")
    assert (tmp_path / "calls.txt").read_text().split() == ["0", "1", "2"] * 3


def aside(folder: Path) -> Path:
    return folder / "results" / ".unfinished" / "doubling.cpu.json"


def test_smoke_runs_one_seed_and_writes_nothing(record: MethodRecord, tmp_path: Path) -> None:
    assert reproduce(load_reproduction(record, tmp_path), "smoke")["seeds"] == [0]
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"data": data_hash(seed)', '"data": 3.0', "data"),
        ('"ours": 2.0 + seed', '"ours": float("nan")', "finite"),
        ('"plain": 1.0 + seed, ', "", "'plain'"),
        ("def run(", "def ran(", "run()"),
        ("def oracle(", "def check(", "oracle()"),
        ("CLAIMS = (", "CLAIM = (", "CLAIMS"),
        ('id="big"', 'id="more"', "share an id"),
        ('"""Doubling is more. Small here: all of it. Falsified if it is less."""', "", "docstring"),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(
    record: MethodRecord, tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in REPRODUCTION
    (tmp_path / "doubling.py").write_text(REPRODUCTION.replace(old, new))
    with pytest.raises(ReproductionError) as caught:
        measure(load_reproduction(record, tmp_path), 0, "smoke")
    assert says in str(caught.value)
    assert "doubling.py" in str(caught.value)


def test_bad_requests_and_damaged_results_are_refused(record: MethodRecord, tmp_path: Path) -> None:
    reproduction = load_reproduction(record, tmp_path)
    with pytest.raises(InputError, match="did you mean 'cpu'"):
        reproduce(reproduction, "cpuu")
    with pytest.raises(InputError, match="seeds=0"):
        reproduce(reproduction, "cpu", seeds=0)
    (tmp_path / "results").mkdir(exist_ok=True)
    (tmp_path / "results" / "doubling.json").write_text("{half")
    with pytest.raises(ReproductionError, match="not valid JSON"):
        state_of("doubling", tmp_path)
    with pytest.raises(ReproductionError, match="does not exist"):
        load_reproduction(record, tmp_path / "elsewhere")


def test_remembered_fingerprints_are_those_of_the_code(tmp_path: Path) -> None:
    from embedlab._core.hashes import bytes_hash, source_hash
    from embedlab._core.registry import methods
    from embedlab._core.results import reproductions_folder

    known = json.loads((reproductions_folder() / "results" / ".fingerprints.json").read_text(encoding="utf-8"))
    for record in methods().values():
        assert known.get(bytes_hash(record.sources())) in (None, source_hash(record.sources()))
    code, words = tmp_path / "a.py", tmp_path / "b" / "a.py"
    words.parent.mkdir()
    code.write_text("x = 1\n", encoding="utf-8")
    words.write_text("x = 1  # one\n", encoding="utf-8")
    assert bytes_hash([code]) != bytes_hash([words])
    assert source_hash([code]) == source_hash([words])
