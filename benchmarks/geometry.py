"""Geometry of a space beside the packages that people use for it: the same numbers, and how long they take.

Peers: IsoScore (the measure's authors), scikit-dimension (intrinsic dimension), scikit-learn with scipy (neighbours and
the skewness of their counts). Every contender gets the same float64 unit rows, 5,000 x 384 around a 12-dimensional
surface, and runs on one thread in a process of its own; the best of the rounds counts, in processor time; imports are
not timed. Ours gives intervals as well. The numbers must agree.

    python -m venv peers && peers/bin/pip install IsoScore scikit-dimension scikit-learn scipy
    python benchmarks/geometry.py --peers peers/bin/python [--rounds 3]

Writes `benchmarks/results/geometry.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "geometry.json"
ROWS, DIM, INNER = 5_000, 384, 12
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
TASKS = ("isoscore", "dimension", "hubness")


def ours_isoscore(rows: Any) -> float:
    from embedlab.understand.geometry import isotropy

    return isotropy(rows).isoscore.estimate


def ours_dimension(rows: Any) -> float:
    from embedlab.understand.geometry import intrinsic_dimension

    return intrinsic_dimension(rows, k=20).likelihood.estimate


def ours_hubness(rows: Any) -> float:
    from embedlab.understand.geometry import hubness

    return hubness(rows, k=10).skewness.estimate


def peer_isoscore(rows: Any) -> float:
    from IsoScore import IsoScore

    return float(IsoScore.IsoScore(rows))


def peer_dimension(rows: Any) -> float:
    import skdim

    return float(skdim.id.MLE(K=20).fit(rows).dimension_)


def peer_hubness(rows: Any) -> float:
    import numpy as np
    from scipy.stats import skew
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(rows).kneighbors(return_distance=False)
    return float(skew(np.bincount(near.ravel(), minlength=len(rows))))


def work(contender: str, rounds: int) -> dict[str, float]:
    """Measure one contender; called in a fresh process."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = np.tanh(rng.normal(size=(ROWS, INNER)) @ rng.normal(size=(INNER, DIM)) / 4) + 0.3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    run: Callable[[Any], float] = globals()[contender]
    run(rows[:100])  # imports and compilation
    before = _peak_bytes()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        value = run(rows)
        seconds.append(time.process_time() - start)
    return {"seconds": min(seconds), "extra_memory_bytes": _peak_bytes() - before, "value": value}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python interpreter that has the peers; left out without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work, args.rounds)))
        return

    from embedlab._core.machine import commit, hardware, versions

    rows: list[dict[str, Any]] = []
    for task in TASKS:
        for side, python in (("ours", sys.executable), ("peer", args.peers)):
            if python is None:
                continue
            # -P keeps this folder from hiding packages
            command = [python, "-P", __file__, "--work", f"{side}_{task}", "--rounds", str(args.rounds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | ONE_THREAD)
            row = {"task": task, "contender": side, **json.loads(done.stdout.splitlines()[-1])}
            rows.append(row)
            print(
                f"{task:10} {side} {row['seconds']:8.3f} s {row['extra_memory_bytes'] / 1e6:8.1f} MB {row['value']:.9g}"
            )
        if len(rows) > 1 and rows[-1]["task"] == rows[-2]["task"]:
            gap = abs(rows[-1]["value"] / rows[-2]["value"] - 1)
            if gap > 1e-6:
                sys.exit(f"{task}: the contenders give other numbers, relative gap {gap:.2g}")
    report = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "rows": ROWS,
        "dim": DIM,
        "results": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
