"""What stands in the way: hostile documents, a server that dies, wants a key, or asks to wait."""

from __future__ import annotations

import re
import signal

import pytest
from playwright.sync_api import Route, expect

pytestmark = pytest.mark.browser

KEY = "a-key-of-more-than-sixteen-characters"


def test_documents_are_shown_as_text_whatever_they_hold(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=xylophone")
    hit = page.locator("#hits > li").first
    expect(hit).to_contain_text("<script>window.pwned = 1</script>")
    expect(hit).to_contain_text('<img src=x onerror="window.pwned = 2">')
    page.locator("#hits a[data-id]").first.click()
    expect(page.locator("#reader .here")).to_contain_text("<script>window.pwned = 1</script>")
    page.goto(f"{server.url}?c=handbook&q=theremin")
    expect(page.locator("#hits > li").first).to_contain_text("onerror='window.pwned=3'")
    page.get_by_label("Only this document").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#chips")).to_contain_text("<img src=x")
    page.goto(f"{server.url}?c=handbook&view=documents")
    expect(page.locator("#documents")).to_contain_text("<img src=x")
    page.goto(f"{server.url}?c=handbook&view=map&q=theremin")
    page.locator("#map-list summary").click()
    expect(page.locator("#map-list")).to_contain_text("<img src=x")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main script, main b[onclick]").count() == 0


def test_a_hostile_address_is_text_too(tabs, server):
    page = tabs.open(f"{server.url}?c=<img src=x onerror=pwned=1>&q=<script>pwned=2</script>&f=format:<b>&like=&p=")
    expect(page.locator("#state")).to_contain_text("There is no collection “<img src=x onerror=pwned=1>”")
    assert page.evaluate("window.pwned") is None
    page.get_by_role("button", name="handbook").click()
    expect(page.locator("#query")).to_have_value("<script>pwned=2</script>")


def test_the_server_dies_and_comes_back(tabs, own_server):
    server = own_server()
    tabs.expected += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]
    page = tabs.open(f"{server.url}?c=handbook&q=bake+bread")
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")
    server.stop(signal.SIGKILL)
    page.locator("#query").fill("soup with carrots")
    expect(page.locator("#notice")).to_contain_text("The server does not answer")
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")  # what was there stays readable
    server.start()
    expect(page.locator("#notice")).to_be_hidden(timeout=30_000)
    expect(page.locator("#hits > li").first).to_contain_text("Simmer onions", timeout=30_000)


def test_a_page_opened_before_the_server_is_ready_connects_by_itself(tabs, server):
    tabs.expected.append("ERR_FAILED")
    page = tabs.open(server.url)
    page.route(re.compile("/api/|/healthz"), lambda route: route.abort())
    page.reload()
    expect(page.locator("#notice")).to_contain_text("The server does not answer")
    page.unroute_all()
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#state h2")).to_contain_text("documents")


def test_a_protected_server_asks_for_its_key_once(tabs, own_server):
    server = own_server(EMBEDLAB_API_KEY=KEY)
    tabs.expected.append("status of 401")
    page = tabs.open(f"{server.url}?c=handbook&q=bake+bread")
    expect(page.locator("#notice")).to_contain_text("This server is protected")
    field = page.get_by_label("API key").first
    expect(field).to_be_focused()
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_be_visible()
    page.locator("#notice input").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")
    expect(page.locator("#notice")).to_be_hidden()
    page.reload()
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")
    assert page.evaluate("JSON.stringify(localStorage)").count(KEY) == 0
    assert page.evaluate("sessionStorage.getItem('embedlab.key')") == KEY
    page.locator("#files").set_input_files(
        [{"name": "walrus.md", "mimeType": "text/markdown", "buffer": b"# Walrus\n\nLong tusks.\n"}]
    )
    expect(page.locator("#tray strong")).to_have_text("Added to handbook")


def test_too_many_requests_wait_and_try_again(tabs, server):
    tabs.expected.append("status of 429")
    page = tabs.open(f"{server.url}?c=handbook")
    expect(page.locator("#state h2")).to_contain_text("documents")
    refused = []

    def refuse_once(route: Route) -> None:
        if refused:
            return route.continue_()
        refused.append(route.request.url)
        error = {"message": "slow down", "type": "rate_limit_error", "field": None}
        return route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": error})

    page.route(re.compile("/search"), refuse_once)
    page.locator("#query").fill("bake bread")
    expect(page.locator("#notice")).to_contain_text("Too many requests")
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")
    expect(page.locator("#notice")).to_be_hidden()
    assert len(refused) == 1


def test_a_passage_that_is_gone_does_not_stand_in_the_way(tabs, server):
    tabs.expected.append("status of 404")
    page = tabs.open(f"{server.url}?c=handbook&q=bake+bread&p=0123456789abcdef-9")
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")
    expect(page.locator("#reader")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("p=0123"))
