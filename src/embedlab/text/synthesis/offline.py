"""Queries without a language model and without people: headings, first sentences taken out, salient phrases."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.synthesis.rules import _FUNCTION_WORDS, split_sentences

QueryKind = Literal["heading", "first_sentence", "salient"]
KINDS: tuple[QueryKind, ...] = ("heading", "first_sentence", "salient")

_TIES = _FUNCTION_WORDS | {"across", "along", "although", "among", "around", "near", "per", "since", "toward", "via"}
_SENTENCE_CHARS = (20, 300)  # a first sentence that can stand as a query
_LONGEST_PHRASE = 4  # words
_PHRASES = 2  # in one salient query
_WORD_OR_BREAK = re.compile(r"[^\W\d_][\w'’/&-]*|[^\w\s]|\n")
_STOP = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")  # where sentences of a text without capitals end


class PassageLike(Protocol):
    """Anything with a text and the headings above it, such as ``embedlab.data.Passage``."""

    @property
    def text(self) -> str:
        """The passage."""
        ...

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings above it, outermost first."""
        ...


@dataclass(frozen=True, slots=True)
class SyntheticPair:
    """A query made from a passage, with the passage that answers it.

    Attributes:
        query: The query.
        passage: The passage, without what became the query.
        kind: How the query was made; for queries of a language model the name of the prompt.
        source: Place of the passage among those given.
    """

    query: str
    passage: str
    kind: str
    source: int


@dataclass(frozen=True, slots=True)
class _Plain:
    text: str
    headings: tuple[str, ...] = ()


def offline_queries(
    passages: Sequence[PassageLike | str],
    *,
    per_passage: int = 1,
    kinds: Sequence[QueryKind] = KINDS,
    seed: int = 0,
) -> list[SyntheticPair]:
    """Make queries for passages from the passages themselves, without a network: a few thousand passages a second.

    A heading that stands above one passage only asks for it. A first sentence asks for what follows it, and leaves the
    passage, so that nothing is learnt from copied words. Salient phrases are runs of up to four content words that are
    frequent here and rare elsewhere; two of them make a query in search words. A query that several passages would
    answer is given to none.

    Args:
        passages: Passages with headings, or plain texts.
        per_passage: Most queries of one passage, at least 1; one that does not offer so many gets fewer.
        kinds: Which kinds may be used.
        seed: Decides which of the kinds that a passage offers is used first.

    Returns:
        Pairs in the order of the passages. What a passage gets does not depend on the order of the others.

    Raises:
        InputError: ``per_passage`` is below 1, or a kind is unknown.

    Example:
        >>> text = "Deferred revenue fell by a third. Customers renewed their licences late, and paid in the next year."
        >>> offline_queries([text], kinds=["first_sentence"])[0].query
        'Deferred revenue fell by a third.'
        >>> offline_queries([text], kinds=["salient"])[0].query
        'Deferred revenue fell Customers renewed'
    """
    if per_passage < 1:
        raise InputError(f"per_passage={per_passage}: must be at least 1")
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
    listed = [_Plain(each) if isinstance(each, str) else each for each in passages]
    rarity = _rarity(each.text for each in listed) if "salient" in kinds else {}
    whole = [list(_from_structure(each, kinds)) for each in listed]
    askers = Counter(query.casefold() for query, _ in {(query, rest) for offers in whole for query, rest, _ in offers})
    pairs = []
    for place, (passage, offers) in enumerate(zip(listed, whole, strict=True)):
        usable = [offer for offer in offers if askers[offer[0].casefold()] == 1]
        if "salient" in kinds:
            usable += _from_phrases(passage.text, rarity, max(per_passage - len(usable), 1))
        turn = _hash(seed, passage.text) % len(usable) if usable else 0
        for query, rest, kind in (usable[turn:] + usable[:turn])[:per_passage]:
            pairs.append(SyntheticPair(query, rest, kind, place))
    return pairs


def _from_structure(passage: PassageLike, kinds: Sequence[QueryKind]) -> Iterator[tuple[str, str, QueryKind]]:
    """Offer (query, what is left of the passage, kind) from the heading and the first sentence."""
    text = passage.text.strip()
    heading = _heading(passage.headings)
    for line in passage.headings[-1:]:  # a passage often opens with its own heading, marked or underlined
        text = re.sub(rf"\A[#=*\s]*{re.escape(line.strip())}[#=*~\s-]*", "", text) or text
    if "heading" in kinds and heading and text:
        yield heading, text, "heading"
    if "first_sentence" in kinds:
        first, rest = _first_sentence(text)
        low, high = _SENTENCE_CHARS
        if low <= len(first) <= high and len(rest) >= len(first):
            yield first, rest, "first_sentence"


def _from_phrases(text: str, rarity: Mapping[str, float], most: int) -> list[tuple[str, str, QueryKind]]:
    phrases = salient_phrases(text, rarity)
    groups = [phrases[start : start + _PHRASES] for start in range(0, most * _PHRASES, _PHRASES)]
    # in the order of the text, as a person would name them
    return [(" ".join(sorted(group, key=text.find)), text, "salient") for group in groups if group]


def salient_phrases(text: str, rarity: Mapping[str, float]) -> list[str]:
    """Find the telling phrases of a text: runs of up to four content words that share no word with a better one.

    A phrase's weight is the sum of ``(1 + log tf) * rarity`` over its n words, by ``sqrt(n)``.

    Args:
        text: The text.
        rarity: Lower-case word -> how rare it is elsewhere; a word that is missing weighs 1.

    Returns:
        Phrases as they stand in the text, the most telling first.

    Example:
        >>> salient_phrases("The heat of the boundary layer. A boundary layer grows.", {"heat": 0.5})
        ['boundary layer grows', 'heat']
    """
    runs = list(_content_runs(text))
    counts = Counter(word.lower() for run in runs for word in run)
    weight = {word: (1 + math.log(count)) * rarity.get(word, 1.0) for word, count in counts.items()}
    scored = {
        " ".join(run): sum(weight[word.lower()] for word in run) / math.sqrt(len(run)) for run in runs
    }  # the same words again weigh the same
    kept: list[str] = []
    used: set[str] = set()
    for phrase in sorted(scored, key=lambda phrase: (-scored[phrase], phrase)):
        words = set(phrase.lower().split())
        if used.isdisjoint(words):
            kept.append(phrase)
            used |= words
    return kept


def _rarity(texts: Iterator[str]) -> dict[str, float]:
    """Return log((1 + N) / df) of every content word, as in inverse document frequency."""
    seen: Counter[str] = Counter()
    count = 0
    for text in texts:
        seen.update({word.lower() for run in _content_runs(text) for word in run})
        count += 1
    return {word: math.log((1 + count) / df) for word, df in seen.items()}


def _content_runs(text: str) -> Iterator[list[str]]:
    run: list[str] = []
    for token in [*_WORD_OR_BREAK.findall(text), "\n"]:
        if token[0].isalpha() and len(token) > 1 and token.lower() not in _TIES:
            run.append(token.rstrip("-/&'’"))
            if len(run) < _LONGEST_PHRASE:
                continue
        if run:
            yield run
        run = []


def _heading(headings: Sequence[str]) -> str:
    """Return the last heading, with the one above it where it is a single word."""
    named = [" ".join(each.split()) for each in headings if any(char.isalpha() for char in each)]
    return named[-1] if named and len(named[-1].split()) > 1 else " ".join(named[-2:])


def _first_sentence(text: str) -> tuple[str, str]:
    # Some corpora are in lower case throughout: there, any full stop ends a sentence.
    sentences = _STOP.split(text, maxsplit=1) if text == text.lower() else split_sentences(text)
    return sentences[0] if sentences else "", " ".join(sentences[1:])


def _hash(seed: int, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:6], "big")
