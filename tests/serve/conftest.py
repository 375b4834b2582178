"""A server on a free loopback port, and the service's parts in small."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from embedlab import Collection
from embedlab.serve.app import create_app
from embedlab.serve.connections import timed_connection
from embedlab.serve.settings import Limits, Settings


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


def new_client(**kwargs: Any) -> TestClient:
    """A client of a whole application with the default model."""
    return TestClient(create_app(Settings(**kwargs)), base_url="http://localhost")


@pytest.fixture
def client() -> Iterator[TestClient]:
    with new_client() as it:
        yield it


def upload(client: TestClient, name: str, *files: tuple[str, bytes | str]) -> httpx.Response:
    """Send files to a collection."""
    parts = [("files", (file, text.encode() if isinstance(text, str) else text)) for file, text in files]
    return client.post(f"/api/collections/{name}/documents", files=parts)


def finished(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for a job's end and return it."""

    def ended() -> Any:
        state: dict[str, Any] = client.get(f"/api/jobs/{job['id']}").json()
        return state if state["state"] not in ("queued", "running") else None

    answer: dict[str, Any] = wait_for(ended)
    return answer


NOTES = (
    (
        "guide/start.md",
        "# Start\n\nOpen a file with the built-in function open.\n\n## Close\n\nClose the file afterwards.\n",
    ),
    ("guide/net.md", "# Network\n\nA socket connects two programs over the network.\n"),
    ("money.txt", "Stocks fell sharply on the exchange today."),
    ("table.csv", "name,colour\napple,red\nbanana,yellow\n"),
)


@pytest.fixture
def notes(client: TestClient) -> TestClient:
    """A client whose collection `notes` holds four files."""
    assert client.post("/api/collections", json={"name": "notes"}).status_code == 201
    answer = upload(client, "notes", *NOTES)
    assert finished(client, answer.json()["job"])["state"] == "done"
    return client


@pytest.fixture(scope="module")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection called `notes` with the same files, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("library") / "notes"
    Collection.create(folder)
    return folder


@pytest.fixture(scope="module")
def library(library_path: Path) -> Iterator[TestClient]:
    """A client of that collection."""
    with new_client(collections=(str(library_path),), limits=Limits(requests_per_s=0)) as it:
        assert finished(it, upload(it, "notes", *NOTES).json()["job"])["state"] == "done"
        yield it
