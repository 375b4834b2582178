"""Measure the static model's encoding speed beside model2vec's: same texts, same vectors, same machine, one run.

Claim: at least 1.5 times model2vec's texts per second, and under 0.4 s from the start of a process to its first
vector. Both hold the same table (model2vec's model is built from ours), rounds are interleaved so that a busy machine
slows both, and the medians are compared. The result goes to ``benchmarks/results/encode.json``.

Run ``python benchmarks/encode.py``; needs the extra ``train`` (for model2vec). ``--level smoke`` takes seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pydoc_data.topics
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from embedlab._core.files import atomic_write
from embedlab.models import StaticModel, load_model

RESULT = Path(__file__).parent / "results" / "encode.json"
FIRST_VECTOR = """
from embedlab.models import load_model
load_model().encode_query(["how do I read a file line by line?"])
"""
LEVELS = {"smoke": (2_000, 3), "cpu": (20_000, 7)}


def texts_of_python(count: int) -> list[str]:
    """Return paragraphs of Python's own language reference, real prose that every machine has, repeated in order."""
    parts = [part for topic in pydoc_data.topics.topics.values() for part in topic.split("\n\n") if len(part) > 40]
    return [f"{parts[place % len(parts)]} {place}" for place in range(count)]


def model2vec_twin(model: StaticModel) -> Callable[[list[str]], np.ndarray]:
    """Build model2vec's model on our vectors and tokenizer."""
    from model2vec import StaticModel as Peer
    from tokenizers import Tokenizer

    peer = Peer(vectors=model.rows, tokenizer=Tokenizer.from_str(model.tokenizer_json), normalize=True)
    return lambda texts: peer.encode(texts, max_length=None)


def first_vector_s(rounds: int) -> dict[str, float]:
    """Time whole processes that load the model and encode one query, by the clock and by the processor.

    On a busy machine the clock counts the others' work too; the processor's seconds are this process's alone.
    """
    clock, processor = [], []
    for _ in range(rounds):
        start, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-c", FIRST_VECTOR], check=True)
        after = os.times()
        clock.append(time.perf_counter() - start)
        used = after.children_user + after.children_system - before.children_user - before.children_system
        processor.append(used)
    return {
        "median": round(statistics.median(clock), 3),
        "least": round(min(clock), 3),
        "processor_median": round(statistics.median(processor), 3),
    }


def cpu_name() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def run(level: str) -> dict[str, object]:
    """Measure everything at one level."""
    count, rounds = LEVELS[level]
    model = load_model()
    if not isinstance(model, StaticModel):
        raise TypeError("the default model is expected to be static")
    texts = texts_of_python(count)
    tokens = sum(len(ids) for ids in model2vec_tokens(model, texts))
    arms: dict[str, Callable[[list[str]], np.ndarray]] = {"embedlab": model.encode, "model2vec": model2vec_twin(model)}
    vectors = {name: encode(texts[:500]) for name, encode in arms.items()}  # also warms both up
    cosine = (vectors["embedlab"] * vectors["model2vec"]).sum(axis=1)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in sorted(arms, reverse=bool(number % 2)):
            start = time.perf_counter()
            arms[name](texts)
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "level": level,
        "texts": count,
        "tokens": tokens,
        "characters": sum(map(len, texts)),
        "rounds": rounds,
        "least_cosine_between_arms": round(float(cosine.min()), 6),
        "texts_per_s": {name: round(count / value) for name, value in median.items()},
        "tokens_per_s": {name: round(tokens / value) for name, value in median.items()},
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "ratio": round(median["model2vec"] / median["embedlab"], 2),
        "first_vector_s": first_vector_s(rounds),
        "model": model.fingerprint,
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
        "versions": {name: version(name) for name in ("embedlab", "model2vec", "numpy", "tokenizers")},
    }


def model2vec_tokens(model: StaticModel, texts: list[str]) -> list[list[int]]:
    """Count tokens the way the tokenizers library cuts them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(model.tokenizer_json)
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", choices=LEVELS, default="cpu")
    arguments = parser.parse_args()
    result = run(arguments.level)
    atomic_write(RESULT, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
