"""Encoders whose faults are known fail the check that is made for them, and pass the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.evaluate.robustness import (
    PROMPTS,
    THRESHOLDS,
    association,
    association_tests,
    check_robustness,
    mean_reciprocal_rank,
)
from embedlab.models import Encoder, load_model
from embedlab.models.encoder import unit_rows

WORDS = [f"{first}{second}o" for first in "bdfgklmn" for second in ("aba", "ede", "ifi", "ogo", "ulu")]
QUERIES = [" ".join(WORDS[row : row + 3]) for row in range(0, 36, 3)]
DOCUMENTS = [query + " and more of it" for query in QUERIES]
DIM = 4096


class Words:
    """Sums a fixed random direction per word; ``see`` says which words of a text it takes in."""

    name, dim, fingerprint = "words", DIM, "words:0"

    def __init__(self, see: Callable[[str], Sequence[str]] = lambda text: text.lower().split()) -> None:
        self.see = see

    def encode_document(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        rows = np.zeros((len(texts), DIM), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in self.see(text):
                digest = hashlib.sha256(word.encode()).digest()
                row += np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(size=DIM)
        return unit_rows(rows)

    encode_query = encode_document


def results(encoder: Any, **options: Any) -> dict[str, bool]:
    report = check_robustness(encoder, QUERIES, DOCUMENTS, **options)
    assert report.mrr == pytest.approx(1.0)
    assert {check.name for check in report.checks} == set(THRESHOLDS) - {"out_of_domain"}
    assert report.passed == all(check.passed for check in report.checks)
    json.dumps(report.as_dict())
    return {check.name: check.passed for check in report.checks}


LOOSE = {"association": 2.0}  # words without meaning associate by chance


def test_a_sound_encoder_passes() -> None:
    assert all(results(Words(), thresholds={**LOOSE, "typos": 0.5}).values())


def test_an_encoder_that_reads_the_beginning_alone_fails_on_position() -> None:
    found = results(Words(lambda text: text.lower().split()[:7]), thresholds={**LOOSE, "prompts": 1.0, "typos": 1.0})
    assert not found["position"]
    assert found["length"]  # the document is at the beginning there
    assert found["case"]


def test_an_encoder_that_minds_case_fails_on_case() -> None:
    found = results(Words(str.split), thresholds={**LOOSE, "typos": 1.0})
    assert not found["case"]
    assert found["position"]


def test_an_encoder_that_reads_instructions_as_text_fails_on_prompts() -> None:
    def see(text: str) -> list[str]:
        return ["instruction"] if text.startswith(PROMPTS[2]) else text.lower().split()

    found = results(Words(see), thresholds={**LOOSE, "typos": 1.0})
    assert not found["prompts"]
    assert found["case"]


def test_typos_hurt_an_encoder_of_whole_words() -> None:
    assert not results(Words(), thresholds=LOOSE, typo_rate=0.5)["typos"]


def test_association_is_the_effect_size() -> None:
    """By hand: two groups on either side of the attributes."""

    class Planted(Words):
        def encode_document(self, texts: Sequence[str], **_: Any) -> np.ndarray:
            at = {"x1": 0.1, "x2": 0.2, "y1": 1.3, "y2": 1.5, "left": 0.0, "right": np.pi / 2}
            return np.array([[np.cos(at[text]), np.sin(at[text])] for text in texts], dtype=np.float32)

    near = [np.cos(angle) - np.sin(angle) for angle in (0.1, 0.2, 1.3, 1.5)]
    expected = (np.mean(near[:2]) - np.mean(near[2:])) / np.std(near, ddof=1)
    found = association(Planted(), ["x1", "x2"], ["y1", "y2"], ["left"], ["right"])
    assert found == pytest.approx(expected, abs=1e-5)
    assert association(Planted(), ["y1", "y2"], ["x1", "x2"], ["left"], ["right"]) == pytest.approx(-expected, abs=1e-5)
    assert association(Planted(), ["x1"], ["x1"], ["left"], ["right"]) == 0
    with pytest.raises(InputError, match="association"):
        association(Planted(), [], ["x1"], ["left"], ["right"])
    for lists in association_tests().values():
        assert len(lists[0]) == len(lists[1])


def test_the_default_model_and_another_domain() -> None:
    queries = [
        "a small red bird",
        "rain in the mountains",
        "how to bake bread",
        "a fast old car",
        "music for the piano",
    ]
    documents = [
        "a bird that is red and small",
        "it rains on the hills",
        "baking bread at home",
        "the car is old but fast",
        "pieces for piano",
    ]
    outside = (["zzq", "qqx", "xxz", "zzx", "qxq"], ["a", "b", "c", "d", "e"])
    encoder: Encoder = load_model()
    report = check_robustness(encoder, queries, documents, outside=outside)
    checks = {check.name: check for check in report.checks}
    assert report.mrr > 0.9
    assert not checks["out_of_domain"].passed
    assert checks["out_of_domain"].value == pytest.approx(
        checks["out_of_domain"].detail["inside"] - checks["out_of_domain"].detail["outside"]
    )
    same = check_robustness(encoder, queries, documents)
    assert [check.value for check in same.checks] == [
        check.value for check in report.checks if check.name != "out_of_domain"
    ]


def test_ranks_with_ties_are_the_last_of_them() -> None:
    assert mean_reciprocal_rank(np.ones((4, 2)), np.ones((4, 2))) == pytest.approx(0.25)


def test_bad_values() -> None:
    for options, says in (
        ({"typo_rate": 0.0}, "typo_rate"),
        ({"thresholds": {"lenght": 1.0}}, "length"),
        ({"outside": (["a"], ["b"])}, "at least four"),
    ):
        with pytest.raises(InputError, match=says):
            check_robustness(Words(), QUERIES, DOCUMENTS, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected as many"):
        check_robustness(Words(), QUERIES, DOCUMENTS[1:])
