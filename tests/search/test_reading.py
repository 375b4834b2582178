"""Reading in processes gives what reading here gives, in the same order, and survives the death of a reader."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from embedlab.data.files import find_files
from embedlab.search import Collection, Failure, Settings
from embedlab.search.intake import Piece
from embedlab.search.reading import FileEnd, Reading, Task

from .tiny_model import HashingEncoder


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(30):
        paragraphs = "\n\n".join(f"Paragraph {n} of text {number}, \ud7ff and é." for n in range(40))
        (folder / f"d{number:02}.md").write_text(f"# Title {number}\n\n## Part\n\n{paragraphs}")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 not really")
    (folder / "rows.csv").write_text("name,year\n" + "".join(f"thing {n},{n}\n" for n in range(50)))
    return [Task(str(folder), file) for file in find_files(folder)]


def flat(reading: Reading) -> list[object]:
    out: list[object] = []
    for event in reading.events():
        if isinstance(event, Piece):
            d = event.document
            out.append((event.key, d.title, d.format, d.content_hash, d.metadata, list(event.passages), event.mtime_ns))
        else:
            out.append(event)
    reading.close()
    return out


def test_processes_give_the_same_as_this_one(tasks: list[Task]) -> None:
    here = flat(Reading(tasks, Settings(max_chars=300), processes=0))
    assert sum(isinstance(event, FileEnd) for event in here) == 32
    assert any(isinstance(event, Failure) and event.source == "broken.pdf" for event in here)
    apart = Reading(tasks, Settings(max_chars=300), processes=2)
    assert apart.processes == 2
    assert flat(apart) == here
    assert apart.seconds > 0


def test_little_is_read_here() -> None:
    assert Reading([], Settings()).processes == 0


def test_the_death_of_a_reader_costs_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(40):
        (folder / f"d{number:02}.txt").write_text(f"Document {number}. " + "Many words. " * 20_000)
    files = [Task(str(folder), file) for file in find_files(folder)]
    reading = Reading(files, Settings(), processes=1)
    events = []
    for event in reading.events():
        if not events:
            process = reading._lanes[0]._process
            assert process is not None
            process.kill()
        events.append(event)
    reading.close()
    failures = [event for event in events if isinstance(event, Failure)]
    assert len(failures) == 1
    assert "signal 9" in failures[0].reason
    ends = [event for event in events if isinstance(event, FileEnd)]
    assert [end.task for end in ends] == files
    assert [end.task.file.source for end in ends if end.broken] == [failures[0].source]


@pytest.mark.parametrize("processes", [0, 2])
def test_closing_early_leaves_no_thread_and_no_process(tasks: list[Task], processes: int) -> None:
    before = threading.active_count()
    reading = Reading(tasks, Settings(max_chars=60), processes=processes)
    next(iter(reading.events()))
    children = [lane._process for lane in reading._lanes if lane._process is not None]
    assert len(children) <= processes
    reading.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert all(child.poll() is not None for child in children)


def test_indexing_by_processes(tasks: list[Task]) -> None:
    collections = []
    for processes in (0, 2):
        collection = Collection.create(f"c{processes}", model=HashingEncoder())
        report = collection.index(tasks[0].root, processes=processes)
        assert (report.files, len(report.unreadable)) == (32, 1)
        collections.append([(p.id, p.text, p.start, p.metadata) for p in collection.passages()])
    assert collections[0] == collections[1]
