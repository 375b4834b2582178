"""Documents on their way in and out: upload by button and by drop, errors by file, cancel, remove, first use."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

WALRUS = {"name": "walrus.md", "mimeType": "text/markdown", "buffer": b"# Walrus\n\nThe walrus has long tusks.\n"}
BROKEN = {"name": "broken.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7 and then nothing of the kind"}
PICTURE = {"name": "holiday.png", "mimeType": "image/png", "buffer": b"\x89PNG"}


def drop(page: Page, files: dict[str, str]) -> None:
    """Drop files on the page as a file manager does."""
    page.evaluate(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, text] of Object.entries(files)) transfer.items.add(new File([text], name));
          for (const kind of ["dragenter", "dragover", "drop"])
            document.body.dispatchEvent(
              new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
        }""",
        files,
    )


def test_upload_takes_the_good_and_names_the_broken(tabs, own_server):
    page = tabs.open(own_server().url)
    expect(page.locator("#state h2")).to_contain_text("documents")
    page.locator("#files").set_input_files([WALRUS, BROKEN, PICTURE])
    job = page.locator("#tray .job")
    expect(job.locator("strong")).to_have_text("Added to handbook, with 2 errors")
    expect(job.locator("li")).to_have_count(2)
    expect(job.locator("li", has_text="broken.pdf")).to_be_visible()
    expect(job.locator("li", has_text="holiday.png")).to_contain_text("no reader for .png")
    page.locator("#query").fill("walrus tusks")
    expect(page.locator("#hits > li").first).to_contain_text("The walrus has long tusks")
    job.get_by_label("Dismiss").click()
    expect(page.locator("#tray")).to_be_hidden()


def test_dropped_files_start_the_first_collection(tabs, own_server):
    page = tabs.open(own_server(empty=True).url)
    expect(page.locator("#state")).to_contain_text("embedlab index DOCS")
    drop(page, {"heron.txt": "A grey heron stands in the shallow water."})
    page.get_by_label("Name").fill("birds")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#tray strong")).to_have_text("Added to birds")
    expect(page.locator("#collection")).to_have_value("birds")
    expect(page.locator("#state h2")).to_have_text("1 passage from 1 document")
    page.locator("#query").fill("heron")
    expect(page.locator("#hits mark").first).to_have_text("heron")


def test_dragging_shows_where_it_will_go(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook")
    expect(page.locator("#state h2")).to_contain_text("documents")
    page.evaluate(
        """() => { const transfer = new DataTransfer(); transfer.items.add(new File(["x"], "x.txt"));
          document.body.dispatchEvent(new DragEvent("dragenter", { bubbles: true, dataTransfer: transfer })); }"""
    )
    expect(page.locator("#drop")).to_have_text("Drop to add to handbook")
    page.evaluate(
        """() => { const transfer = new DataTransfer(); transfer.items.add(new File(["x"], "x.txt"));
          document.body.dispatchEvent(new DragEvent("dragleave", { bubbles: true, dataTransfer: transfer })); }"""
    )
    expect(page.locator("#drop")).to_be_hidden()


def test_a_long_upload_can_be_cancelled(tabs, own_server):
    page = tabs.open(own_server().url)
    expect(page.locator("#state h2")).to_contain_text("documents")
    register = "\n\n".join(f"Entry {number} of the register of all things counted." for number in range(6000))
    drop(page, {f"register-{number}.txt": f"{number}\n\n{register}" for number in range(40)})
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#tray strong")).to_have_text("Cancelled", timeout=60_000)
    page.locator("#query").fill("bake bread")  # the rest works on
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")


def test_documents_are_listed_found_and_removed(tabs, own_server):
    page = tabs.open(f"{own_server().url}?c=handbook&view=documents")
    rows = page.locator("#documents tbody tr")
    expect(rows).to_have_count(8)
    page.locator("#prefix").fill("recipes/")
    expect(rows).to_have_count(2)
    page.get_by_label("Remove recipes/soup.md").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(rows).to_have_count(1)
    expect(page.locator("#documents h1 + p")).to_contain_text("7 documents")
    page.get_by_label("Search in recipes/bread.md").click()
    expect(page.locator("#chips")).to_contain_text("recipes/bread.md")


def test_collections_are_made_named_well_and_deleted(tabs, own_server):
    tabs.expected.append("status of 40[09]")
    page = tabs.open(f"{own_server().url}?c=handbook&view=documents")
    page.get_by_role("button", name="New collection").click()
    page.get_by_label("Name").fill("handbook")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#ask .error")).to_contain_text("handbook")
    page.get_by_label("Name").fill("second")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#collection")).to_have_value("second")
    expect(page.locator("#documents")).to_contain_text("embedlab index DOCS --into second")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete the collection").click()
    expect(page.locator("#collection")).to_have_value("handbook")
    expect(page.locator("#collection option")).to_have_count(1)


def test_a_job_under_way_is_shown_after_a_reload(tabs, own_server):
    page = tabs.open(own_server().url)
    job = {
        "id": "abc", "collection": "handbook", "state": "running", "documents_done": 40, "documents_total": 120,
        "passages": 610, "passages_per_s": 812.5, "errors": [], "message": None, "created": time.time(),
        "started": time.time(), "finished": None,
    }  # fmt: skip
    page.route(
        re.compile("api/jobs"), lambda route: route.fulfill(json={"jobs": [job]} if "?" in route.request.url else job)
    )
    page.reload()
    expect(page.locator("#tray")).to_contain_text("40 of 120 documents, 813 passages/s")
    job.update(state="done", documents_done=120)
    expect(page.locator("#tray strong")).to_have_text("Added to handbook")
