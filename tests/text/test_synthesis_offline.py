"""Queries without a language model, and the round trip: constructed passages whose answers are known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from embedlab import load_model
from embedlab._core.errors import InputError
from embedlab.data.passages import Passage
from embedlab.text.synthesis import SyntheticPair, consistency_filter, offline_queries, salient_phrases
from embedlab.text.synthesis.consistency import round_trip_ranks

HEAT = "Heat flows from hot to cold. It needs a difference in temperature to do so, and never stops by itself."


def passage(text: str, *headings: str) -> Passage:
    return Passage(text, 0, len(text), headings)


def test_a_first_sentence_leaves_its_passage() -> None:
    (pair,) = offline_queries([HEAT], kinds=["first_sentence"])
    assert pair == SyntheticPair("Heat flows from hot to cold.", HEAT.split(". ")[1], "first_sentence", 0)
    assert pair.query not in pair.passage


def test_texts_in_lower_case_have_sentences_too() -> None:
    text = "the drag of a thin wing at speed . it is measured in a tunnel, at several angles . heat is lost ."
    (pair,) = offline_queries([text], kinds=["first_sentence"])
    assert pair.query == "the drag of a thin wing at speed ."
    assert pair.passage.startswith("it is measured")


def test_a_heading_asks_for_one_passage_only() -> None:
    found = offline_queries(
        [
            passage(HEAT, "Guide", "Heat"),
            passage("Something else.", "Other", "Notes"),
            passage("More.", "Other", "Notes"),
        ],
        kinds=["heading"],
    )
    assert [(pair.query, pair.source) for pair in found] == [("Guide Heat", 0)]


@pytest.mark.parametrize("opening", ["## Heat transfer basics\n\n", "Heat transfer basics\n=====\n", "heat transfer "])
def test_a_heading_that_opens_the_passage_leaves_it(opening: str) -> None:
    (pair,) = offline_queries([passage(opening + HEAT, "Heat transfer basics")], kinds=["heading"])
    assert pair.passage == (HEAT if opening[0] != "h" else opening + HEAT)


def test_salient_words_are_frequent_here_and_rare_elsewhere() -> None:
    texts = ["The system of the boiler. A boiler of the system leaks steam.", "The system rests.", "The system runs."]
    (pair, *_) = offline_queries(texts, kinds=["salient"])
    assert "boiler" in pair.query
    assert salient_phrases("of the and", {}) == []
    phrases = salient_phrases("Boiler steam leaks. Steam rises. Boiler steam.", {"rises": 0.01})
    assert phrases[0] == "Boiler steam leaks"
    assert all("steam" not in phrase.lower() for phrase in phrases[1:])  # no word twice


def test_queries_do_not_depend_on_the_order_and_the_seed_decides_the_kind() -> None:
    texts = [
        f"The {name} valve sticks at night. Its spring is worn out after some years of use." for name in "abcdefgh"
    ]
    texts = [text.replace("The ", f"The {i}th ") for i, text in enumerate(texts)]
    forward = {texts[pair.source]: pair.query for pair in offline_queries(texts)}
    assert forward == {texts[::-1][pair.source]: pair.query for pair in offline_queries(texts[::-1])}
    kinds = {tuple(pair.kind for pair in offline_queries(texts, seed=seed)) for seed in range(6)}
    assert len(kinds) > 1
    assert len(offline_queries(texts, per_passage=2)) == 16


def test_blank_passages_and_passages_of_function_words_give_nothing() -> None:
    assert offline_queries(["", "  ", "of the and", "12 34"]) == []


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match="per_passage=0"):
        offline_queries([HEAT], per_passage=0)
    with pytest.raises(InputError, match="salient"):
        offline_queries([HEAT], kinds=["salien"])  # type: ignore[list-item]


def test_thousands_of_passages_take_seconds() -> None:
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(5000)]
    drawn = rng.integers(len(words), size=(1000, 8, 12)).tolist()
    texts = [". ".join(" ".join(words[i] for i in line).capitalize() for line in text) for text in drawn]
    start = time.process_time()
    assert len(offline_queries(texts)) == 1000
    assert time.process_time() - start < 6  # ten thousand a minute; measured: a few thousand a second


class OneHot:
    """Every distinct word is a direction: cosines can be worked out by hand."""

    name, dim, fingerprint = "one-hot", 64, "one-hot:0"

    def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.split():
                row[int(word)] = 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    encode_query = encode_document


def test_ranks_by_hand() -> None:
    passages = ["1 2", "1 3", "4", "1 2 3 4"]
    pairs = [("1 2", "1 2"), ("1 4", "4"), ("1 3", "4"), ("2 3", "1 3")]
    # "1 4": cosine with "4" and "1 2 3 4" is 0.707, with "1 2" and "1 3" 0.5; "1 2 3 4" holds "4" anyway
    # "1 3": 0 with "4"; "1 2", "1 3" are nearer. "2 3": 0.5 with "1 3" and "1 2"; "1 2 3 4" is nearer (0.707)
    assert round_trip_ranks(pairs, passages, OneHot()).tolist() == [1, 1, 3, 2]  # type: ignore[arg-type]


def test_the_filter_takes_out_pairs_made_wrong_on_purpose() -> None:
    topics = ["boiler", "sonnet", "glacier", "ledger", "violin", "harvest", "orbit", "vaccine", "harbour", "lawsuit"]
    passages = [f"All about the {topic}: what a {topic} is, and where every {topic} can be found." for topic in topics]
    right = [
        SyntheticPair(f"where is the {topic}", text, "right", i)
        for i, (topic, text) in enumerate(zip(topics, passages, strict=True))
    ]
    wrong = [SyntheticPair(right[i].query, passages[i - 1], "wrong", i - 1) for i in range(len(topics))]
    kept, report = consistency_filter([*right, *wrong], passages, load_model())
    assert kept == right
    assert report.by_kind == {"right": (10, 10), "wrong": (0, 10)}
    assert report.share_kept == 0.5
    loose, _ = consistency_filter(wrong, passages, load_model(), top_k=len(passages))
    assert loose == wrong


def test_the_whole_passage_is_no_rival_of_its_part() -> None:
    pairs = offline_queries([HEAT], kinds=["first_sentence"])
    kept, report = consistency_filter(pairs, [HEAT, "Sales fell in March."], load_model())
    assert kept == pairs
    assert report.ranks.tolist() == [1]


def test_pairs_of_any_shape_are_read_and_others_refused() -> None:
    kept, _ = consistency_filter([("heat", HEAT)], [passage(HEAT)], load_model())
    assert kept == [("heat", HEAT)]
    with pytest.raises(InputError, match="query and passage"):
        consistency_filter([("heat",)], [HEAT], load_model())
    with pytest.raises(InputError, match="top_k=0"):
        consistency_filter([], [], load_model(), top_k=0)
    assert consistency_filter([], [], load_model())[0] == []
