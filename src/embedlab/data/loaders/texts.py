"""Running text, by the names of its parts: for training, for complexity, for language models, for long documents."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from embedlab._core.errors import unknown_name
from embedlab.data.loaders.opening import data_file, open_text

_TAGGED = re.compile(r"(\S+)/[^\s/]+")


@dataclass(frozen=True, slots=True)
class TextSet:
    """What is known about a set of running texts, and how it is read.

    Args:
        about: One line with real counts.
        read: Gives texts by the name of their part.
        licence: As stated by the source.
    """

    about: str
    read: Callable[[], Mapping[str, str]]
    licence: str = "per corpus, research"


def load_texts(name: str) -> dict[str, str]:
    """Load a set of running texts.

    Args:
        name: One of ``TEXT_SETS``, which says what each holds.

    Returns:
        Texts by the name of their part, in order.

    Raises:
        InputError: there is no such set.
        MissingDataError: its file is not in ``EMBEDLAB_DATA``.
    """
    if name not in TEXT_SETS:
        raise unknown_name("set of texts", name, TEXT_SETS)
    return dict(TEXT_SETS[name].read())


def _files(*parts: str, wanted: str = r"[^/]+\.txt", tagged: bool = False) -> dict[str, str]:
    """Read the files of an archive whose names fit; tagged text loses its tags."""
    with zipfile.ZipFile(data_file(*parts)) as archive:
        names = [name for name in sorted(archive.namelist()) if re.fullmatch(rf".*/{wanted}", name)]
        texts = {name.rsplit("/", 1)[1].removesuffix(".txt"): _decoded(archive.read(name)) for name in names}
    return {name: _TAGGED.sub(r"\1", text) if tagged else text for name, text in texts.items()}


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.removeprefix(".START").strip()  # the treebank's mark


def _parts(folder: str, **files: str) -> dict[str, str]:
    return {part: open_text(folder, file) for part, file in files.items()}


#: Sets of running texts by name.
TEXT_SETS: dict[str, TextSet] = {
    "abc": TextSet(
        "Australian news: 2 files, rural and science, 4 million characters", partial(_files, "english-text", "abc.zip")
    ),
    "brown": TextSet(
        "Brown corpus: 500 texts of 15 kinds, without their tags",
        partial(_files, "english-text", "brown.zip", wanted=r"c[a-r]\d\d", tagged=True),
    ),
    "inaugural": TextSet(
        "59 inaugural addresses of presidents of the United States",
        partial(_files, "long-speeches", "inaugural.zip"),
        "public domain",
    ),
    "shakespeare": TextSet(
        "Tiny Shakespeare: 40,000 lines of his plays",
        partial(_parts, "shakespeare", text="input.txt.gz"),
        "public domain text",
    ),
    "state-union": TextSet(
        "65 addresses on the state of the union",
        partial(_files, "long-speeches", "state_union.zip"),
        "public domain",
    ),
    "treebank": TextSet(
        "199 articles of the Wall Street Journal, raw",
        partial(_files, "english-text", "treebank.zip", wanted=r"raw/wsj_\d+"),
    ),
    "webtext": TextSet(
        "6 files of web text: forum, dialogues, reviews", partial(_files, "english-text", "webtext.zip")
    ),
    "wikitext2": TextSet(
        "WikiText-2: validation and test parts, 3,760 and 4,358 lines",
        partial(_parts, "wikitext2", validation="valid.txt.gz", test="test.txt.gz"),
        "CC BY-SA",
    ),
}
