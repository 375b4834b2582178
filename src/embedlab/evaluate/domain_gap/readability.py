"""How hard a text is to read: sentences, words and syllables of English, Gunning's Fog and the Flesch-Kincaid grade."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from embedlab._core.errors import InputError

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")  # letters, also joined: "year-end", "company's"
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*")
_END = re.compile(
    r"([.!?]+)[\"'”’)\]]*(?:\s+(?=[\"'“‘(\[]?[A-Z0-9])|\s*$)"  # before a capital or a digit, and at the end
    r"|(?<=\s)[.!?]\s+|\n\s*\n"  # a mark that stands alone, as in tokenised text; an empty line
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Inc|Corp|Co|Ltd|No|Nos|vs|cf|e\.g|i\.e|etc|approx|Fig|Jan|Feb|Mar|Apr|Jun|Jul|Aug"
    r"|Sept?|Oct|Nov|Dec)|\b[A-Z](?:\.[A-Z])*)$"
)
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT = re.compile(r"(?:[^aeiouytd]ed|[^aeiouyszxhgc]es|[^aeiouyl]e|[aeiouy]le|[rl]le)$")
_HIATUS = re.compile(r"(?<![tscgxl])i[aou]|lia(?!r)|[ct]iat|(?<![qg])ua|[aeiouy][^aeiouy]+ea$|[aeiouy]ing$")


@dataclass(frozen=True, slots=True)
class Counts:
    """What the readability formulas count in a text.

    Attributes:
        sentences: Sentences with at least one word.
        words: Words: runs of letters; numbers are not words.
        syllables: Syllables of all words.
        complex_words: Words of three syllables and more.
        letters: Letters of all words.
    """

    sentences: int
    words: int
    syllables: int
    complex_words: int
    letters: int

    @property
    def fog(self) -> float:
        """Gunning's Fog index, in school grades; NaN without a word."""
        if not self.words:
            return float("nan")
        return 0.4 * (self.words / self.sentences + 100 * self.complex_words / self.words)

    @property
    def flesch_kincaid(self) -> float:
        """Flesch-Kincaid grade; NaN without a word."""
        if not self.words:
            return float("nan")
        return 0.39 * self.words / self.sentences + 11.8 * self.syllables / self.words - 15.59


def count(text: str) -> Counts:
    """Count what the readability formulas need.

    Args:
        text: English text.

    Returns:
        The counts; all 0 for a text without a word.

    Example:
        >>> count("The cat sat. It was comfortable.")
        Counts(sentences=2, words=6, syllables=9, complex_words=1, letters=25)
    """
    found = [words for sentence in sentences(text) if (words := _WORD.findall(sentence))]
    each = [syllables(word) for words in found for word in words]
    letters = sum(len(word) for words in found for word in words)
    return Counts(len(found), len(each), sum(each), sum(number >= 3 for number in each), letters)


def sentences(text: str) -> Iterator[str]:
    """Cut English text where a sentence ends: at .!? before a capital or a digit or standing alone, and at empty lines.

    Args:
        text: The text.

    Yields:
        Sentences without surrounding space, none of them empty.

    Example:
        >>> list(sentences("Sales rose 3.5 % to $2 bn. Mr. Hill was glad! Why?"))
        ['Sales rose 3.5 % to $2 bn.', 'Mr. Hill was glad!', 'Why?']
    """
    start = 0
    for end in _END.finditer(text):
        if (
            end[1] == "."
            and end.end() < len(text)
            and _ABBREVIATION.search(text, max(start, end.start() - 8), end.start())
        ):
            continue
        if piece := text[start : end.end()].strip():
            yield piece
        start = end.end()
    if piece := text[start:].strip():
        yield piece


def tokens(text: str) -> list[str]:
    """Split a text into words and numbers in lower case.

    Args:
        text: The text.

    Returns:
        The tokens, in order.

    Example:
        >>> tokens("Net income: $4.5 m, year-end.")
        ['net', 'income', '4', '5', 'm', 'year-end']
    """
    return _TOKEN.findall(text.lower())


@cache
def syllables(word: str) -> int:
    """Count the syllables of an English word by rule: groups of vowels, less a silent e, more where vowels part.

    Args:
        word: One word; parts joined by a hyphen are counted one by one.

    Returns:
        At least 1.

    Example:
        >>> [syllables(word) for word in ("make", "table", "wanted", "jumped", "financial", "period", "year-end")]
        [1, 2, 2, 1, 3, 3, 2]
    """
    return sum(_syllables(part) for part in re.split(r"[-'’]", word.lower()) if len(part) > 1 or part in "aio") or 1


def english(texts: list[str], *, name: str = "texts") -> None:
    """Refuse texts that are not written in Latin letters: the rules for words, syllables and sentences are English.

    Args:
        texts: The texts.
        name: What the message calls them.

    Raises:
        InputError: more than a tenth of the letters are of another script.

    Example:
        >>> english(["Der Zins", "interest"])  # another language in Latin letters cannot be told from here
    """
    letters = "".join(_WORD.findall(" ".join(texts)))[:100_000]
    if not letters:
        return
    latin = float(np.mean([letter < "ɐ" or "Ḁ" <= letter <= "ỿ" for letter in letters]))
    if latin < 0.9:
        raise InputError(
            f"{name}: only {latin:.0%} of the letters are Latin; words, syllables and sentences are counted by English"
            " rules, and the parser knows English: leave this data set out or give measures of your own"
        )


def _syllables(part: str) -> int:
    groups = len(_VOWELS.findall(part))
    if groups > 1 and _SILENT.search(part):
        groups -= 1
    return max(1, groups + len(_HIATUS.findall(part)))
