"""A folder of data becomes tasks: what its files hold is seen from their names and columns."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.data.loaders.beir import load_beir, splits_of
from embedlab.evaluate import tasks
from embedlab.evaluate.folder_tables import TABLES, Table, read_table, read_text
from embedlab.evaluate.task_data import ENGLISH

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

_SPLITS = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("dev", "valid", "val", "validation", "trial"), "dev"
)
_SPLIT = re.compile(rf"(?:^|[-_.])({'|'.join(sorted(_SPLITS, key=len, reverse=True))})$", re.IGNORECASE)
_NOTES = (".md", ".txt", ".rst", ".html", ".pdf", ".py", ".json", ".yaml", ".yml", ".zip")  # suffixes, no languages
_DEEPEST = 4
_ACCEPTED = (
    "corpus.jsonl with queries.jsonl and qrels/test.tsv; tables (.csv, .tsv, .jsonl) with text and label, or sentence1 "
    "and sentence2 with score or label; parallel files such as talks.eng and talks.deu"
)


def tasks_from_folder(
    path: str | Path,
    *,
    language: str = ENGLISH,
    split: str = "test",
    on_missing: Literal["error", "drop"] = "error",
    seed: int = 0,
    taken: Iterable[str] = (),
) -> list[AbsTask]:
    """Make tasks from all the data in a folder and the folders below it.

    Recognised are test collections in BEIR's form (retrieval), tables with texts and labels (classification and
    clustering), with scored pairs (STS), with labelled pairs (pair classification), and parallel files (bitext). Files
    of one name for training and testing belong together. Files of no such kind are passed over, but a table whose
    columns make no task is an error, as it was likely meant to be one.

    Args:
        path: The folder.
        language: Language and script of the data; parallel files name their own.
        split: Which judgements of test collections; the only ones there are, if there are no such.
        on_missing: What to do with judgements of what is not there: ``"error"``, or ``"drop"``.
        seed: Decides the halves where labelled texts come without a training part.
        taken: Names that other tasks have; a task that would get one of them gets its folder's name in front.

    Returns:
        The tasks, in order of their names.

    Raises:
        InputError: there is no such folder, nothing in it makes a task, or a file is broken; the message names the
            file, the line and what to do.
        MissingDataError: a test collection is not complete.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    require("mteb", extra="evaluate")
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder")
    reader = _Reader(language, split, on_missing, seed, set(taken))
    reader.read(root)
    if not reader.found:
        files = ", ".join(sorted(item.name for item in root.iterdir())[:8]) or "nothing"
        raise InputError(f"{root}: holds {files}, which makes no task; expected are {_ACCEPTED}")
    return reader.found


class _Reader:
    """Goes through folders and gathers tasks."""

    def __init__(
        self, language: str, split: str, on_missing: Literal["error", "drop"], seed: int, names: set[str]
    ) -> None:
        self.found: list[AbsTask] = []
        self._language, self._split, self._on_missing, self._seed = language, split, on_missing, seed
        self._names = names

    def read(self, folder: Path, depth: int = 0) -> None:
        """Gather the tasks of a folder: one collection, or tables, parallel files and folders."""
        if any((folder / f"{name}.jsonl{end}").is_file() for name in ("corpus", "queries") for end in ("", ".gz")):
            self._collection(folder)
            return
        entries = sorted(item for item in folder.iterdir() if not item.name.startswith("."))
        files = [item for item in entries if item.is_file()]
        for name, parts in _tables(files, folder).items():
            self._table(name, parts)
        for name, sides in _parallel(files).items():
            self._translations(name, sides)
        if depth < _DEEPEST:
            for inner in entries:
                if inner.is_dir() and not inner.is_symlink():
                    self.read(inner, depth + 1)

    def _collection(self, folder: Path) -> None:
        splits = splits_of(folder)
        split = splits[0] if len(splits) == 1 else self._split
        data = load_beir(folder, split=split, on_missing=self._on_missing)
        if not data.queries:
            raise InputError(f"{folder / 'qrels'}: no query of {split}.tsv has a relevant document; grades above 0 are")
        name = self._free(folder.resolve().name, folder)
        self.found.append(tasks.from_corpus(data.corpus, data.queries, data.qrels, name=name, language=self._language))

    def _table(self, name: str, parts: dict[str, Path]) -> None:
        tested = next(parts[part] for part in ("test", "dev", "", "train") if part in parts)
        table = read_table(tested, languages=languages())
        columns = table.columns
        spoken = table.texts("language") if "language" in columns else None
        name = self._free(name, tested.parent)
        with _named(tested):
            if "text" in columns and "label" in columns and "first" not in columns:
                train = parts.get("train")
                self._labels(name, table, None if train in (None, tested) else train, spoken)
            elif "score" in columns:
                self.found.append(
                    tasks.from_scored_pairs(
                        table.texts("first"),
                        table.texts("second"),
                        table.numbers("score"),
                        name=name,
                        language=self._language,
                        languages=spoken,
                    )
                )
            elif "label" in columns:
                self.found.append(
                    tasks.from_labelled_pairs(
                        table.texts("first"),
                        table.texts("second"),
                        table.truths("label"),
                        name=name,
                        language=self._language,
                        languages=spoken,
                    )
                )
            elif "first" in columns:
                raise InputError(
                    f"{tested}, line 1: pairs need a third column, score or label; translations are named by their "
                    "languages, as in eng,deu"
                )
            else:
                (one, first), (other, second) = ((code, table.texts(code)) for code in columns)
                pair = languages()[one], languages()[other]
                self.found.append(tasks.from_bitext(first, second, name=name, language_pair=pair))

    def _labels(self, name: str, table: Table, train_file: Path | None, spoken: list[str] | None) -> None:
        texts, labels = table.texts("text"), table.texts("label")
        train = None
        if train_file is not None:
            trained = read_table(train_file, languages=languages())
            if not {"text", "label"} <= trained.columns.keys():
                raise InputError(f"{train_file}, line 1: expected text and label, as in {table.path.name}")
            train = (trained.texts("text"), trained.texts("label"))
        self.found.append(
            tasks.from_labels(
                texts,
                labels,
                name=name,
                train=train,
                language=self._language,
                languages=spoken,
                seed=self._seed,
            )
        )
        clusters = self._free(f"{name}-clusters", table.path.parent)
        self.found.append(
            tasks.from_labels(
                texts, labels, name=clusters, kind="clustering", language=self._language, languages=spoken
            )
        )

    def _translations(self, name: str, sides: dict[str, Path]) -> None:
        """Pair every language with English, or with the first one where there is no English."""
        pivot = next((code for code in sides if languages()[code] == ENGLISH), min(sides))
        second = _sentences(sides[pivot])
        for code, path in sides.items():
            if code == pivot:
                continue
            first = _sentences(path)
            if len(first) != len(second):
                raise InputError(
                    f"{path}: has {len(first)} lines, {sides[pivot].name} has {len(second)}; parallel files need a "
                    "translation on every line"
                )
            task = self._free(name if len(sides) == 2 else f"{name}-{code}", path.parent)
            pair = languages()[code], languages()[pivot]
            with _named(path):
                self.found.append(tasks.from_bitext(first, second, name=task, language_pair=pair))

    def _free(self, name: str, folder: Path) -> str:
        """Return a name that no task of mteb has, nor any before: with the folder's name in front, or a number."""
        from embedlab.evaluate.local_task import known_tasks

        hosted = known_tasks().get(name)
        if hosted is not None and hosted.__module__.startswith("mteb."):
            name = f"{name}-local"
        if name in self._names:
            name = f"{folder.resolve().name}-{name}"
        numbered, number = name, 2
        while numbered in self._names:
            numbered, number = f"{name}-{number}", number + 1
        self._names.add(numbered)
        return numbered


@cache
def languages() -> dict[str, str]:
    """Return the language and script, such as ``"deu-Latn"``, of every code of two or three letters."""
    folder = resources.files("mteb.languages")
    scripts = json.loads(folder.joinpath("iso_639_3_to_default_script.json").read_text(encoding="utf-8"))
    short = json.loads(folder.joinpath("iso_639_1_to_3.json").read_text(encoding="utf-8"))
    known = {code: f"{code}-{script}" for code, script in scripts.items()}
    return known | {code: known[long] for code, long in short.items() if long in known}


def _tables(files: list[Path], folder: Path) -> dict[str, dict[str, Path]]:
    """Group tables by name, and the files of one name by split; no split is the empty string."""
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files:
        plain = Path(path.name.removesuffix(".gz"))
        if plain.suffix.lower() not in TABLES:
            continue
        found = _SPLIT.search(plain.stem)
        name = plain.stem[: found.start()] if found else plain.stem
        part = _SPLITS[found[1].lower()] if found else ""
        group = groups[name or folder.resolve().name]
        if part in group:
            raise InputError(f"{path}: {group[part].name} is the same part of {name or 'the data'}; remove one")
        group[part] = path
    return dict(groups)


def _parallel(files: list[Path]) -> dict[str, dict[str, Path]]:
    """Group files that differ in their ending only, where this is a language: ``talks.eng``, ``talks.deu.txt.gz``."""
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files:
        name, _, code = path.name.removesuffix(".gz").removesuffix(".txt").rpartition(".")
        if name and code.lower() in languages() and f".{code.lower()}" not in (*TABLES, *_NOTES):
            groups[name][code.lower()] = path
    return {name: sides for name, sides in groups.items() if len(sides) > 1}


def _sentences(path: Path) -> list[str]:
    lines = [line.rstrip("\r") for line in read_text(path).removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise InputError(f"{path}, line {number}: is empty; parallel files need a sentence on every line")
    return lines


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file in front of what the builders complain about, unless it is there already."""
    try:
        yield
    except InputError as error:
        if str(path.parent) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
