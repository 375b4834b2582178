"""The two costly parts of DupMAE against their plain forms: the bag of words, and the masks of the decoder.

The plain bag of words scores every token, takes the maximum and compares with a dense target, as one would write the
equation in torch; the plain masks walk over texts, hidden sets and words in Python, as published recipes do. Both get
the same random input (width 256, 30,522 words; 8 texts) and run on one thread in a process of their own, so that peak
memory is its own; the best of the rounds counts, in processor time; imports are not timed. Losses and gradients must
agree; masks are random, their shares of visible positions must.

    python benchmarks/dupmae.py [--rounds 3]

Writes `benchmarks/results/dupmae.json`.
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

RESULT = Path(__file__).parent / "results" / "dupmae.json"
TEXTS, DIM, WORDS = 8, 256, 30522
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SIZES = {"bag": (32, 128), "masks": (64, 512)}  # tokens of a text


def bag_input(length: int) -> tuple[Any, ...]:
    import torch
    from torch import nn

    from embedlab.text.dupmae import VocabularyHead

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = VocabularyHead(nn.Linear(DIM, DIM), nn.LayerNorm(DIM), nn.Linear(DIM, WORDS))
    states = torch.randn(TEXTS, length, DIM, generator=generator, requires_grad=True)
    tokens = torch.randint(WORDS, (TEXTS, length), generator=generator)
    return head, states, tokens


def embedlab_bag(head: Any, states: Any, tokens: Any) -> Any:
    import torch

    from embedlab.text.dupmae import bag_of_words_loss
    from embedlab.text.dupmae.masking import first_of_each

    unique = torch.from_numpy(first_of_each(tokens.numpy()))
    return bag_of_words_loss(head.strongest(states, torch.ones_like(tokens, dtype=torch.bool)), unique, tokens)


def plain_bag(head: Any, states: Any, tokens: Any) -> Any:
    import torch

    target = torch.zeros(TEXTS, WORDS).scatter(1, tokens, 1.0) / tokens.shape[1]
    return -(head(states).amax(dim=1).log_softmax(dim=-1) * target).sum(dim=1).mean()


def masks_input(length: int) -> tuple[Any, ...]:
    import numpy as np

    rng = np.random.default_rng(0)
    words = np.full((TEXTS, length), -1)
    starts = rng.random((TEXTS, length - 2)) < 0.8  # one token in five goes on with a word
    starts[:, 0] = True
    words[:, 1:-1] = np.cumsum(starts, axis=1) - 1
    return (words,)


def embedlab_masks(words: Any) -> Any:
    import numpy as np

    from embedlab.text.dupmae.masking import visible_positions

    return visible_positions(words, np.ones_like(words, dtype=bool), 0.5, np.random.default_rng(0))


def plain_masks(words: Any) -> Any:
    import random

    import numpy as np

    rng = random.Random(0)
    size, length = words.shape
    visible = np.zeros((size, length, length), dtype=bool)
    for row in range(size):
        groups: dict[int, list[int]] = {}
        for place, word in enumerate(words[row].tolist()):
            if word >= 0:
                groups.setdefault(word, []).append(place)
        sets = []
        for _ in range(min(length, 256)):
            order = list(groups.values())
            rng.shuffle(order)
            hidden: set[int] = set()
            for group in order:
                if len(hidden) >= round(0.5 * (length - 2)):
                    break
                hidden.update(group)
            sets.append(hidden)
        for i in range(length):
            hidden = rng.choice(sets)
            visible[row, i] = [j not in hidden and j != i for j in range(length)]
    return visible


def work(task: str, contender: str, length: int, rounds: int) -> dict[str, Any]:
    """Measure one contender at one length; called in a fresh process."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    make, run = globals()[f"{task}_input"], globals()[f"{contender}_{task}"]
    given = make(length)
    if task == "masks":
        run(given[0][:1])
    else:
        run(given[0], given[1][:, :2], given[2][:, :2]) if contender == "embedlab" else None
    before = _peak_bytes()
    seconds, figures = [], []
    for _ in range(rounds):
        start = time.process_time()
        found = run(*given)
        if task == "bag":
            given[1].grad = None
            given[0].zero_grad()
            found.backward()
        seconds.append(time.process_time() - start)
        figures = [float(np.asarray(found, dtype=float).mean())] if task == "masks" else [found.item()]
        if task == "bag":
            figures += given[1].grad.flatten()[:2000].mul(1e4).tolist()
    return {"seconds": min(seconds), "extra_memory_bytes": _peak_bytes() - before, "figures": figures}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs=3, metavar=("TASK", "CONTENDER", "LENGTH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work[0], args.work[1], int(args.work[2]), args.rounds)))
        return

    import numpy as np

    from embedlab._core.machine import commit, hardware, versions

    rows: list[dict[str, Any]] = []
    for task, lengths in SIZES.items():
        for length in lengths:
            pair = []
            for contender in ("embedlab", "plain"):
                # -P keeps this folder, and with it this file's name, from hiding the package
                command = [sys.executable, "-P", __file__, "--work", task, contender, str(length)]
                command += ["--rounds", str(args.rounds)]
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | ONE_THREAD)
                pair.append({"task": task, "contender": contender, "tokens": length, **json.loads(done.stdout)})
            figures = [row.pop("figures") for row in pair]
            if not np.allclose(*figures, rtol=0.02 if task == "masks" else 1e-3, atol=1e-4):
                sys.exit(f"{task} at {length} tokens: the figures do not agree")
            for row in pair:
                row["times_embedlab"] = row["seconds"] / pair[0]["seconds"]
                print(
                    f"{task:7}{row['contender']:9}{length:6}{row['seconds']:10.3f} s"
                    f"{row['extra_memory_bytes'] / 1e6:9.1f} MB{row['times_embedlab']:8.1f}"
                )
            rows += pair
    report = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "texts": TEXTS,
        "dim": DIM,
        "words": WORDS,
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
