"""What happens when compressing goes wrong: killed at any moment, interrupted, codecs that are gone or not theirs."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from embedlab._core.errors import CollectionError
from embedlab.search import Collection, Finding, Settings, compress_collection, doctor
from embedlab.search.codecs import make_codec
from embedlab.search.compression import compressing, rewriting
from embedlab.search.compression.column import CODE
from embedlab.search.store import VECTOR

from ..tiny_model import HashingEncoder
from .corpus import TurnedEncoder, documents

CHILD = Path(__file__).with_name("compressing_child.py")
QUERIES = [str(each["text"]).split(". ")[2] for each in documents(8)]
# where a job is killed: before (even) or after (odd) the n-th call of a step
POINTS = {
    "compress": [
        ("learn", 0), ("save_codec", 0), ("save_codec", 1), ("create_index", 0), ("create_index", 1),
        ("add_columns", 0), ("add_columns", 1), ("encode", 0), ("merge", 0), ("merge", 3), ("drop_index", 0),
        ("drop_index", 1), ("verify", 0), ("verify", 1), ("measure", 1), ("describe", 0), ("describe", 1),
        ("switch", 0), ("switch", 1),
    ],
    "drop": [("switch", 1), ("drop_columns", 0), ("drop_columns", 1), ("move_a_row", 0), ("move_a_row", 1),
             ("compact", 0), ("compact", 1), ("compact", 3)],
    "undo": [("embed", 0), ("embed", 3), ("merge", 2), ("switch", 0), ("switch", 1), ("drop_columns", 0),
             ("drop_columns", 1)],
    "upgrade": [("save_bridge", 0), ("save_bridge", 1), ("describe", 0), ("describe", 1)],
}  # fmt: skip


def ranking(collection: Collection, **options: object) -> list[list[str]]:
    return [[hit.id for hit in collection.search(query, **options)] for query in QUERIES]  # type: ignore[arg-type]


def alike(found: list[list[str]], wanted: list[list[str]]) -> bool:
    """Tell whether rankings are the same but for passages of equal BM25, whose order is that of the files."""
    return all(len(set(a) & set(b)) >= 9 for a, b in zip(found, wanted, strict=True))


def findings(collection: Collection, *, repair: bool = False, model: HashingEncoder | None = None) -> list[Finding]:
    found = doctor(collection.path, repair=repair, model=model or HashingEncoder())
    return [finding for finding in found if finding.collection]


def spoil_file(collection: Collection) -> None:
    (file,) = (Path(collection.path) / "codecs").glob("*/parameters.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"!")


def spoil_settings(collection: Collection) -> None:
    (file,) = (Path(collection.path) / "codecs").glob("*/codec.json")
    file.write_text(file.read_text().replace('"dim": 32', '"dim": 31'))


def lose_codec(collection: Collection) -> None:
    shutil.rmtree(Path(collection.path) / "codecs")


def put_another(collection: Collection, dim: int) -> None:
    (folder,) = (Path(collection.path) / "codecs").iterdir()
    numbers = np.random.default_rng(0).standard_normal((100, dim)).astype(np.float32)
    make_codec("int8", dim).fit(numbers).save(folder)


def say_another_model(collection: Collection) -> None:
    collection._tables().passages.update_field_metadata({"path": CODE, "metadata": {"model": "other:0123456789abcdef"}})


def say_another_codec(collection: Collection) -> None:
    collection._tables().passages.update_field_metadata({"path": CODE, "metadata": {"codec": "int8:0123456789abcdef"}})


@pytest.fixture
def nursery() -> Iterator[subprocess.Popen[str]]:
    """A process that forks the ones to be killed; it has imported everything and opened nothing."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CHILD), "--nursery"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "nursery\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run_and_kill(nursery: subprocess.Popen[str], arguments: list[str], after: float | None = None) -> bool:
    """Run a job, kill it after some seconds if it does not do so itself; tell whether it was killed."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(json.dumps(arguments) + "\n")
    nursery.stdin.flush()
    for line in nursery.stdout:
        word, _, rest = line.strip().partition(" ")
        assert word != "error", json.loads(rest)
        if word == "ready" and after is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):  # it was through before
                os.kill(int(rest), signal.SIGKILL)
        if word == "ended":
            return os.waitstatus_to_exitcode(int(rest)) == -signal.SIGKILL
    raise AssertionError("the nursery is gone")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_is_as_it_was_or_as_it_shall_be(nursery: subprocess.Popen[str]) -> None:
    """After every kill it is searched as before, can be written to, and the same command then goes through."""
    encoder, chance, kills = HashingEncoder(), random.Random(3), Counter[str]()
    plain = Collection.create("plain", model=encoder, settings=Settings(max_chars=300))
    plain.add(documents(60))
    expected = {mode: ranking(plain, mode=mode) for mode in ("hybrid", "dense", "lexical")}
    moments: list[tuple[str, tuple[str, int] | None]] = [(job, at) for job, points in POINTS.items() for at in points]
    moments += [(job, None) for job in ("compress", "compress", "drop", "undo", "upgrade")]
    for number, (job, point) in enumerate(moments):
        name = f"c{number}"
        shutil.copytree(plain.path, Path(plain.path).with_name(name))
        if job == "undo":
            compress_collection(name, codec="int8", drop_vectors=True, model=encoder)
        options = ["--die", point[0], "--at", str(point[1])] if point else ["--slow", "0.02"]
        killed = run_and_kill(nursery, [name, job, *options], None if point else chance.uniform(0.0, 0.3))
        kills[f"{job} {point[0] if point else 'any moment'}"] += killed
        model = TurnedEncoder() if Collection.open(name).model == "turned" else HashingEncoder()
        after = Collection.open(name, model=model)
        for mode, wanted in expected.items():
            same = [len(set(a) & set(b)) for a, b in zip(ranking(after, mode=mode), wanted, strict=True)]
            assert min(same) >= (8 if job != "compress" else 10), (job, point, mode, same)
        assert not [f for f in findings(after, model=model) if f.level == "error"], (job, point)
        assert after.add([{"source": "new", "text": "Zebra quagga okapi."}]).added == 1
        assert after.search("zebra quagga okapi", mode="dense")[0].source == "new"
        assert not rewriting.leftovers(after._tables())  # writing has tidied up
        finished = job == "upgrade" and model.name == "turned"
        finished |= job == "drop" and VECTOR not in after._tables().passages.schema.names
        finished |= job == "undo" and after._tables().coded() is None
        if not finished:
            assert not run_and_kill(nursery, [name, job])
        assert not [f for f in findings(Collection.open(name), model=model) if f.level != "ok" and f.check == "codes"]
        shutil.rmtree(after.path)
    planned = Counter(f"{job} {point[0]}" for job, points in POINTS.items() for point in points)
    assert {key: kills[key] for key in planned} == dict(planned)
    assert kills.total() > planned.total()


def test_ctrl_c_leaves_everything_as_it_was(collection: Collection, encoder: HashingEncoder) -> None:
    before, names = ranking(collection), collection._tables().passages.schema.names
    child = subprocess.Popen(
        [sys.executable, str(CHILD), "c", "compress", "--slow", "0.2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with child:
        deadline = time.monotonic() + 60
        while not rewriting.leftovers(collection._tables()):  # it has begun to write
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)
        assert ranking(collection) == before  # readers go on
        child.send_signal(signal.SIGINT)
        assert child.wait(30) in (1, -signal.SIGINT)
        assert child.stderr is not None
        assert "KeyboardInterrupt" in child.stderr.read()
    assert collection._tables().passages.schema.names == names
    assert not rewriting.leftovers(collection._tables())
    assert ranking(collection) == before
    assert [f for f in findings(collection) if f.level != "ok"] == []


def test_a_failure_while_encoding_leaves_everything_as_it_was(
    collection: Collection, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ranking(collection)
    monkeypatch.setattr(compressing, "codes_array", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        compress_collection("c", codec="int8", model=encoder)
    assert not rewriting.leftovers(collection._tables())
    assert ranking(collection) == before


def test_codes_that_are_not_those_of_the_vectors_are_not_switched_to(
    collection: Collection, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = compressing.codes_array
    monkeypatch.setattr(compressing, "codes_array", lambda codec, vectors: honest(codec, vectors[::-1]))
    with pytest.raises(CollectionError, match="nothing has changed"):
        compress_collection("c", codec="int8", model=encoder)
    assert collection._tables().coded() is None
    assert not rewriting.leftovers(collection._tables())


SPOILS: dict[str, tuple[Callable[[Collection], None], str]] = {
    "damaged file": (spoil_file, "checksum"),
    "damaged settings": (spoil_settings, "checksum"),
    "missing": (lose_codec, "codec.json"),
    "another codec": (lambda c: put_another(c, 32), "the codes are of int8"),
    "another width": (lambda c: put_another(c, 31), "int8"),
    "another model": (say_another_model, "of vectors of model other:0123456789abcdef"),
    "unknown codec": (say_another_codec, "codec.json"),
}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("keep", [True, False], ids=["vectors kept", "vectors dropped"])
def test_codes_that_cannot_be_used_are_told_and_mended(
    collection: Collection, encoder: HashingEncoder, spoil: str, keep: bool
) -> None:
    before, words = ranking(collection), ranking(collection, mode="lexical")
    compress_collection("c", codec="int8", drop_vectors=not keep, model=encoder)
    change, reason = SPOILS[spoil]
    change(collection)
    broken = Collection.open("c", model=encoder)
    for use in (lambda: broken.search(QUERIES[0]), lambda: broken.search(QUERIES[0], mode="dense")):
        with pytest.raises(CollectionError, match=rf"{reason}.*'lexical'.*embedlab doctor c --repair"):
            use()
    assert alike(ranking(broken, mode="lexical"), words)  # search by words needs no codes
    if not keep:
        with pytest.raises(CollectionError, match="doctor"):
            broken.vectors()
    with pytest.raises(CollectionError, match="doctor"):
        broken.add(["a new text"])
    found = {f.check: f for f in findings(broken)}
    assert (found["codes"].level, found["codes"].repaired) == ("error", False)
    assert ("fall back" if keep else "embed") in found["codes"].action
    mended = {f.check: f for f in findings(broken, repair=True)}
    assert mended["codes"].repaired
    assert mended["vectors"].level == "ok"
    assert [f for f in findings(broken) if f.level != "ok"] == []
    assert alike(ranking(Collection.open("c", model=encoder)), before)
    compress_collection("c", codec="int8", model=encoder)


def test_codes_out_of_step_are_found(collection: Collection, encoder: HashingEncoder) -> None:
    compress_collection("c", codec="int8", model=encoder)
    table = collection._tables().passages
    row = table.search().limit(1).to_arrow()
    table.delete(f"id = '{row['id'][0].as_py()}'")
    at = row.schema.get_field_index(VECTOR)
    other = table.search().where("ordinal = 1").limit(1).to_arrow()[VECTOR]
    table.add(row.set_column(at, row.schema.field(VECTOR), other))
    (found,) = [f for f in findings(collection) if f.check == "codes"]
    assert "not those of their vectors" in found.message
    assert [f.repaired for f in findings(collection, repair=True) if f.check == "codes"] == [True]


def test_without_its_model_codes_alone_are_mended_later(
    collection: Collection, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress_collection("c", codec="int8", drop_vectors=True, model=encoder)
    lose_codec(collection)
    (found,) = [f for f in findings(collection, repair=True, model=HashingEncoder(salt="x")) if f.check == "codes"]
    assert not found.repaired
    assert "make the model available" in found.action
    assert [f.repaired for f in findings(collection, repair=True) if f.check == "codes"] == [True]


def test_leftovers_of_a_killed_compression_are_found_and_taken_away(
    collection: Collection, encoder: HashingEncoder, nursery: subprocess.Popen[str]
) -> None:
    assert run_and_kill(nursery, ["c", "compress", "--die", "merge", "--at", "1"])
    (found,) = [f for f in findings(collection) if f.check == "compression"]
    assert found.level == "warn"
    assert "_pending" in found.message
    findings(collection, repair=True)
    assert not rewriting.leftovers(collection._tables())


def test_a_full_disk_leaves_the_collection_as_it_was(tmp_path: Path) -> None:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    if os.name != "posix" or shutil.which("mount") is None:
        pytest.skip("no mount command here")
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mounted)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted")
    try:
        encoder = HashingEncoder(512)
        collection = Collection.create(mounted / "c", model=encoder, settings=Settings(max_chars=300))
        collection.add(documents(450))
        before = ranking(collection)
        with pytest.raises(CollectionError, match="disk is full"):
            compress_collection(mounted / "c", codec="float32", model=encoder)
        assert ranking(collection) == before
        assert ranking(Collection.open(mounted / "c", model=encoder), mode="dense") == ranking(collection, mode="dense")
        subprocess.run(["mount", "-o", "remount,size=40m", str(mounted)], check=True)
        compress_collection(mounted / "c", codec="int8", model=encoder)
        assert not rewriting.leftovers(collection._tables())
        assert collection._tables().coded() is not None
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False)
