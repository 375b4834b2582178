"""Finding the files to index, and reading any of them without ever failing."""

from __future__ import annotations

import importlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from embedlab._core.errors import InputError
from embedlab.data.documents import Document, FoundFile, Unreadable
from embedlab.data.limits import ReadLimits, Refused

Reader = Callable[[FoundFile, ReadLimits], Iterator[Document | Unreadable]]

#: Which module of ``embedlab.data.readers`` reads which ending.
READERS = {
    ".txt": "plain",
    ".text": "plain",
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "restructured",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".csv": "table",
    ".tsv": "table",
    ".jsonl": "jsonlines",
    ".ndjson": "jsonlines",
    ".parquet": "parquet",
    ".py": "python",
    ".ipynb": "notebook",
}
_SKIPPED_FOLDERS = {"node_modules", "__pycache__", "CVS", "_darcs"}
_MOST_REPORTED = 20
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Skipped:
    """What `find_files` passed over.

    Args:
        endings: How many files of each ending that has no reader; ``""`` for files without one.
        folders: Folders that could not be listed.
    """

    endings: Counter[str] = field(default_factory=Counter)
    folders: list[Unreadable] = field(default_factory=list)


def find_files(
    paths: str | Path | Sequence[str | Path], *, exclude: Sequence[str] = (), skipped: Skipped | None = None
) -> Iterator[FoundFile]:
    """Find the documents below some folders, in a fixed order.

    Hidden files and folders, version control, virtual environments and caches are passed over, and links inside a
    folder are not followed: what they point to is found at its own place or lies outside. The source of a file is its
    path below the folder given; with several paths, below the deepest folder that holds them all.

    Args:
        paths: Folders or single files.
        exclude: Patterns such as ``*.min.html`` or ``drafts`` of files and folders to leave out; one with a slash, such
            as ``notes/*.txt``, is held against the path below the folder given. Files named in ``paths`` stay.
        skipped: Filled on the way with what was passed over.

    Returns:
        The files, each once, sorted by name within their folders.

    Raises:
        InputError: a path does not exist or is neither a file nor a folder, or ``exclude`` is a single string.
    """
    if isinstance(exclude, str):
        raise InputError(f"exclude={exclude!r}: must be a sequence of patterns, such as [{exclude!r}]")
    roots = [Path(os.path.abspath(path)) for path in ([paths] if isinstance(paths, str | Path) else paths)]  # noqa: PTH100 - resolve() would follow a link's name away
    for given in roots:
        if not given.exists():
            raise InputError(f"paths: {str(given)!r} does not exist: give folders or files that do")
        if not (given.is_dir() or given.is_file()):
            raise InputError(f"paths: {str(given)!r} is neither a file nor a folder: give one of these")
    if not roots:
        return iter(())
    folders = [root if root.is_dir() else root.parent for root in roots]
    base = Path(os.path.commonpath(folders))
    return _find(roots, base, tuple(exclude), skipped if skipped is not None else Skipped())


def read_file(file: FoundFile, limits: ReadLimits | None = None) -> Iterator[Document | Unreadable]:
    """Read one file: a document, many (one per record), or the reason why not. Never raises for a bad file.

    Args:
        file: What `find_files` found.
        limits: What the file may ask for; `ReadLimits` as they come if not given.

    Yields:
        Documents, and an `Unreadable` for the file or for each record that could not be read.
    """
    ending = file.path.suffix.lower()
    if ending not in READERS:
        yield Unreadable(
            file.source, f"no reader for {ending or 'files without an ending'}: {' '.join(READERS)} are read"
        )
        return
    try:
        reader: Reader = importlib.import_module(f"embedlab.data.readers.{READERS[ending]}").read
        yield from _report_some(reader(file, limits or ReadLimits()), file.source)
    except Exception as error:  # noqa: BLE001 - parsers of foreign formats raise anything, and one file must not stop the rest
        _LOG.debug("cannot read %s", file.source, exc_info=True)
        yield Unreadable(file.source, _reason(error, ending))


def _report_some(results: Iterator[Document | Unreadable], source: str) -> Iterator[Document | Unreadable]:
    """Name the first bad records of a file and count the others: a million of them would be no report."""
    bad = 0
    for result in results:
        bad += isinstance(result, Unreadable)
        if isinstance(result, Document) or bad <= _MOST_REPORTED:
            yield result
    if bad > _MOST_REPORTED:
        yield Unreadable(source, f"{bad - _MOST_REPORTED:,} more of its records could not be read")


def _find(roots: list[Path], base: Path, exclude: tuple[str, ...], skipped: Skipped) -> Iterator[FoundFile]:
    seen: set[Path] = set()
    for root in roots:
        for path in _walk(root, base, exclude, skipped) if root.is_dir() else [root]:
            ending = path.suffix.lower()
            if ending not in READERS:
                skipped.endings[ending] += 1
                continue
            if path in seen:
                continue
            seen.add(path)
            try:
                facts = path.stat()
            except OSError:
                continue  # gone since it was listed
            if stat.S_ISREG(facts.st_mode):
                yield FoundFile(path, _source(path, base), facts.st_size, facts.st_mtime_ns)


def _walk(root: Path, base: Path, exclude: tuple[str, ...], skipped: Skipped) -> Iterator[Path]:
    stack = [root]
    while stack:
        path = stack.pop()
        if not path.is_dir():
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                inside = {entry.name: entry.is_symlink() for entry in entries}
        except OSError as error:
            skipped.folders.append(Unreadable(_source(path, base), _reason(error, "folder")))
            continue
        if "pyvenv.cfg" in inside and path != root:
            continue
        kept = (n for n, link in inside.items() if not link and n[0] != "." and n not in _SKIPPED_FOLDERS)
        below = (path / name for name in sorted(kept, reverse=True))
        stack.extend(entry for entry in below if not (exclude and _is_excluded(entry, root, exclude)))


def _is_excluded(path: Path, root: Path, exclude: tuple[str, ...]) -> bool:
    place = path.relative_to(root).as_posix()
    return any(fnmatchcase(place if "/" in pattern else path.name, pattern.strip("/")) for pattern in exclude)


def _source(path: Path, base: Path) -> str:
    # a name that is not UTF-8 could not be stored: its odd bytes are spelled out
    return path.relative_to(base).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _reason(error: Exception, ending: str) -> str:
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened: {error.strerror}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    detail = " ".join(str(error).split())[:200]
    return f"damaged, or not really {ending}: {detail or type(error).__name__}"
