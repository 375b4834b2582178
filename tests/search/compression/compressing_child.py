"""Compresses, undoes or upgrades a collection in a process of its own, dying where it is told to.

    python -m tests.search.compression.compressing_child --nursery

For every line of arguments on its standard input a process is forked: COLLECTION JOB [--die PHASE --at N].
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

sys.path.insert(0, str(Path(__file__).parents[3]))

from lancedb.table import LanceTable
from tests.search.compression.corpus import TurnedEncoder
from tests.search.tiny_model import HashingEncoder

from embedlab.search import compress_collection, undo_compression, upgrade_collection
from embedlab.search.codecs.codec import Codec
from embedlab.search.compression import compressing, rewriting, upgrading
from embedlab.search.places import Place
from embedlab.search.store import Store

PHASES: dict[str, tuple[Any, str]] = {
    "learn": (Codec, "fit"),
    "save_codec": (compressing, "save_codec"),
    "create_index": (LanceTable, "create_index"),
    "add_columns": (LanceTable, "add_columns"),
    "encode": (compressing, "codes_array"),
    "merge": (LanceTable, "merge_insert"),
    "drop_index": (LanceTable, "drop_index"),
    "verify": (compressing, "_demand_same_codes"),
    "measure": (compressing, "exact"),
    "describe": (Place, "write"),
    "switch": (LanceTable, "alter_columns"),
    "drop_columns": (LanceTable, "drop_columns"),
    "move_a_row": (LanceTable, "update"),
    "compact": (Store, "compact"),
    "embed": (compressing, "encode"),
    "save_bridge": (upgrading, "save_bridge"),
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
    """Do the job."""
    rewriting._COMMIT_BYTES, rewriting._READ_ROWS = 2000, 32  # many commits
    upgrading.find_spec = lambda _: None  # type: ignore[assignment]
    model = HashingEncoder()
    if options.slow:
        quick = rewriting.rows_of

        def slowly(*args: Any, **kwargs: Any) -> Any:
            for rows in quick(*args, **kwargs):
                time.sleep(options.slow)
                yield rows

        rewriting.rows_of = slowly
    if options.die:
        die_in(options.die, options.at)
    say(f"ready {os.getpid()}")
    if options.job == "compress":
        compress_collection(options.collection, codec="int8", model=model)
    elif options.job == "drop":
        compress_collection(options.collection, codec="int8", drop_vectors=True, model=model)
    elif options.job == "undo":
        undo_compression(options.collection, model=model)
    else:
        upgrade_collection(options.collection, model=TurnedEncoder(), old_model=model, sample=60)
    say("done")


def say(word: str) -> None:
    """Write a line at once."""
    os.write(1, f"{word}\n".encode())


def nursery() -> None:
    """Fork a process for every line of arguments; forking before any table is open spares the start of Python."""
    warnings.filterwarnings("ignore", message="lancedb fork support is experimental")
    say("nursery")
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
PARSER.add_argument("collection")
PARSER.add_argument("job", choices=["compress", "drop", "undo", "upgrade"])
PARSER.add_argument("--die", choices=PHASES)
PARSER.add_argument("--at", type=int, default=0)
PARSER.add_argument("--slow", type=float, default=0.0)

if __name__ == "__main__":
    if sys.argv[1:] == ["--nursery"]:
        nursery()
    else:
        run(PARSER.parse_args())
