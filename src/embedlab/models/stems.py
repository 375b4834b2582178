"""From text to word stems, the way the full-text index makes them, each distinct word stemmed once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from embedlab._core.errors import InputError

# Scripts that put no space between words: their runs are cut by dictionary.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_MOST_WORDS = 1_000_000
_NO_STOP_WORD = "0"


class Stems:
    """Turns texts into lists of stems; without a language, into lists of lower-case words.

    Args:
        language: Whose stemmer and stop words, by its English name; None for neither.

    Raises:
        InputError: the full-text index does not know the language.

    Example:
        >>> Stems("English")(["The cats were running", "去北京大学"])
        [['cat', 'run'], ['去', '北京', '大学']]
    """

    def __init__(self, language: str | None) -> None:
        self._language = language
        self._known: dict[str, tuple[str, ...]] = {}
        self._learn(["word"])  # an unknown language is refused now

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the stems of each text, in order, stop words left out."""
        word = _word()
        found = [word.findall(text.lower().replace("_", " ")) for text in texts]
        if len(self._known) > _MOST_WORDS:
            self._known.clear()
        self._learn([word for word in dict.fromkeys(w for words in found for w in words) if word not in self._known])
        return [[stem for word in words for stem in self._known[word]] for words in found]

    def _learn(self, words: list[str]) -> None:
        spaced = [word for word in words if not _UNSPACED.search(word)]
        self._known.update(dict.fromkeys(spaced, ()))
        # positions count from the first token that is kept: a first one that always is makes them places of words
        for place, stem in self._tokens(" ".join([_NO_STOP_WORD, *spaced]), "whitespace"):
            if place > 0:
                self._known[spaced[place - 1]] += (stem,)
        for word in words:
            if _UNSPACED.search(word):
                self._known[word] = tuple(stem for _, stem in self._tokens(word, "icu"))

    def _tokens(self, text: str, base: str) -> list[tuple[int, str]]:
        from lancedb import tokenize

        try:
            tokens = tokenize(
                text,
                base_tokenizer=base,
                language=self._language or "English",
                max_token_length=None,
                stem=self._language is not None,
                remove_stop_words=self._language is not None,
            )
        except ValueError as error:
            raise InputError(f"language={self._language!r} is not one the full-text index knows: {error}") from error
        return [(token.position, token.text) for token in tokens]


@cache
def _word() -> re.Pattern[str]:
    """Build the pattern of a word: letters and digits with their combining marks, which ``\\w`` leaves out."""
    # a set of characters beyond 16 bits would be searched one range after the other
    marks = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c) in ("Mn", "Mc"))
    return re.compile(rf"[\w{re.escape(marks)}]+")
