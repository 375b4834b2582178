"""An inspection against its own parts; the page in a real browser, with hostile texts."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from rich.console import Console

from embedlab._core.errors import InputError
from embedlab.text.temp_scale import pairwise_cosine_by_length
from embedlab.understand.geometry import hubness, intrinsic_dimension, isotropy, modality_gap, norm_relations
from embedlab.understand.inspection import Space, inspect_space, page_of, print_inspection, sections_of, write_page
from embedlab.understand.length_collapse import LayerRate, LayerRates
from embedlab.understand.relative import compare_spaces
from embedlab.understand.tte_depth import TextDepth

HOSTILE = "<script>window.pwned=1</script><img src=x onerror='window.pwned=2'>$\\frac{[bold]&amp;\x00 \u202e"
CHROMIUM = Path(os.environ.get("EMBEDLAB_CHROMIUM", "/usr/bin/chromium"))


def cloud(n: int, dim: int = 12, *, seed: int = 0, shift: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)) + shift


def texts_of(n: int) -> list[str]:
    return [f"text {i} " + "and more " * (i % 40) for i in range(n)]


def whole(n: int = 150, **options):
    """Everything there is to find."""
    rows, texts = cloud(n), texts_of(n)
    rng = np.random.default_rng(1)
    lengths = [len(text) for text in texts]
    table = tuple(
        LayerRate(layer, low, high, 8, *(dataclasses.replace(isotropy(rows).isoscore) for _ in range(2)))
        for layer in (1, 2)
        for low, high in ((0.0, 40.0), (40.0, math.inf))
    )
    return inspect_space(
        Space(rows, name="notes", texts=texts, labels=[f"topic {i % 3}" for i in range(n)], model="default"),
        against=Space(cloud(80, seed=3, shift=0.2), name="queries", texts=texts_of(80)),
        other=Space(rows @ rng.normal(size=(12, 20)), name="other", model="another-model"),
        profiles=[pairwise_cosine_by_length(rows, lengths, edges=[0, 100, 200])],
        layers=LayerRates(table),
        **options,
    )


def test_the_parts_are_what_each_tool_says_alone():
    rows, texts = cloud(150), texts_of(150)
    found = whole()
    assert found.isotropy.isoscore == isotropy(rows).isoscore
    assert found.dimension.likelihood.estimate == intrinsic_dimension(rows).likelihood.estimate
    assert found.hubness.skewness.estimate == hubness(rows).skewness.estimate
    assert (
        found.norms.centrality_with_length == norm_relations(rows, lengths=list(map(len, texts))).centrality_with_length
    )
    depth = TextDepth().fit(rows)
    order = depth.order()
    assert [mark.row for mark in found.depth.deepest] == order[:5].tolist()
    assert [mark.text for mark in found.depth.outermost] == [texts[i] for i in order[::-1][:5]]
    assert found.against.test == depth.test(cloud(80, seed=3, shift=0.2), alternative="two-sided")
    assert found.against.gap == modality_gap(rows, cloud(80, seed=3, shift=0.2))
    assert found.against.q.low <= found.against.test.q <= found.against.q.high
    mixed = rows @ np.random.default_rng(1).normal(size=(12, 20))
    assert found.similarity == compare_spaces(rows, mixed, 37, k=10)
    counts = hubness(rows).occurrences
    assert [mark.value for mark in found.hubs] == sorted(counts, reverse=True)[:5]
    assert [(group.label, group.num_texts) for group in found.groups] == [(f"topic {i}", 50) for i in range(3)]
    assert not found.missing


def test_zero_rows_are_left_out_and_row_numbers_stay():
    rows = cloud(60)
    rows[[0, 7, 20]] = 0
    space = Space(rows, texts=texts_of(60), labels=["a"] * 60, lengths=np.arange(60.0))
    found = inspect_space(space)
    assert (found.rows, found.left_out) == (57, 3)
    kept = np.delete(np.arange(60), [0, 7, 20])
    deepest = kept[TextDepth().fit(rows[kept]).median()]
    assert found.depth.deepest[0].row == deepest
    assert found.depth.deepest[0].text == texts_of(60)[deepest]
    assert "3 zero rows left out" in page_of(found)


def test_json_is_json_and_holds_no_list_of_all_texts():
    found = whole().to_dict()
    told = json.loads(json.dumps(found, allow_nan=False))
    assert told["isotropy"]["mean_cosine"]["estimate"] == found["isotropy"]["mean_cosine"]["estimate"]
    assert told["hubs"][0]["text"].startswith("text")
    assert told["layers"]["table"][1]["high"] is None
    assert "reading" in told["hubness"]
    assert "occurrences" not in told["hubness"]
    assert len(json.dumps(told)) < 20_000


def test_few_rows_say_what_could_not_be_looked_at():
    found = inspect_space(Space(cloud(15)))
    assert found.dimension is None
    assert found.hubness is not None
    assert "different rows" in found.missing["dimension"]
    tiny = inspect_space(Space(cloud(2)), against=Space(cloud(3, seed=1)))
    assert tiny.hubness is None
    assert tiny.against.gap is None
    assert "at least 5 rows" in tiny.missing["gap"]
    json.dumps(tiny.to_dict(), allow_nan=False)
    assert "Not looked at" in page_of(tiny)


def test_a_huge_set_is_sampled_for_pairs_and_says_so():
    found = inspect_space(Space(cloud(3000)), against=Space(cloud(2500, seed=1)), max_rows=200)
    assert found.isotropy.rows == found.norms.rows == found.against.test.n == 3000
    assert found.hubness.basis == "a random sample of 200 of 3,000 rows"
    assert "a random sample of 200 of 3,000 rows" in page_of(found)
    again = inspect_space(Space(cloud(3000)), against=Space(cloud(2500, seed=1)), max_rows=200)
    assert again.to_dict() == found.to_dict()
    other = inspect_space(Space(cloud(3000)), max_rows=200, seed=1)
    assert other.hubness.rows.tolist() != found.hubness.rows.tolist()


def test_passages_of_one_document_are_drawn_together_for_q():
    rows = np.repeat(cloud(20), 10, axis=0) + 0.05 * cloud(200, seed=1, shift=0)
    names = [f"{i // 10}.txt" for i in range(200)]
    other = Space(cloud(100, seed=2), name="other")
    alone, together = (inspect_space(Space(rows, ids=ids), against=other).against.q for ids in (None, names))
    assert together.estimate == alone.estimate
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def test_rows_apart_of_another_model_are_matched_by_number():
    rows = cloud(100)
    other = np.zeros((100, 12))
    other[::2] = rows[::2]
    found = inspect_space(Space(rows), other=Space(other, model="same"))
    assert found.similarity.num_items == 50
    assert_allclose(found.similarity.cka, 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Space(np.empty((0, 4))), "at least 1 row"),
        (lambda: Space(np.zeros((5, 4)), name="notes"), "notes: every row is zero"),
        (lambda: Space(np.full((5, 4), np.inf)), "row 0 holds NaN or infinity"),
        (lambda: Space(np.array([["a"]])), "real numbers"),
        (lambda: Space(np.array([[object()]])), "real numbers"),
        (lambda: Space(np.ones(4)), "matrix of real numbers"),
        (lambda: Space(np.ones((4, 2)), texts=["a"]), "1 texts for 4 vectors"),
        (lambda: Space(np.ones((4, 2)), labels=["a"]), "1 labels for 4 vectors"),
        (lambda: inspect_space(Space(np.ones((1, 4)))), "at least 2"),
        (lambda: inspect_space(Space(np.ones((50, 4)))), "all 50 rows are parallel"),
        (lambda: inspect_space(Space(cloud(9)), show=-1), "show=-1"),
        (lambda: inspect_space(Space(cloud(30)), against=Space(cloud(30, 5), name="other")), "other has 5 columns"),
        (lambda: inspect_space(Space(cloud(30)), against=Space(cloud(29)), paired=True), "as many rows"),
        (lambda: inspect_space(Space(cloud(30)), other=Space(cloud(4))), "4 rows in common"),
    ],
)
def test_bad_input_is_refused_by_name(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_every_section_has_a_reading_and_reaches_both_reports():
    found = whole()
    sections = sections_of(found)
    keys = "directions dimension hubs norms lengths layers depth groups against gap models"
    assert " ".join(section.key for section in sections) == keys
    console = Console(file=io.StringIO(), width=100)
    print_inspection(found, console)
    shown = console.file.getvalue()
    page = page_of(found)
    for section in sections:
        assert section.reading.endswith(".")
        assert " ".join(section.title.split()[:4]) in shown
        assert f'id="{section.key}"' in page


def test_the_page_is_whole_in_itself_and_the_same_every_time(tmp_path):
    page = page_of(whole())
    assert page == page_of(whole())
    assert "<script" not in page
    for address in re.findall(r"""(?:href|src)=["']?([^"'\s>]+)""", page):
        assert address.startswith(("#", "data:"))
    assert not re.search(r"@import|url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert all(f'id="{name}"' in page for name in re.findall(r"url\(#([^)]+)\)", page))
    write_page(whole(), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


def hostile():
    rows = cloud(60)
    texts = [f"{HOSTILE} {i}" for i in range(60)]
    space = Space(rows, name=HOSTILE[:40], texts=texts, ids=texts, labels=[HOSTILE] * 60, model=HOSTILE)
    return inspect_space(space, against=Space(cloud(60, seed=1), name=HOSTILE[:50], texts=texts))


def test_hostile_texts_stay_texts():
    page = page_of(hostile())
    assert "<script" not in page
    assert "<img" not in page
    assert "onerror" in page
    console = Console(file=io.StringIO(), width=100)
    print_inspection(hostile(), console)
    assert "[bold]" in console.file.getvalue()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_and_asks_for_nothing(tmp_path, scheme):
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: install chromium, or set EMBEDLAB_CHROMIUM")
    from playwright.sync_api import sync_playwright

    write_page(whole(), tmp_path / "page.html")
    write_page(hostile(), tmp_path / "hostile.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        for name, pictures in (("page", 5), ("hostile", 3)):
            page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
            told, asked = [], []
            page.on("console", lambda line, told=told: told.append(line.text))
            page.on("pageerror", lambda error, told=told: told.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(f"file://{tmp_path}/{name}.html")
            assert page.locator("figure svg").count() == pictures
            for picture in page.locator("figure svg").all():
                box = picture.bounding_box()
                assert box["height"] > 80
                assert box["x"] + box["width"] <= 391
            assert page.evaluate("window.pwned") is None
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            back, ink = (
                page.evaluate(f"getComputedStyle(document.body).{what}") for what in ("backgroundColor", "color")
            )
            bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (back, ink)]
            assert (bright[0] > bright[1]) == (scheme == "light")
            assert told == []
            assert all(url.startswith(("file:", "data:")) for url in asked)
        browser.close()
