"""Named tasks on the data sets of ``EMBEDLAB_DATA``: what ``embedlab evaluate --tasks`` knows without a network."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from embedlab._core.errors import InputError, unknown_name
from embedlab.data.datasets import LabelData, RetrievalData, Text
from embedlab.data.loaders.labels import LABEL_SETS, load_labels
from embedlab.data.loaders.packages import load_debian_packages
from embedlab.data.loaders.pairs import PAIR_SETS, TATOEBA_LANGUAGES, load_pairs, load_sick, load_tatoeba
from embedlab.data.loaders.records import load_qmsum
from embedlab.data.loaders.retrieval import load_cacm, load_cranfield, load_scifact
from embedlab.evaluate import tasks
from embedlab.evaluate.task_data import ENGLISH

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

#: Most texts of a set that came without a test part, drawn by class; mteb tests classifiers on 2,048 texts as well.
MAX_TEXTS = 4096
_SEED = 0


@dataclass(frozen=True, slots=True)
class LocalSet:
    """A task that can be made offline.

    Args:
        type: mteb's name of the task type.
        about: One line: what it is, with counts.
        languages: Languages with their scripts.
        licence: Of the data, as its source states it.
        make: Makes the task of a given name and description.
    """

    type: str
    about: str
    languages: tuple[str, ...]
    licence: str
    make: Callable[[str, str], AbsTask]


def local_tasks(names: Iterable[str], *, without: Collection[str] = ()) -> list[AbsTask]:
    """Make tasks by name.

    Args:
        names: Names of ``LOCAL``, such as ``"scifact"``, ``"stsb"`` or ``"tatoeba:deu"``, and of ``GROUPS``, such as
            ``"sts"`` or ``"all"``.
        without: Names of tasks to leave out, such as were made already.

    Returns:
        The tasks, each once, in the order of the names; their description gives the licence of the data.

    Raises:
        InputError: a name is not known; the message suggests the nearest.
        MissingDataError: the data are not in ``EMBEDLAB_DATA``.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    return [_made(name) for name in expand(names) if name not in without]


def expand(names: Iterable[str]) -> list[str]:
    """Replace groups by their members, and the colon of ``"tatoeba:deu"`` by the hyphen of the task's name.

    Args:
        names: Names of ``LOCAL`` and of ``GROUPS``.

    Returns:
        Names of ``LOCAL``, each once, in order.

    Raises:
        InputError: a name is not known.

    Example:
        >>> expand(["tatoeba:deu", "pairs", "tatoeba-deu"])
        ['tatoeba-deu', 'sick-entailment']
    """
    chosen: dict[str, None] = {}
    for name in names:
        known = name.strip().lower().replace(":", "-")
        if known in GROUPS:
            chosen.update(dict.fromkeys(GROUPS[known]))
        elif known in LOCAL:
            chosen[known] = None
        else:
            raise unknown_name("task", name, [*LOCAL, *GROUPS])
    return list(chosen)


def is_local_name(name: str) -> bool:
    """Tell whether ``local_tasks`` knows a name."""
    known = name.strip().lower().replace(":", "-")
    return known in LOCAL or known in GROUPS


def load_debian_retrieval(*, num_documents: int = 10_000, num_queries: int = 1_000, seed: int = _SEED) -> RetrievalData:
    """Make a test collection of package descriptions: a one-line description should find the long one.

    Packages that share a long description count as one document, found by each of its one-line descriptions.

    Args:
        num_documents: How many long descriptions are drawn.
        num_queries: How many one-line descriptions are drawn.
        seed: Decides both.

    Returns:
        The collection.

    Raises:
        InputError: a number is below 1.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.
    """
    if num_documents < 1 or num_queries < 1:
        raise InputError(f"num_documents={num_documents}, num_queries={num_queries}: both must be at least 1")
    by_text: dict[str, tuple[str, set[str]]] = {}  # long description -> first package, one-line descriptions
    for package in load_debian_packages():
        text = " ".join(package.long.split())
        if text and package.short.strip():
            by_text.setdefault(text, (package.name, set()))[1].add(package.short.strip())
    rng = random.Random(seed)
    texts = rng.sample(sorted(by_text), min(num_documents, len(by_text)))
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)  # one-line description -> documents
    for text in texts:
        name, lines = by_text[text]
        for line in lines:
            found[line][name] = 1
    lines_asked = rng.sample(sorted(found), min(num_queries, len(found)))
    queries = {f"q{number}": line for number, line in enumerate(lines_asked)}
    return RetrievalData(
        "debian",
        {by_text[text][0]: Text("", text) for text in texts},
        queries,
        {key: found[line] for key, line in queries.items()},
    )


def sample_by_class(data: LabelData, *, size: int = MAX_TEXTS, seed: int = _SEED) -> LabelData:
    """Draw texts so that every class keeps its share, and at least two texts of those it has.

    Args:
        data: Labelled texts.
        size: About how many to keep; data with no more than that are returned as they are.
        seed: Decides which.

    Returns:
        The sample, in the order of the data.
    """
    if len(data.texts) <= size:
        return data
    places = defaultdict(list)
    for place, label in enumerate(data.labels):
        places[label].append(place)
    rng = random.Random(seed)
    share = size / len(data.texts)
    kept = sorted(
        place
        for label in sorted(places)
        for place in rng.sample(places[label], min(len(places[label]), max(2, round(share * len(places[label])))))
    )
    return LabelData([data.texts[place] for place in kept], [data.labels[place] for place in kept])


def _made(name: str) -> AbsTask:
    known = LOCAL[name]
    return known.make(name, f"{known.about}. Licence of the data: {known.licence}.")


def _retrieval(name: str, description: str, *, load: Callable[[], RetrievalData]) -> AbsTask:
    data = load()
    return tasks.from_corpus(data.corpus, data.queries, data.qrels, name=name, description=description)


def _similarity(name: str, description: str, *, of: str) -> AbsTask:
    data = load_sick() if of == "sick" else load_pairs(of)
    language = ENGLISH if of == "sick" else PAIR_SETS[of].language
    return tasks.from_scored_pairs(
        data.first, data.second, data.scores, name=name, description=description, language=language
    )


def _entailment(name: str, description: str) -> AbsTask:
    data = load_sick()
    matches = [label == "ENTAILMENT" for label in data.labels]
    return tasks.from_labelled_pairs(data.first, data.second, matches, name=name, description=description)


def _labelled(name: str, description: str, *, of: str, kind: Literal["classification", "clustering"]) -> AbsTask:
    known = LABEL_SETS[of]
    data = _not_empty(load_labels(of))
    whole = "all" in known.splits or kind == "clustering"
    train = None if whole else _not_empty(load_labels(of, "train"))
    if whole:
        data = sample_by_class(_distinct(data))
    return tasks.from_labels(
        data.texts,
        data.labels,
        name=name,
        kind=kind,
        train=None if train is None else (train.texts, train.labels),
        description=description,
        language=known.language,
    )


def _not_empty(data: LabelData) -> LabelData:
    rows = [(text, label) for text, label in zip(data.texts, data.labels, strict=True) if text.strip()]
    return LabelData([text for text, _ in rows], [label for _, label in rows])


def _distinct(data: LabelData) -> LabelData:
    """Keep the first of equal texts: where we part a set ourselves, none may be on both sides."""
    first: dict[str, str] = {}
    for text, label in zip(data.texts, data.labels, strict=True):
        first.setdefault(text, label)
    return LabelData(list(first), list(first.values()))


def _translations(name: str, description: str, *, language: str) -> AbsTask:
    data = load_tatoeba(language)
    return tasks.from_bitext(data.first, data.second, name=name, language_pair=data.languages, description=description)


def _labelled_sets(kind: Literal["classification", "clustering"], names: Mapping[str, str]) -> dict[str, LocalSet]:
    return {
        name: LocalSet(
            kind.capitalize(),
            LABEL_SETS[of].about,
            (LABEL_SETS[of].language,),
            LABEL_SETS[of].licence,
            partial(_labelled, of=of, kind=kind),
        )
        for name, of in names.items()
    }


def _all_sets() -> dict[str, LocalSet]:
    english = (ENGLISH,)
    collections: Sequence[tuple[str, str, str, Callable[[], RetrievalData]]] = (
        ("scifact", "SciFact: 300 scientific claims, 5,183 abstracts", "CC BY-NC 2.0", load_scifact),
        ("cranfield", "Cranfield: 225 questions on aerodynamics, 1,400 abstracts", "not stated", load_cranfield),
        ("cacm", "CACM: 52 questions on computing, 3,204 titles and abstracts", "research", load_cacm),
        (
            "debian",
            "Debian: 1,000 one-line descriptions of packages, 10,000 long ones",
            "each package's own, free",
            load_debian_retrieval,
        ),
        ("qmsum", "QMSum: 244 questions on meetings, 35 long meetings", "MIT", load_qmsum),
    )
    sets = {
        name: LocalSet("Retrieval", about, english, licence, partial(_retrieval, load=load))
        for name, about, licence, load in collections
    }
    sets |= {
        name: LocalSet("STS", known.about, (known.language,), known.licence, partial(_similarity, of=name))
        for name, known in PAIR_SETS.items()
    }
    sick = "SICK: 4,927 pairs of sentences"
    sets["sick"] = LocalSet(
        "STS", f"{sick} with relatedness", english, "CC BY-NC-SA 3.0", partial(_similarity, of="sick")
    )
    sets["sick-entailment"] = LocalSet(
        "PairClassification", f"{sick}, 1,414 of entailment", english, "CC BY-NC-SA 3.0", _entailment
    )
    grouped = {
        "agnews-clusters": "agnews",
        "banking77-clusters": "banking77",
        "biomedical": "biomedical-titles",
        "medical-clusters": "medical-abstracts",
        "stackoverflow": "stackoverflow-titles",
    }
    classified = {of: of for of in LABEL_SETS if of not in ("biomedical-titles", "stackoverflow-titles")}
    classified["medical"] = classified.pop("medical-abstracts")
    sets |= _labelled_sets("classification", classified) | _labelled_sets("clustering", grouped)
    for language, script in TATOEBA_LANGUAGES.items():
        sets[f"tatoeba-{language}"] = LocalSet(
            "BitextMining",
            f"Tatoeba: 1,000 sentences in {language} with English translations",
            (f"{language}-{script}", ENGLISH),
            "CC BY 2.0 FR",
            partial(_translations, language=language),
        )
    return sets


#: Tasks by name.
LOCAL: dict[str, LocalSet] = _all_sets()

_TYPES = {
    "retrieval": "Retrieval",
    "sts": "STS",
    "pairs": "PairClassification",
    "classification": "Classification",
    "clustering": "Clustering",
    "bitext": "BitextMining",
}

#: Names that stand for several tasks.
GROUPS: dict[str, tuple[str, ...]] = {
    **{group: tuple(name for name, known in LOCAL.items() if known.type == kind) for group, kind in _TYPES.items()},
    "tatoeba": tuple(name for name in LOCAL if name.startswith("tatoeba-")),
    "semeval": tuple(f"sts{year}" for year in range(12, 17)),
    "english": tuple(name for name, known in LOCAL.items() if known.languages == (ENGLISH,)),
    "marathi": tuple(name for name, known in LOCAL.items() if "mar-Deva" in known.languages),
    "quick": ("cranfield", "stsb", "sick-entailment", "trec", "medical-clusters", "tatoeba-deu"),
    "all": tuple(LOCAL),
}
