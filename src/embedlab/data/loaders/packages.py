"""Corpora that are everywhere at hand: Debian's package descriptions and Python's standard library."""

from __future__ import annotations

import gzip
import json
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from embedlab.data.datasets import Package
from embedlab.data.loaders.opening import data_file

#: What `find_files` leaves out of the standard library: tests, demonstrations and other people's packages.
STDLIB_EXCLUDE = ("test", "tests", "idle_test", "idlelib", "turtledemo", "lib2to3", "*-packages", "*.txt", "*.rst")


def load_debian_packages() -> Iterator[Package]:
    """Go through the 63,436 packages of Debian 12.

    Yields:
        Packages by name.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.
    """
    with gzip.open(data_file("debian-packages", "packages.jsonl.gz"), "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            long = re.sub(r"(?m)^\.$", "", row["long"])
            lists = {key: tuple(row[key]) for key in ("tags", "depends", "recommends", "suggests")}
            yield Package(row["name"], row["section"], row["short"], long, **lists, origin=row["source"])


def stdlib_folder() -> Path:
    """Return the folder of the running interpreter's standard library, whose documentation is everywhere at hand."""
    return Path(sysconfig.get_paths()["stdlib"])
