"""No text, document or group is on both sides of the split."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from embedlab._core.errors import InputError
from embedlab.text.training.recipe import TrainingData
from embedlab.text.training.sources import Loaded, Source
from embedlab.text.training.split import Parts, hold_out


def loaded(columns: dict[str, list[Any]], groups: list[str] | None = None, name: str = "d") -> Loaded:
    kind: Any = "labels" if "label" in columns else "tuples" if "negative_1" in columns else "pairs"
    return Loaded(TrainingData(name, kind, Dataset.from_dict(columns)), groups, None, Source(None))


def texts(parts: tuple[TrainingData, ...], *, negatives: bool = False) -> set[str]:
    return {
        text.casefold()
        for each in parts
        for column in each.rows.column_names
        if column != "label" and (negatives or not column.startswith("negative"))
        for text in each.rows[column]
    }


def rows(parts: tuple[TrainingData, ...]) -> int:
    return sum(len(each.rows) for each in parts)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), min_size=60, max_size=120), st.integers(0, 3))
def test_no_text_is_on_both_sides(links: list[tuple[int, int]], seed: int) -> None:
    columns = {
        "anchor": [f"q{one}" if one % 2 else f"Q{one} " for one, _ in links],
        "positive": [f"p{two}" for _, two in links],
    }
    parts = hold_out([loaded(columns)], share=0.4, seed=seed)
    train, held = texts(parts.train), texts(parts.development) | texts(parts.test)
    assert not {text.strip() for text in train} & {text.strip() for text in held}
    assert not texts(parts.development) & texts(parts.test)
    assert rows(parts.train) + rows(parts.development) + rows(parts.test) == len(links)


def test_a_group_stays_together_and_both_parts_are_as_large_as_wanted() -> None:
    columns = {"anchor": [f"q{i}" for i in range(200)], "positive": [f"p{i}" for i in range(200)]}
    parts = hold_out([loaded(columns, [str(i // 4) for i in range(200)])], share=0.2)
    assert (rows(parts.development), rows(parts.test)) == (20, 20)
    sides = [
        {int(text[1:]) // 4 for text in each.rows["anchor"]} for (each,) in (parts.train, parts.development, parts.test)
    ]
    assert len(sides[0] | sides[1] | sides[2]) == sum(map(len, sides))


def test_data_sets_that_share_texts_are_split_alike() -> None:
    one = {"anchor": [f"q{i}" for i in range(100)], "positive": [f"p{i}" for i in range(100)]}
    two = {"anchor": [f"r{i}" for i in range(100)], "positive": [f"p{i}" for i in range(100)]}
    parts = hold_out([loaded(one), loaded(two, name="e")], share=0.2)
    assert not texts(parts.train) & (texts(parts.test) | texts(parts.development))
    assert [each.name for each in parts.test] == ["d", "e"]


def test_a_training_row_whose_negative_is_held_out_is_dropped() -> None:
    count = 100
    columns = {
        "anchor": [f"q{i}" for i in range(count)],
        "positive": [f"p{i}" for i in range(count)],
        "negative_1": [f"p{(i + 7) % count}" for i in range(count)],
    }
    parts = hold_out([loaded(columns)], share=0.2)
    assert not texts(parts.train, negatives=True) & (texts(parts.test) | texts(parts.development))
    assert "negatives are held-out texts" in parts.notes[0]


def test_with_too_little_data_nothing_is_held_out_and_it_is_said() -> None:
    few = {"anchor": [f"q{i}" for i in range(30)], "positive": [f"p{i}" for i in range(30)]}
    for columns in (few, {"anchor": [f"q{i}" for i in range(300)], "positive": ["the same"] * 300}):
        parts: Parts = hold_out([loaded(columns)], share=0.2)
        assert (rows(parts.train), parts.test) == (len(columns["anchor"]), ())
        assert "Too few rows or groups" in parts.notes[0]
    assert hold_out([loaded(few)], share=0).notes == ("Nothing was held out.",)
    with pytest.raises(InputError, match="held_out"):
        hold_out([loaded(few)], share=0.9)
