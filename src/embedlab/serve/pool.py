"""Threads for work that would block the event loop: few at once, few waiting, the rest told to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from embedlab.serve.errors import ApiError

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """A bounded number of worker threads with a bounded queue.

    A call that is given up (timeout, client gone) leaves the queue if it has not begun; one that has begun keeps its
    thread until it ends, so there are never more than ``workers`` at work.

    Args:
        workers: Threads.
        waiting: Calls that may wait for a thread.
    """

    def __init__(self, workers: int, waiting: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="embedlab-serve")
        self._most = workers + waiting
        self._open = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a worker thread.

        Args:
            function: What to run.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            What the function returns.

        Raises:
            ApiError: 503, too many calls are waiting already.
        """
        if self._open >= self._most:
            raise ApiError(503, "the service is busy: try again in a second", headers={"Retry-After": "1"})
        loop = asyncio.get_running_loop()
        self._open += 1
        future = self._threads.submit(function, *args, **kwargs)
        future.add_done_callback(lambda _: self._leave(loop))
        return await asyncio.wrap_future(future, loop=loop)

    def close(self) -> None:
        """Drop what waits and wait for what runs."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop.is_closed():
            return
        loop.call_soon_threadsafe(self._count_down)

    def _count_down(self) -> None:
        self._open -= 1
