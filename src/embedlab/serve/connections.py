"""uvicorn's connection with one more rule: a client that has opened it must send a whole request head in time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedConnection(H11Protocol):
    """Closes connections whose next request head does not come in ``idle_s`` seconds.

    uvicorn bounds the wait between requests only until the first byte of the next; a client that then sends a byte
    every few seconds would hold its connection for ever.
    """

    idle_s = 15.0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Start the clock if these bytes begin a head, stop it if they end one."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Start the clock for the next head, which may have come already."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting:
            self._stop()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.idle_s, self._give_up)

    def _stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def timed_connection(idle_s: float) -> type[Any]:
    """Return the connection class with its limit set, as uvicorn wants a class.

    Args:
        idle_s: Longest time for a request head, in seconds.

    Returns:
        The class to give to ``uvicorn.Config(http=...)``.
    """
    return type("TimedConnection", (TimedConnection,), {"idle_s": idle_s})
