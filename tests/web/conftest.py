"""A real server on a small real collection, and a real browser that must not write one error to its console."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

CHROMIUM = Path(os.environ.get("EMBEDLAB_CHROMIUM", "/usr/bin/chromium"))
expect.set_options(timeout=15_000)  # for machines that do other things besides

FILES = {
    "guide/files.md": """# Files

## Opening

To open a file for reading, call the function with its path. A missing file raises an error.

## Deleting

Remove a whole folder, with all that is in it, by deleting the tree.
""",
    "guide/dates.md": """# Dates

## Parsing

A date in ISO form is parsed from its text. The clock of the machine gives today.

## Time zones

A zone tells how far local time is from the prime meridian.
""",
    "guide/foxes.md": "# Foxes 🦊\n\n🦊🦊🦊 A vixen is a female fox 🦊 and digs a den 🦊 for her cubs.\n",
    "recipes/bread.md": "# Bread\n\nKnead flour, water, salt and yeast. Let the dough rise, then bake it in an oven.\n",
    "recipes/soup.md": "# Soup\n\nSimmer onions and carrots in a broth until soft. Season with pepper.\n",
    "notes/hostile.txt": "The xylophone says <script>window.pwned = 1</script> and "
    '<img src=x onerror="window.pwned = 2"> to you.\n',
    "notes/<img src=x onerror='window.pwned=3'>.txt": "A theremin is played without touching it "
    "<b onclick='window.pwned=4'>at all</b>.\n",
    "notes/long.txt": "".join(
        f"Section {n} of the lighthouse log. The keeper lit the lamp at dusk, watched ship number {n} pass the reef, "
        f"and wrote down wind, waves and weather before dawn on day {n}. "
        + "The sea was calm and nothing else happened. " * 12
        + "\n\n"
        for n in range(1, 41)
    ),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``embedlab serve`` as a process, which can be killed and started again at the same address."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.home = home
        self.log = home.parent / f"serve-{self.port}.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*embedlab(), "serve", "--no-open", "--port", str(self.port)],
                env={**os.environ, "EMBEDLAB_HOME": str(self.home), "OMP_NUM_THREADS": "1", **self._environment},
                stdout=log,
                stderr=log,
            )
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"{self.url}readyz", timeout=2):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None:
                    raise RuntimeError(f"the server did not start:\n{self.log.read_text()}") from None
                time.sleep(0.1)
        with contextlib.suppress(urllib.error.HTTPError):  # the first call loads the store; protected servers refuse it
            urllib.request.urlopen(f"{self.url}api/collections", timeout=60).close()
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def embedlab() -> list[str]:
    return [sys.executable, "-c", "from embedlab.cli import main; main()"]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with the collection ``handbook``, made the way a user makes it."""
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: install chromium, or set EMBEDLAB_CHROMIUM")
    root = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        path = root / "handbook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    subprocess.run(
        [*embedlab(), "index", str(root / "handbook"), "--into", "handbook"],
        env={**os.environ, "EMBEDLAB_HOME": str(root / "home")},
        check=True,
        capture_output=True,
    )
    return root / "home"


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Server]:
    """A server shared by the tests that change nothing."""
    server = Server(home).start()
    yield server
    server.stop()


@pytest.fixture
def own_server(home: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers on a copy of the collection (or on nothing), for tests that change, protect or kill them."""
    started: list[Server] = []

    def make(*, empty: bool = False, **environment: str) -> Server:
        copy = tmp_path / f"home{len(started)}"
        if empty:
            copy.mkdir()
        else:
            shutil.copytree(home, copy)
        started.append(Server(copy, **environment).start())
        return started[-1]

    yield make
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: install chromium, or set EMBEDLAB_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Tabs:
    """Opens tabs and keeps what they wrote to the console."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.errors: list[str] = []
        self.expected: list[str] = []

    def open(self, url: str, *, width: int = 1280, height: int = 800, **options: object) -> Page:
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **options
        )
        context.set_default_timeout(30_000)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: self.errors.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.goto(url)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def surprises(self) -> list[str]:
        return [line for line in self.errors if not any(re.search(known, line) for known in self.expected)]


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Tabs]:
    """Tabs; a console error that the test did not announce in ``tabs.expected`` fails it."""
    tabs = Tabs(browser)
    yield tabs
    tabs.close()
    assert tabs.surprises() == []
