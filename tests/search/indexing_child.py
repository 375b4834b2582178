"""Indexes a folder in a process of its own, dying or dawdling where it is told to.

    python indexing_child.py FOLDER COLLECTION [--die PHASE --at N] [--slow SECONDS] [--batch N]

It prints ``ready`` when the imports are done and ``done`` when the run is through.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from tiny_model import HashingEncoder

from embedlab.search import Collection, indexing, intake
from embedlab.search.store import Store

PHASES = {
    "known": (Store, "known"),
    "forget_files": (Store, "forget_files"),
    "embedding": (HashingEncoder, "encode_document"),
    "columns": (Store, "ensure_columns"),
    "replace": (Store, "replace"),
    "remember_files": (Store, "remember_files"),
    "remove_gone": (indexing, "_remove_gone"),
    "delete": (Store, "delete"),
    "index_text": (Store, "index_text"),
    "compact": (Store, "compact"),
}


def die_in(phase: str, at: int) -> None:
    """Have the process killed before (even ``at``) or after (odd ``at``) the ``at // 2``-th call of a phase."""
    holder, name = PHASES[phase]
    before = getattr(holder, name)
    calls = 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at // 2 + 1 and at % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = before(*args, **kwargs)
        if calls == at // 2 + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, name, killing)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("collection")
    parser.add_argument("--die", choices=PHASES)
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    intake._SMALLEST = intake._FIRST = intake._LARGEST = options.batch
    if options.slow:
        quick = HashingEncoder.encode_document

        def slowly(self: HashingEncoder, texts: Any, **kwargs: Any) -> Any:
            time.sleep(options.slow)
            return quick(self, texts, **kwargs)

        HashingEncoder.encode_document = slowly  # type: ignore[method-assign]
    collection = Collection.create(options.collection, model=HashingEncoder(), exist_ok=True)
    collection = Collection.open(options.collection, model=HashingEncoder())
    if options.die:
        die_in(options.die, options.at)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    collection.index(options.folder)
    if options.die == "compact":
        collection._tables().compact()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
