"""Relative coordinates, choosing anchors, comparing spaces and searching across encoders, against the plain torch form.

The plain form is what the published code does step by step, written anew: unit rows and one product; all pairwise
distances for farthest points; all pairs of relative vectors for neighbours and ranks, and linear CKA and SVCCA of the
centred matrices; relative vectors of the whole index for search. Both get the same random float32 vectors (width 384,
300 anchors) and run on one thread in a process of their own, so that peak memory is its own; the best of the rounds
counts, in processor time; imports are not timed. Results must agree.

    python benchmarks/relative.py [--rounds 3]

Writes `benchmarks/results/relative.json`.
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

RESULT = Path(__file__).parent / "results" / "relative.json"
DIM, ANCHORS, NEIGHBOURS, QUERIES = 384, 300, 10, 100
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SIZES = {
    ("project", "torch"): (10_000, 100_000),
    ("project", "embedlab"): (10_000, 100_000),
    ("farthest", "torch"): (2_000, 10_000),
    ("farthest", "embedlab"): (2_000, 10_000, 100_000),
    ("compare", "torch"): (2_000, 5_000, 10_000),
    ("compare", "embedlab"): (2_000, 5_000, 10_000, 100_000),
    ("search", "torch"): (10_000, 100_000),
    ("search", "embedlab"): (10_000, 100_000),
}


def embedlab_project(x: Any, y: Any) -> Any:
    from embedlab.understand.relative import relative_coordinates

    return relative_coordinates(x, x[:ANCHORS])


def torch_project(x: Any, y: Any) -> Any:
    import torch
    from torch.nn.functional import normalize

    rows = torch.from_numpy(x)
    return torch.einsum("bm,am->ba", normalize(rows, dim=-1), normalize(rows[:ANCHORS], dim=-1)).numpy()


def embedlab_farthest(x: Any, y: Any) -> Any:
    from embedlab.understand.relative.choosing import farthest_points

    return farthest_points(x, ANCHORS)


def torch_farthest(x: Any, y: Any) -> Any:
    import torch
    from torch.nn.functional import normalize

    rows = normalize(torch.from_numpy(x), dim=-1)
    distances = 1 - rows @ rows.T
    taken = [0]
    for _ in range(ANCHORS - 1):
        nearest = distances[taken].min(dim=0).values
        nearest[taken] = -1
        taken.append(int(nearest.argmax()))
    return torch.tensor(taken).numpy()


def embedlab_compare(x: Any, y: Any) -> Any:
    import numpy as np

    from embedlab.understand.relative import compare_spaces

    queries = 10_000 if len(x) <= 10_000 else 5_000  # of all items where the peer can follow, else as by default
    found = compare_spaces(x, y, (x[:ANCHORS], y[:ANCHORS]), k=NEIGHBOURS, max_queries=queries)
    return np.array([found.jaccard, found.mrr, found.cosine, found.mse, found.overlap, found.cka, found.svcca])


def torch_compare(x: Any, y: Any) -> Any:
    import torch
    from torch.nn.functional import normalize

    first, second = torch.from_numpy(x), torch.from_numpy(y)
    r_x, r_y = torch.from_numpy(torch_project(x, y)), torch.from_numpy(torch_project(y, x))
    u_x, u_y = normalize(r_x, dim=-1), normalize(r_y, dim=-1)
    across = u_x @ u_y.T
    ranks = 1 + (across > across.diag()[:, None]).sum(dim=1)
    jaccard = _overlap((u_x @ u_x.T).topk(NEIGHBOURS).indices, across.topk(NEIGHBOURS).indices)
    within = []
    for rows in (normalize(first, dim=-1), normalize(second, dim=-1)):
        within.append((rows @ rows.T).fill_diagonal_(-2).topk(NEIGHBOURS).indices)
    a, b = first.double() - first.double().mean(0), second.double() - second.double().mean(0)
    cka = (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    kept = []
    for rows in (a, b):
        left, values, _ = torch.linalg.svd(rows, full_matrices=False)
        share = (values**2).cumsum(0) / (values**2).sum()
        kept.append(left[:, : int(torch.searchsorted(share, 0.99)) + 1])
    correlations = torch.linalg.svdvals(kept[0].T @ kept[1])
    figures = [jaccard, (1 / ranks).mean(), (u_x * u_y).sum(1).mean(), ((r_x - r_y) ** 2).mean()]
    return torch.stack([*figures, _overlap(*within), cka.float(), correlations.mean().float()]).numpy()


def _overlap(first: Any, second: Any) -> Any:
    both = (first[:, :, None] == second[:, None, :]).sum(dim=(1, 2))
    return (both / (2 * NEIGHBOURS - both)).mean()


def embedlab_search(x: Any, y: Any) -> Any:
    import numpy as np

    from embedlab.understand.relative.bridge import _Bridge

    bridge = _Bridge.fit("relative", x[:ANCHORS], y[:ANCHORS], x)
    scores = bridge.score(y[-QUERIES:], x, bridge.scales(x))
    return np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def torch_search(x: Any, y: Any) -> Any:
    import torch
    from torch.nn.functional import normalize

    sides = []
    for rows, mean in ((x, x.mean(axis=0)), (y, y[:ANCHORS].mean(axis=0))):
        moved = torch.from_numpy(rows if rows is x else y[-QUERIES:]) - torch.from_numpy(mean)
        anchors = torch.from_numpy(rows[:ANCHORS] - mean)
        sides.append(normalize(normalize(moved, dim=-1) @ normalize(anchors, dim=-1).T, dim=-1))
    return (sides[1] @ sides[0].T).topk(NEIGHBOURS).indices.numpy()


def work(task: str, contender: str, size: int, rounds: int) -> dict[str, Any]:
    """Measure one contender at one size; called in a fresh process."""
    import numpy as np

    if contender == "torch":
        import torch

        torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size, DIM), dtype=np.float32) * np.linspace(2, 0.1, DIM, dtype=np.float32)
    y = x + rng.standard_normal((size, DIM), dtype=np.float32) * np.float32(0.5)
    run = globals()[f"{contender}_{task}"]
    run(x[:500].copy(), y[:500].copy())  # imports
    before = _peak_bytes()
    seconds = []
    for _ in range(rounds if size < 100_000 else 1):
        start = time.process_time()
        found = run(x, y)
        seconds.append(time.process_time() - start)
    if task == "search":
        found = np.sort(found, axis=1)
    return {
        "seconds": min(seconds),
        "extra_memory_bytes": _peak_bytes() - before,
        "figures": np.asarray(found, dtype=np.float64).ravel()[:3000].tolist(),
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs=3, metavar=("TASK", "CONTENDER", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work[0], args.work[1], int(args.work[2]), args.rounds)))
        return

    import numpy as np

    from embedlab._core.machine import commit, hardware, versions

    rows: list[dict[str, Any]] = []
    for (task, contender), sizes in SIZES.items():
        for size in sizes:
            # -P keeps this folder, and with it this file's name, from hiding the package
            command = [sys.executable, "-P", __file__, "--work", task, contender, str(size)]
            command += ["--rounds", str(args.rounds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | ONE_THREAD)
            row = {"task": task, "contender": contender, "size": size, **json.loads(done.stdout)}
            rows.append(row)
            print(f"{task:9}{contender:9}{size:9,}{row['seconds']:10.3f} s{row['extra_memory_bytes'] / 1e6:9.1f} MB")

    figures = {(row["task"], row["contender"], row["size"]): np.array(row.pop("figures")) for row in rows}
    ours = {(row["task"], row["size"]): row for row in rows if row["contender"] == "embedlab"}
    for row in rows:
        own = ours[row["task"], row["size"]]
        row["times_embedlab"] = row["seconds"] / own["seconds"]
        row["agreement"] = float(
            np.isclose(
                figures[row["task"], row["contender"], row["size"]],
                figures[row["task"], "embedlab", row["size"]],
                atol=1e-3,
            ).mean()
        )
        if row["agreement"] < 0.99:
            sys.exit(f"{row['task']} at {row['size']:,}: only {row['agreement']:.1%} of the figures agree")
    report = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "dim": DIM,
        "anchors": ANCHORS,
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
