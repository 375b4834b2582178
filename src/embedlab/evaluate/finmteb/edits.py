"""Pairs of sentences that differ by one small edit, which either changes the meaning or keeps it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np

from embedlab._core.errors import InputError
from embedlab.data.datasets import PairData
from embedlab.text.synthesis import split_sentences

Edit = Callable[[str, np.random.Generator], str]

_OPPOSITES = (
    ("increase", "decrease"),
    ("increases", "decreases"),
    ("increased", "decreased"),
    ("increasing", "decreasing"),
    ("higher", "lower"),
    ("gain", "loss"),
    ("gains", "losses"),
    ("profit", "loss"),
    ("more", "less"),
    ("above", "below"),
    ("growth", "decline"),
    ("rose", "fell"),
    ("favorable", "unfavorable"),
    ("before", "after"),
    ("first", "last"),
    ("maximum", "minimum"),
    ("assets", "liabilities"),
    ("issued", "redeemed"),
)
_FLIPS = {one: other for pair in _OPPOSITES for one, other in (pair, pair[::-1])}
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_SAME = {
    "approximately": "about",
    "primarily": "mainly",
    "during": "in",
    "compared to": "compared with",
    "due to": "because of",
    "as a result of": "owing to",
    "prior to": "before",
    "in addition": "moreover",
    "pursuant to": "under",
    "subsequent to": "after",
    "however": "nevertheless",
    "such as": "for example",
    "may be": "can be",
    "related to": "connected with",
    "relating to": "concerning",
    "certain": "some",
    "fiscal year": "financial year",
    "following table": "table below",
    "shown": "presented",
    "per annum": "a year",
}


def number_edit_pairs(
    texts: Iterable[str],
    *,
    num_pairs: int = 600,
    kept_edits: int = 3,
    synonyms: bool = False,
    seed: int = 0,
) -> PairData:
    """Make pairs of sentences that look alike: half mean the same (score 1), half do not (score 0).

    Sentences with a number are taken from the texts, each for one pair. Meaning changes by one edit: a word becomes its
    opposite (increase, decrease), a year becomes its neighbour, or two digits of an amount swap places. It is kept by
    one edit or several: an article goes, "approximately" becomes "about", a clause at the start moves to the end; with
    ``synonyms`` also "prior to" becomes "before" and the like, which misleads a model that only counts words.

    Args:
        texts: Paragraphs; sentences of 8 to 60 words with a digit are used.
        num_pairs: Number of pairs, even.
        kept_edits: Most edits that keep the meaning of a sentence, at least 1.
        synonyms: Whether content words may be replaced too where the meaning is kept.
        seed: Decides sentences and edits.

    Returns:
        The pairs; ``labels`` names the edit of each, ``"changed"`` or ``"kept"``.

    Raises:
        InputError: ``num_pairs`` is odd or below 2, or the texts hold too few sentences that can be edited.
    """
    if num_pairs < 2 or num_pairs % 2:
        raise InputError(f"num_pairs={num_pairs}: must be even and at least 2")
    if kept_edits < 1:
        raise InputError(f"kept_edits={kept_edits}: must be at least 1")
    found = [sentence for text in texts for sentence in split_sentences(text)]
    usable = [s for s in dict.fromkeys(found) if 8 <= len(s.split()) <= 60 and re.search(r"\d", s)]
    rng = np.random.default_rng(seed)
    order = [usable[i] for i in rng.permutation(len(usable))]
    data = PairData([], [], [], [])
    left = {1.0: num_pairs // 2, 0.0: num_pairs // 2}
    for sentence in order:
        score = 1.0 if left[1.0] > left[0.0] else 0.0
        for wanted in (score, 1 - score):  # a sentence that one edit does not fit may take the other
            edited = _edited(sentence, wanted, kept_edits, synonyms, rng) if left[wanted] else sentence
            if edited != sentence:
                data.first.append(sentence)
                data.second.append(edited)
                data.scores.append(wanted)
                data.labels.append("kept" if wanted else "changed")
                left[wanted] -= 1
                break
        if not any(left.values()):
            return data
    raise InputError(
        f"num_pairs={num_pairs}: the texts give {len(data.first)} pairs only; give more texts or ask for fewer pairs"
    )


def change_meaning(sentence: str, rng: np.random.Generator) -> str:
    """Make one small edit after which the sentence says something else.

    Args:
        sentence: The sentence.
        rng: Draws the edit.

    Returns:
        The edited sentence; the same one if no edit fits.

    Example:
        >>> change_meaning("Sales rose a little.", np.random.default_rng(0))
        'Sales fell a little.'
    """
    return _first_that_edits(sentence, (_flip, _other_year, _swap_digits), rng)


def keep_meaning(sentence: str, rng: np.random.Generator, *, max_edits: int = 3, synonyms: bool = False) -> str:
    """Make small edits after which the sentence says the same.

    Args:
        sentence: The sentence.
        rng: Draws the edits.
        max_edits: Most edits; fewer where fewer fit.
        synonyms: Whether content words may be replaced too.

    Returns:
        The edited sentence; the same one if no edit fits.

    Example:
        >>> keep_meaning("In 2019, sales were approximately 5 million.", np.random.default_rng(0))
        'Sales were about 5 million in 2019.'
    """
    for _ in range(max_edits):
        edited = _first_that_edits(sentence, (_move_clause, _reword if synonyms else _about, _article), rng)
        if edited == sentence:
            break
        sentence = edited
    return sentence


def _edited(sentence: str, same: float, kept_edits: int, synonyms: bool, rng: np.random.Generator) -> str:
    if not same:
        return change_meaning(sentence, rng)
    return keep_meaning(sentence, rng, max_edits=kept_edits, synonyms=synonyms)


def _first_that_edits(sentence: str, edits: tuple[Edit, ...], rng: np.random.Generator) -> str:
    for place in rng.permutation(len(edits)):
        edited: str = edits[place](sentence, rng)
        if edited != sentence:
            return edited
    return sentence


def _flip(sentence: str, rng: np.random.Generator) -> str:
    words = [match for match in re.finditer(r"[A-Za-z]+", sentence) if match[0].lower() in _FLIPS]
    if not words:
        return sentence
    match = words[int(rng.integers(len(words)))]
    other = _FLIPS[match[0].lower()]
    return _put(sentence, match, other.capitalize() if match[0][0].isupper() else other)


def _other_year(sentence: str, rng: np.random.Generator) -> str:
    years = list(re.finditer(r"\b(19[89]|20[0-3])\d\b", sentence))
    if not years:
        return sentence
    match = years[int(rng.integers(len(years)))]
    return _put(sentence, match, str(int(match[0]) + (1 if rng.random() < 0.5 else -1)))


def _swap_digits(sentence: str, rng: np.random.Generator) -> str:
    numbers = [
        match
        for match in re.finditer(r"(?<![\w.])\d[\d,]*(\.\d+)?(?!\w)", sentence)
        if len(set(re.sub(r"\D", "", match[0]))) > 1 and not re.fullmatch(r"(19|20)\d\d", match[0])
    ]
    if not numbers:
        return sentence
    match = numbers[int(rng.integers(len(numbers)))]
    digits = [i for i, c in enumerate(match[0]) if c.isdigit()]
    pairs = [(i, j) for i, j in pairwise(digits) if match[0][i] != match[0][j]]
    # a number does not begin with 0
    pairs = [(i, j) for i, j in pairs if i > 0 or match[0][j] != "0"] or pairs
    i, j = pairs[int(rng.integers(len(pairs)))]
    swapped = list(match[0])
    swapped[i], swapped[j] = swapped[j], swapped[i]
    return _put(sentence, match, "".join(swapped))


def _move_clause(sentence: str, rng: np.random.Generator) -> str:
    """Move what stands before the first comma, if it begins with a preposition, to the end."""
    match = re.fullmatch(r"((?:In|During|At|As of|For|On|From)\s[^,]{2,60}),\s(.+?)([.;]?)", sentence, re.DOTALL)
    if match is None or match[2].count(",") > 2:
        return sentence
    clause, rest, stop = match.groups()
    if re.search(
        r"\b(January|February|March|April|May|June|July|August|September|October|November|December) \d", clause
    ):
        return sentence  # the comma may be the one of a date
    return f"{rest[0].upper()}{rest[1:]} {clause[0].lower()}{clause[1:]}{stop}"


def _about(sentence: str, rng: np.random.Generator) -> str:
    return re.sub(r"\bapproximately\b", "about", sentence, count=1)


def _reword(sentence: str, rng: np.random.Generator) -> str:
    phrases = [phrase for phrase in _SAME if re.search(rf"\b{phrase}\b", sentence, re.IGNORECASE)]
    if not phrases:
        return sentence
    phrase = phrases[int(rng.integers(len(phrases)))]
    match = re.search(rf"\b{phrase}\b", sentence, re.IGNORECASE)
    if match is None:
        return sentence
    same = _SAME[phrase]
    return _put(sentence, match, same.capitalize() if match[0][0].isupper() else same)


def _article(sentence: str, rng: np.random.Generator) -> str:
    """Take an article out, as headlines do."""
    articles = list(re.finditer(r"(?<=[a-z] )(the|a|an) (?=[a-z])", sentence))
    return _put(sentence, articles[int(rng.integers(len(articles)))], "") if articles else sentence


def _put(sentence: str, match: re.Match[str], text: str) -> str:
    return sentence[: match.start()] + text + sentence[match.end() :]
