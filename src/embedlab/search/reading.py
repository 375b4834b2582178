"""Reading and splitting files ahead of the embedding: in a thread, or in processes when there is much to read.

Parsers of documents hold Python's lock, so a thread can't read while something else runs in Python; processes can, and
a file that crashes its parser takes one of them down instead of the whole run. They are plain children of ours rather
than a ``multiprocessing`` pool, which would run the caller's script again in every child.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from embedlab.search.intake import Piece, split
from embedlab.search.records import Failure, Settings

if TYPE_CHECKING:
    from embedlab.data.documents import FoundFile

_AHEAD = 256  # documents a reader may be ahead of the embedding
_WORTH_BYTES = 2_000_000  # below, a process has hardly started before the thread would be through
_MOST_PROCESSES = 8


@dataclass(frozen=True, slots=True)
class Task:
    """A file to read, under the root its documents are filed under."""

    root: str
    file: FoundFile


@dataclass(frozen=True, slots=True)
class FileEnd:
    """The reader is through with a file; ``broken`` names what of it could not be read."""

    task: Task
    broken: frozenset[str] = frozenset()


Event = Piece | Failure | FileEnd


class Reading:
    """Yields the documents of some files in order, read ahead by threads or processes.

    Args:
        tasks: The files.
        settings: How to split.
        processes: How many processes; None for as many as there are processors, or none if there is little to read.
    """

    def __init__(self, tasks: Sequence[Task], settings: Settings, *, processes: int | None = None) -> None:
        if processes is None:
            worth = sum(task.file.size for task in tasks) >= _WORTH_BYTES and len(tasks) > 1
            processes = min(_processors(), _MOST_PROCESSES) if worth and sys.executable else 0
        self.tasks = tasks
        self.processes = min(processes, len(tasks))
        lanes = max(1, self.processes)
        # file number i is read in lane i % lanes: the order of the documents does not depend on who is faster
        self._lanes = [_Lane(tasks[n::lanes], settings, apart=self.processes > 0) for n in range(lanes)]

    @property
    def seconds(self) -> float:
        """Time spent reading, over all threads or processes."""
        return sum(lane.seconds for lane in self._lanes)

    def events(self) -> Iterator[Event]:
        """Yield documents, failures and ends of files, in the order of the files."""
        for lane in self._lanes:
            lane.start()
        for number in range(len(self.tasks)):
            yield from self._lanes[number % len(self._lanes)].next_file()

    def close(self) -> None:
        """End all threads and processes, whether or not they are through."""
        for lane in self._lanes:
            lane.close()


class _Lane:
    """One thread that reads files itself, or has a process read them."""

    def __init__(self, tasks: Sequence[Task], settings: Settings, *, apart: bool) -> None:
        self._tasks, self._settings, self._apart = tasks, settings, apart
        self._queue: queue.Queue[Event | BaseException] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="embedlab-reading", daemon=True)
        self.seconds = 0.0

    def start(self) -> None:
        self._thread.start()

    def next_file(self) -> Iterator[Event]:
        while True:
            event = self._queue.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, FileEnd):
                return

    def close(self) -> None:
        self._closed.set()
        if self._process is not None:
            self._process.kill()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue

    def _run(self) -> None:
        try:
            for event in self._from_processes() if self._apart else self._from_here():
                self._queue.put(event)
                if self._closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            self._queue.put(error)

    def _from_here(self) -> Iterator[Event]:
        started = time.perf_counter()
        for event in read(self._tasks, self._settings):
            self.seconds += time.perf_counter() - started
            yield event
            started = time.perf_counter()

    def _from_processes(self) -> Iterator[Event]:
        """Have one process after the other read: a new one goes on behind the file its predecessor died of."""
        done = 0
        while done < len(self._tasks) and not self._closed.is_set():
            tasks = self._tasks[done:]
            with _start(tasks, self._settings) as process:
                self._process = process
                if process.stdout is None or self._closed.is_set():
                    process.kill()
                    return
                for event in self._received(process.stdout, tasks):
                    done += isinstance(event, FileEnd)
                    yield event
            if done < len(self._tasks) and not self._closed.is_set():
                task = self._tasks[done]
                how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
                yield Failure(task.file.source, f"reading it ended the reader ({how}): it may be damaged or too large")
                yield FileEnd(task, frozenset([task.file.source]))
                done += 1

    def _received(self, stream: IO[bytes], tasks: Sequence[Task]) -> Iterator[Event]:
        number = 0
        for line in stream:
            if not line.endswith(b"\n"):
                return  # the process died in the middle of it
            values = json.loads(line)
            task = tasks[number]
            if "broken" in values:
                self.seconds += values["seconds"]
                yield FileEnd(task, frozenset(values["broken"]))
                number += 1
            elif "reason" in values:
                yield Failure(**values)
            else:
                yield _piece(values, task)


def read(tasks: Iterable[Task], settings: Settings) -> Iterator[Event]:
    """Read and split files one after the other."""
    from embedlab.data.documents import Unreadable
    from embedlab.data.files import read_file

    for task in tasks:
        broken: set[str] = set()
        for item in read_file(task.file):
            if isinstance(item, Unreadable):
                broken.add(item.source)
                yield Failure(item.source, item.reason)
            else:
                passages = split(item, settings)
                yield Piece(item, passages, task.root, task.file.source, task.file.mtime_ns)
        yield FileEnd(task, frozenset(broken))


def _start(tasks: Sequence[Task], settings: Settings) -> subprocess.Popen[bytes]:
    # -P: no module from the folder we are in; a session of its own: Ctrl-C is for us, we tell the process when to end
    command = [sys.executable, "-P", "-c", "from embedlab.search.reading import serve; serve()"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    if process.stdin is not None:
        files = [(str(t.file.path), t.file.source, t.file.size, t.file.mtime_ns) for t in tasks]
        try:
            process.stdin.write(json.dumps({"settings": asdict(settings), "files": files}).encode())
            process.stdin.close()
        except BrokenPipeError:
            process.kill()  # it did not even start: its end is reported like any other
    return process


def serve() -> None:
    """Be the process: read the files named on standard input, write documents as lines of JSON."""
    from embedlab.data.documents import FoundFile

    order = json.loads(sys.stdin.buffer.read())
    tasks = [Task("", FoundFile(Path(path), *rest)) for path, *rest in order["files"]]
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # a parser that prints must not get between the lines
    started = time.perf_counter()
    try:
        for event in read(tasks, Settings.from_dict(order["settings"])):
            match event:
                case Piece():
                    values = _values(event)
                case Failure():
                    values = asdict(event)
                case FileEnd():
                    values = {"broken": sorted(event.broken), "seconds": time.perf_counter() - started}
                    started = time.perf_counter()
            out.write(json.dumps(values).encode() + b"\n")
            if isinstance(event, FileEnd):
                out.flush()
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more


def _values(piece: Piece) -> dict[str, Any]:
    document = piece.document
    return {
        "source": document.source,
        "title": document.title,
        "format": document.format,
        "content_hash": document.content_hash,
        "metadata": document.metadata,
        "passages": [(p.text, p.start, p.end, p.headings, p.page) for p in piece.passages],
    }


def _piece(values: dict[str, Any], task: Task) -> Piece:
    """Build a piece from its lines; the document comes without its text, which only the passages need."""
    from embedlab.data.documents import Document
    from embedlab.data.passages import Passage

    passages = [
        Passage(text, start, end, tuple(headings), page) for text, start, end, headings, page in values.pop("passages")
    ]
    return Piece(Document(text="", **values), passages, task.root, task.file.source, task.file.mtime_ns)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
