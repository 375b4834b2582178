"""Finding and opening the files of data sets: gzipped or not, text, CSV or JSON lines."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path

from embedlab._core.errors import MissingDataError


def data_file(*parts: str) -> Path:
    """Find a file of the ``EMBEDLAB_DATA`` folder.

    Args:
        *parts: Path below the folder.

    Returns:
        The path of an existing file.

    Raises:
        MissingDataError: the variable is not set, or the file is not there.
    """
    folder = os.environ.get("EMBEDLAB_DATA")
    wanted = "/".join(parts)
    if not folder:
        raise MissingDataError(
            f"{wanted} is needed: set EMBEDLAB_DATA to the folder that holds it (nothing is fetched)"
        )
    path = Path(folder, *parts)
    if not path.is_file():
        raise MissingDataError(f"{wanted} is not in EMBEDLAB_DATA ({folder}): put it there or set another folder")
    return path


def open_text(*parts: str) -> str:
    """Read a file of the ``EMBEDLAB_DATA`` folder, unzipping what ends in ``.gz``.

    Args:
        *parts: Path below the folder.

    Returns:
        Its text, without a byte order mark.

    Raises:
        MissingDataError: the variable is not set, or the file is not there.
    """
    path = data_file(*parts)
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")


def csv_rows(text: str) -> Iterator[dict[str, str]]:
    """Go through the rows of a CSV text as dicts; quoted fields may hold line ends.

    Yields:
        One dict a row, by column name.
    """
    yield from csv.DictReader(io.StringIO(text, newline=""))
