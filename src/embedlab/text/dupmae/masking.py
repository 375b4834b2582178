"""What is hidden from the encoder and from the decoder, as a collator: whole words, the whole batch at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from embedlab._core.errors import InputError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

IGNORE = -100  # what cross-entropy leaves out
MOST_SAMPLES = 256  # hidden sets drawn for one text, from which its rows choose


class MaskCollator:
    """Make a batch for one of the three objectives out of tokenised texts.

    Each item is a dict of ``input_ids`` with the special tokens at its ends, ``words``, the number of the word that
    each token belongs to (-1 for special tokens), and ``draw``, its place in the training stream. All is drawn from the
    seed and the first ``draw`` of a batch, so a resumed run masks as an uninterrupted one does; and the encoder's mask
    is drawn first, so all objectives see the same.

    Args:
        tokenizer: Whose mask and padding tokens are used.
        encoder_mask: Part of the tokens hidden from the encoder, in (0, 1), as whole words. Of these, 80 % become the
            mask token, 10 % a random one, 10 % stay.
        decoder_mask: Part of the tokens hidden from each row of the decoder, in (0, 1); None for no decoder.
        seed: Decides all draws.

    Shape:
        B items -> ``input_ids``, ``attention_mask``, ``labels`` (B, T); with a decoder also ``decoder_input_ids``,
        ``decoder_labels``, ``bow_labels`` (B, T) and ``visible`` (B, T, T) bool, True where row i sees column j

    Raises:
        InputError: a part is not in (0, 1), or the tokenizer lacks a mask or padding token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        encoder_mask: float = 0.3,
        decoder_mask: float | None = 0.5,
        seed: int = 0,
    ) -> None:
        for name, part in (("encoder_mask", encoder_mask), ("decoder_mask", decoder_mask)):
            if part is not None and not 0 < part < 1:
                raise InputError(f"{name}={part}: must be between 0 and 1, without the ends")
        if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
            raise InputError(
                f"tokenizer {tokenizer.name_or_path!r} has no mask or no padding token: take a BERT-like one"
            )
        self.tokenizer, self.seed = tokenizer, seed
        self.encoder_mask, self.decoder_mask = encoder_mask, decoder_mask

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pad, mask and label the items."""
        rng = np.random.default_rng([self.seed, int(items[0]["draw"])])
        ids = padded([item["input_ids"] for item in items], int(self.tokenizer.pad_token_id))
        words = padded([item["words"] for item in items], -1)
        real = padded([[1] * len(item["words"]) for item in items], 0)
        hidden = whole_word_masks(words, self.encoder_mask, rng)[:, 0]  # (B, T)
        batch = {
            "input_ids": self._replaced(ids, hidden, rng),
            "attention_mask": real,
            "labels": np.where(hidden, ids, IGNORE),
        }
        if self.decoder_mask is not None:
            targets = np.where(words >= 0, ids, IGNORE)
            batch |= {
                "decoder_input_ids": ids,
                "decoder_labels": targets,
                "bow_labels": first_of_each(targets),
                "visible": visible_positions(words, real.astype(bool), self.decoder_mask, rng),
            }
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def _replaced(self, ids: Ints, hidden: Bools, rng: np.random.Generator) -> Ints:
        fate, other = rng.random(ids.shape), rng.integers(0, len(self.tokenizer), ids.shape)
        shown = np.where(hidden & (fate < 0.8), self.tokenizer.mask_token_id, ids)
        return np.where(hidden & (fate >= 0.9), other, shown)


def whole_word_masks(words: Ints, rate: float, rng: np.random.Generator, *, samples: int = 1) -> Bools:
    """Draw sets of whole words that cover a part of each text's tokens.

    A set holds that part of the text's words, rounded, at least one, and all sets of that size are equally likely: so
    every token is covered equally often, whatever the length of its word.

    Args:
        words: Number of the word of each token, counted from 0; -1 for tokens that are never masked.
        rate: Part to cover.
        rng: Where the sets come from.
        samples: Sets for each text.

    Shape:
        words (B, T) -> (B, samples, T) bool

    Returns:
        True where a token is in the set.
    """
    found = np.zeros((len(words), samples, words.shape[1]), dtype=bool)
    for row, numbers in enumerate(words):
        num_words = int(numbers.max(initial=-1)) + 1
        if num_words:
            keys = rng.random((samples, num_words), dtype=np.float32)
            last = max(1, int(rate * num_words + 0.5)) - 1
            chosen = keys <= np.partition(keys, last, axis=1)[:, last, None]  # (S, W)
            np.logical_and(chosen[:, numbers], numbers >= 0, out=found[row])
    return found


def visible_positions(words: Ints, real: Bools, rate: float, rng: np.random.Generator) -> Bools:
    """Say which positions each row of the decoder sees: a random part of the others, and never itself.

    ``min(T, 256)`` hidden sets are drawn for a text, and each row takes one of them. Special tokens stay visible to all
    rows but their own; padding is hidden from all.

    Args:
        words: As in ``whole_word_masks``.
        real: False where a text is padded.
        rate: Part of the tokens hidden from a row.
        rng: Where the draws come from.

    Shape:
        words (B, T), real (B, T) -> (B, T, T) bool

    Returns:
        True where row i sees column j.
    """
    size, length = words.shape
    samples = min(length, MOST_SAMPLES)
    hidden = whole_word_masks(words, rate, rng, samples=samples)  # (B, S, T)
    choice = rng.integers(0, samples, (size, length))
    visible = ~hidden[np.arange(size)[:, None], choice] & real[:, None, :]  # (B, T, T)
    visible[:, np.arange(length), np.arange(length)] = False
    # Rows of padding, whose result nobody reads, see the first position too: a softmax over nothing is no number.
    visible[:, 0, 0] = ~visible[:, 0].any(axis=1)
    return visible


def first_of_each(targets: Ints) -> Ints:
    """Keep each id where it first occurs in its row.

    Args:
        targets: Ids.

    Shape:
        targets (B, T) -> (B, T)

    Returns:
        The ids, and ``IGNORE`` elsewhere.
    """
    order = np.argsort(targets, axis=1, kind="stable")
    ranked = np.take_along_axis(targets, order, axis=1)
    fresh = np.ones_like(ranked, dtype=bool)
    fresh[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = np.zeros_like(fresh)
    np.put_along_axis(first, order, fresh, axis=1)
    return np.where(first, targets, IGNORE)


def padded(rows: Sequence[Sequence[int]], fill: int) -> Ints:
    """Put rows of different lengths into one array, padded on the right.

    Args:
        rows: B rows.
        fill: What they are padded with.

    Returns:
        The array, (B, T).
    """
    found = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found
