"""The published FinMTEB sets, from the hub: nothing is fetched until they are asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import EmbedlabError, InputError, unknown_name
from embedlab._core.extras import require
from embedlab.evaluate import tasks as build
from embedlab.evaluate.finmteb.suite import DomainSuite

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

Read = Callable[[str, str, str, str], Iterable[Mapping[str, Any]]]  # path, subset, split, revision -> rows


@dataclass(frozen=True, slots=True)
class RemoteSet:
    """A published set.

    Attributes:
        type: FinMTEB's name of its type.
        path: Where it lies on the hub.
        revision: Which version of it.
        split: The part that is evaluated on; retrieval uses what is called train.
        columns: Its columns, where they are not those of the type.
    """

    type: str
    path: str
    revision: str
    split: str = "test"
    columns: tuple[str, ...] = ()


#: Sets whose layout is known, one or more of each type.
FINANCE_MTEB: Mapping[str, RemoteSet] = MappingProxyType(
    {
        "FinSTS": RemoteSet("STS", "FinanceMTEB/FinSTS", "09e270b1afe87a65dd41c6292e3c8905220bc290"),
        "FINAL": RemoteSet("STS", "FinanceMTEB/Final", "00506d0f1853ebe9fcc5112fb36a4cc4cc521695"),
        "FinQARetrieval": RemoteSet(
            "Retrieval", "FinanceMTEB/FinQA", "1d4500eefb223c2977187649928561e14108042a", "train"
        ),
        "FinanceBenchRetrieval": RemoteSet(
            "Retrieval", "FinanceMTEB/FinanceBench", "4738010357e3dda4b337abbde86d5b36c3118c8f", "train"
        ),
        "TATQARetrieval": RemoteSet(
            "Retrieval", "FinanceMTEB/TATQA", "11b15221dd850044dc2261ce633e692851c8b7e2", "train"
        ),
        "Apple10KRetrieval": RemoteSet(
            "Retrieval", "FinanceMTEB/Apple-10K-2022", "27d0b84029e5de607fc7a8e2fb2a315e9b71f570", "train"
        ),
        "FOMCClassification": RemoteSet(
            "Classification",
            "FinanceMTEB/FOMC",
            "cdaf1306a24bc5e7441c7c871343efdf4c721bc2",
            columns=("sentence", "label"),
        ),
        "PiiClustering": RemoteSet(
            "Clustering", "FinanceMTEB/synthetic_pii_finance_en", "5021671d60a324d576a7b57e4c4e13bfcf857a4d"
        ),
        "HeadlinePDDPairClassification": RemoteSet(
            "PairClassification",
            "FinanceMTEB/HeadlinePDD-PairClassification",
            "ad0150ed63940e88846659e46be5138aa0db6c85",
            columns=("sent1", "sent2", "labels"),
        ),
        "FinFactReranking": RemoteSet(
            "Reranking", "FinanceMTEB/FinFact-reranking", "70435b4984c687051ecf38b9d2686f33345dcced"
        ),
        "FINDsum": RemoteSet("Summarization", "FinanceMTEB/FINDsum", "0ca87ef0286fc1451841761a684548dc1ca36070"),
    }
)


def finance_mteb_suite(names: Sequence[str] = tuple(FINANCE_MTEB), *, read: Read | None = None) -> DomainSuite:
    """Fetch published FinMTEB sets and make a suite of them. **This uses the network.**

    The sets are made into our tasks, so that scores come with values per item; their names get the prefix ``FinMTEB-``,
    as mteb has tasks of some of these names. Licences are each set's own, several of them non-commercial.

    Args:
        names: Names of ``FINANCE_MTEB``.
        read: Another way to get the rows of ``(path, subset, split, revision)``; None asks the hub.

    Returns:
        The suite.

    Raises:
        InputError: there is no such set, or it has other columns than expected.
        EmbedlabError: the hub cannot be reached.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    for name in names:
        if name not in FINANCE_MTEB:
            raise unknown_name("FinMTEB set", name, FINANCE_MTEB)
    made = [_task(name, FINANCE_MTEB[name], read or _from_hub) for name in names]
    types = {f"FinMTEB-{name}": FINANCE_MTEB[name].type for name in names}
    return DomainSuite("embedlab-finmteb", made, types=types, description="Published sets of FinMTEB.")


def _task(name: str, known: RemoteSet, read: Read) -> AbsTask:
    called = f"FinMTEB-{name}"

    def columns(*wanted: str, split: str = known.split) -> list[list[Any]]:
        rows = list(read(known.path, "default", split, known.revision))
        missing = [column for column in wanted if not rows or column not in rows[0]]
        if missing:
            raise InputError(f"{known.path} has no column {missing[0]!r}: it is not laid out as expected")
        return [[row[column] for row in rows] for column in wanted]

    if known.type == "STS":
        first, second, scores = columns("sentence1", "sentence2", "score")
        return build.from_scored_pairs(first, second, scores, name=called)
    if known.type == "Summarization":
        texts, summaries, scores = columns("text", "summary", "score")
        return build.from_document_summary_scores(texts, summaries, scores, name=called)
    if known.type == "PairClassification":
        first, second, labels = columns(*(known.columns or ("sentence1", "sentence2", "labels")))
        return build.from_labelled_pairs(first, second, labels, name=called)
    if known.type == "Classification":
        wanted = known.columns or ("text", "label")
        texts, labels = columns(*wanted)
        train = columns(*wanted, split="train")
        return build.from_labels(texts, labels, train=(train[0], train[1]), name=called)
    if known.type == "Clustering":
        texts, labels = columns("sentences", "labels")
        flat = [text for row in texts for text in ([row] if isinstance(row, str) else row)]
        classes = [label for row in labels for label in (row if isinstance(row, list) else [row])]
        return build.from_labels(flat, classes, kind="clustering", name=called)
    if known.type == "Reranking":
        return _reranking(called, *columns("query", "positive", "negative"))
    return _retrieval(called, known, read)


def _reranking(called: str, asked: list[str], right: list[Any], wrong: list[Any]) -> AbsTask:
    corpus: dict[str, str] = {}
    queries, qrels, candidates = {}, {}, {}
    for number, (query, good, bad) in enumerate(zip(asked, right, wrong, strict=True)):
        own = {f"{number}+{i}": text for i, text in enumerate([good] if isinstance(good, str) else good)}
        rest = {f"{number}-{i}": text for i, text in enumerate([bad] if isinstance(bad, str) else bad)}
        corpus |= own | rest
        queries[str(number)] = query
        qrels[str(number)] = dict.fromkeys(own, 1)
        candidates[str(number)] = [*own, *rest]
    return build.from_reranking(corpus, queries, qrels, candidates, name=called)


def _retrieval(called: str, known: RemoteSet, read: Read) -> AbsTask:
    corpus = {str(row["_id"]): row for row in read(known.path, "corpus", "corpus", known.revision)}
    queries = {str(row["_id"]): row["text"] for row in read(known.path, "queries", "queries", known.revision)}
    qrels: dict[str, dict[str, int]] = {}
    for row in read(known.path, "default", known.split, known.revision):
        qrels.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
    judged = {query: text for query, text in queries.items() if query in qrels}
    return build.from_corpus(corpus, judged, qrels, name=called, on_missing="drop")


def _from_hub(path: str, subset: str, split: str, revision: str) -> Iterable[Mapping[str, Any]]:
    datasets: Any = require("datasets", extra="evaluate")
    try:
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(path, subset, split=split, revision=revision)
    except (OSError, ValueError) as error:
        raise EmbedlabError(
            f"{path} ({subset}, {split}) cannot be fetched from the hub: {type(error).__name__}: {error}"
        ) from error
    return rows
