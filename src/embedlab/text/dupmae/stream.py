"""Texts as a stream of tokenised windows whose order depends on the seed alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from embedlab._core.errors import InputError
from embedlab.models.encoder import checked_texts
from embedlab.models.training_texts import sentences

_log = logging.getLogger(__name__)


def windows(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> list[dict[str, list[int]]]:
    """Tokenise texts, and cut the long ones into windows of whole sentences.

    A window takes sentences of one text as long as they fit; a sentence that is longer than a window is cut.

    Args:
        texts: The texts; those without a token are left out.
        tokenizer: A fast tokenizer with marks for beginning and end.
        max_length: Longest window in tokens, the two marks included, at least 3.

    Returns:
        For each window its ``input_ids``, and in ``words`` the number of the word of each token, -1 for the marks.

    Raises:
        InputError: no text has a token, something is not a text, or ``max_length`` is too small.
    """
    if max_length < 3:
        raise InputError(f"max_length={max_length}: must be at least 3, room for the two marks and one token")
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    if first is None or last is None or not tokenizer.is_fast:
        raise InputError(f"tokenizer {tokenizer.name_or_path!r} is not a fast one with [CLS] and [SEP], as BERT's is")
    inner = max_length - 2
    made: list[dict[str, list[int]]] = []
    left_out = 0
    for text in checked_texts(texts):
        parts = sentences(text)
        encoded = tokenizer(parts, add_special_tokens=False, verbose=False) if parts else None
        found = _packed(encoded, len(parts), inner) if encoded is not None else []
        left_out += not found
        for ids, words in found:
            made.append({"input_ids": [first, *ids, last], "words": [-1, *words, -1]})
    if not made:
        raise InputError(f"texts: none of the {len(texts)} has a token to learn from")
    if left_out:
        _log.info("left out %d texts without a token", left_out)
    return made


def _packed(encoded: Any, num: int, inner: int) -> list[tuple[list[int], list[int]]]:
    """Join sentences until a window is full; words are numbered anew in each."""
    full: list[tuple[list[int], list[int]]] = []
    ids: list[int] = []
    words: list[int] = []
    for place in range(num):
        tokens, numbers = encoded["input_ids"][place], encoded.word_ids(place)
        for start in range(0, len(tokens), inner):
            piece, piece_words = tokens[start : start + inner], numbers[start : start + inner]
            if ids and len(ids) + len(piece) > inner:
                full.append((ids, words))
                ids, words = [], []
            shift = (words[-1] + 1 if words else 0) - piece_words[0]
            ids, words = ids + piece, words + [number + shift for number in piece_words]
    return [*full, (ids, words)] if ids else full


class Stream(Dataset[dict[str, Any]]):
    """Windows in a random order, epoch after epoch; each item knows its place, ``draw``.

    Args:
        rows: The windows.
        length: Items in all.
        seed: Decides the order.
    """

    def __init__(self, rows: Sequence[dict[str, list[int]]], *, length: int, seed: int) -> None:
        self.rows, self.length, self.seed = rows, length, seed
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: int) -> dict[str, Any]:
        epoch, place = divmod(draw, len(self.rows))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        return {**self.rows[self._order[place]], "draw": draw}
