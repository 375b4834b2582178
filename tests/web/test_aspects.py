"""Choosing aspects: offered where there are some, weighed by sliders, kept in the address, told in the scores."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from embedlab import Collection
from embedlab.text.aspect_documents import AspectHead

pytestmark = pytest.mark.browser


@pytest.fixture
def aspect_server(own_server):
    server = own_server()
    collection = Collection.open(server.home / "collections" / "handbook")
    rng = np.random.default_rng(0)
    dim = collection.dim
    heads = {
        name: AspectHead(
            (rng.normal(size=(64, dim)), rng.normal(size=(dim, 64))), (np.zeros(64), np.zeros(dim)), residual=True
        )
        for name in ("method", "data-set")
    }
    collection.aspects.keep(heads, {})
    return server


def asked(page: Page) -> list[str]:
    return parse_qs(urlsplit(page.url).query).get("a", [])


def sources(page: Page) -> list[str]:
    expect(page.locator("#hits:not(.stale) > li").first).to_be_visible()
    return page.locator("#hits .where").all_text_contents()


def test_a_collection_without_aspects_offers_none(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=open+a+file")
    expect(page.locator("#hits > li").first).to_be_visible()
    expect(page.locator("#toggle-aspects")).to_be_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator("#aspects")).to_be_hidden()


def test_sliders_weigh_aspects_and_the_address_keeps_them(aspect_server, tabs):
    page = tabs.open(f"{aspect_server.url}?c=handbook&q=lamp+and+oven&mode=dense")
    plain = sources(page)
    page.locator("#toggle-aspects").click()
    expect(page.get_by_label("Weight of method")).to_be_focused()
    with page.expect_response(lambda answer: "aspect=method" in answer.url) as answer:
        page.get_by_label("Weight of method").fill("1")
    assert parse_qs(urlsplit(answer.value.url).query)["aspect"] == ["method=1"]
    page.get_by_label("Weight of data-set").fill("0.3")
    page.wait_for_url(re.compile(r"a=data-set%3A0\.3"))
    assert asked(page) == ["method:1", "data-set:0.3"]
    expect(page.locator("#aspect-count")).to_have_text("2")
    expect(page.locator("#chips button")).to_have_text(["method × 1", "data-set × 0.3"])
    page.wait_for_load_state("networkidle")
    mixed = sources(page)
    assert mixed != plain
    again = tabs.open(page.url)
    assert sources(again) == mixed
    again.locator("#toggle-aspects").click()
    expect(again.get_by_label("Weight of data-set")).to_have_value("0.3")
    again.get_by_label("Remove aspect method").click()
    expect(again.locator("#chips button")).to_have_count(1)
    assert asked(again) == ["data-set:0.3"]
    again.locator("#brand").click()
    expect(again.locator("#aspect-count")).to_be_hidden()


def test_explained_scores_show_each_aspect_and_more_like_this_follows_them(aspect_server, tabs):
    page = tabs.open(f"{aspect_server.url}?c=handbook&q=open+a+file&a=method:1&a=generic:0.5&explain=1")
    parts = page.locator("#hits > li").first.locator(".parts")
    expect(parts.locator("dt")).to_have_text(["meaning", "method", "everything", "words", "score", "matches"])
    page.locator("#hits a[data-id]").first.click()
    with page.expect_request(lambda request: "/similar?" in request.url) as request:
        page.locator("#reader-like").click()
    assert parse_qs(urlsplit(request.value.url).query)["aspect"] == ["method=1", "generic=0.5"]
    expect(page.locator("#chips")).to_contain_text("everything × 0.5")


def test_the_keyboard_reaches_the_sliders(aspect_server, tabs):
    page = tabs.open(f"{aspect_server.url}?c=handbook&q=bread")
    expect(page.locator("#hits > li").first).to_be_visible()
    page.locator("#hits a[data-id]").first.focus()
    page.keyboard.press("a")
    expect(page.get_by_label("Weight of method")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(r"a=method%3A0\.2"))
    page.keyboard.press("Escape")
    expect(page.locator("#aspects")).to_be_hidden()
    expect(page.locator("#toggle-aspects")).to_be_focused()


def test_where_words_alone_count_aspects_can_t_be_chosen(aspect_server, tabs):
    page = tabs.open(f"{aspect_server.url}?c=handbook&q=bread&a=method:1")
    page.locator("#toggle-aspects").click()
    expect(page.locator("#aspects")).to_be_visible()
    page.get_by_text("Lexical", exact=True).click()
    expect(page.locator("#toggle-aspects")).to_be_disabled()
    expect(page.locator("#aspects")).to_be_hidden()
    page.get_by_text("Dense", exact=True).click()
    expect(page.locator("#toggle-aspects")).to_be_enabled()


def test_an_aspect_that_is_gone_is_told(aspect_server, tabs):
    tabs.expected.append("status of 400")
    page = tabs.open(f"{aspect_server.url}?c=handbook&q=bread&a=task:1")
    expect(page.locator("#state")).to_contain_text("unknown aspect 'task'")
    page.get_by_label("Remove aspect task").click()
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_the_sliders_fit_on_every_screen(aspect_server, tabs, width):
    page = tabs.open(f"{aspect_server.url}?c=handbook&q=bread&a=method:0.5", width=width, height=740)
    expect(page.locator("#hits > li").first).to_be_visible()
    page.locator("#toggle-aspects").click()
    expect(page.get_by_label("Weight of everything")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
