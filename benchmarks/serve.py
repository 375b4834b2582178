"""Load on the service: calls per second, latency, errors and memory, over loopback, for search and embeddings.

Starts `embedlab serve` in a process of its own on a collection made of Python's standard library, asks it with wrk
where that is installed (`apt-get install wrk`), otherwise with an asyncio client (slower itself, so its figures are a
lower bound), and watches the server's memory.

    python benchmarks/serve.py                 # short, about a minute and a half
    python benchmarks/serve.py --level full    # with five minutes of steady mixed load

Load is closed-loop: every connection asks again as soon as it has its answer, so latency at many connections is
mostly waiting for the two things there are few of, cores and the interpreter. Client and server share the machine;
`cpu_ms`, the server's processor time per call, is the figure that other programs on it disturb least.
Writes `benchmarks/results/serve.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

RESULT = Path(__file__).parent / "results" / "serve.json"
SECONDS = {"short": 8, "full": 20}
STEADY_SECONDS = {"short": 20, "full": 300}
QUERIES = [
    "open a file and read it line by line", "parse command line arguments", "connect a socket to a server",
    "run a function in another thread", "convert a date to a string", "regular expression groups",
    "compress data with zlib", "walk a directory tree", "send an e-mail", "what does functools.lru_cache do",
    "decode base64", "sort a list by key", "iterate over combinations", "parse an XML document", "hash a password",
    "temporary files and folders", "logging to a file", "json encoder for own classes", "abstract base classes",
    "measure the time of small code",
]  # fmt: skip
BATCH = 64


def calls() -> dict[str, list[tuple[str, str, str]]]:
    """Return method, path and body of every call of every kind."""
    search = "/api/collections/stdlib/search"
    texts = [f"{query}, example {number}" for number in range(BATCH // 8) for query in QUERIES[:8]]
    found = {
        f"search_{mode}": [("POST", search, json.dumps({"query": query, "mode": mode})) for query in QUERIES]
        for mode in ("hybrid", "dense", "lexical")
    }
    found["embed_1"] = [("POST", "/v1/embeddings", _embedding(query)) for query in QUERIES]
    found[f"embed_{BATCH}"] = [("POST", "/v1/embeddings", _embedding(texts))]
    mixed = zip(found["search_hybrid"], found["embed_1"], strict=True)
    found["mixed"] = [call for pair in mixed for call in pair] + found[f"embed_{BATCH}"]
    return found


def _embedding(texts: str | list[str]) -> str:
    return json.dumps({"model": "default", "input": texts, "encoding_format": "base64"})


# --- two ways to make load: both return requests, seconds, errors and latencies --------------------------------------

LUA = """
local calls = { %s }
local place = 0
local number = 0
function setup(thread) thread:set("start", number); number = number + 7 end
function init(args) place = start end
function request()
  place = place %% #calls + 1
  local call = calls[place]
  return wrk.format(call[1], call[2], {["Content-Type"] = "application/json"}, call[3])
end
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '\\nJSON {"requests": %%d, "seconds": %%.3f, "errors": %%d, "p50_ms": %%.3f, "p99_ms": %%.3f, "max_ms": %%.3f}\\n',
    summary.requests, summary.duration / 1e6, failed,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
"""


def wrk_load(
    address: str, asked: list[tuple[str, str, str]], connections: int, seconds: int, home: Path
) -> dict[str, Any]:
    script = home / "load.lua"
    script.write_text(LUA % ", ".join("{" + ", ".join(f"[==[{part}]==]" for part in call) + "}" for call in asked))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), address]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told: dict[str, Any] = json.loads(output.split("\nJSON ")[1])
    return told


def asyncio_load(address: str, asked: list[tuple[str, str, str]], connections: int, seconds: int) -> dict[str, Any]:
    latencies: list[float] = []
    errors = 0

    async def one(client: httpx.AsyncClient, place: int, end: float) -> None:
        nonlocal errors
        while time.perf_counter() < end:
            method, path, body = asked[place % len(asked)]
            place += 1
            began = time.perf_counter()
            try:
                answer = await client.request(method, path, content=body, headers={"Content-Type": "application/json"})
                errors += answer.status_code != 200
            except httpx.HTTPError:
                errors += 1
            latencies.append((time.perf_counter() - began) * 1000)

    async def everyone() -> float:
        began = time.perf_counter()
        async with httpx.AsyncClient(base_url=address, timeout=20) as client:
            await asyncio.gather(*(one(client, 7 * number, began + seconds) for number in range(connections)))
        return time.perf_counter() - began

    took = asyncio.run(everyone())
    p50, p99, worst = np.percentile(latencies, [50, 99, 100]).round(3).tolist()
    return {
        "requests": len(latencies), "seconds": round(took, 3), "errors": errors,
        "p50_ms": p50, "p99_ms": p99, "max_ms": worst,
    }  # fmt: skip


# --- the server and what it takes ------------------------------------------------------------------------------------


@contextmanager
def served() -> Iterator[tuple[str, psutil.Process]]:
    """Start the service as a user would; yields its address and process."""
    command = [sys.executable, "-m", "embedlab", "serve", "--port", "0", "--no-open", "--requests-per-s", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield next(word for word in line.split() if word.startswith("http://")), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


class Memory:
    """The server's resident memory, once a second, while a block runs."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._stop = process, threading.Event()
        self.mib: list[float] = []

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self.mib.append(round(self._process.memory_info().rss / 2**20, 1))

    def told(self) -> dict[str, Any]:
        """First, last, largest, and the slope of a straight line through the last four fifths."""
        rest = self.mib[len(self.mib) // 5 :]
        slope = float(np.polyfit(np.arange(len(rest)) / 60, rest, 1)[0]) if len(rest) > 2 else 0.0
        return {
            "first_mib": self.mib[0], "last_mib": self.mib[-1], "max_mib": max(self.mib),
            "slope_mib_per_minute": round(slope, 2), "every_10_s_mib": self.mib[::10],
        }  # fmt: skip


def in_process(seconds: float) -> dict[str, float]:
    """What one thread does without HTTP: the most that one core could give."""
    from embedlab import Collection, load_model

    collection, model = Collection.open("stdlib"), load_model()
    told = {}
    for name, function in (
        ("search_hybrid", lambda query: collection.search(query)),
        ("search_dense", lambda query: collection.search(query, mode="dense")),
        ("search_lexical", lambda query: collection.search(query, mode="lexical")),
        ("embed_1", lambda query: model.encode_document([query])),
    ):
        for query in QUERIES:
            function(query)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            function(QUERIES[count % len(QUERIES)])
            count += 1
        told[name] = round(count / (time.perf_counter() - began), 1)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", choices=list(SECONDS), default="short")
    parser.add_argument("--documents", type=Path, help="folder to serve; the standard library if not given")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # or the server would be left behind
    seconds, steady_seconds = SECONDS[arguments.level], STEADY_SECONDS[arguments.level]
    tool = "wrk" if shutil.which("wrk") else "asyncio"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["EMBEDLAB_HOME"] = folder
        from embedlab import Collection
        from embedlab.data.loaders import STDLIB_EXCLUDE, stdlib_folder

        collection = Collection.create("stdlib")
        collection.index(arguments.documents or stdlib_folder(), exclude=() if arguments.documents else STDLIB_EXCLUDE)
        passages = collection.info().passages
        print(f"{passages} passages; load by {tool}, {seconds} s each", flush=True)
        load_before = os.getloadavg()[0]
        alone = in_process(seconds / 4)
        runs = []

        def load(name: str, connections: int, how_long: int) -> dict[str, Any]:
            before = sum(process.cpu_times()[:2])
            if tool == "wrk":
                told = wrk_load(address, calls()[name], connections, how_long, home)
            else:
                told = asyncio_load(address, calls()[name], connections, how_long)
            told["per_s"] = round(told["requests"] / told["seconds"], 1)
            told["cpu_ms"] = round((sum(process.cpu_times()[:2]) - before) / max(1, told["requests"]) * 1000, 3)
            print(f"{name:15} {connections:3} connections  {told}", flush=True)
            return {"calls": name, "connections": connections, **told}

        with served() as (address, process):
            load("mixed", 4, 3)  # warm
            started_mib = round(process.memory_info().rss / 2**20, 1)
            for name in ("search_hybrid", "search_dense", "search_lexical", "embed_1", f"embed_{BATCH}"):
                for connections in (1, 8, 32) if name in ("search_hybrid", "embed_1") else (8,):
                    runs.append(load(name, connections, seconds))
            with Memory(process) as memory:
                steady = load("mixed", 16, steady_seconds)
    result = {
        "command": f"python benchmarks/serve.py --level {arguments.level}",
        "machine": {
            "cpus": os.cpu_count(), "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(), "load_before": round(load_before, 2), "tool": tool,
        },
        "passages": passages,
        "in_process_one_thread_per_s": alone,
        "runs": runs,
        "steady": {**steady, "memory": memory.told()},
        "warm_mib": started_mib,
        "errors": sum(run["errors"] for run in [*runs, steady]),
    }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"errors {result['errors']}, memory {memory.told()}")


if __name__ == "__main__":
    main()
