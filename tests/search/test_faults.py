"""What happens when things go wrong, with real processes, a real small disk and a real endpoint that misbehaves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from embedlab._core.errors import CollectionError, EndpointError
from embedlab.models.endpoint import EndpointModel
from embedlab.search import Collection, Finding, Settings, doctor

from .tiny_model import HashingEncoder

CHILD = Path(__file__).with_name("indexing_child.py")


def start(folder: Path, name: str, *options: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CHILD), str(folder), name, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.split()[0] == word:
            return
    raise AssertionError(f"the process ended before it said {word!r}: {child.stderr.read() if child.stderr else ''}")


def findings(collection: Collection, *, repair: bool = False) -> list[Finding]:
    """What the check-up says about a collection of the tiny model."""
    return [f for f in doctor(collection.path, repair=repair, model=HashingEncoder()) if f.collection]


class Folder:
    """A folder that changes from round to round and remembers every text a file ever had."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.chance = path, random.Random(seed)
        self.texts: dict[str, str] = {}
        self.ever: dict[str, set[str]] = {}
        path.mkdir()
        for number in range(48):
            self.write(number)

    def write(self, number: int) -> None:
        name = f"d{number}.txt"
        words = self.chance.choices(["zebra", "quagga", "okapi", "tapir", "gnu"], k=30)
        parts = [f"{name} version {self.chance.random()} part {part} " + " ".join(words) for part in range(3)]
        text = "\n\n".join(part + "." for part in parts)
        (self.path / name).write_text(text)
        self.texts[name] = text
        self.ever.setdefault(name, set()).add(text)

    def change(self) -> None:
        for number in self.chance.sample(range(56), 6):
            self.write(number)
        for name in self.chance.sample(sorted(self.texts), 3):
            (self.path / name).unlink()
            del self.texts[name]


def check_readable(collection: Collection, folder: Folder, settled: set[str]) -> None:
    """Every committed document is whole, of one version, there once; none that was settled and stayed is missing."""
    by_source: dict[str, list[str]] = {}
    ids = Counter()
    for passage in collection.passages():
        by_source.setdefault(passage.source, []).append(passage.text)
        ids[passage.id] += 1
        assert any(text[passage.start : passage.end] == passage.text for text in folder.ever[passage.source])
    assert max(ids.values(), default=1) == 1
    for source, texts in by_source.items():
        assert any(all(text in version for text in texts) and len(texts) == 3 for version in folder.ever[source])
    for source in settled:
        if source in folder.texts:
            assert source in by_source, f"{source} was committed and is gone"
    if by_source:
        hits = collection.search("zebra okapi", top_k=5)
        assert hits
        assert all(np.isfinite(hit.score) for hit in hits)


def check_equal(collection: Collection, folder: Folder) -> None:
    stored: dict[str, list[str]] = {}
    for passage in collection.passages():
        stored.setdefault(passage.source, []).append(passage.text)
    assert set(stored) == set(folder.texts)
    for source, text in folder.texts.items():
        assert sorted(stored[source]) == sorted(text.split("\n\n"))
    assert [f for f in findings(collection) if f.level == "error"] == []


POINTS = [
    ("known", 1), ("forget_files", 0), ("forget_files", 1), ("embedding", 0), ("embedding", 3), ("columns", 2),
    ("replace", 0), ("replace", 1), ("replace", 3), ("replace", 4), ("remember_files", 0), ("remember_files", 1),
    ("remember_files", 3), ("remove_gone", 0), ("delete", 0), ("delete", 1), ("remove_gone", 1), ("index_text", 0),
    ("index_text", 1), ("compact", 0), ("compact", 1),
]  # fmt: skip


@pytest.fixture
def nursery() -> Iterator[subprocess.Popen[str]]:
    """A process that forks the ones to be killed; it has imported everything and opened nothing."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CHILD), "--nursery"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("nursery")
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run_and_kill(nursery: subprocess.Popen[str], arguments: list[str], after: float | None) -> bool:
    """Run an indexing process, kill it after some seconds if it does not do so itself; tell whether it was killed."""
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
@pytest.mark.timeout(900)
def test_fifty_kills_lose_nothing(tmp_path: Path, nursery: subprocess.Popen[str]) -> None:
    """Kill -9 before and after every step of a first run and of later ones, and at random moments."""
    encoder = HashingEncoder()
    chance = random.Random(7)
    kills: Counter[str] = Counter()
    lap = 0
    while kills.total() < 50 or lap < 2:
        folder = Folder(tmp_path / f"docs{lap}", seed=lap)
        name = f"lap{lap}"
        collection = Collection.create(name, model=encoder, settings=Settings(max_chars=250))
        settled: set[str] = set()
        plan: list[tuple[str, int] | None] = [*POINTS, *[None] * 6]
        chance.shuffle(plan)
        for number, point in enumerate(plan):
            options = ["--die", point[0], "--at", str(point[1])] if point else ["--slow", "0.02"]
            after = None if point else chance.uniform(0.0, 0.4)
            killed = run_and_kill(nursery, [str(folder.path), name, *options], after)
            kills[point[0] if point else "any moment"] += killed
            check_readable(collection, folder, settled)
            settled = {p.source for p in collection.passages()}
            if number % 5 == 4:
                collection.index(folder.path)
                check_equal(collection, folder)
                settled = set(folder.texts)
            folder.change()
        collection.index(folder.path)
        check_equal(collection, folder)
        assert collection.index(folder.path).files_skipped == len(folder.texts)
        lap += 1
        assert lap < 6, f"the steps are not reached any more: {kills}"
    assert set(kills) == {phase for phase, _ in POINTS} | {"any moment"}
    assert min(kills.values()) >= 1, kills


def test_ctrl_c_commits_the_batch_in_hand(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "docs", seed=3)
    collection = Collection.create("c", model=HashingEncoder(), settings=Settings(max_chars=250))
    child = start(folder.path, "c", "--slow", "0.2", "--batch", "12")
    with child:
        wait_for(child, "ready")
        time.sleep(0.7)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) in (1, -signal.SIGINT)
        assert child.stderr is not None
        assert "KeyboardInterrupt" in child.stderr.read()
    done = len(collection)
    assert 0 < done < 3 * len(folder.texts)
    report = collection.index(folder.path)
    assert report.added == len(folder.texts) - done // 3
    check_equal(collection, folder)


def test_a_second_writer_is_told_who_writes_and_readers_go_on(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "docs", seed=4)
    collection = Collection.create("c", model=HashingEncoder(), settings=Settings(max_chars=250))
    child = start(folder.path, "c", "--slow", "0.5", "--batch", "12")
    with child:
        wait_for(child, "ready")
        deadline = time.monotonic() + 20
        while not collection.search("zebra"):  # readers see its commits while it writes
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(CollectionError, match=f"process {child.pid}"):
            collection.add(["another writer"])
        assert any(f.check == "writer" and str(child.pid) in f.message for f in findings(collection))
        child.kill()
    collection.add([{"source": "loose", "text": "The lock fell open with its holder."}])
    assert collection.search("holder", mode="lexical")[0].source == "loose"


def test_two_threads_write_one_after_the_other(tmp_path: Path) -> None:
    collection = Collection.create("c", model=HashingEncoder())
    errors: list[BaseException] = []

    def add(number: int) -> None:
        try:
            Collection.open("c", model=HashingEncoder()).add([f"text {number}"])
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(collection) == 4


# disk full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    if shutil.which("mount") is None or os.name != "posix":
        pytest.skip("no mount command here")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mounted)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {made.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False)


def test_a_full_disk_loses_nothing_that_was_committed(small_disk: Path) -> None:
    encoder = HashingEncoder()
    collection = Collection.create(small_disk / "c", model=encoder)
    collection.add([{"source": "first", "text": "The first document about zebras."}])
    numbers = np.random.default_rng(0)

    def fill() -> None:
        for batch in range(200):
            texts = (bytes(numbers.integers(33, 126, 3000, dtype=np.uint8)).decode() for _ in range(40))
            collection.add({"source": f"{batch}-{n}", "text": text} for n, text in enumerate(texts))

    with pytest.raises(CollectionError, match=r"disk is full.*intact.*free some space"):
        fill()
    after = Collection.open(small_disk / "c", model=encoder)
    assert after.search("zebras", mode="lexical")[0].source == "first"
    kept = len(after)
    assert kept > 100
    assert np.isfinite(after.vectors()[1]).all()
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    assert after.add([{"source": "last", "text": "Room again for okapis."}]).added == 1
    assert after.search("okapis", mode="lexical")[0].source == "last"
    assert len(after) == kept + 1


# models and endpoints that misbehave


class BadEncoder(HashingEncoder):
    def __init__(self, spoil: str) -> None:
        super().__init__()
        self.spoil = spoil

    def encode_document(self, texts, **kwargs):  # type: ignore[no-untyped-def]
        rows = super().encode_document(texts, **kwargs)
        for row, text in zip(rows, texts, strict=True):
            if "poison" in text:
                row[0] = {"nan": np.nan, "inf": np.inf}.get(self.spoil, row[0])
        return rows[:, 1:] if self.spoil == "shape" else rows


@pytest.mark.parametrize(
    ("spoil", "words"), [("nan", "NaN or infinity"), ("inf", "NaN or infinity"), ("shape", "shape")]
)
def test_vectors_that_would_spoil_the_collection_are_refused(spoil: str, words: str) -> None:
    good = Collection.create("c", model=HashingEncoder())
    good.add(["a good text"])
    bad = Collection.open("c", model=BadEncoder(spoil))
    with pytest.raises(CollectionError, match=words):
        bad.add(["fine", "poison here"])
    assert len(good) == 1
    assert good.search("good")[0].text == "a good text"


class Endpoint(BaseHTTPRequestHandler):
    mood: ClassVar[str] = "good"
    asked: ClassVar[int] = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mood = type(self).mood
        if mood == "hang":
            time.sleep(1.5)
        if mood in ("429", "500") or (mood == "busy" and type(self).asked % 2):
            self.send_response(429 if mood != "500" else 500)
            self.end_headers()
            return
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        rows = HashingEncoder(8).encode_query(texts).tolist()
        if mood == "nan":
            rows[-1][0] = float("nan")
        data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
        answer = json.dumps({"object": "list", "data": data, "model": "m", "usage": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        try:
            self.wfile.write(answer)
        except BrokenPipeError:
            return  # the client gave up waiting

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    Endpoint.mood, Endpoint.asked = "good", 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1#m"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("mood", ["nan", "hang", "429", "500"])
def test_an_endpoint_that_misbehaves_gives_one_message_and_loses_nothing(
    endpoint: str, mood: str, tmp_path: Path
) -> None:
    model = EndpointModel(endpoint, timeout_s=0.5, total_timeout_s=1.5)
    collection = Collection.create("c", model=model)
    collection.add(["a text that went well"])
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "new.txt").write_text("a text that comes later")
    Endpoint.mood = mood
    with pytest.raises(EndpointError, match=r"endpoint http://127"):
        collection.index(folder)
    assert len(collection) == 1
    assert collection.search("well", mode="lexical")[0].text == "a text that went well"
    Endpoint.mood = "good"
    assert collection.index(folder).added == 1
    assert collection.search("comes later")[0].source == "new.txt"
    model.close()


def test_an_endpoint_that_is_busy_now_and_then_is_asked_again(endpoint: str) -> None:
    model = EndpointModel(endpoint, timeout_s=2.0)
    Endpoint.mood = "busy"
    collection = Collection.create("c", model=model)
    assert collection.add(["one", "two"]).added == 2
    model.close()


# doctor


def test_doctor_finds_and_mends_what_was_broken_by_hand(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "docs", seed=5)
    collection = Collection.create("c", model=HashingEncoder(), settings=Settings(max_chars=250))
    collection.index(folder.path)
    check_equal(collection, folder)
    table = collection._tables().passages
    table.delete("source = 'd1.txt' AND ordinal = 1")
    row = table.search().where("source = 'd2.txt'").limit(3).to_arrow()
    table.add(row)
    table.delete("source = 'd3.txt'")
    levels = {f.check: f.level for f in findings(collection)}
    assert levels["documents"] == "error"
    assert levels["files"] == "warn"
    mended = {f.check: f for f in findings(collection, repair=True)}
    assert mended["documents"].repaired
    assert mended["files"].repaired
    assert collection.index(folder.path).added == 3
    check_equal(collection, folder)


def test_doctor_finds_vectors_that_are_not_finite() -> None:
    collection = Collection.create("c", model=HashingEncoder())
    collection.add([{"source": f"d{n}", "text": f"text {n}"} for n in range(3)])
    table = collection._tables().passages
    row = table.search().where("source = 'd1'").limit(1).to_arrow()
    table.delete("source = 'd1'")
    spoiled = pa.FixedSizeListArray.from_arrays(pa.array(np.full(32, np.inf, np.float16)), 32)
    table.add(row.set_column(row.schema.get_field_index("vector"), row.schema.field("vector"), spoiled))
    (found,) = [f for f in findings(collection) if f.check == "vectors"]
    assert (found.level, found.repaired) == ("error", False)
    assert "--repair" in found.action
    findings(collection, repair=True)
    assert {d.source for d in collection.documents()} == {"d0", "d2"}


def test_doctor_names_a_collection_that_cannot_be_opened(own_home: Path) -> None:
    collection = Collection.create("c", model=HashingEncoder())
    shutil.rmtree(Path(collection.path) / "passages.lance")
    (own_home / "collections" / ".c.0123456789ab.tmp").mkdir()
    found = {f.check: f for f in doctor(repair=True)}
    assert found["opening"].level == "error"
    assert found["leftovers"].repaired
    assert not (own_home / "collections" / ".c.0123456789ab.tmp").exists()
