"""Embedding inversion: measures against hand-worked cases, attacks on vectors whose secret is known, defences."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from embedlab._core.errors import InputError
from embedlab.cli import app
from embedlab.models.lexical import BagOfWords
from embedlab.text.inversion import (
    FrequentWords,
    GaussianNoise,
    NearestText,
    Rounding,
    SecretRotation,
    TokenSetInverter,
    Truncation,
    leakage,
    leakage_report,
)
from embedlab.text.inversion.measures import bleu

WHO = ("ann", "ben", "cora", "dan", "eva")
WHAT = ("bought", "sold", "lost", "found", "broke")
THING = ("a cup", "two hats", "the boat", "some tea", "his pen", "her key")
TEXTS = [f"{who} {what} {thing}" for who in WHO for what in WHAT for thing in THING]


class Echo:
    """Gives fixed guesses."""

    def __init__(self, guesses: list[str]) -> None:
        self.guesses = guesses

    def invert(self, vectors):
        return self.guesses


@pytest.fixture(scope="module")
def bags():
    """Word counts turned by a random matrix: every word is there to be read, by a linear map."""
    counts = BagOfWords().fit(TEXTS).encode_document(TEXTS)
    rng = np.random.default_rng(0)
    return counts @ np.linalg.qr(rng.normal(size=(counts.shape[1], counts.shape[1])))[0]


def test_measures_of_a_hand_worked_pair():
    found = leakage(np.ones((2, 3)), ["The 2 cats sat.", "Bob left Rome"], inverter=Echo(["the cats ran", ""]))
    np.testing.assert_allclose(found.precision, [2 / 3, 0])
    np.testing.assert_allclose(found.recall, [2 / 4, 0])
    np.testing.assert_allclose(found.f1, [4 / 7, 0])
    np.testing.assert_allclose(found.rouge_l, [4 / 7, 0])  # "the cats" is common, in order
    np.testing.assert_allclose(found.entities, [0, 0])  # "2" is lost; so is "Rome", while "Bob" begins the text
    assert found.exact.tolist() == [0, 0]
    assert np.isnan(found.cosine).all()


def test_repeated_words_count_as_often_as_they_occur():
    found = leakage(np.ones((1, 1)), ["a b"], inverter=Echo(["a a a a"]))
    assert (found.precision[0], found.recall[0]) == (0.25, 0.5)


def test_means_leave_out_what_is_not_known():
    found = leakage(np.ones((2, 1)), ["no name here", "see Rome"], inverter=Echo(["no", "Rome"]))
    assert found.means()["entities"] == 1.0
    assert math.isnan(found.means()["cosine"])


@pytest.mark.parametrize(
    ("guess", "expected"),
    [
        ("a b c d", 1.0),
        ("x y", 0.0),
        ("", 0.0),
        # runs: 2/2 words, (1+1)/(1+1) pairs, (0+1)/(0+1) beyond; brevity exp(1 - 4/2)
        ("a b", math.exp(-1)),
        # 3/4 words, (1+1)/(3+1) pairs, 1/3 triples, 1/2 quadruples
        ("a b x d", (3 / 4 * 1 / 2 * 1 / 3 * 1 / 2) ** 0.25),
    ],
)
def test_bleu_by_hand(guess, expected):
    assert bleu(["a", "b", "c", "d"], guess.split()) == pytest.approx(expected)


def test_a_linear_code_of_words_is_read_completely(bags):
    inverter = TokenSetInverter(min_count=1).fit(bags[:120], TEXTS[:120])
    found = leakage(bags[120:], TEXTS[120:], inverter=inverter)
    frequent = leakage(bags[120:], TEXTS[120:], inverter=FrequentWords().fit(bags[:120], TEXTS[:120]))
    assert frequent.f1.mean() < 0.4
    assert found.recall.mean() > 0.7  # "eva" is in the secret part only, and can't be known


def test_ridge_scores_equal_the_normal_equations(bags):
    inverter = TokenSetInverter(min_count=1).fit(bags[:60], TEXTS[:60])
    inputs = np.hstack([bags[:60], np.ones((60, 1))]).astype(np.float64)
    wanted = np.array([[float(word in text.split()) for word in inverter.vocabulary] for text in TEXTS[:60]])
    gram = inputs.T @ inputs
    penalty = inverter.ridge * np.trace(gram) / len(gram)
    slow = np.linalg.solve(gram + penalty * np.eye(len(gram)), inputs.T @ wanted)
    np.testing.assert_allclose(inverter.scores(bags[:60]), inputs @ slow, atol=1e-8)


def test_vectors_that_say_nothing_give_no_more_than_frequent_words():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(TEXTS), 16))
    inverter = TokenSetInverter(min_count=1).fit(vectors[:120], TEXTS[:120])
    frequent = FrequentWords().fit(vectors[:120], TEXTS[:120])
    found, base = (leakage(vectors[120:], TEXTS[120:], inverter=each).f1.mean() for each in (inverter, frequent))
    assert found < base + 0.05


def test_nearest_text_is_the_text_itself_among_its_own():
    vectors = np.random.default_rng(2).normal(size=(5, 4))
    assert NearestText().fit(vectors, TEXTS[:5]).invert(3 * vectors) == TEXTS[:5]


@pytest.mark.parametrize("defence", [GaussianNoise(0.0), Rounding(16), Truncation(8), SecretRotation(3)])
def test_defences_that_take_nothing_leave_search_as_it_was(defence):
    vectors = np.random.default_rng(3).normal(size=(40, 8))
    plain, protected = leakage_report(
        vectors, TEXTS[:40], inverter=Echo([""] * 40), defences=[defence], labels=[i % 4 for i in range(40)], top_k=5
    )
    assert protected.utility == pytest.approx(plain.utility, abs=0.02)


def test_rotation_keeps_cosines_and_needs_its_key():
    vectors = np.random.default_rng(4).normal(size=(6, 5))
    turned = SecretRotation(1).protect(vectors)
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-9)
    assert np.abs(turned - SecretRotation(2).protect(vectors)).max() > 0.1


def test_rounding_leaves_so_many_values():
    rounded = Rounding(2).protect(np.random.default_rng(5).normal(size=(3, 50)))
    assert [len(np.unique(row.round(9))) for row in rounded] == [4, 4, 4]


def test_more_noise_leaks_less(bags):
    inverter = TokenSetInverter(min_count=1).fit(bags[:120], TEXTS[:120])
    report = leakage_report(
        bags[:120], TEXTS[:120], inverter=inverter, defences=[GaussianNoise(s) for s in (0.05, 0.2, 1.0)]
    )
    leaked = [found.leakage.f1.mean() for found in report]
    assert leaked == sorted(leaked, reverse=True)
    assert leaked[-1] < leaked[0] - 0.3


def test_too_few_texts_are_refused():
    with pytest.raises(InputError, match="3 texts are too few"):
        TokenSetInverter().fit(np.eye(3), TEXTS[:3])


def test_an_inverter_with_another_number_of_guesses_is_refused():
    with pytest.raises(InputError, match="1 texts for 2 vectors"):
        leakage(np.eye(2), TEXTS[:2], inverter=Echo(["one"]))


def test_the_verb_reports_attacks_and_defences(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    result = CliRunner().invoke(app, ["invert", str(tmp_path / "texts.txt"), "--noise", "0.5", "--json"])
    assert result.exit_code == 0, result.output
    rows = {(row["attack"], row["defence"]): row for row in json.loads(result.stdout)["leakage"]}
    assert rows["word set", "none"]["f1"] > rows["frequent words", "none"]["f1"] + 0.2
    assert rows["word set", "noise 0.5"]["f1"] < rows["word set", "none"]["f1"]


def test_the_verb_refuses_a_handful_of_texts(tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(InputError, match="at least 50"):
        CliRunner().invoke(app, ["invert", str(tmp_path / "texts.txt")], catch_exceptions=False)
