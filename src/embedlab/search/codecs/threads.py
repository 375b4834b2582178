"""How many threads a scan may use, and the work shared out to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.search.codecs.codec import Floats, Rows
from embedlab.search.codecs.scanning import merge

Found: TypeAlias = tuple[Floats, Rows]  # scores in falling order, and their rows


def threads_of(threads: int | None) -> int:
    """Return how many threads to use.

    Args:
        threads: Most threads, or None.

    Returns:
        The number asked for; by default ``OMP_NUM_THREADS`` if set, or the processors that the process may use.

    Raises:
        InputError: it is below 1.
    """
    if threads is None:
        chosen = os.environ.get("OMP_NUM_THREADS", "")
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return int(chosen) if chosen.isdigit() and int(chosen) else available
    if threads < 1:
        raise InputError(f"threads={threads} must be at least 1")
    return threads


@contextmanager
def faiss_threads(threads: int) -> Iterator[None]:
    """Let faiss use some threads inside the block.

    Args:
        threads: Most threads.
    """
    faiss = require("faiss", extra="codecs")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def in_threads(part: Callable[[int, int], Found], count: int, threads: int) -> Found:
    """Share out a range over threads and put the best together.

    Args:
        part: Finds the best of a part of the range, ``[first, last)``.
        count: Length of the range.
        threads: Most threads.

    Returns:
        The best of the whole range.
    """
    threads = max(1, min(threads, count))
    if threads == 1:
        return part(0, count)
    cuts = np.linspace(0, count, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(part, cuts[:-1], cuts[1:]))
    return reduce_found(found, len(found[0][0]), found[0][0].shape[1])


def reduce_found(found: list[Found], num_queries: int, top_k: int) -> Found:
    """Put results of different rows together.

    Args:
        found: Scores and rows of each part, parts in ascending order of rows.
        num_queries: Q.
        top_k: Number of rows to keep.

    Returns:
        Scores (Q, top_k) in falling order and rows.
    """
    best = np.full((num_queries, top_k), -np.inf, np.float32), np.full((num_queries, top_k), -1, np.int64)
    for scores, rows in found:
        best = merge(*best, scores, rows, top_k)
    return best
