"""Bringing a collection in line with folders: read, split, embed and commit what changed, remove what is gone."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab.search.intake import Intake, Piece, Stop, as_document, split
from embedlab.search.reading import FileEnd, Reading, Task
from embedlab.search.records import AddReport, Failure, IndexReport, OnProgress, Progress
from embedlab.search.store import Store, document_key

if TYPE_CHECKING:
    from embedlab.data.documents import Document
    from embedlab.models.encoder import Encoder

_NEWS_EVERY_S = 0.1


class News:
    """Tells a callback how far things are, at most ten times a second."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._tell, self._start, self._last = on_progress, time.perf_counter(), 0.0
        self.files_total: int | None = None
        self.bytes_total: int | None = None
        self.files_done = self.bytes_done = 0

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._start

    def tell(self, phase: str, intake: Intake | None = None, *, always: bool = False) -> None:
        """Pass on where things stand."""
        seconds = self.seconds
        if self._tell is None or (seconds - self._last < _NEWS_EVERY_S and not always):
            return
        self._last = seconds
        written = intake.tally.written if intake is not None else 0
        left = None
        if self.bytes_total is not None and self.bytes_done:
            left = seconds * (self.bytes_total - self.bytes_done) / self.bytes_done
        self._tell(
            Progress(
                phase=phase,
                files_done=self.files_done,
                files_total=self.files_total,
                documents=written,
                passages=intake.tally.passages if intake is not None else 0,
                bytes_done=self.bytes_done,
                bytes_total=self.bytes_total,
                seconds=seconds,
                documents_per_s=written / seconds if seconds else 0.0,
                remaining_s=left,
            )
        )


def sync(
    store: Store,
    encoder: Encoder,
    paths: Sequence[Path],
    *,
    exclude: Sequence[str],
    processes: int | None,
    on_progress: OnProgress | None,
    stop: Stop,
) -> IndexReport:
    """Bring the documents below some paths up to date; the caller holds the lock.

    Args:
        store: The collection's tables.
        encoder: The collection's model.
        paths: Folders and files; documents of the collection that lie elsewhere are left alone.
        exclude: Patterns of files and folders to leave out.
        processes: How many processes read; None to choose.
        on_progress: Told how far things are.
        stop: Asked between documents whether to stop after the batch in hand.

    Returns:
        What was done.

    Raises:
        KeyboardInterrupt: it was asked to stop; everything embedded so far is committed.
    """
    news = News(on_progress)
    news.tell("finding", always=True)
    known = store.known()
    hashes = dict(zip(known["doc"].to_pylist(), known["content_hash"].to_pylist(), strict=True))
    placed = list(zip(*(known[name].to_pylist() for name in ("doc", "root", "file", "source")), strict=True))
    tasks = _tasks(paths, exclude, {root for _, root, _, _ in placed if root})
    noted = store.known_files()
    stale = [task for task in tasks if noted.get(_file_key(task)) != (task.file.size, task.file.mtime_ns)]
    # a note that no longer fits goes before any passage changes: a crash in between leads to a second look
    store.forget_files([key for key in map(_file_key, stale) if key in noted])
    news.files_total, news.bytes_total = len(tasks), sum(task.file.size for task in stale)
    news.files_done = len(tasks) - len(stale)

    intake = Intake(store, encoder, hashes)
    reading = Reading(stale, store.settings, processes=processes)
    of_file: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for doc, root, file, source in placed:
        of_file[root, file][doc] = source
    try:
        seen: set[str] = set()
        for event in reading.events():
            match event:
                case Piece():
                    seen.add(event.key)
                    intake.put(event)
                case Failure():
                    intake.tally.failed.append(event)
                case FileEnd(task, broken):
                    before = of_file.get((task.root, task.file.source), {})
                    if task.file.source not in broken:  # a file that can't be read now keeps what is there
                        intake.drop([d for d, source in before.items() if d not in seen and source not in broken])
                    if not broken:
                        intake.finish_file(task.file, task.root, len(seen))
                    seen = set()
                    news.files_done += 1
                    news.bytes_done += task.file.size
            news.tell("indexing", intake)
            if stop.asked:
                break
        intake.commit()
    finally:
        reading.close()
    if stop.asked:
        raise KeyboardInterrupt
    news.tell("removing", intake, always=True)
    _remove_gone(store, intake, paths, tasks, placed)
    news.tell("text index", intake, always=True)
    started = time.perf_counter()
    store.index_text()
    seconds = news.seconds
    intake.tally.seconds["text_index"] = time.perf_counter() - started
    news.tell("done", intake, always=True)
    tally = intake.tally
    return IndexReport(
        files=len(tasks),
        files_skipped=len(tasks) - len(stale),
        added=tally.added,
        changed=tally.changed,
        unchanged=tally.unchanged,
        removed=tally.removed,
        passages=tally.passages,
        unreadable=tuple(tally.failed),
        seconds=seconds,
        documents_per_s=tally.written / seconds if seconds else 0.0,
        stages={"reading": reading.seconds, **tally.seconds},
    )


def take_in(
    store: Store,
    encoder: Encoder,
    documents: Iterable[Document | str | Mapping[str, Any]],
    *,
    on_progress: OnProgress | None,
    stop: Stop,
) -> AddReport:
    """Add documents that come from no folder; arguments as for ``sync``."""
    news = News(on_progress)
    known = store.known("root = ''")
    intake = Intake(store, encoder, dict(zip(known["doc"].to_pylist(), known["content_hash"].to_pylist(), strict=True)))
    for number, item in enumerate(documents):
        document = as_document(item, number)
        intake.put(Piece(document, split(document, store.settings)))
        news.files_done += 1
        news.tell("indexing", intake)
        if stop.asked:
            break
    intake.commit()
    if stop.asked:
        raise KeyboardInterrupt
    news.tell("text index", intake, always=True)
    store.index_text()
    news.tell("done", intake, always=True)
    tally = intake.tally
    return AddReport(tally.added, tally.changed, tally.unchanged, tally.passages, tuple(tally.failed), news.seconds)


def places_of(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the absolute paths of folders and files that shall be indexed, or say which one is not there."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise InputError("paths is empty: give at least one folder or file")
    places = [Path(os.path.abspath(path)) for path in given]  # noqa: PTH100 - resolve() would follow links
    for found in places:
        if not found.exists():
            raise InputError(f"paths: {str(found)!r} does not exist: give folders or files that do")
    return places


def _tasks(paths: Sequence[Path], exclude: Sequence[str], roots: set[str]) -> list[Task]:
    """Find the files and the root of each: a folder inside one that was indexed before stays filed under that one."""
    from embedlab.data.files import find_files

    tasks: dict[str, Task] = {}
    for path in paths:
        base = path if path.is_dir() else path.parent
        above = [Path(root) for root in roots if base.is_relative_to(root)]
        root = max(above, key=lambda folder: len(folder.parts), default=base)
        inside = base.relative_to(root).as_posix()
        for file in find_files([path], exclude=exclude):
            found = file if inside == "." else replace(file, source=f"{inside}/{file.source}")
            tasks.setdefault(str(file.path), Task(str(root), found))
    return list(tasks.values())


def _remove_gone(
    store: Store,
    intake: Intake,
    paths: Sequence[Path],
    tasks: Sequence[Task],
    placed: Sequence[tuple[str, str, str, str]],
) -> None:
    """Remove the documents of files that no longer exist below the paths."""
    present = {(task.root, task.file.source) for task in tasks}
    gone = [
        (doc, root, file)
        for doc, root, file, _ in placed
        if root and (root, file) not in present and _below(os.path.join(root, file), paths)  # noqa: PTH118 - many
    ]
    if not gone:
        return
    store.forget_files(list({document_key(root, file) for _, root, file in gone}))
    store.delete([doc for doc, _, _ in gone])
    intake.tally.removed += len(gone)


def _below(place: str, paths: Sequence[Path]) -> bool:
    return any(place == str(path) or place.startswith(f"{path}{os.sep}") for path in paths)


def _file_key(task: Task) -> str:
    return document_key(task.root, task.file.source)
