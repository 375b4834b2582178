"""Searching as a person does it: typing, arrows, opening, going back, filtering, explaining, sharing."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

pytestmark = pytest.mark.browser


def type_query(page: Page, text: str) -> None:
    expect(page.locator("#query")).to_be_focused()  # the page is ready to be typed into
    page.keyboard.type(text)


def asked(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_typing_finds_marks_and_counts(tabs, server):
    page = tabs.open(server.url)
    type_query(page, "open a file")
    first = page.locator("#hits > li").first
    expect(first).to_contain_text("To open a file for reading")
    expect(first.locator("mark", has_text="open").first).to_be_visible()
    expect(first.locator("h3")).to_have_text("Opening")
    expect(first.locator(".crumbs")).to_contain_text("Files")
    expect(first.locator(".where")).to_contain_text("guide/files.md")
    expect(page.locator("#status")).to_have_text(re.compile(r"^\d+ passages, [\d.]+ ms$"))
    assert asked(page)["q"] == ["open a file"]
    assert page.title() == "open a file · handbook · embedlab"


def test_highlights_fall_on_the_right_characters_behind_emoji(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=vixen+den")
    hit = page.locator("#hits > li").first
    expect(hit).to_contain_text("A vixen is a female fox")
    assert set(hit.locator("mark").all_text_contents()) == {"vixen", "den"}


def test_typing_asks_seldom_and_shows_the_last_answer_only(tabs, server):
    page = tabs.open(server.url)
    queries: list[str] = []
    held: list[Route] = []

    def slow_first(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)["query"][0]
        queries.append(query)
        if query == "bread":
            held.append(route)  # its answer comes after the next one's
        else:
            route.continue_()

    page.route("**/search?*", slow_first)
    type_query(page, "bread")
    page.wait_for_timeout(400)
    assert queries == ["bread"]
    page.keyboard.press("Control+a")
    page.keyboard.type("soup with carrots", delay=15)
    page.wait_for_url("**q=soup+with+carrots**")  # half a query may find the same, and be asked on a busy machine
    expect(page.locator("#hits > li").first).to_contain_text("Simmer onions")
    assert len(queries) < 10, queries  # 22 letters
    assert queries[-1] == "soup with carrots"
    for route in held:
        route.fulfill(json={"query": "bread", "mode": "hybrid", "took_ms": 1.0, "version": 1, "hits": []})
    page.wait_for_timeout(200)
    expect(page.locator("#hits > li").first).to_contain_text("Simmer onions")


def test_arrows_and_letters_walk_enter_opens_escape_returns(tabs, server):
    page = tabs.open(server.url)
    type_query(page, "open a file")
    page.wait_for_url("**q=open+a+file**")  # the answer to half a query may still stand there, and be replaced
    expect(page.locator("#hits:not(.stale) > li").nth(2)).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#hits a[data-id]").nth(0)).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("#hits a[data-id]").nth(1)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    reader = page.locator("#reader")
    expect(reader).to_be_visible()
    expect(page.locator("#reader-title")).to_be_focused()
    expect(reader.locator(".here")).to_contain_text("To open a file for reading")
    expect(reader.locator(".here mark", has_text="open").first).to_be_visible()
    expect(reader.locator(".around").first).to_contain_text("Remove a whole folder")
    expect(page.locator("#hits > li").first).to_have_class(re.compile("open"))
    page.keyboard.press("j")
    expect(page.locator("#hits > li").nth(1)).to_have_class(re.compile("open"))
    page.keyboard.press("k")
    page.keyboard.press("Escape")
    expect(reader).to_be_hidden()
    expect(page.locator("#hits a[data-id]").first).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.type("bread")  # what stood there was selected
    expect(page.locator("#query")).to_have_value("bread")


def test_back_and_forward_follow_what_was_seen(tabs, server):
    page = tabs.open(server.url)
    page.wait_for_url("**c=handbook**")
    page.locator("#query").fill("bake bread")
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")
    page.locator("#hits a[data-id]").first.click()
    expect(page.locator("#reader")).to_be_visible()
    page.go_back()
    expect(page.locator("#reader")).to_be_hidden()
    assert asked(page)["q"] == ["bake bread"]
    page.go_forward()
    expect(page.locator("#reader .here")).to_contain_text("Knead flour")
    page.go_back()
    page.go_back()
    expect(page.locator("#hits > li")).to_have_count(0)
    expect(page.locator("#query")).to_have_value("")


def test_an_address_restores_everything(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=time&mode=lexical&explain=1&f=folder:guide&sql=title+%3D+'Dates'")
    expect(page.locator("#query")).to_have_value("time")
    expect(page.locator("input[value=lexical]")).to_be_checked()
    expect(page.locator("#explain")).to_be_checked()
    expect(page.locator("#chips button")).to_have_count(2)
    expect(page.locator("#hits > li").first).to_contain_text("Dates")
    page.locator("#hits a[data-id]").first.click()
    expect(page.locator("#reader")).to_be_visible()
    again = tabs.open(page.url)
    expect(again.locator("#reader .here")).to_have_text(page.locator("#reader .here").text_content() or "")


def test_modes_and_explanations(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=open+a+file")
    page.get_by_text("Explain", exact=True).click()
    parts = page.locator("#hits > li").first.locator(".parts")
    expect(parts.locator("dt")).to_have_text(["meaning", "words", "score", "matches"])
    width = parts.locator(".dense .fill").evaluate("node => node.getBoundingClientRect().width")
    assert width > 0
    expect(parts.locator(".dense")).to_contain_text("#1")
    page.get_by_text("Lexical", exact=True).click()
    expect(page.locator("#status")).to_contain_text("passage")
    assert asked(page)["mode"] == ["lexical"]
    page.keyboard.press("ArrowLeft")  # the modes are one group of radio buttons
    expect(page.locator("input[value=dense]")).to_be_checked()


def test_filters_by_choice_by_document_and_by_condition(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=the")
    page.locator("#toggle-filters").click()
    page.locator("#facets label", has_text="recipes").click()
    expect(page.locator("#chips")).to_contain_text("recipes")
    expect(page.locator("#hits .where").first).to_contain_text("recipes/")
    for where in page.locator("#hits .where").all_text_contents():
        assert where.startswith("recipes/")
    page.get_by_label("Remove filter folder:recipes").click()
    expect(page.locator("#chips")).to_be_hidden()
    page.locator("#sql").fill("source = 'guide/dates.md'")
    page.keyboard.press("Enter")
    expect(page.locator("#hits .where").first).to_contain_text("guide/dates.md")
    assert {re.split(r"[·\d]", text)[0] for text in page.locator("#hits .where").all_text_contents()} == {
        "guide/dates.md"
    }
    page.go_back()
    expect(page.locator("#sql")).to_have_value("")
    page.locator("#hits > li").first.hover()
    page.locator("#hits .acts").first.get_by_text("Only this document").click()
    expect(page.locator("#chips button")).to_have_count(1)


def test_a_bad_condition_is_told_at_its_field(tabs, server):
    tabs.expected.append("status of 400")
    page = tabs.open(f"{server.url}?c=handbook&q=bread")
    page.locator("#toggle-filters").click()
    page.locator("#sql").fill("no_such_column = 1")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#sql-error")).to_contain_text("no_such_column")
    expect(page.locator("#sql")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#hits > li")).to_have_count(0)
    page.get_by_role("button", name="Search without it").click()
    expect(page.locator("#hits > li").first).to_contain_text("Knead flour")
    expect(page.locator("#sql-error")).to_be_hidden()


def test_more_like_this(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=lighthouse+ship+number+7")
    page.locator("#hits a[data-id]").first.click()
    page.locator("#reader-like").click()
    expect(page.locator("#chips")).to_contain_text("Like: ")
    expect(page.locator("#hits .where").first).to_contain_text("notes/long.txt")
    expect(page.locator("#query")).to_have_value("")
    page.get_by_label("Leave more like this").click()
    expect(page.locator("#hits > li")).to_have_count(0)
    expect(page.locator("#state")).to_contain_text("documents")


def test_show_more_and_results_at_once(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=lighthouse")
    expect(page.locator("#hits > li")).to_have_count(10)
    page.locator("#more").click()
    expect(page.locator("#hits > li")).to_have_count(20)
    page.locator("#open-settings").click()
    page.locator("#set-top-k").select_option("50")
    page.keyboard.press("Escape")
    page.goto(f"{server.url}?c=handbook&q=lighthouse")
    expect(page.locator("#hits > li").nth(20)).to_be_attached()


def test_the_weight_reaches_the_server(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=lighthouse")
    page.locator("#open-settings").click()
    with page.expect_request(lambda request: "weight=" in request.url) as request:
        page.locator("#set-own").uncheck()
        page.locator("#set-weight").fill("0.8")
    assert parse_qs(urlsplit(request.value.url).query)["weight"] in (["0.50"], ["0.80"])
    expect(page.locator("#set-weight-out")).to_have_text("0.80")


def test_context_grows_and_nothing_found_says_what_to_do(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=ship+number+20+lighthouse")
    page.locator("#hits a[data-id]").first.click()
    around = page.locator("#reader .around")
    expect(around.first).to_be_visible()
    before = around.count()
    page.get_by_role("button", name="Show what comes before").click()
    expect(around.nth(before)).to_be_attached()
    page.goto(f"{server.url}?c=handbook&q=qqqqq&mode=lexical")
    expect(page.locator("#state")).to_contain_text("Nothing found")
    page.get_by_role("button", name="Search hybrid").click()
    assert "mode" not in asked(page)
