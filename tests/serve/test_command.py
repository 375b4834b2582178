"""The verb `serve`, as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from embedlab.cli import app


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `embedlab serve`; yields the process and the line it prints when it is ready."""
    command = [sys.executable, "-m", "embedlab", "serve", "--port", "0", "--no-open", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        process.stdout.close()


def address_of(line: str) -> str:
    return next(word for word in line.split() if word.startswith("http://"))


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_it_says_where_it_is_and_stops_when_told(sent: signal.Signals, code: int) -> None:
    with started() as (process, line):
        address = address_of(line)
        assert httpx.get(f"{address}healthz").json()["status"] == "ok"
        assert httpx.get(f"{address}readyz").status_code == 200
        assert httpx.get(address).headers["Content-Type"].startswith("text/html")
        assert "server" not in httpx.get(address).headers
        process.send_signal(sent)
        assert process.wait(20) == code
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_other_machines_need_a_key() -> None:
    with started("--host", "0.0.0.0") as (process, line):
        assert "EMBEDLAB_API_KEY" in line
        assert process.wait(20) == 2
    with started("--host", "0.0.0.0", EMBEDLAB_API_KEY="a-long-enough-key") as (_, line):
        address = f"http://127.0.0.1:{address_of(line).rsplit(':', 1)[1]}"
        assert httpx.get(f"{address}api/info").status_code == 401
        headers = {"Authorization": "Bearer a-long-enough-key"}
        assert httpx.get(f"{address}api/info", headers=headers).status_code == 200


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started("--port", str(port)) as (process, line):
            assert f"port={port}" in line
            assert process.wait(20) == 2


def test_a_collection_that_is_not_there_is_named() -> None:
    with started("--collection", "nothing") as (process, line):
        assert "nothing" in line
        assert process.wait(20) == 2


def test_limits_are_explained() -> None:
    answer: Any = CliRunner().invoke(app, ["serve", "--help"])
    assert answer.exit_code == 0
    for option in ("--host", "--port", "--collection", "--no-open", "--max-body-mib", "--requests-per-s"):
        assert option in answer.output
