"""From text to rows of a table, one dictionary look-up per word.

A BERT-style tokenizer works on every word by itself: what a word is cut into never depends on its neighbours. So the
sum of its pieces' rows can be kept under the word, and a text costs one regular expression and one look-up per word
in place of a run of the tokenizer. The tokenizer itself decides everything that is not seen yet, so the sums are those
of ``tokenizer.json``.
"""

from __future__ import annotations

import json
import re
import string
import threading
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Blocks of text are cut to this many characters, so a block never has more new words than the cache can take.
BLOCK_CHARS = 32_768
_CACHED_WORDS = BLOCK_CHARS
_LONGEST_CACHED_WORD = 100

_BLANK = re.compile(r"[ \t\n\r]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SEPARATORS = dict.fromkeys(map(ord, string.punctuation + " \t\n\r"), " ")
_DROPPED_CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])  # BERT joins what stands around them
_LOWER = {ord(upper): lower for upper, lower in zip(string.ascii_uppercase, string.ascii_lowercase, strict=True)}


Decode = Callable[[NDArray[np.intp]], NDArray[np.float32]]


class WordTable:
    """Maps texts to rows of a table of word vectors that is filled as words are met.

    Args:
        decode: Gives the rows of some token ids, with the tokens' weights already in them.
        num_tokens: Number of token ids; (shape: V).
        dim: Length of a row.
        tokenizer_json: The tokenizer in the format of the tokenizers library.

    Raises:
        InputError: the tokenizer cannot be read, or names ids the table does not have.
    """

    def __init__(self, decode: Decode, num_tokens: int, dim: int, tokenizer_json: str) -> None:
        spec = _parsed(tokenizer_json)
        vocabulary = _vocabulary(spec)
        if vocabulary and max(vocabulary.values()) >= num_tokens:
            raise InputError(
                f"the tokenizer has ids up to {max(vocabulary.values())}, the table has {num_tokens} rows: "
                "they do not belong together"
            )
        self._tokenizer_json = tokenizer_json
        self._tokenizer: Tokenizer | None = None
        self._lock = threading.Lock()
        self._decode = decode
        self._num_tokens = num_tokens
        # Only pages that are written to take memory, so rows that no text needs cost nothing.
        self.rows = np.empty((num_tokens + 1 + _CACHED_WORDS, dim), dtype=np.float32)
        self._is_decoded = np.zeros(len(self.rows), dtype=np.bool_)
        self._unknown = num_tokens  # one zero row behind the tokens stands for whatever has no known piece
        self.rows[self._unknown] = 0
        self._is_decoded[self._unknown :] = True
        self._next = num_tokens + 1
        unknown_token = spec["model"].get("unk_token")
        self._unknown_id = vocabulary.pop(unknown_token, None) if isinstance(unknown_token, str) else None
        self._by_word = _acts_on_words(spec)
        # Anything but plain letters and digits is asked of the tokenizer when first met: it may strip accents or cut.
        known = {word: row for word, row in vocabulary.items() if word.isascii() and word.isalnum()}
        self._row_of = known if self._by_word else {}
        # Signs without a row of their own only separate words; the others stay in their word, for the tokenizer to cut.
        signs = {ord(sign): sign for sign in string.punctuation if sign in vocabulary}
        self._separate = _SEPARATORS | _DROPPED_CONTROLS | _LOWER | signs

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, made on first use: known words never need it."""
        if self._tokenizer is None:
            with self._lock:
                if self._tokenizer is None:
                    self._tokenizer = load_tokenizer(self._tokenizer_json)
        return self._tokenizer

    def look_up(self, texts: list[str]) -> tuple[NDArray[np.intp], list[int]] | None:
        """Find the rows whose sums are the texts' vectors.

        Args:
            texts: Texts of ``BLOCK_CHARS`` characters together at most.

        Returns:
            The row numbers of all texts behind one another, and for every text where its rows end; None when the
            cache is full and a fresh table has to take over.
        """
        if not self._by_word:
            return self._look_up_tokens(texts)
        words: list[str] = []
        ends: list[int] = []
        for text in texts:
            words += self._split(text)
            ends.append(len(words))
        rows = np.fromiter(map(self._row_of.get, words, repeat(-1)), np.intp, len(words))
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            found = self._learn({words[place] for place in missing})
            if found is None:
                return None
            rows[missing] = [found[words[place]] for place in missing]
        self._need(rows)
        return rows, ends

    def _split(self, text: str) -> list[str]:
        """Cut a text into what the tokenizer treats by itself; words outside ASCII come at the end, as they are."""
        if text.isascii():
            return text.translate(self._separate).split()
        parts = _BLANK.split(text)
        plain = " ".join([part for part in parts if part.isascii()])
        return plain.translate(self._separate).split() + [part for part in parts if not part.isascii()]

    def _look_up_tokens(self, texts: list[str]) -> tuple[NDArray[np.intp], list[int]]:
        """Ask the tokenizer for everything: for tokenizers whose words depend on one another."""
        rows: list[int] = []
        ends: list[int] = []
        for encoding in self.tokenizer.encode_batch(list(map(_encodable, texts)), add_special_tokens=False):
            rows += [piece for piece in encoding.ids if piece != self._unknown_id]
            ends.append(len(rows))
        needed = np.array(rows, dtype=np.intp)
        self._need(needed)
        return needed, ends

    def _need(self, rows: NDArray[np.intp]) -> None:
        """Fill in the rows that no text has needed before."""
        new = np.unique(rows[~self._is_decoded[rows]])
        if len(new):
            self.rows[new] = self._decode(new)  # two threads may write the same values
            self._is_decoded[new] = True

    def _learn(self, words: Iterable[str]) -> dict[str, int] | None:
        """Give each new word the row of its pieces' sum; None if there is no room."""
        asked = list(words)
        encodings = self.tokenizer.encode_batch(list(map(_encodable, asked)), add_special_tokens=False)
        found: dict[str, int] = {}
        with self._lock:
            for word, encoding in zip(asked, encodings, strict=True):
                pieces = [piece for piece in encoding.ids if piece != self._unknown_id]
                if not pieces:
                    row = self._unknown
                elif len(pieces) == 1:
                    row = pieces[0]
                elif self._next == len(self.rows):
                    return None
                else:
                    row = self._next
                    self.rows[row] = self._decode(np.array(pieces)).sum(axis=0)
                    self._next += 1
                found[word] = row
                # Unknown words take no row, so only their number in the dictionary needs a bound.
                if len(word) <= _LONGEST_CACHED_WORD and len(self._row_of) < self._num_tokens + 2 * _CACHED_WORDS:
                    self._row_of[word] = row
        return found


def load_tokenizer(tokenizer_json: str) -> Tokenizer:
    """Build the tokenizer without the truncation and padding that it may have been saved with.

    Args:
        tokenizer_json: The tokenizer in the format of the tokenizers library.

    Returns:
        The tokenizer.

    Raises:
        InputError: it cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:
        raise InputError(f"tokenizer.json is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _encodable(text: str) -> str:
    """Replace half surrogates, which no tokenizer takes, by the mark that BERT drops."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _parsed(tokenizer_json: str) -> dict[str, Any]:
    try:
        spec = json.loads(tokenizer_json)
    except ValueError as error:
        raise InputError(f"tokenizer.json is not JSON: {error}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise InputError("tokenizer.json has no 'model': expected the format of the tokenizers library")
    return spec


def _vocabulary(spec: dict[str, Any]) -> dict[str, int]:
    """Return token -> id, for the models of the tokenizers library that list tokens by id or in order."""
    listed = spec["model"].get("vocab", {})
    unigram = isinstance(listed, list)  # [[token, score], ...]
    tokens = {entry[0]: place for place, entry in enumerate(listed)} if unigram else dict(listed)
    tokens.update({token["content"]: token["id"] for token in spec.get("added_tokens") or ()})
    return tokens


def _acts_on_words(spec: dict[str, Any]) -> bool:
    """Tell whether this is a lower-casing BERT tokenizer, the kind whose words do not depend on one another."""
    normalizer, splitter, model = spec.get("normalizer") or {}, spec.get("pre_tokenizer") or {}, spec["model"]
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer.get("clean_text") is True
        and normalizer.get("lowercase") is True
        and splitter.get("type") == "BertPreTokenizer"
        and model.get("type") == "WordPiece"
        and model.get("max_input_chars_per_word", 0) >= 1
        and all(len(word) <= model["max_input_chars_per_word"] for word in model.get("vocab", {}))
        and not spec.get("added_tokens")  # these are found before words are
    )
