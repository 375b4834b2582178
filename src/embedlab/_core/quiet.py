"""Hosts kept to themselves: they seed the global random states, draw progress bars and warn of what is wanted here."""

from __future__ import annotations

import logging
import random
import sys
import warnings
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


@contextmanager
def quiet_host(*loggers: str) -> Iterator[None]:
    """Keep a host to itself: no progress bars, no warnings about constant values, no seeding of the global state.

    Args:
        loggers: Names of loggers that shall report errors only, such as ``"transformers"``.
    """
    from functools import partialmethod

    import datasets
    from tqdm.std import tqdm  # type: ignore[import-untyped]

    plain, bars = tqdm.__init__, datasets.is_progress_bar_enabled()
    tqdm.__init__ = partialmethod(plain, disable=True)
    datasets.disable_progress_bars()
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with random_state_restored(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = plain
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            datasets.enable_progress_bars()
