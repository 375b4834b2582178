"""What a model costs and gives: size, operations, latency, memory, index bytes, quality; the Pareto front."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.evaluate.costs import PeakMemory, parameters_of
from embedlab.models.encoder import Encoder


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one call takes, with tokenisation, once warm.

    Attributes:
        batch_size: Texts in the call.
        words: Words of each text.
        p50_ms: Median, in milliseconds.
        p95_ms: The slowest in twenty.
        texts_per_s: Texts per second at the median.
    """

    batch_size: int
    words: int
    p50_ms: float
    p95_ms: float
    texts_per_s: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """One model.

    Attributes:
        name: The model's name.
        parameters: Numbers it holds; None where they cannot be known, as behind an endpoint.
        flops_per_token: Multiplications and additions of the matrix products per token of the longest texts measured;
            None for models that are not of torch.
        latencies: By batch and length.
        peak_memory_mb: Largest memory of the process while it encoded, in 10^6 bytes; None where it cannot be known.
        index_bytes: Bytes of one document's vector in float32.
        quality: What the caller measured; larger is better.
    """

    name: str
    parameters: int | None
    flops_per_token: float | None
    latencies: tuple[Latency, ...]
    peak_memory_mb: float | None
    index_bytes: int
    quality: float | None


@dataclass(frozen=True, slots=True)
class EfficiencyReport:
    """Several models on the same texts.

    Attributes:
        rows: One per model.
        front: Names on the Pareto front: no other model has at least their quality for at most their query latency and
            index bytes, and more of one of them. Empty where no quality is given.
        threads: Threads that torch used.
    """

    rows: tuple[Efficiency, ...]
    front: tuple[str, ...]
    threads: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)

    def markdown(self) -> str:
        """Return a table: one row per model, the first and the last latency, a star on the front."""
        head = (
            "| Model | Parameters | MFLOP/token | one text p50/p95 ms | texts/s | Memory MB | Bytes | Quality | Front |"
        )
        lines = [head, "| --- |" + " ---: |" * 7 + " --- |"]
        for row in self.rows:
            first, last = row.latencies[0], max(row.latencies, key=lambda one: one.texts_per_s)
            cells = [
                row.name,
                "" if row.parameters is None else f"{row.parameters:,}",
                "" if row.flops_per_token is None else f"{row.flops_per_token / 1e6:.2f}",
                f"{first.p50_ms:.2f} / {first.p95_ms:.2f}",
                f"{last.texts_per_s:,.0f}",
                "" if row.peak_memory_mb is None else f"{row.peak_memory_mb:,.0f}",
                f"{row.index_bytes:,}",
                "" if row.quality is None else f"{row.quality:.3f}",
                "*" if row.name in self.front else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def write(self, path: str | Path) -> None:
        """Write the table to a Markdown file."""
        atomic_write(path, self.markdown())


def measure_efficiency(
    encoders: Mapping[str, Encoder],
    texts: Sequence[str],
    *,
    quality: Mapping[str, float] | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    lengths: Sequence[int] = (16, 128),
    repeats: int = 20,
    budget_s: float = 2.0,
) -> EfficiencyReport:
    """Measure models on the same texts: each batch size at each length, warm, tokenisation included.

    Args:
        encoders: Name -> model.
        texts: Texts whose words fill the batches.
        quality: Name -> score of the caller's own, larger is better; without it there is no front.
        batch_sizes: Texts per call.
        lengths: Words per text.
        repeats: Calls that are timed, after one that is not; at least 3.
        budget_s: Fewer calls than ``repeats`` are timed, but never fewer than 3, where they take longer than this.

    Returns:
        The report.

    Raises:
        InputError: something is empty or out of range, or ``quality`` lacks a model.
    """
    if not encoders or not batch_sizes or not lengths or repeats < 3:
        raise InputError("at least one encoder, batch size and length, and three repeats are needed")
    if min(*batch_sizes, *lengths, 1) < 1:
        raise InputError(f"batch_sizes={list(batch_sizes)}, lengths={list(lengths)}: must be at least 1")
    words = " ".join(texts).split()
    if not words:
        raise InputError("texts hold no word")
    missing = [name for name in encoders if quality is not None and name not in quality]
    if missing:
        raise InputError(f"quality lacks {', '.join(missing)}: give a score for every model, or none")
    rows = tuple(
        _measured(name, encoder, words, quality, batch_sizes, lengths, repeats, budget_s)
        for name, encoder in encoders.items()
    )
    front: tuple[str, ...] = ()
    if quality is not None:
        points = [(-float(row.quality or 0), row.latencies[0].p50_ms, row.index_bytes) for row in rows]
        front = tuple(row.name for row, kept in zip(rows, pareto_front(points), strict=True) if kept)
    return EfficiencyReport(rows, front, _threads())


def pareto_front(costs: ArrayLike) -> NDArray[np.bool_]:
    """Tell which rows no other row beats: at most as much in every column, and less in one.

    Args:
        costs: One row per candidate; smaller is better in every column, so negate what should be large.

    Shape:
        costs (N, K) -> (N,) bool

    Returns:
        True for rows on the front; equal rows are all on it or all off it.

    Raises:
        InputError: the costs are no table, or hold NaN.

    Example:
        >>> pareto_front([[1, 5], [2, 2], [3, 3]]).tolist()
        [True, True, False]
    """
    points = np.asarray(costs, dtype=np.float64)
    if points.ndim != 2 or not points.size or np.isnan(points).any():
        raise InputError(f"costs of shape {points.shape}: expected a table (N, K) of numbers without NaN")
    no_worse = (points[:, None] <= points[None]).all(2)
    better = (points[:, None] < points[None]).any(2)
    beaten = (no_worse & better).any(axis=0)
    return np.asarray(~beaten, dtype=np.bool_)


def _measured(
    name: str,
    encoder: Encoder,
    words: list[str],
    quality: Mapping[str, float] | None,
    batch_sizes: Sequence[int],
    lengths: Sequence[int],
    repeats: int,
    budget_s: float,
) -> Efficiency:
    memory = PeakMemory()
    latencies = tuple(
        _timed(encoder, words, size, length, repeats, budget_s) for size in batch_sizes for length in lengths
    )
    return Efficiency(
        name=name,
        parameters=parameters_of(encoder),
        flops_per_token=_flops_per_token(encoder, _batch(words, 1, max(lengths))),
        latencies=latencies,
        peak_memory_mb=memory.mb(),
        index_bytes=4 * encoder.dim,
        quality=None if quality is None else float(quality[name]),
    )


def _batch(words: list[str], size: int, length: int, turn: int = 0) -> list[str]:
    """Cut texts of exactly so many words, going round the words; another turn begins at another word."""
    start = 7 * turn
    return [
        " ".join(words[(start + row * length + place) % len(words)] for place in range(length)) for row in range(size)
    ]


def _timed(encoder: Encoder, words: list[str], size: int, length: int, repeats: int, budget_s: float) -> Latency:
    encoder.encode_document(
        _batch(words, size, length), batch_size=size
    )  # what is loaded at the first call is not speed
    took: list[float] = []
    while len(took) < repeats and (len(took) < 3 or sum(took) < budget_s):
        batch = _batch(words, size, length, 1 + len(took))  # other texts each time, for models that remember some
        start = time.perf_counter()
        encoder.encode_document(batch, batch_size=size)
        took.append(time.perf_counter() - start)
    middle = statistics.median(took)
    slow = float(np.quantile(took, 0.95))
    return Latency(size, length, 1000 * middle, 1000 * slow, size / max(middle, 1e-9))


def _flops_per_token(encoder: Encoder, batch: list[str]) -> float | None:
    """Count the operations of one pass, where the model is of torch and tells its tokens."""
    host: Any = getattr(encoder, "host", None)
    if host is None or not hasattr(host, "preprocess"):
        return None
    from torch.utils.flop_counter import FlopCounterMode

    mask = host.preprocess(batch).get("attention_mask")
    with FlopCounterMode(display=False) as counter:
        encoder.encode_document(batch)
    return None if mask is None else counter.get_total_flops() / max(int(mask.sum()), 1)


def _threads() -> int | None:
    import sys

    torch: Any = sys.modules.get("torch")  # a model without torch needs none of it
    return None if torch is None else int(torch.get_num_threads())
