"""Distillation: bags, vocabulary, starting rows, and a table that learns what a known teacher knows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedlab._core.errors import InputError
from embedlab.models import StaticModel, load_model
from embedlab.models.default_recipe import teaching_order
from embedlab.models.distillation import (
    TokenBags,
    TrainingSettings,
    choose_vocabulary,
    principal_axes,
    starting_rows,
    teacher_vectors,
    train_table,
)
from embedlab.models.training_texts import TrainingTexts, gather, is_held_out, sentences

DEFAULT = load_model()
assert isinstance(DEFAULT, StaticModel)
TEXTS = ["the red house", "a red car", "blue cars and houses", "nothing else", "", "houses of the holy", "fast car"]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def test_bags_hold_the_tokens_of_their_texts() -> None:
    bags = TokenBags.of(TEXTS, DEFAULT.tokenizer_json)
    tokenizer = Tokenizer.from_str(DEFAULT.tokenizer_json)
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert len(bags) == len(TEXTS)
    for places in ([0, 1, 2], [4], [6, 4, 0], []):
        ids, starts = bags.take(np.array(places, dtype=np.int64))
        assert ids.tolist() == [token for place in places for token in expected[place]]
        assert starts.tolist() == np.cumsum([0, *[len(expected[place]) for place in places]])[:-1].tolist()
    assert len(TokenBags.of(["a b c d e"], DEFAULT.tokenizer_json, max_tokens=2).ids) == 2


def test_the_vocabulary_gains_whole_words_and_loses_punctuation() -> None:
    spec = json.loads(DEFAULT.tokenizer_json)
    spec["model"]["vocab"] = {"[UNK]": 0, "[CLS]": 1, "a": 2, "##b": 3, ",": 4, "+": 5, "日": 6, "zz": 7, "##c": 8}
    texts = ["abcabc abcabc", "abcabc, bcabc", "ABCABC 123456", "bcabc bcabc"] * 3
    chosen = json.loads(choose_vocabulary(texts, json.dumps(spec), size=8, min_count=4))["model"]["vocab"]
    assert list(chosen) == ["[UNK]", "a", "##b", "+", "zz", "##c", "abcabc", "bcabc"]
    tokenizer = Tokenizer.from_str(choose_vocabulary(texts, json.dumps(spec), size=7, min_count=4))
    assert tokenizer.encode("ABCABC, abcabca!").tokens == ["abcabc", "[UNK]", "[UNK]", "[UNK]"]
    spec["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    with pytest.raises(InputError, match="no BERT tokenizer"):
        choose_vocabulary(texts, json.dumps(spec), size=8)


def test_axes_keep_inner_products() -> None:
    rng = np.random.default_rng(0)
    low_rank = unit(rng.normal(size=(300, 3)) @ rng.normal(size=(3, 12))).astype(np.float16)
    axes = principal_axes(low_rank, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    kept = low_rank.astype(np.float32) @ axes
    np.testing.assert_allclose(kept @ kept.T, low_rank.astype(np.float32) @ low_rank.astype(np.float32).T, atol=5e-3)


def test_frequent_tokens_start_with_less_weight() -> None:
    bags = TokenBags(np.array([1] * 90 + [2] * 10, dtype=np.int32), np.array([0, 100]))
    vectors = np.array([[0, 0], [1, 0], [0, 1], [-1, -1]], dtype=np.float32)
    rows = starting_rows(vectors, np.eye(2, dtype=np.float32), bags)
    lengths = np.linalg.norm(rows, axis=1)
    assert lengths[0] == 0
    assert lengths[1] < lengths[2] < lengths[3]
    frequency = 91 / 104
    assert lengths[1] == pytest.approx(1e-3 / (1e-3 + frequency), rel=1e-5)


class CountingTeacher:
    """A teacher that is the default model, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def get_embedding_dimension(self) -> int:
        return DEFAULT.dim

    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        self.asked += len(texts)
        return DEFAULT.encode(texts)


def test_the_teacher_is_asked_once_and_answers_stay_in_order(tmp_path: Path) -> None:
    texts = [f"text number {number} {'word ' * (number % 7)}" for number in range(5000)]
    teacher, seen = CountingTeacher(), []
    got = teacher_vectors(teacher, texts, tmp_path, on_progress=seen.append)
    np.testing.assert_allclose(got[::500], DEFAULT.encode(texts[::500]), atol=1e-3)
    assert (teacher.asked, sum(seen)) == (5000, 5000)
    # An interrupted run has lost its last shard only.
    max(tmp_path.glob("*.npy"), key=lambda path: -path.stat().st_size).unlink()
    np.testing.assert_array_equal(teacher_vectors(teacher, texts, tmp_path), got)
    assert 5000 < teacher.asked < 10_000


@pytest.fixture
def lesson() -> tuple[np.ndarray, TokenBags, np.ndarray]:
    """A hidden table, bags of its tokens, and the vectors it gives them."""
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(40, 8)).astype(np.float32)
    lengths = rng.integers(2, 6, size=600)
    bags = TokenBags(
        rng.integers(1, 40, size=lengths.sum()).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)])
    )
    sums = np.add.reduceat(hidden[bags.ids], bags.starts[:-1], axis=0)
    return hidden, bags, unit(sums)


def agreement(rows: np.ndarray, bags: TokenBags, wanted: np.ndarray) -> float:
    return float((unit(np.add.reduceat(rows[bags.ids], bags.starts[:-1], axis=0)) * wanted).sum(axis=1).mean())


SMALL = TrainingSettings(epochs=200, batch_size=300, learning_rate=0.02)


def test_a_table_learns_its_teacher(lesson: tuple[np.ndarray, TokenBags, np.ndarray]) -> None:
    pytest.importorskip("torch")
    _, bags, wanted = lesson
    start = np.random.default_rng(2).normal(size=(40, 8)).astype(np.float32)
    kept = start.copy()
    steps: list[int] = []
    rows = train_table(start, bags, targets=wanted, settings=SMALL, on_step=lambda step, *_: steps.append(step))
    assert np.array_equal(start, kept)
    assert steps == list(range(1, 401))
    assert agreement(start, bags, wanted) < 0.3
    assert agreement(rows, bags, wanted) > 0.95
    assert np.array_equal(rows, train_table(start, bags, targets=wanted, settings=SMALL))


def test_places_and_axes_lead_targets_to_their_texts(lesson: tuple[np.ndarray, TokenBags, np.ndarray]) -> None:
    pytest.importorskip("torch")
    _, bags, wanted = lesson
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0].astype(np.float32)
    places = np.random.default_rng(4).permutation(600)
    rows = train_table(
        np.random.default_rng(2).normal(size=(40, 8)).astype(np.float32),
        bags,
        targets=wanted[places] @ turn.T,
        target_places=places,
        axes=turn,
        settings=SMALL,
    )
    assert agreement(rows, bags, wanted) > 0.85  # texts at wrong places would give about 0


def test_pairs_draw_their_texts_together() -> None:
    pytest.importorskip("torch")
    # Texts of one group share no token, so only the pairs can tell that they belong together.
    bags = TokenBags(np.arange(200, dtype=np.int32), np.arange(201))
    pairs = np.array([(place, place + 100) for place in range(100)])
    start = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    rows = unit(train_table(start, bags, pairs=pairs, settings=TrainingSettings(epochs=60, learning_rate=0.05)))
    found = (rows[:100] @ rows[100:].T).argmax(axis=1)
    assert (found == np.arange(100)).mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "both None"),
        ({"targets": np.zeros((3, 4), np.float32)}, "do not lead to"),
        ({"targets": np.zeros((3, 8), np.float32), "target_places": np.arange(2)}, "must go together"),
        ({"targets": np.zeros((3, 8), np.float32), "target_places": np.array([0, 1, 9999])}, "must go together"),
        ({"pairs": np.zeros((3, 3), np.int64)}, "pairs has shape"),
        ({"pairs": np.full((3, 2), 9999)}, "pairs has shape"),
    ],
)
def test_what_does_not_fit_is_refused(
    lesson: tuple[np.ndarray, TokenBags, np.ndarray], arguments: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_table(np.zeros((40, 8), np.float32), lesson[1], **arguments)  # type: ignore[arg-type]
    if not arguments:
        with pytest.raises(InputError, match="tokenizer of the table"):
            train_table(np.zeros((4, 8), np.float32), lesson[1], pairs=np.zeros((1, 2), np.int64))


def test_texts_are_cut_at_sentences_and_gathered_by_seed(tmp_path: Path) -> None:
    assert sentences('One ends. Two? "Three" (e.g. this) goes on! Four') == [
        "One ends.",
        "Two?",
        '"Three" (e.g. this) goes on!',
        "Four",
    ]
    from embedlab.models.training_texts import Source

    (tmp_path / "mine").mkdir()
    groups = [(f"title {n}", f"First sentence of {n} here. Second one of {n} there. Third {n}.") for n in range(50)]
    source = Source("mine", "data/mine", "ours", lambda _: iter(groups), limit=20, keeps_whole=True)
    first = gather(tmp_path, tmp_path, seed=1, sources=[source])
    again, other = (gather(tmp_path, tmp_path, seed=seed, sources=[source]) for seed in (1, 2))
    assert first == again != other
    assert len(set(first.texts)) == len(first.texts)
    assert sum(text.startswith("title") and len(text) < 9 for text in first.texts) == 20
    for title, whole in first.pairs:
        assert title != whole
    assert any(first.texts[a].startswith("title") and "Third" in first.texts[b] for a, b in first.pairs)


def test_the_teacher_gets_every_text_once_and_some_long_ones_early() -> None:
    texts = TrainingTexts([f"{'long ' * 60 if n % 3 == 0 else 'a short text '}{n}" for n in range(9000)], [])
    order = teaching_order(texts, seed=0)
    assert sorted(order.tolist()) == list(range(9000))
    early = sum(len(texts.texts[place]) > 170 for place in order[:4096])
    assert early == 246
    assert 0.02 < np.mean([is_held_out(f"package-{n}") for n in range(5000)]) < 0.06
