"""Depth of a corpus, and its comparison with another, against the authors' package and against one matrix of all pairs.

Every contender gets the same float32 vectors (N x 384 and N + 1 x 384, random around one direction: at equal sizes the
package has a fault) and gives all depths, Q, the rank-sum statistic and p. Each runs on one thread in a process of its
own, so that peak memory is its own; the best of the rounds counts, in processor time, which does not depend on what
else the machine does; imports are not timed. Depths must agree.

    python -m venv peers && peers/bin/pip install tte_depth numpy scipy
    python benchmarks/tte_depth.py --peers peers/bin/python [--rounds 3]

Writes `benchmarks/results/tte_depth.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "tte_depth.json"
DIM = 384
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SIZES = {
    "tte_depth": (250, 500, 1000, 2000),
    "matrix": (250, 500, 1000, 2000, 8000),
    "embedlab": (250, 500, 1000, 2000, 8000, 100_000, 1_000_000),
}


def run_embedlab(reference: Any, other: Any) -> tuple[Any, float]:
    from embedlab.understand.tte_depth import TextDepth

    depth = TextDepth().fit(reference)
    depths = depth.depths()
    return depths, depth.test(other).pvalue


def run_tte_depth(reference: Any, other: Any) -> tuple[Any, float]:
    from tte_depth import StatDepth

    depths, _, _, _, pvalue = StatDepth().depth_rank_test(reference, other)
    return depths, float(pvalue)


def run_matrix(reference: Any, other: Any) -> tuple[Any, float]:
    """What one writes in an afternoon: all pairs by one matrix product."""
    import numpy as np
    from scipy.stats import ranksums

    f = reference / np.linalg.norm(reference, axis=1, keepdims=True)
    g = other / np.linalg.norm(other, axis=1, keepdims=True)
    within = 1 - f @ f.T
    np.fill_diagonal(within, 0)
    depths = 2 - within.sum(axis=1) / (len(f) - 1)
    return depths, float(ranksums(depths, 2 - (1 - g @ f.T).mean(axis=1), alternative="greater").pvalue)


def work(contender: str, size: int, rounds: int) -> dict[str, float]:
    """Measure one contender at one size; called in a fresh process."""
    import numpy as np

    rng = np.random.default_rng(0)
    reference = rng.standard_normal((size, DIM), dtype=np.float32) + np.float32(0.1)
    other = rng.standard_normal((size + 1, DIM), dtype=np.float32) + np.float32(0.09)
    run = globals()[f"run_{contender}"]
    run(reference[:10], other[:11])  # imports
    before = _peak_bytes()
    seconds = []
    for _ in range(rounds if size < 100_000 and contender != "tte_depth" else 1):
        start = time.process_time()
        depths, pvalue = run(reference, other)
        seconds.append(time.process_time() - start)
    return {
        "seconds": min(seconds),
        "extra_memory_bytes": _peak_bytes() - before,
        "depth_checksum": float(np.asarray(depths[:100], dtype=np.float64) @ np.arange(1, min(size, 100) + 1)),
        "pvalue": pvalue,
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python interpreter that has tte_depth; left out without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs=2, metavar=("CONTENDER", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work[0], int(args.work[1]), args.rounds)))
        return

    from embedlab._core.machine import commit, hardware, versions

    rows: list[dict[str, Any]] = []
    for contender, sizes in SIZES.items():
        python = args.peers if contender == "tte_depth" else sys.executable
        for size in sizes if python else ():
            # -P keeps this folder, and with it this file's name, from hiding the package
            command = [python, "-P", __file__, "--work", contender, str(size), "--rounds", str(args.rounds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | ONE_THREAD)
            row = {"contender": contender, "size": size, **json.loads(done.stdout)}
            rows.append(row)
            print(f"{contender:10} {size:9,} {row['seconds']:10.4f} s {row['extra_memory_bytes'] / 1e6:9.1f} MB")

    ours = {row["size"]: row for row in rows if row["contender"] == "embedlab"}
    for row in rows:
        own = ours[row["size"]]
        row["times_embedlab"] = row["seconds"] / own["seconds"]
        gap = abs(row["depth_checksum"] / own["depth_checksum"] - 1)
        if gap > 1e-5:
            sys.exit(f"{row['contender']} at {row['size']} gives other depths: relative gap {gap:.2g}")
    report = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "dim": DIM,
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
