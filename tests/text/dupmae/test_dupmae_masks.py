"""What is hidden from encoder and decoder: whole words, never the text's marks, always the row's own position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from embedlab._core.errors import InputError
from embedlab.testing.tiny import word_tokenizer
from embedlab.text.dupmae import MaskCollator
from embedlab.text.dupmae.masking import IGNORE, first_of_each, visible_positions, whole_word_masks
from embedlab.text.dupmae.stream import Stream, windows

WORDS = np.array(
    [
        [-1, 0, 0, 1, 2, 2, 2, 3, 4, 5, -1],
        [-1, 0, 1, 1, 2, 3, -1, -1, -1, -1, -1],  # one end mark, then padding
        [-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1],  # an empty text
    ]
)
REAL = np.array([[True] * 11, [True] * 7 + [False] * 4, [True] * 2 + [False] * 9])


def rng(seed=0):
    return np.random.default_rng(seed)


def collator(texts=("a cat sat on the mat",), **options):
    return MaskCollator(word_tokenizer(texts), **options)


def test_a_hidden_set_holds_whole_words_and_the_part_wanted():
    hidden = whole_word_masks(WORDS, 0.5, rng(), samples=200)
    for row, numbers in enumerate(WORDS):
        count = len({number for number in numbers if number >= 0})
        for sample in hidden[row]:
            chosen = {number for number, is_hidden in zip(numbers, sample, strict=True) if is_hidden}
            assert -1 not in chosen
            assert len(chosen) == (max(1, int(count * 0.5 + 0.5)) if count else 0)
            assert_array_equal(sample, np.isin(numbers, list(chosen)))


def test_every_token_is_hidden_equally_often():
    hidden = whole_word_masks(np.repeat(WORDS[:1], 4000, axis=0), 0.5, rng())[:, 0]
    often = hidden.mean(axis=0)
    assert np.abs(often[1:-1] - 0.5).max() < 0.03
    assert not often[[0, -1]].any()


def test_no_row_sees_itself_or_padding_and_all_see_the_first_position():
    for seed in range(20):
        visible = visible_positions(WORDS, REAL, 0.5, rng(seed))
        for row, length in enumerate((11, 7)):
            assert not visible[row].diagonal()[1:].any()
            assert visible[row, 1:, 0].all()
            assert not visible[row, :, length:].any()
        assert visible.any(axis=2).all(), "a row that sees nothing gives NaN"
        assert visible[0, :-1, -1].all(), "the mark at the end stays visible"


def test_each_row_hides_one_set_of_whole_words_and_itself():
    visible = visible_positions(WORDS[:1], REAL[:1], 0.5, rng())[0]
    for i in range(11):
        hidden = [j for j in range(11) if not visible[i, j] and j != i]
        words = {WORDS[0, j] for j in hidden}
        rest = {WORDS[0, j] for j in range(11) if visible[i, j]} - {-1}
        assert not words & rest - {WORDS[0, i]}, "a word is split"
        assert 2 <= len(words | ({WORDS[0, i]} - rest)) <= 4  # three of six, and perhaps the row's own


def test_about_half_is_visible_in_a_long_text():
    words = np.concatenate([[-1], np.arange(126), [-1]])[None]
    visible = visible_positions(words, np.ones_like(words, dtype=bool), 0.5, rng())[0]
    assert abs(visible[1:-1, 1:-1].mean() - 0.5) < 0.02
    assert len(np.unique(visible[1:-1, 1:-1], axis=0)) > 50, "rows draw among many sets"


def test_only_the_first_of_equal_words_counts():
    targets = np.array([[IGNORE, 7, 3, 7, 3, 9, IGNORE], [IGNORE, 4, 4, 4, IGNORE, IGNORE, IGNORE]])
    slow = [[x if x != IGNORE and x not in row[:i] else IGNORE for i, x in enumerate(row)] for row in targets.tolist()]
    assert_array_equal(first_of_each(targets), slow)


def test_a_batch_has_labels_where_the_encoder_sees_a_mask_and_for_all_words_in_the_decoder():
    tokenizer = word_tokenizer(["a cat sat on the mat"])
    rows = windows(["a cat sat on the mat", "the cat"], tokenizer, max_length=16)
    batch = MaskCollator(tokenizer)([{**row, "draw": place} for place, row in enumerate(rows)])
    asked = batch["labels"] != IGNORE
    assert asked.sum(dim=1).tolist() == [2, 1]
    assert (batch["labels"][asked] == batch["decoder_input_ids"][asked]).all()
    assert (batch["input_ids"][~asked] == batch["decoder_input_ids"][~asked]).all()
    assert batch["decoder_labels"].tolist()[1] == [IGNORE, *rows[1]["input_ids"][1:-1], *[IGNORE] * 5]
    assert batch["attention_mask"].sum(dim=1).tolist() == [8, 4]


def test_masked_words_are_replaced_eight_times_in_ten():
    text = " ".join(f"w{i}" for i in range(50))
    tokenizer = word_tokenizer([text])
    row = windows([text], tokenizer, max_length=64)[0]
    batch = MaskCollator(tokenizer)([{**row, "draw": 0}] * 400)
    asked, shown = batch["labels"] != IGNORE, batch["input_ids"]
    masked = (shown[asked] == tokenizer.mask_token_id).float().mean().item()
    kept = (shown[asked] == batch["labels"][asked]).float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1 + 0.1 / len(tokenizer), abs=0.02)


def test_the_draw_decides_the_masks_and_the_objective_does_not():
    items = [{"input_ids": [2, 5, 6, 7, 8, 9, 3], "words": [-1, 0, 1, 2, 3, 4, -1], "draw": 40}] * 8
    with_decoder, without = collator()(items), collator(decoder_mask=None)(items)
    assert set(without) == {"input_ids", "attention_mask", "labels"}
    assert all(torch.equal(without[name], with_decoder[name]) for name in without)
    assert torch.equal(collator()(items)["visible"], with_decoder["visible"])
    later = collator()([{**item, "draw": 48} for item in items])
    assert not torch.equal(later["visible"], with_decoder["visible"])
    assert not torch.equal(collator(seed=1)(items)["visible"], with_decoder["visible"])


@pytest.mark.parametrize(("name", "value"), [("encoder_mask", 0.0), ("encoder_mask", 1.0), ("decoder_mask", 1.5)])
def test_parts_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        collator(**{name: value})


def test_windows_hold_whole_sentences_and_long_sentences_are_cut():
    texts = ["One two three. Four five. Six seven eight nine ten eleven twelve.", "", "  ", "Alone."]
    tokenizer = word_tokenizer(texts)
    found = [tokenizer.decode(row["input_ids"][1:-1]) for row in windows(texts, tokenizer, max_length=9)]
    assert found == ["one two three. four five.", "six seven eight nine ten eleven twelve", ".", "alone."] or found == [
        "one two three . four five .",
        "six seven eight nine ten eleven twelve",
        ".",
        "alone .",
    ]
    for row in windows(texts, tokenizer, max_length=9):
        assert row["words"] == [-1, *range(len(row["words"]) - 2), -1]


def test_texts_without_a_token_are_refused_when_there_is_no_other():
    tokenizer = word_tokenizer(["a"])
    with pytest.raises(InputError, match="none of the 2"):
        windows(["", " "], tokenizer, max_length=8)
    with pytest.raises(InputError, match="max_length"):
        windows(["a"], tokenizer, max_length=2)


def test_the_stream_shows_every_window_once_an_epoch_in_an_order_of_the_seed():
    rows = [{"input_ids": [place], "words": [0]} for place in range(7)]
    stream = Stream(rows, length=21, seed=0)
    order = [stream[draw]["input_ids"][0] for draw in range(21)]
    assert all(sorted(order[start : start + 7]) == list(range(7)) for start in (0, 7, 14))
    assert order[:7] != order[7:14]
    assert [stream[draw]["input_ids"][0] for draw in (20, 3)] == [order[20], order[3]]
    other = Stream(rows, length=21, seed=1)
    assert [other[draw]["input_ids"][0] for draw in range(21)] != order
