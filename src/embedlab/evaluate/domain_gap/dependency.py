"""Mean dependency distance: how far words stand from the words they depend on, by any parser."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from embedlab._core.errors import InputError, MissingDataError
from embedlab._core.extras import require
from embedlab.data.loaders import Tree, read_conllu
from embedlab.evaluate.domain_gap.readability import sentences

PARSER_FOLDER = Path(__file__).with_name("parser")
_MAX_WORDS = 120  # longer "sentences" are lists and tables: their arcs say how long the list is


class Parser(Protocol):
    """Anything that gives the dependencies of a text.

    Attributes:
        name: What the report calls it.
    """

    name: str

    def parse(self, texts: Sequence[str]) -> Iterable[Sequence[Tree]]:
        """Return the sentences of each text, as trees: head places, own place for a root."""
        ...


@dataclass(frozen=True, slots=True)
class Distance:
    """Dependency distances of one text or many, added up.

    Attributes:
        total: Sum of the distances.
        arcs: Their number.
    """

    total: int
    arcs: int

    @property
    def mean(self) -> float:
        """Mean dependency distance, at least 1; NaN without an arc."""
        return self.total / self.arcs if self.arcs else math.nan


def dependency_distance(trees: Iterable[Tree], *, punctuation: bool = False) -> Distance:
    """Add up ``|place of the head - place of the word|`` over the words of some sentences; roots have no head.

    Args:
        trees: The sentences; all of a text for the text's value.
        punctuation: Count the arcs of punctuation marks. Without them the marks still hold their places.

    Returns:
        The sum and the number of arcs, so that sentences, texts and data sets pool exactly.

    Example:
        >>> tree = Tree(("She", "quickly", "left", "."), (2, 2, 2, 2), ("nsubj", "advmod", "root", "punct"), (), ())
        >>> dependency_distance([tree]).mean, dependency_distance([tree], punctuation=True).arcs
        (1.5, 3)
    """
    total = arcs = 0
    for tree in trees:
        for place, (head, relation) in enumerate(zip(tree.heads, tree.relations, strict=True)):
            if head != place and (punctuation or relation != "punct"):
                total += abs(head - place)
                arcs += 1
    return Distance(total, arcs)


class SpacyParser:
    """Parse English with a spaCy pipeline, by default the small parser that comes with this package.

    The default was trained on 2,001 sentences of the English Web Treebank and is right about seven heads in ten or
    better (its card in ``parser/README.md`` has the figure): enough to compare data sets that are parsed alike, not to
    study a sentence. Its errors grow with the length of sentences. Texts are cut into sentences by ``sentences``.

    Args:
        pipeline: A loaded spaCy pipeline with a parser, such as ``spacy.load("en_core_web_sm")``; None for the default.
        name: What the report calls it; None for the pipeline's own name.

    Raises:
        InputError: the pipeline has no dependency parser.
        MissingDataError: the default parser is not in the package.
        MissingExtraError: spaCy is not installed.
    """

    def __init__(self, pipeline: Any = None, *, name: str | None = None) -> None:
        self._pipeline = _default_pipeline() if pipeline is None else pipeline
        if not self._pipeline.has_pipe("parser"):
            raise InputError(f"pipeline has no 'parser', only {', '.join(self._pipeline.pipe_names) or 'nothing'}")
        meta = self._pipeline.meta
        self.name = name or f"{meta['lang']}_{meta['name']} {meta['version']}"

    def parse(self, texts: Sequence[str]) -> Iterator[list[Tree]]:
        """Parse texts.

        Args:
            texts: The texts.

        Yields:
            The trees of each text, one per sentence; sentences of more than 120 words are left out.
        """
        cut = [[" ".join(sentence.split()) for sentence in sentences(text)] for text in texts]
        documents = self._pipeline.pipe((sentence for each in cut for sentence in each), batch_size=64)
        for each in cut:
            yield [tree for _ in each for tree in self._trees(next(documents))]

    @staticmethod
    def _trees(document: Any) -> Iterator[Tree]:
        for sentence in document.sents:
            if len(sentence) <= _MAX_WORDS:
                yield Tree(
                    words=tuple(token.text for token in sentence),
                    heads=tuple(token.head.i - sentence.start for token in sentence),
                    relations=tuple("punct" if token.is_punct else token.dep_ for token in sentence),
                    tags=tuple(token.pos_ for token in sentence),
                    spaces=tuple(bool(token.whitespace_) for token in sentence),
                )


class ConlluParses:
    """Parses made elsewhere: CoNLL-U files, one per data set, with the texts parted by ``# newdoc``.

    Args:
        parses: Text -> its sentences in CoNLL-U.
        name: What the report calls them.
    """

    def __init__(self, parses: dict[str, str], *, name: str = "given parses") -> None:
        self._parses = parses
        self.name = name

    def parse(self, texts: Sequence[str]) -> Iterator[list[Tree]]:
        """Look the parses up.

        Args:
            texts: The texts.

        Yields:
            The trees of each text.

        Raises:
            InputError: a text has no parse.
        """
        for text in texts:
            if text not in self._parses:
                raise InputError(f"texts: no parse is given for {text[:60]!r}: parse all texts or use SpacyParser()")
            yield list(read_conllu(self._parses[text], name=f"the parse of {text[:40]!r}"))


@cache
def _default_pipeline() -> Any:
    spacy = require("spacy", extra="evaluate")
    if not (PARSER_FOLDER / "config.cfg").is_file():
        raise MissingDataError(
            f"{PARSER_FOLDER} holds no parser: remake it with `python -m embedlab.evaluate.domain_gap.parser_recipe`,"
            " or give SpacyParser a pipeline of your own"
        )
    return spacy.load(PARSER_FOLDER)
