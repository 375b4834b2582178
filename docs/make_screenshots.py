"""Take the pictures of the web page that the README shows.

Needs chromium and the extra ``dev``. Indexes Python's standard library into a temporary home, serves it on a free
port, and drives the page as a reader would::

    python docs/make_screenshots.py
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from embedlab.data.loaders import STDLIB_EXCLUDE, stdlib_folder

NAME = "python-stdlib"
LEFT_OUT = {"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo"}
IMAGES = Path(__file__).parent / "images"
QUERY = "run a command and capture its output"
EXPLAINED = "compare two texts and show the differences"


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser to use")
    parser.add_argument("--url", help="a server that already serves the standard library, instead of a new one")
    chosen = parser.parse_args()
    with served(chosen.url) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chosen.chromium, args=["--no-sandbox"])
        page = opened(browser, f"{url}?q={QUERY}", width=1280, height=800, color_scheme="light")
        page.screenshot(path=IMAGES / "page.png")
        page = opened(browser, f"{url}?q={EXPLAINED}&explain=1", width=1280, height=800, color_scheme="dark")
        page.locator("#hits a[data-id]").first.click()
        page.locator("#reader .here").wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=IMAGES / "page-dark.png")
        phone = {"is_mobile": True, "has_touch": True, "device_scale_factor": 2}
        page = opened(browser, f"{url}?q={QUERY}", width=390, height=780, color_scheme="dark", **phone)
        page.screenshot(path=IMAGES / "page-phone.png")
        browser.close()


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """Serve the standard library, unless a server is given."""
    if url:
        yield url
        return
    command = [sys.executable, "-c", "from embedlab.cli import main; main()"]
    with tempfile.TemporaryDirectory() as work:
        environment = {**os.environ, "EMBEDLAB_HOME": f"{work}/home"}
        left_out = [word for pattern in STDLIB_EXCLUDE for word in ("--exclude", pattern)]
        index = ["index", str(stdlib_folder()), "--into", NAME, *left_out]
        subprocess.run([*command, *index], env=environment, check=True)
        with subprocess.Popen(
            [*command, "serve", "--no-open", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                line = server.stdout.readline() if server.stdout else ""
                found = re.search(r"http://\S+?/", line)
                if not found:
                    raise RuntimeError(f"the server did not say where it is: {line!r}")
                yield found[0]
            finally:
                server.terminate()


def opened(browser: Browser, url: str, *, width: int, height: int, **options: object) -> Page:
    """Open a page and wait until hits and map are drawn."""
    page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
    for _ in range(2):  # the first time, the server still reads from the disk
        page.goto(url, timeout=120_000)
        page.locator("#hits > li").first.wait_for(timeout=120_000)
        page.wait_for_load_state("networkidle")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(500)
    return page


if __name__ == "__main__":
    main()
