"""What the page owes to everyone: names, contrast, small screens, themes, no jumps, no inline code, few bytes."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

WEB = Path(str(resources.files("embedlab") / "web"))
STATES = {
    "start": "?c=handbook",
    "hits": "?c=handbook&q=open+a+file&explain=1&f=folder:guide",
    "map": "?c=handbook&q=open+a+file&view=map",
    "documents": "?c=handbook&view=documents",
    "nothing": "?c=handbook&q=qqqqq&mode=lexical",
    "unknown": "?c=nowhere",
}

CHECKS = re.sub(r";\s*$", "", (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")).partition("\n")[2]


def look(page: Page, check: str) -> list[Any]:
    """Run one of the checks of ``checks.js``."""
    return list(page.evaluate(f"() => {CHECKS}.{check}()"))


def settled(page: Page) -> None:
    expect(page.locator("#busy")).to_be_hidden()
    expect(page.locator("#hits > li, .state h2, #documents h1, #map-note:not(:empty)").first).to_be_attached()
    page.wait_for_load_state("networkidle")


@pytest.mark.browser
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(tabs, server, state, scheme):
    tabs.expected.append("status of 404")
    page = tabs.open(server.url + STATES[state], color_scheme=scheme)
    settled(page)
    if state == "hits":
        page.locator("#toggle-filters").click()
        page.locator("#hits a[data-id]").first.click()
        expect(page.locator("#reader")).to_be_visible()
    assert look(page, "nameless") == []
    assert look(page, "faint") == []
    assert page.locator("main").count() == page.locator("header.bar").count() == page.locator("nav").count() == 1
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    for name in ("open-settings", "open-help"):
        if page.locator("#reader:modal").count() == 0:
            page.locator(f"#{name}").click()
            assert look(page, "nameless") == []
            assert look(page, "faint") == []
            page.keyboard.press("Escape")


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 768, 1280, 1920])
def test_no_width_needs_sideways_scrolling(tabs, server, width):
    tabs.expected.append("status of 404")
    page = tabs.open(server.url, width=width, height=740)
    for address in STATES.values():
        page.goto(server.url + address)
        settled(page)
        assert look(page, "outside") == [], address


@pytest.mark.browser
def test_a_phone_opens_a_passage_over_the_hits_and_back_closes_it(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=open+a+file", width=360, height=740, has_touch=True, is_mobile=True)
    page.locator("#hits a[data-id]").first.tap()
    expect(page.locator("#reader:modal")).to_be_visible()
    box = page.locator("#reader").bounding_box()
    assert box is not None
    assert box["width"] == 360
    page.go_back()
    expect(page.locator("#reader")).to_be_hidden()
    assert "q=open" in page.url
    page.locator("[data-goto=map]").tap()
    expect(page.locator("#canvas")).to_be_visible()
    assert page.locator("nav a").first.bounding_box()["height"] >= 44  # type: ignore[index]  # a thumb's width


@pytest.mark.browser
def test_the_theme_follows_the_system_until_chosen_and_is_kept(tabs, server):
    def ground(page: Page) -> str:
        return str(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))

    page = tabs.open(server.url, color_scheme="dark")
    dark = ground(page)
    page.locator("#theme").click()
    assert ground(page) != dark
    page.reload()
    assert ground(page) != dark
    page.locator("#open-settings").click()
    page.locator("#set-theme").select_option("system")
    assert ground(page) == dark


@pytest.mark.browser
def test_the_keyboard_reaches_everything_and_shows_where_it_is(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=open+a+file")
    settled(page)
    page.locator(".skip").focus()
    assert page.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]  # shown once it is reached
    page.keyboard.press("Tab")
    seen = []
    for _ in range(30):
        name, visible = look(page, "focus")
        seen.append(name)
        assert visible, name
        page.keyboard.press("Tab")
    for name in ("collection", "search", "map", "add", "query", "toggle-filters", "explain"):
        assert name in seen, (name, seen)
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    expect(page.locator("#map")).to_be_visible()
    page.keyboard.press("1")
    page.keyboard.press("e")
    expect(page.locator(".parts").first).to_be_visible()


@pytest.mark.browser
def test_nothing_jumps_while_searching(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook")
    settled(page)
    top = page.locator("#results").bounding_box()
    for query in ("bread", "bread and soup", "qqqqqq", ""):
        page.locator("#query").fill(query)
        page.wait_for_timeout(60)
        assert page.locator("#results").bounding_box()["y"] == top["y"]  # type: ignore[index]
        page.wait_for_load_state("networkidle")
        assert page.locator("#results").bounding_box()["y"] == top["y"]  # type: ignore[index]


def test_the_page_is_small_and_brings_everything_along():
    files = [path for path in WEB.iterdir() if path.suffix in {".html", ".css", ".js", ".svg"}]
    assert sum(path.stat().st_size for path in files) < 125_000
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), f"{path.name} reaches for another host"
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path.name
        )
        if path.suffix == ".html":
            assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son\w+=", text), "inline code or style"
