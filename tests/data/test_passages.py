"""Splitting: nothing lost, nothing twice, nothing too long, and cuts where a reader would make them."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedlab._core.errors import InputError
from embedlab.data.documents import Block, Document
from embedlab.data.passages import split_passages

TEXT = st.text(st.sampled_from("ab é語.!\n\r\t 　。\u0301\u200d👍🏽"), max_size=400)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = draw(TEXT)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    spans = zip([0, *cuts], [*cuts, len(text)], strict=True)
    headings = st.sampled_from([(), ("A",), ("A", "B")])
    blocks = tuple(Block(start, end, draw(headings), draw(st.sampled_from([None, 1, 2]))) for start, end in spans)
    return Document("d.txt", text, blocks=blocks)


def visible(text: str) -> str:
    return "".join(text.split())


@given(documents(), st.integers(16, 120))
def test_passages_hold_everything_once_and_in_order(document: Document, max_chars: int) -> None:
    passages = split_passages(document, max_chars=max_chars)
    assert all(p.text == document.text[p.start : p.end] for p in passages)
    assert all(0 < len(p.text) <= max_chars and p.text == p.text.strip() for p in passages)
    assert all(a.end <= b.start for a, b in itertools.pairwise(passages))
    assert visible("".join(p.text for p in passages)) == visible(document.text)


@given(documents(), st.integers(16, 120))
def test_passages_stay_under_their_headings_and_pages(document: Document, max_chars: int) -> None:
    for passage in split_passages(document, max_chars=max_chars):
        for block in document.blocks:
            if document.text[max(block.start, passage.start) : min(block.end, passage.end)].strip():
                assert (block.headings, block.page) == (passage.headings, passage.page)


@given(documents(), st.integers(32, 120), st.integers(0, 15))
def test_overlap_loses_nothing_and_stays_bounded(document: Document, max_chars: int, overlap: int) -> None:
    passages = split_passages(document, max_chars=max_chars, overlap_chars=overlap)
    assert all(p.text == document.text[p.start : p.end] and 0 < len(p.text) <= max_chars for p in passages)
    for a, b in itertools.pairwise(passages):
        assert a.start < b.start
        assert a.end < b.end
        assert a.end - b.start <= overlap
    covered = {place for p in passages for place in range(p.start, p.end)}
    assert all(place in covered or char.isspace() for place, char in enumerate(document.text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("First one here.\n\nSecond one there.", ["First one here.", "Second one there."]),
        ("First one here. Second one there.", ["First one here.", "Second one there."]),
        ("first line of it\nsecond line of it", ["first line of it", "second line of it"]),
        ("all just words without an end here", ["all just words", "without an end here"]),
        ("今日は良い天気ですね。明日も晴れると良いですね。", ["今日は良い天気ですね。", "明日も晴れると良いですね。"]),
    ],
)
def test_cuts_between_paragraphs_then_sentences_then_lines_then_words(text: str, expected: list[str]) -> None:
    assert [p.text for p in split_passages(Document("a", text), max_chars=20)] == expected


def test_never_inside_a_character() -> None:
    text = "e\u0301" * 50 + "👍🏽" * 50
    for passage in split_passages(Document("a", text), max_chars=17):
        assert passage.text[0] in "e👍"
        assert passage.text[-1] in "\u0301\U0001f3fd"


def test_small_neighbours_are_put_together() -> None:
    text = "one\n\ntwo\n\nthree"
    blocks = (Block(0, 3, ("A",)), Block(5, 8, ("A",)), Block(10, 15, ("B",)))
    passages = split_passages(Document("a", text, blocks=blocks))
    assert [(p.text, p.headings) for p in passages] == [("one\n\ntwo", ("A",)), ("three", ("B",))]


def test_text_outside_blocks_stays_out() -> None:
    document = Document("a", "keep drop keep", blocks=(Block(0, 4), Block(10, 14)))
    assert [p.text for p in split_passages(document)] == ["keep", "keep"]


def test_overlap_begins_with_a_sentence() -> None:
    text = "One is here. Two is here. Three is here. Four is here."
    passages = split_passages(Document("a", text), max_chars=30, overlap_chars=14)
    assert [p.text for p in passages][:2] == ["One is here. Two is here.", "Two is here. Three is here."]


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_empty_texts_have_no_passages(text: str) -> None:
    assert split_passages(Document("a", text)) == []


@pytest.mark.parametrize(
    ("options", "name"), [({"max_chars": 3}, "max_chars"), ({"overlap_chars": 600}, "overlap_chars")]
)
def test_lengths_out_of_range(options: dict[str, int], name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: {options[name]}"):
        split_passages(Document("a", "b"), **options)


@pytest.mark.parametrize("unit", ["x", "\u0301", " ", "\n", ".", "a "])
def test_time_grows_with_length_only(unit: str) -> None:
    document = Document("a", unit * (4_000_000 // len(unit)))
    start = time.process_time()
    split_passages(document)
    assert time.process_time() - start < 5
