"""A server on a free loopback port, and the service's parts in small."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from embedlab.serve.connections import timed_connection


@contextmanager
def serving(app: Any, *, idle_s: float = 15.0) -> Iterator[str]:
    """Serve an application as `embedlab serve` does; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, http=timed_connection(idle_s), ws="none", lifespan="on", log_level="critical", access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is true and return it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s in vain")
        time.sleep(0.01)
    return value


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A home of its own for every test."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("EMBEDLAB_HOME", str(folder))
    monkeypatch.delenv("EMBEDLAB_API_KEY", raising=False)
    return folder
