"""What using a model costs: size, speed and memory, measured on texts that are encoded for the purpose."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedlab.evaluate.scores import ModelCost
from embedlab.models.encoder import Encoder

_SAMPLE = 512  # documents at most
_QUERIES = 16
_ENOUGH_S = 1.5


def cost_of(encoder: Encoder, texts: Sequence[str], queries: Sequence[str]) -> ModelCost:
    """Measure an encoder, for at most a few seconds.

    Args:
        encoder: The encoder.
        texts: Documents to encode, not empty; an evenly spread sample is taken.
        queries: Queries to encode one by one; without any, documents serve.

    Returns:
        The cost, without memory and total time.
    """
    sample = _spread(texts, _SAMPLE)
    encoder.encode_document(sample[:1])  # whatever is loaded at the first call is not speed
    done, start = 0, time.perf_counter()
    while done < len(sample) and time.perf_counter() - start < _ENOUGH_S:
        done += len(encoder.encode_document(sample[done : done + 64]))
    per_s = done / max(time.perf_counter() - start, 1e-9)
    took = []
    for query in _spread(queries or texts, _QUERIES):
        start = time.perf_counter()
        encoder.encode_query([query])
        took.append(time.perf_counter() - start)
        if sum(took) > _ENOUGH_S:
            break
    return ModelCost(parameters_of(encoder), 4 * encoder.dim, per_s, 1000 * statistics.median(took), None)


def cost_of_counting(model: Any, texts: Sequence[str], queries: Sequence[str]) -> ModelCost:
    """Measure a model that counts words: fitting counts as encoding, and a vector is a sparse row."""
    sample = _spread(texts, 8 * _SAMPLE)
    start = time.perf_counter()
    model.fit(sample)
    rows = model.sparse_documents(sample)
    per_s = len(sample) / max(time.perf_counter() - start, 1e-9)
    took = []
    for query in _spread(queries or texts, _QUERIES):
        start = time.perf_counter()
        model.sparse_queries([query])
        took.append(time.perf_counter() - start)
    stored = 8 * rows.nnz if hasattr(rows, "nnz") else rows.nbytes  # a word's number and its weight
    return ModelCost(None, round(stored / len(sample)), per_s, 1000 * statistics.median(took), None)


def parameters_of(encoder: Encoder) -> int | None:
    """Return the number of parameters; None where it cannot be known, as behind an endpoint."""
    host: Any = getattr(encoder, "host", None)
    if host is not None and hasattr(host, "parameters"):
        return sum(int(each.numel()) for each in host.parameters())
    rows: Any = getattr(encoder, "rows", None)
    return None if rows is None else int(rows.size)


class PeakMemory:
    """The largest memory of this process since the object was made, where the system can tell (Linux)."""

    def __init__(self) -> None:
        self._from_here = False
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # starts the high-water mark anew
            self._from_here = True
        except OSError:
            pass  # not Linux, or not allowed: then no number is better than one of another model

    def mb(self) -> float | None:
        """Return it in 10^6 bytes, or None."""
        if not self._from_here:
            return None
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        return None


def _spread(texts: Sequence[str], count: int) -> list[str]:
    step = max(1, len(texts) // count)
    return list(texts[::step][:count])
