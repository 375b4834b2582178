"""Task selection: left-out predictions from one factorisation, against fitting every task and model anew.

All contenders get the same random tables of scores and take out tasks with the same rule until a third is left; what
they remove must be the same. "refit" is the procedure as published: scikit-learn's LinearRegression for each task and
each model left out. "hat" is what one writes to speed it up: a pseudo-inverse for each task. Each measurement runs on
one thread, in processor time, best of the rounds.

    python benchmarks/mmteb.py [--rounds 3]

Writes `benchmarks/results/mmteb.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy is imported

import numpy as np  # noqa: E402

RESULT = Path(__file__).parent / "results" / "mmteb.json"
SIZES = ((120, 56), (60, 30), (13, 40), (13, 131), (500, 131))  # models, tasks; 13 models as in the paper
SLOW = {"refit": 60 * 30 * 30 * 2, "hat": 120 * 56 * 56}  # models * tasks^2, beyond which one step stands for all
SHARE = 3


def predict_refit(scores: Any) -> Any:
    from sklearn.linear_model import LinearRegression

    predicted = np.empty_like(scores)
    for t in range(scores.shape[1]):
        others = np.delete(scores, t, axis=1)
        for i in range(len(scores)):
            line = LinearRegression().fit(np.delete(others, i, axis=0), np.delete(scores[:, t], i))
            predicted[i, t] = line.predict(others[i : i + 1])[0]
    return predicted


def predict_hat(scores: Any) -> Any:
    predicted = np.empty_like(scores)
    for t in range(scores.shape[1]):
        design = np.column_stack([np.ones(len(scores)), np.delete(scores, t, axis=1)])
        hat = design @ np.linalg.pinv(design)
        residual = scores[:, t] - hat @ scores[:, t]
        predicted[:, t] = scores[:, t] - residual / (1 - np.diag(hat))
    return predicted


def predict_embedlab(scores: Any) -> Any:
    from embedlab.evaluate.mmteb import predictability

    return predictability(scores).predicted


def remove_one(scores: Any, predict: Callable[[Any], Any]) -> int:
    """The most predictable task."""
    from scipy.stats import rankdata

    predicted = predict(scores)
    ours, theirs = rankdata(scores, axis=0), rankdata(np.round(predicted, 9), axis=0)
    ours, theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    rhos = (ours * theirs).sum(axis=0) / np.sqrt((ours**2).sum(axis=0) * (theirs**2).sum(axis=0))
    return int(np.argmax(np.round(rhos, 9)))


def measure(name: str, scores: Any, rounds: int) -> dict[str, Any]:
    """Seconds for one step and, where it does not take minutes, for the whole selection."""
    predict = globals()[f"predict_{name}"]
    remove_one(scores[:20, :3], predict)  # imports
    models, tasks = scores.shape
    steps = []
    for _ in range(rounds if models * tasks**2 <= SLOW.get(name, 10**9) else 1):
        start = time.process_time()
        first = remove_one(scores, predict)
        steps.append(time.process_time() - start)
    row: dict[str, Any] = {"contender": name, "models": models, "tasks": tasks, "seconds_one_step": min(steps)}
    row["first_removed"] = first
    if models * tasks**2 <= SLOW.get(name, 10**9):
        left, start = scores, time.process_time()
        removed = []
        while left.shape[1] > tasks // SHARE:
            removed.append(remove_one(left, predict))
            left = np.delete(left, removed[-1], axis=1)
        row |= {"seconds_selection": time.process_time() - start, "removed": removed}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds

    from embedlab._core.machine import commit, hardware, versions

    rows: list[dict[str, Any]] = []
    for models, tasks in SIZES:
        rng = np.random.default_rng(0)
        scores = 60 + 5 * rng.normal(size=(models, 8)) @ rng.normal(size=(8, tasks)) + rng.normal(size=(models, tasks))
        contenders = ("embedlab", "refit") if models <= tasks else ("embedlab", "hat", "refit")
        if models * tasks**2 > 2_000_000:
            contenders = contenders[:-1]  # refitting would take an hour
        found = [measure(name, scores, rounds) for name in contenders]
        own = found[0]
        for row in found:
            for key in ("first_removed", "removed"):
                if row.get(key, own[key]) != own[key]:
                    sys.exit(f"{row['contender']} removes other tasks at {models} x {tasks}")
            row["times_embedlab"] = row["seconds_one_step"] / own["seconds_one_step"]
            print(
                f"{row['contender']:10} {models:4} models {tasks:4} tasks {row['seconds_one_step']:9.4f} s a step "
                f"{row.get('seconds_selection', float('nan')):9.3f} s in all, {row['times_embedlab']:8.1f} times"
            )
        rows += [{key: value for key, value in row.items() if key != "removed"} for row in found]
    report = {"commit": commit(Path(__file__).parent), "hardware": hardware(), "versions": versions(), "rows": rows}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
