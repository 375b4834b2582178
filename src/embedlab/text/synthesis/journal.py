"""The rows that synthesis writes, and the file they go to: one line per finished job, safe against a crash."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from embedlab._core.errors import InputError

_FORMAT = "embedlab-synthesis-1"
_MAY_BE_EMPTY = ("reason", "raw", "negative", "attributes")


@dataclass(frozen=True, slots=True)
class SyntheticRow:
    """One query with its positive, and where it came from; or a job that gave nothing, and why.

    Attributes:
        job: Hash of seed, persona, task and draw: the row's id.
        seed: Id of the seed.
        draw: Number of the draw from this seed.
        persona: Who asks.
        task: What for.
        writer: Who wrote it: the model's name, or ``"rules"``.
        prompt_hash: Hash of the prompts.
        query: The query.
        positive: The passage that answers it.
        reason: Why the row was refused; empty for a row that is kept.
        raw: What the model said where nothing could be read.
        negative: A passage that looks like an answer but is none; empty where none was written.
        attributes: What was asked for beyond persona and task, such as a length.
    """

    job: str
    seed: str
    draw: int
    persona: str
    task: str
    writer: str
    prompt_hash: str
    query: str
    positive: str
    reason: str = ""
    raw: str = ""
    negative: str = ""
    attributes: str = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name != "draw" and not isinstance(getattr(self, each.name), str):
                raise InputError(f"{each.name}={getattr(self, each.name)!r}: a row holds texts, except for draw")
        if type(self.draw) is not int or self.draw < 0:
            raise InputError(f"draw={self.draw!r}: must be a whole number from 0")
        if not self.reason and not (self.query.strip() and self.positive.strip()):
            raise InputError(f"row {self.job}: a row that is kept needs a query and a positive")


class Journal:
    """A file of JSON lines: first what made it, then one line per finished job, kept or refused.

    A line that a crash left half-written at the end is cut off when the file is opened again.

    Args:
        path: The file.
        settings: What decides the rows; a file made with other settings is refused.

    Attributes:
        rows: What the file holds.

    Raises:
        InputError: the file is no such journal, was made with other settings, or holds a broken line.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._settings = json.loads(json.dumps(settings))
        self.rows: list[SyntheticRow] = []
        self._file: IO[bytes] | None = None
        if self.path.exists() and self.path.stat().st_size:
            self._cut_half_line()
        if self.path.exists() and self.path.stat().st_size:
            head, self.rows = _read(self.path)
            changed = sorted(key for key in {*head, *self._settings} if head.get(key) != self._settings.get(key))
            if changed:
                raise InputError(
                    f"{self.path} was made with other settings ({', '.join(changed)}): go on with the same ones, or "
                    "choose another file"
                )
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write({"format": _FORMAT, "settings": self._settings})

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, rows: list[SyntheticRow]) -> None:
        """Append rows, and see them on the disk before returning.

        Args:
            rows: Finished jobs.
        """
        self._write(*(_as_dict(row) for row in rows))
        self.rows += rows

    def _write(self, *lines: dict[str, Any]) -> None:
        if self._file is None:
            self._file = self.path.open("ab")
        self._file.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _cut_half_line(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole == 0 and not content.startswith(b'{"format"'):
            raise InputError(f"{self.path} is not a journal of synthesis: choose another file")
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)


def read_rows(path: str | os.PathLike[str], *, refused: bool = False) -> list[SyntheticRow]:
    """Read the rows of a journal.

    Args:
        path: The file.
        refused: Also give the jobs whose rows were refused.

    Returns:
        Rows in the order of the jobs.

    Raises:
        InputError: the file is not a journal, or a line is broken.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{source} is not there: a journal is what PersonaSynthesizer.run writes")
    return [row for row in _read(source)[1] if refused or not row.reason]


def job_id(*parts: object) -> str:
    """Return the hash that stands for a job.

    Args:
        *parts: What the job is made of.

    Returns:
        Sixteen hex digits.
    """
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def _read(path: Path) -> tuple[dict[str, Any], list[SyntheticRow]]:
    lines = _lines(path)
    _, head = next(lines, (0, {}))
    if head.get("format") != _FORMAT or not isinstance(head.get("settings"), dict):
        raise InputError(f"{path} is not a journal of synthesis: its first line lacks the format {_FORMAT!r}")
    rows = []
    for number, line in lines:
        try:
            rows.append(SyntheticRow(**line))
        except (TypeError, InputError) as error:
            raise InputError(f"{path}, line {number}: not a row of synthesis: {error}") from error
    return head["settings"], rows


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                found = json.loads(line)
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    return  # the writer was stopped here, or is writing just now
                raise InputError(f"{path}, line {number}: not JSON: {line[:80]!r}") from error
            if not isinstance(found, dict):
                raise InputError(f"{path}, line {number}: an object is needed, got {line[:80]!r}")
            yield number, found


def _as_dict(row: SyntheticRow) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if value != "" or key not in _MAY_BE_EMPTY}
