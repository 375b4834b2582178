"""The global random states, borrowed and given back: mteb seeds them whenever it makes a task or an evaluator."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def random_state_restored() -> Iterator[None]:
    """Put the global random states of Python, NumPy and torch back as they were before the block.

    Example:
        >>> before = random.getstate()
        >>> with random_state_restored():
        ...     random.setstate(random.Random(3).getstate())
        >>> random.getstate() == before
        True
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the old global state is the one mteb touches
    torch = sys.modules.get("torch")
    states = None if torch is None else torch.random.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if torch is not None:
            torch.random.set_rng_state(states)
