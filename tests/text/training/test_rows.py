"""Columns of any name become rows of one kind, and a bad row is named."""

from __future__ import annotations

import math
from typing import Any

import pytest

from embedlab._core.errors import InputError
from embedlab.text.training.kinds import suited
from embedlab.text.training.plain import CONTRASTIVE, COSENT
from embedlab.text.training.recipe import COLUMNS
from embedlab.text.training.rows import read_columns

A, B, C = ["a one", "a two"], ["b one", "b two"], ["c one", "c two"]


@pytest.mark.parametrize(
    ("columns", "kind", "names"),
    [
        ({"anchor": A, "positive": B}, "pairs", ["anchor", "positive"]),
        ({"Question": A, "Answer": B, "id": [1, 2]}, "pairs", ["anchor", "positive"]),
        ({"query": A, "text": B}, "pairs", ["anchor", "positive"]),
        ({"title": A, "abstract": B}, "pairs", ["anchor", "positive"]),
        ({"sentence1": A, "sentence2": B}, "pairs", ["anchor", "positive"]),
        ({"query": A, "pos": B, "neg": C}, "tuples", ["anchor", "positive", "negative_1"]),
        (
            {"query": A, "pos": B, "negative_1": C, "negative_2": A},
            "tuples",
            ["anchor", "positive", "negative_1", "negative_2"],
        ),
        ({"query": A, "pos": B, "negatives": [A, C]}, "tuples", ["anchor", "positive", "negative_1", "negative_2"]),
        ({"sentence1": A, "sentence2": B, "label": [0.0, 1.0]}, "scored", ["sentence1", "sentence2", "score"]),
        ({"query": A, "passage": B, "similarity": [0, 5]}, "scored", ["sentence1", "sentence2", "score"]),
        ({"text": A, "intent": ["x", "y"]}, "labels", ["text", "label"]),
        ({"sentence": A, "label": [3, 1]}, "labels", ["text", "label"]),
        ({"content": A, "author": B}, "texts", ["text"]),
        ({"anything": A}, "texts", ["text"]),
    ],
)
def test_names_tell_the_kind(columns: dict[str, Any], kind: str, names: list[str]) -> None:
    found, groups = read_columns(columns, name="data")
    assert (found.kind, found.rows.column_names, groups) == (kind, names, None)
    assert found.rows[0][names[0]] == "a one"


def test_columns_can_be_chosen_and_groups_are_kept_apart() -> None:
    found, groups = read_columns(
        {"frage": A, "x": B, "faden": [7, 7]}, name="d", chosen={"anchor": "frage", "positive": "x", "group": "faden"}
    )
    assert found.rows.column_names == list(COLUMNS["pairs"])
    assert groups == ["7", "7"]


def test_scores_are_brought_to_one_and_labels_to_names() -> None:
    found, _ = read_columns({"sentence1": A, "sentence2": B, "score": [0, 4.5]}, name="d")
    assert found.rows["score"][:] == [0.0, 0.9]
    labelled, _ = read_columns({"text": A, "label": ["tea", "law"]}, name="d")
    assert labelled.rows.features["label"].names == ["law", "tea"]
    assert labelled.rows["label"][:] == [1, 0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "no row"),
        ({"anchor": [], "positive": []}, "no row"),
        ({"foo": A, "bar": B}, "columns foo, bar do not tell"),
        ({"anchor": A, "positive": ["b", " "]}, "row 2: positive is empty"),
        ({"anchor": A, "positive": [math.nan, "b"]}, "row 1: positive is empty"),
        ({"anchor": A, "positive": ["b", None]}, "row 2: positive is empty"),
        ({"anchor": A, "positive": ["b", 3]}, "row 2: positive is 3 of type int"),
        ({"query": A, "pos": B, "negatives": [A, ["c"]]}, "row 2: 1 negatives, the first row has 2"),
        ({"query": A, "pos": B, "negatives": [A, "c"]}, "row 2: no list of negatives"),
        ({"sentence1": A, "sentence2": B, "score": [1, "high"]}, "row 2: score is 'high'"),
        ({"sentence1": A, "sentence2": B, "score": [1, 1]}, "all scores are 1.0"),
        ({"sentence1": A, "sentence2": B, "score": [-1, 1]}, "bring them to 0..1"),
        ({"text": A, "label": ["x", None]}, "row 2: label is missing"),
        ({"text": A, "label": ["x", "x"]}, "at least two classes"),
        ({"text": A, "label": [0.25, 0.5]}, "label holds fractions"),
    ],
)
def test_a_bad_row_is_named(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match="data") as caught:
        read_columns(columns, name="data")
    assert said in str(caught.value)


def test_a_column_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'frage'"):
        read_columns({"frage": A, "x": B}, name="d", chosen={"anchor": "fragen"})
    with pytest.raises(InputError, match="did you mean 'anchor'"):
        read_columns({"frage": A, "x": B}, name="d", chosen={"ancor": "frage"})


def test_labelled_texts_become_pairs_of_one_class() -> None:
    texts = [f"{kind} {number}" for kind in ("tea", "law") for number in range(5)]
    labelled, _ = read_columns({"text": [*texts, "odd one"], "label": [*[t[:3] for t in texts], "odd"]}, name="d")
    (found,) = suited([labelled], CONTRASTIVE, seed=0)
    assert found.kind == "pairs"
    rows = found.rows
    assert sorted(rows["anchor"]) == sorted(texts)
    assert all(one[:3] == two[:3] and one != two for one, two in zip(rows["anchor"], rows["positive"], strict=True))
    with pytest.raises(InputError, match=r"takes scored.*labels"):
        suited([labelled], COSENT, seed=0)
