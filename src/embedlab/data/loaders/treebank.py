"""Dependency treebanks in CoNLL-U, the form of Universal Dependencies: words, heads and relations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from embedlab._core.errors import InputError, unknown_name
from embedlab.data.loaders.opening import open_text


@dataclass(frozen=True, slots=True)
class Tree:
    """One sentence with its dependencies.

    Args:
        words: The syntactic words.
        heads: For each word the place of its head in ``words``; its own place for a root.
        relations: For each word its relation to the head, such as ``"nsubj"``.
        tags: For each word its universal part of speech, such as ``"NOUN"``.
        spaces: For each word whether a space follows it in the text.
    """

    words: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]
    tags: tuple[str, ...]
    spaces: tuple[bool, ...]


def read_conllu(text: str, *, name: str = "text") -> Iterator[Tree]:
    """Read the sentences of a CoNLL-U file.

    Words count, ranges of words that are written as one ("1-2") and words that are not written ("8.1") do not.

    Args:
        text: Content of the file.
        name: What the messages call it.

    Yields:
        One tree a sentence, in order.

    Raises:
        InputError: a line has not ten columns, or a head is not a word of its sentence.

    Example:
        >>> line = "{}\\t{}\\t_\\t{}\\t_\\t_\\t{}\\t{}\\t_\\t_"
        >>> rows = [line.format(1, "Rain", "NOUN", 2, "nsubj"), line.format(2, "fell", "VERB", 0, "root")]
        >>> next(read_conllu("\\n".join(rows))).heads
        (1, 1)
    """
    rows: list[list[str]] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if not line.strip():
            if rows:
                yield _tree(rows, f"{name}, the sentence before line {number}")
            rows = []
        elif not line.startswith("#"):
            columns = line.split("\t")
            if len(columns) != 10:
                raise InputError(f"{name}, line {number}: CoNLL-U has 10 columns parted by tabs, got {len(columns)}")
            rows.append(columns)


def load_ewt(split: str = "dev") -> list[Tree]:
    """Load the English Web Treebank of Universal Dependencies: blogs, letters, reviews, answers.

    Args:
        split: ``"dev"``, 2,001 sentences, or ``"test"``, 2,077.

    Returns:
        The trees; CC BY-SA 4.0.

    Raises:
        InputError: there is no such split.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Silveira et al. (2014), A Gold Standard Dependency Corpus for English.
    """
    if split not in ("dev", "test"):
        raise unknown_name("split", split, ("dev", "test"))
    return list(read_conllu(open_text("ud-ewt", f"en_ewt-ud-{split}.conllu.gz"), name=f"ud-ewt {split}"))


def _tree(rows: list[list[str]], where: str) -> Tree:
    words = [row for row in rows if row[0].isdigit()]
    inside, spaceless = set(), {row[0] for row in words if "SpaceAfter=No" in row[9]}
    for row in rows:
        if "-" in row[0]:  # written as one: no space between its words, and after the last as the range says
            first, last = (int(number) for number in row[0].split("-"))
            inside |= {str(number) for number in range(first, last)}
            spaceless |= {str(last)} if "SpaceAfter=No" in row[9] else set()
    places = {row[0]: place for place, row in enumerate(words)}
    try:
        heads = tuple(place if row[6] == "0" else places[row[6]] for place, row in enumerate(words))
    except KeyError as error:
        raise InputError(f"{where}: the head {error.args[0]!r} is not one of its words") from error
    return Tree(
        words=tuple(row[1] for row in words),
        heads=heads,
        relations=tuple(row[7] for row in words),
        tags=tuple(row[3] for row in words),
        spaces=tuple(row[0] not in inside | spaceless for row in words),
    )
