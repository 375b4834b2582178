"""Shannon entropy of the words of a text, of windows of fixed length, and of a whole data set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice

from embedlab._core.errors import InputError


def entropy(words: Iterable[str]) -> float:
    """Measure how many bits a word of a text carries, given how often each occurs in that text.

    ``H = -sum_w p(w) log2 p(w)`` with ``p(w)`` the relative frequency. It grows with length: N words reach log2 N bits
    at most, so compare texts of different length by ``window_entropy``.

    Args:
        words: The words of the text.

    Returns:
        Bits per word, at least 0; NaN for a text without a word.

    Example:
        >>> entropy("a a b b".split()), entropy("a a a a".split())
        (1.0, 0.0)
    """
    counts = Counter(words)
    total = counts.total()
    if not total:
        return math.nan
    return math.log2(total) - math.fsum(count * math.log2(count) for count in counts.values()) / total


def window_entropy(words: Sequence[str], *, window: int = 10) -> float:
    """Measure the entropy of the disjoint windows of fixed length in a text, and average: long and short texts compare.

    Args:
        words: The words of the text.
        window: Words per window, at least 2. What is left at the end is not counted.

    Returns:
        Bits per word, in [0, log2 window]; NaN for a text shorter than a window.

    Raises:
        InputError: ``window`` is below 2.

    Example:
        >>> window_entropy("a a b b c d e f".split(), window=4)
        1.5
    """
    if window < 2:
        raise InputError(f"window={window} must be at least 2 words: one word alone carries no bits")
    starts = range(0, len(words) - window + 1, window)
    if not starts:
        return math.nan
    return math.fsum(entropy(words[start : start + window]) for start in starts) / len(starts)


def corpus_entropy(texts: Iterable[Sequence[str]], *, num_words: int | None = None) -> float:
    """Measure the entropy of all words of a data set together.

    Args:
        texts: The words of each text.
        num_words: Count only so many, text after text; None counts all. Data sets of different size compare only at one
            number for all.

    Returns:
        Bits per word; NaN without a word, or with fewer than ``num_words``.

    Example:
        >>> corpus_entropy([["a", "a"], ["b", "b"]])
        1.0
    """
    words = list(islice(chain.from_iterable(texts), num_words))
    if num_words is not None and len(words) < num_words:
        return math.nan
    return entropy(words)
