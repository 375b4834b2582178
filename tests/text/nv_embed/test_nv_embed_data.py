"""The data recipe: classes and scores as rows, mining with a bar, copies of evaluation texts found."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from datasets import Dataset

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.nv_embed import classification_to_triplets, decontaminate, mine_hard_negatives, sts_to_pairs

TEXTS = ["red", "rose", "ruby", "sky", "sea", "grass"]
LABELS = ["r", "r", "r", "b", "b", "g"]
CLASS = dict(zip(TEXTS, LABELS, strict=True))


def test_examples_of_the_class_are_positives(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = classification_to_triplets(TEXTS, LABELS, num_negatives=2, seed=1)
    assert rows.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    assert "1 classes have a single text" in caplog.text
    assert rows["anchor"][:] == TEXTS[:5], "the class of one text gives no row"
    for row in rows:
        assert CLASS[row["positive"]] == CLASS[row["anchor"]]
        assert row["positive"] != row["anchor"]
        negatives = {row["negative_1"], row["negative_2"]}
        assert len(negatives) == 2
        assert all(CLASS[text] != CLASS[row["anchor"]] for text in negatives)
    drawn = {
        text
        for seed in range(20)
        for text in classification_to_triplets(TEXTS, LABELS, num_negatives=1, seed=seed)["negative_1"]
    }
    assert "grass" in drawn, "but it is a negative of others"


def test_names_of_the_classes_are_positives() -> None:
    rows = classification_to_triplets(
        TEXTS, LABELS, mode="label", num_negatives=7, label_texts={"r": "red things", "b": "blue", "g": "green"}
    )
    assert len(rows) == 6
    assert rows.column_names == ["anchor", "positive", "negative_1", "negative_2"], "two other classes"
    assert [row["positive"] for row in rows][3:] == ["blue", "blue", "green"]
    assert all(
        {row["positive"], row["negative_1"], row["negative_2"]} == {"red things", "blue", "green"} for row in rows
    )
    two = classification_to_triplets(["good", "bad"], ["is_good", "is_bad"], mode="label")
    assert two[0] == {"anchor": "good", "positive": "is good", "negative_1": "is bad"}


def test_one_seed_gives_one_data_set() -> None:
    first, same, other = (classification_to_triplets(TEXTS, LABELS, num_negatives=1, seed=seed) for seed in (3, 3, 4))
    assert first[:] == same[:]
    assert first[:] != other[:]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mode": "both"}, "mode"),
        ({"num_negatives": 0}, "num_negatives=0"),
        ({"num_negatives": 4}, "at most"),
        ({"labels": LABELS[1:]}, "labels"),
        ({"labels": ["r"] * 6}, "at least 2"),
        ({"labels": TEXTS}, 'mode="label"'),
        ({"mode": "label", "label_texts": {"r": "red"}}, "'b'"),
    ],
)
def test_wrong_classes_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        classification_to_triplets(TEXTS, **{"labels": LABELS, **arguments})


def test_pairs_found_alike_go_both_ways() -> None:
    rows = sts_to_pairs(["a", "b", "c", "b"], ["A", "B", "c", "B"], [4.0, 3.9, 5.0, 4.5])
    assert list(zip(rows["anchor"], rows["positive"], strict=True)) == [("a", "A"), ("A", "a"), ("b", "B"), ("B", "b")]
    with pytest.raises(InputError, match=r"highest score is 0\.9.*another scale"):
        sts_to_pairs(["a"], ["b"], [0.9])
    with pytest.raises(InputError, match="scores"):
        sts_to_pairs(["a"], ["b"], [])


def test_mined_negatives_stay_below_the_bar() -> None:
    words = [f"word{place}" for place in range(12)]
    corpus = [f"{a} {b}" for a in words for b in words if a < b]
    teacher = tiny_encoder(corpus, num_layers=1)
    nearest = (
        teacher.encode(words[:6], normalize_embeddings=True) @ teacher.encode(corpus, normalize_embeddings=True).T
    ).argmax(1)
    pairs = Dataset.from_dict({"anchor": words[:6], "positive": [corpus[place] for place in nearest]})
    top = mine_hard_negatives(pairs, teacher, corpus=corpus, num_negatives=3, percent=None)
    careful = mine_hard_negatives(pairs, teacher, corpus=corpus, num_negatives=3, percent=0.95)

    def ratios(rows: Dataset) -> list[float]:
        scores = {
            text: teacher.encode(text, normalize_embeddings=True)
            for column in rows.column_names
            for text in rows[column]
        }
        return [
            float(
                scores[row["anchor"]] @ scores[row[f"negative_{k}"]] / (scores[row["anchor"]] @ scores[row["positive"]])
            )
            for row in rows
            for k in (1, 2, 3)
        ]

    assert max(ratios(top)) > 0.95
    assert max(ratios(careful)) <= 0.95 + 1e-6
    assert all(row["positive"] not in [row[f"negative_{k}"] for k in (1, 2, 3)] for row in careful)
    with pytest.raises(InputError, match="percent"):
        mine_hard_negatives(pairs, teacher, percent=1.5)
    with pytest.raises(InputError, match="no pair"):
        mine_hard_negatives(pairs, teacher, num_negatives=7)


def test_copies_of_evaluation_texts_are_found() -> None:
    evaluation = ["How much did revenue grow in the third quarter of 2019?", "What is owed to suppliers?", "???", "!"]
    training = [
        "what is owed to suppliers",  # the same words
        "Revenue and quarter are words that occur here",  # some words
        "Tell me: how much did revenue grow in the third quarter of 2019, and why?",  # contains one
        "how much did revenue grow in the second quarter of 2019",  # nearly one
        "The sky is blue.",
        "???",  # a copy without words
        "",
    ]
    stay, go = decontaminate(training, evaluation)
    assert go == [0, 2, 3, 5]
    assert stay == [1, 4, 6]
    assert decontaminate(training, evaluation, max_similarity=1.0)[1] == [0, 2, 5]
    assert decontaminate(training, [])[0] == list(range(7))
    assert decontaminate([], evaluation) == ([], [])
    with pytest.raises(InputError, match="max_similarity"):
        decontaminate(training, evaluation, max_similarity=0)
