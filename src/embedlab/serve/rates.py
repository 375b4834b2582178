"""Token buckets: each client may make some calls at once and then a steady number per second."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_CLIENTS = 10_000


class Buckets:
    """One bucket per client, the least recently seen forgotten first.

    Args:
        rate_per_s: Tokens that flow into each bucket per second; 0 turns the limit off.
        burst: Tokens a bucket holds.
        clock: Seconds that only grow; for tests.

    Example:
        >>> now = 0.0
        >>> buckets = Buckets(2.0, 1, clock=lambda: now)
        >>> buckets.take("a"), buckets.take("a"), buckets.take("b")
        (0.0, 0.5, 0.0)
        >>> now = 0.5
        >>> buckets.take("a")
        0.0
    """

    def __init__(self, rate_per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate_per_s
        self._burst = float(burst)
        self._clock = clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take one token.

        Args:
            client: Who calls.

        Returns:
            0 if there was one, otherwise the seconds until there will be.
        """
        if self._rate == 0:
            return 0.0
        now = self._clock()
        level, seen = self._clients.pop(client, (self._burst, now))
        level = min(self._burst, level + (now - seen) * self._rate)
        enough = level >= 1.0
        self._clients[client] = (level - 1.0 if enough else level, now)
        if len(self._clients) > _MOST_CLIENTS:
            self._clients.popitem(last=False)
        return 0.0 if enough else (1.0 - level) / self._rate
