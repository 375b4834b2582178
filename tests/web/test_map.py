"""The map: points, hits that light up, pointing, panning, zooming, and the same without a pointer."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def place_of_hit(page: Page, index: int = 0) -> tuple[float, float]:
    """Where a hit stands on the screen, in the page's coordinates."""
    expect(page.locator("#canvas")).to_have_attribute("aria-label", re.compile(r"\d+ points"))
    identity = page.locator("#hits a[data-id]").nth(index).get_attribute("data-id")
    page.wait_for_timeout(300)  # until the frame with the newest places is drawn
    x, y = page.evaluate("async (id) => (await import('/static/map.js')).placeOf(id)", identity)
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    return box["x"] + x, box["y"] + y


def test_a_click_on_a_point_opens_its_passage(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=bake+bread+dough&view=map")
    expect(page.locator("#map-note")).to_contain_text("passages")
    expect(page.locator("#legend button")).to_have_count(3)
    x, y = place_of_hit(page)
    page.mouse.move(x, y)
    expect(page.locator("#map-tip")).to_contain_text("recipes/bread.md")
    page.mouse.click(x, y)
    expect(page.locator("#reader .here")).to_contain_text("Knead flour")
    page.keyboard.press("Escape")
    expect(page.locator("#reader")).to_be_hidden()


def test_the_map_beside_the_hits_is_the_same_map(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=bake+bread+dough")
    x, y = place_of_hit(page)
    page.mouse.click(x, y)
    expect(page.locator("#reader .here")).to_contain_text("Knead flour")


def test_panning_and_zooming_move_the_points(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=bake+bread+dough&view=map")
    x, y = place_of_hit(page)
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 70, box["y"] + 50, steps=4)
    page.mouse.up()
    panned = place_of_hit(page)
    assert panned == pytest.approx((x + 40, y + 20), abs=2)
    expect(page.locator("#reader")).to_be_hidden()  # a drag is no click
    page.get_by_label("Show everything").click()
    assert place_of_hit(page) == pytest.approx((x, y), abs=1)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    assert place_of_hit(page) == pytest.approx((x, y), abs=2)  # what is under the pointer stays there
    page.get_by_label("Zoom out").click()


def test_the_map_without_a_pointer(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=bake+bread+dough&view=map")
    place_of_hit(page)
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#map-live")).to_contain_text("Hit 1: ")
    expect(page.locator("#map-live")).to_contain_text("recipes/bread.md")
    page.keyboard.press("Enter")
    expect(page.locator("#reader .here")).to_contain_text("Knead flour")
    page.keyboard.press("Escape")
    expect(page.locator("#canvas")).to_be_focused()
    page.keyboard.press("+")
    page.keyboard.press("0")
    page.locator("#map-list summary").click()
    expect(page.locator("#map-list a").first).to_contain_text("recipes/bread.md")
    expect(page.locator("#map-list summary")).to_contain_text(re.compile(r"Points in view: \d+"))
    page.locator("#map-list a").first.click()
    expect(page.locator("#reader .here")).to_contain_text("Knead flour")


def test_hits_outside_the_sample_are_placed_too(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&q=bake+bread+dough&view=map")
    place_of_hit(page)

    def sampled(route):
        answer = route.fetch().json()
        kept = [i for i, source in enumerate(answer["points"]["source"]) if source != "recipes/bread.md"]
        answer["points"] = {name: [column[i] for i in kept] for name, column in answer["points"].items()}
        route.fulfill(json={**answer, "shown": len(kept)})

    page.route(re.compile(r"/map\?"), sampled)
    with page.expect_request(lambda request: "/map/places?" in request.url):
        page.reload()
    x, y = place_of_hit(page)
    page.mouse.click(x, y)
    expect(page.locator("#reader .here")).to_contain_text("Knead flour")


def test_a_group_can_be_picked_in_the_legend(tabs, server):
    page = tabs.open(f"{server.url}?c=handbook&view=map")
    expect(page.locator("#legend button").first).to_contain_text("notes")
    page.locator("#legend button", has_text="recipes").click()
    expect(page.locator("#legend button", has_text="recipes")).to_have_attribute("aria-pressed", "true")
    page.locator("#legend button", has_text="recipes").click()
    expect(page.locator("#legend button[aria-pressed=true]")).to_have_count(0)
