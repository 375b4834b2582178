"""Indexes a folder in a process of its own, dying or dawdling where it is told to.

    python indexing_child.py FOLDER COLLECTION [--die PHASE --at N] [--slow SECONDS] [--batch N]

It prints ``ready`` when the imports are done and ``done`` when the run is through. With ``--nursery`` it does so for
every line of arguments on its standard input, in a process of its own for each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
import warnings
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


def run(options: argparse.Namespace) -> None:
    """Index as told."""
    intake._SMALLEST = intake._FIRST = intake._LARGEST = options.batch
    if options.slow:
        quick = HashingEncoder.encode_document

        def slowly(self: HashingEncoder, texts: Any, **kwargs: Any) -> Any:
            time.sleep(options.slow)
            return quick(self, texts, **kwargs)

        HashingEncoder.encode_document = slowly  # type: ignore[method-assign]
    collection = Collection.open(options.collection, model=HashingEncoder())
    if options.die:
        die_in(options.die, options.at)
    say(f"ready {os.getpid()}")
    collection.index(options.folder)
    if options.die == "compact":
        collection._tables().compact()
    say("done")


def say(word: str) -> None:
    """Write a line at once."""
    os.write(1, f"{word}\n".encode())


def nursery() -> None:
    """Fork a process for every line of arguments; forking before any table is open spares the start of Python."""
    warnings.filterwarnings("ignore", message="lancedb fork support is experimental")
    import lancedb

    say(f"nursery {lancedb.__version__}")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                run(PARSER.parse_args(json.loads(line)))
            except BaseException:  # noqa: BLE001 - told to the test, whatever it is
                say("error " + json.dumps(traceback.format_exc()))
            os._exit(0)
        say(f"ended {os.waitpid(child, 0)[1]}")


PARSER = argparse.ArgumentParser()
PARSER.add_argument("folder")
PARSER.add_argument("collection")
PARSER.add_argument("--die", choices=PHASES)
PARSER.add_argument("--at", type=int, default=0)
PARSER.add_argument("--slow", type=float, default=0.0)
PARSER.add_argument("--batch", type=int, default=16)

if __name__ == "__main__":
    if sys.argv[1:] == ["--nursery"]:
        nursery()
    else:
        run(PARSER.parse_args())
