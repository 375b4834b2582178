"""Result files of reproductions: reading, replacing, and what state they give a method."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from embedlab._core.claims import LEVELS
from embedlab._core.errors import EmbedlabError
from embedlab._core.files import atomic_write
from embedlab._core.hashes import bytes_hash, source_hash
from embedlab._core.papers import Paper
from embedlab._core.registry import MethodRecord, methods

FORMAT = 1
_KNOWN = ".fingerprints.json"  # bytes of code -> its fingerprint


class ReproductionError(EmbedlabError):
    """A reproduction file is missing, or does not have the shape that docs/reproductions.md describes."""


def reproductions_folder() -> Path:
    """Return the folder of reproductions: ``$EMBEDLAB_REPRODUCTIONS``, the checkout's, or the installed copy."""
    chosen = os.environ.get("EMBEDLAB_REPRODUCTIONS")
    if chosen:
        return Path(chosen).expanduser()
    package = Path(__file__).parents[1]
    checkout = package.parents[1] / "reproductions"
    return checkout if (package.parents[1] / "pyproject.toml").is_file() else package / "reproductions"


def state_of(name: str, folder: Path | None = None) -> str:
    """Tell how a method's claims stand, from its result file alone.

    Args:
        name: The method's name.
        folder: Where reproduction files are; ``reproductions_folder()`` by default.

    Returns:
        One of ``STATES``.
    """
    record = methods().get(name)
    if record is None:
        return "missing"
    reports = fresh_reports(record, folder)
    if reports:
        return str(reports[max(reports, key=LEVELS.index)]["verdict"])
    return "stale" if read_result(name, folder)["levels"] else "not run"


def fresh_reports(record: MethodRecord, folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the reports of a method, level by level, that were measured with the code as it is now."""
    path = (folder or reproductions_folder()) / f"{record.name}.py"
    levels = read_result(record.name, folder)["levels"]
    if not levels or not path.is_file():
        return {}
    hashes = code_hashes(record, path)
    return {level: report for level, report in levels.items() if report["hashes"] == hashes}


def read_result(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Read a method's result file.

    Args:
        name: The method's name.
        folder: Where reproduction files are; ``reproductions_folder()`` by default.

    Returns:
        Its content; without levels if there is no file yet.

    Raises:
        ReproductionError: the file is damaged or of another format.
    """
    path = (folder or reproductions_folder()) / "results" / f"{name}.json"
    return read_file(path, name)


def paper_states(paper: Paper, folder: Path | None = None) -> dict[str, str]:
    """Return the state of every method of a paper: the planned ones and any other that names its card."""
    written = tuple(record.name for record in methods().values() if record.card == paper.card)
    return {name: state_of(name, folder) for name in dict.fromkeys(paper.methods + written)}


def store(path: Path, name: str, level: str, report: dict[str, Any]) -> None:
    """Put the report of one level into a result file, leaving the other levels."""
    content = read_file(path, name)
    reports = {**content["levels"], level: report}
    content["levels"] = {each: reports[each] for each in LEVELS if each in reports}
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def code_hashes(record: MethodRecord, path: Path) -> dict[str, str]:
    """Return the fingerprints of the code that a result depends on: the method's and its reproduction's."""
    known = _known(path.parent)
    parts = {"method": record.sources(), "reproduction": (path,)}
    return {part: known.get(bytes_hash(files)) or source_hash(files) for part, files in parts.items()}


def remember_code(folder: Path | None = None) -> None:
    """Write down the fingerprints of all methods' code under those of its bytes, which are a hundred times quicker.

    The file is a cache by content: an old one is never wrong, it only helps less.

    Args:
        folder: Where reproduction files are; ``reproductions_folder()`` by default.
    """
    home = folder or reproductions_folder()
    paths = {name: home / f"{name}.py" for name in methods() if (home / f"{name}.py").is_file()}
    codes = [files for name, path in paths.items() for files in (methods()[name].sources(), (path,))]
    known = {bytes_hash(files): source_hash(files) for files in codes}
    atomic_write(home / "results" / _KNOWN, json.dumps(known, indent=1, sort_keys=True) + "\n")


@cache
def _known(home: Path) -> dict[str, str]:
    try:
        return dict(json.loads((home / "results" / _KNOWN).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def read_file(path: Path, name: str) -> dict[str, Any]:
    """Read one result file; see ``read_result``."""
    if not path.is_file():
        return {"format": FORMAT, "method": name, "levels": {}}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReproductionError(f"{path} is not valid JSON: delete it and run `embedlab reproduce {name}`") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ReproductionError(f"{path} is of another format: delete it and run `embedlab reproduce {name}`")
    return content
