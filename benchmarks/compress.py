"""What compressing a collection costs and saves: Debian's package descriptions, the model that the package carries.

Documents are the long descriptions of all packages (without their titles), queries the short ones of 300 packages. For
every setting a copy of the collection is compressed in one process, whose peak memory above that of the loaded model
is the cost; then another process opens it and searches. *Fidelity* is the share of the exact ten nearest passages among
the first ten (as `embedlab compress` prints it, for queries made of the texts), *task* the share of short descriptions
whose package is among the first ten documents found by vectors alone. Memory is what the process grows by with the
first search by vectors. One thread; medians over the queries, after one pass to warm up.

    EMBEDLAB_DATA=... python benchmarks/compress.py [--only NAME ...] [--upgrade MODEL]

`--upgrade` measures another query model over the same index instead. Writes `benchmarks/results/compress.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "compress.json"
QUERIES, PACKAGES_PER_QUERY = 300, 200
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
SETTINGS: dict[str, dict[str, Any]] = {
    "vectors": {},
    "int8": {"codec": "int8", "verify": 0},
    "rotation 4 bit": {"codec": "rotation", "bits": 4, "verify": 0},
    "rotation 4 bit, vectors dropped": {"codec": "rotation", "bits": 4, "drop_vectors": True},
    "rotation 4 bit, verified": {"codec": "rotation", "bits": 4},
    "rotation 2 bit": {"codec": "rotation", "bits": 2, "verify": 0},
    "rotation 2 bit, verified": {"codec": "rotation", "bits": 2},
    "binary, verified": {"codec": "binary"},
    "rabitq, verified": {"codec": "rabitq"},
    "bebr 2 bit": {"codec": "bebr", "bits": 2, "verify": 0},
    "bebr 2 bit, verified": {"codec": "bebr", "bits": 2},
    "bebr 2 bit, 128 dimensions, verified": {"codec": "bebr", "bits": 2, "dim": 128},
}


def _made(name: str) -> None:
    from embedlab.data.loaders import load_debian_packages
    from embedlab.search import Collection

    seen: set[str] = set()

    def documents() -> Any:
        for package in load_debian_packages():
            if package.long and package.name not in seen:
                seen.add(package.name)
                yield {"source": package.name, "text": package.long}

    Collection.create(name).add(documents())


def _compressed(name: str, setting: dict[str, Any]) -> dict[str, Any]:
    from embedlab.search import Collection, compress_collection

    model = Collection.open(name)._model()
    base = _peak_bytes()
    report = compress_collection(name, model=model, **setting)
    return {**report.to_dict(), "peak_memory_bytes": _peak_bytes() - base}


def _searched(name: str) -> dict[str, Any]:
    import numpy as np

    from embedlab.data.loaders import load_debian_packages
    from embedlab.search import Collection

    collection = Collection.open(name)
    collection._model()
    held = {document.source for document in collection.documents()}
    asked: dict[str, str] = {}
    for number, package in enumerate(load_debian_packages()):
        if number % PACKAGES_PER_QUERY == 0 and package.name in held and package.short:
            asked[package.name] = package.short
    asked = dict(list(asked.items())[:QUERIES])
    first = next(iter(asked.values()))
    collection.search(first, mode="lexical")
    before = _present_bytes()
    collection.search(first, mode="dense")
    found: dict[str, Any] = {"queries": len(asked), "grows_by_bytes": _present_bytes() - before}
    for mode in ("dense", "hybrid", "lexical"):
        hits = {name: collection.search(query, mode=mode, per_document=True) for name, query in asked.items()}
        found[f"{mode}_task"] = float(np.mean([name in {hit.source for hit in got} for name, got in hits.items()]))
        seconds = []
        for query in asked.values():
            started = time.perf_counter()
            collection.search(query, mode=mode)
            seconds.append(time.perf_counter() - started)
        found[f"{mode}_p50_ms"], found[f"{mode}_p95_ms"] = (np.percentile(seconds, [50, 95]) * 1000).tolist()
    return found


def _upgraded(name: str, model: str) -> dict[str, Any]:
    from embedlab.search import upgrade_collection

    found = upgrade_collection(name, model=model).to_dict()
    return {**found, "after": Path(found["after"]).parent.name}


def _present_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _in_a_process(home: str, *words: str) -> Any:
    # -P keeps this folder, and with it this file's name, from hiding the package
    command = [sys.executable, "-P", __file__, "--work", *words]
    environment = os.environ | ONE_THREAD | {"EMBEDLAB_HOME": home}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout or "null")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=SETTINGS)
    parser.add_argument("--upgrade", metavar="MODEL")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work, name, *rest = args.work
        if work == "make":
            _made(name)
        elif work == "compress":
            print(json.dumps(_compressed(name, json.loads(rest[0]))))
        elif work == "upgrade":
            print(json.dumps(_upgraded(name, rest[0])))
        else:
            print(json.dumps(_searched(name)))
        return

    from embedlab._core.machine import commit, hardware, versions

    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {"rows": {}, "upgrades": {}}
    with tempfile.TemporaryDirectory() as home:
        _in_a_process(home, "make", "plain")
        collections = Path(home) / "collections"
        if args.upgrade:
            found = _in_a_process(home, "upgrade", "plain", args.upgrade)
            kept["upgrades"][found["after"]] = found
            print(json.dumps(found))
        for label, setting in {} if args.upgrade else SETTINGS.items():
            if args.only and label not in args.only:
                continue
            shutil.copytree(collections / "plain", collections / "copy")
            made = _in_a_process(home, "compress", "copy", json.dumps(setting)) if setting else None
            search = _in_a_process(home, "search", "copy")
            shutil.rmtree(collections / "copy")
            kept["rows"][label] = {"compression": made, "search": search}
            fidelity = f"{made['after']['recall']:.3f}" if made else "1.000"
            print(
                f"{label:38}{search['grows_by_bytes'] / 1e6:8.1f} MB  fidelity {fidelity}"
                f"  task {search['dense_task']:.3f}  dense {search['dense_p50_ms']:.1f}/{search['dense_p95_ms']:.1f} ms"
                f"  hybrid {search['hybrid_p50_ms']:.1f}/{search['hybrid_p95_ms']:.1f} ms",
                flush=True,
            )
    report = {"commit": commit(Path(__file__).parent), "hardware": hardware(), "versions": versions(), **kept}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
