"""Finance as seven types of task, from data on disk; and a general suite beside it to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import unknown_name
from embedlab._core.extras import require
from embedlab.data.datasets import LabelData, RetrievalData
from embedlab.evaluate import tasks as build
from embedlab.evaluate.finmteb.edits import change_meaning, number_edit_pairs
from embedlab.evaluate.finmteb.suite import DomainSuite
from embedlab.text.synthesis import split_sentences

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

Build = Callable[[int | None], "AbsTask"]  # most items, None for all -> task


def tatqa_retrieval(max_items: int | None = None) -> AbsTask:
    """Find the paragraphs of financial reports that answer a question (TAT-QA, dev part).

    Args:
        max_items: Most questions; None for all 896.

    Returns:
        The task; its main score is nDCG@10.
    """
    data = _tatqa(max_items)
    said = "Questions about financial reports, and the paragraphs that answer them."
    return build.from_corpus(data.corpus, data.queries, data.qrels, name="tatqa-retrieval", description=said)


def tatqa_reranking(max_items: int | None = None) -> AbsTask:
    """Order the paragraphs printed around the same table by how well they answer a question (TAT-QA, dev part).

    Unlike reranking against random passages, where every model is near 1, all candidates speak of the same matter.

    Args:
        max_items: Most questions with at least two candidates; None for all.

    Returns:
        The task; its main score is mean average precision.
    """
    from embedlab.data import load_tatqa_tables

    data = _tatqa(max_items)
    around = {uid: table.paragraphs for table in load_tatqa_tables() for uid in table.paragraphs}
    candidates = {query: [*around[next(iter(grades))]] for query, grades in data.qrels.items()}
    kept = {query: found for query, found in candidates.items() if len(found) > len(data.qrels[query])}
    every = {uid: text for uid, text in _tatqa(None).corpus.items() if any(uid in found for found in kept.values())}
    return build.from_reranking(
        every,
        {query: data.queries[query] for query in kept},
        {query: data.qrels[query] for query in kept},
        kept,
        name="tatqa-reranking",
        description="Paragraphs around one table of a financial report, ordered for a question.",
    )


def phrasebank_sentiment(max_items: int | None = None) -> AbsTask:
    """Tell good news from bad and neutral news for an investor (Financial PhraseBank, all annotators agree).

    Args:
        max_items: Most sentences; None for all 2264.

    Returns:
        The task; half of each class is trained on. Its main score is accuracy.
    """
    from embedlab.data import load_phrasebank

    data = _spread(load_phrasebank(), max_items)
    said = "Sentences of company news: positive, negative or neutral for an investor."
    return build.from_labels(data.texts, data.labels, name="phrasebank-sentiment", description=said)


def banking_intents(max_items: int | None = None) -> AbsTask:
    """Tell what a bank's customer wants (Banking77, test part).

    Args:
        max_items: Most test questions; None for all 3080.

    Returns:
        The task; its main score is accuracy.
    """
    from embedlab.data import load_banking77

    test = _spread(load_banking77("test"), max_items)
    train = load_banking77("train")
    wanted = set(test.labels)
    rows = [(text, label) for text, label in zip(train.texts, train.labels, strict=True) if label in wanted]
    return build.from_labels(
        test.texts,
        test.labels,
        train=([text for text, _ in rows], [label for _, label in rows]),
        name="banking-intents",
        description="Questions of a bank's customers and their 77 intents.",
    )


def banking_clusters(max_items: int | None = None) -> AbsTask:
    """Group the questions of a bank's customers by intent (Banking77, test part).

    Args:
        max_items: Most questions; None for all 3080.

    Returns:
        The task; its main score is V-measure.
    """
    from embedlab.data import load_banking77

    data = _spread(load_banking77("test"), max_items)
    said = "Questions of a bank's customers, to be grouped into 77 intents."
    return build.from_labels(data.texts, data.labels, kind="clustering", name="banking-clusters", description=said)


def sp500_sectors(max_items: int | None = None) -> AbsTask:
    """Group companies by sector, from their names and lines of business (S&P 500).

    Args:
        max_items: Most companies; None for all.

    Returns:
        The task; its main score is V-measure.
    """
    from embedlab.data import load_sp500

    table = load_sp500()
    column = {name: table.columns[place] for place, name in enumerate(table.header)}
    texts = [f"{who}, {what}" for who, what in zip(column["Security"], column["GICS Sub-Industry"], strict=True)]
    data = _spread(LabelData(texts, list(column["GICS Sector"])), max_items)
    said = "Companies with their lines of business, to be grouped into the eleven sectors."
    return build.from_labels(data.texts, data.labels, kind="clustering", name="sp500-sectors", description=said)


def number_edits(max_items: int | None = None) -> AbsTask:
    """Tell edits that change what a sentence says from edits that do not (sentences of TAT-QA, dev part).

    Args:
        max_items: Most pairs; None for 600.

    Returns:
        The task, of type STS; its main score is Spearman's correlation.
    """
    texts = [text.text for text in _tatqa(None).corpus.values()]
    pairs = number_edit_pairs(texts, num_pairs=min(600, max_items or 600) // 2 * 2)
    said = "Sentences of financial reports beside a copy with one number or direction changed, or with nothing changed."
    return build.from_scored_pairs(pairs.first, pairs.second, pairs.scores, name="number-edits", description=said)


def banking_pairs(max_items: int | None = None) -> AbsTask:
    """Tell whether two customers want the same (Banking77, test part).

    Each question is paired with another of its intent, and with the question of any other intent that shares most words
    with it.

    Args:
        max_items: Most pairs; None for 1540.

    Returns:
        The task; its main score is average precision.
    """
    from embedlab.data import load_banking77

    data = load_banking77("test")
    wanted = np.unique(data.labels, return_inverse=True)[1]
    chosen = np.linspace(0, len(wanted) - 1, min(max_items or 1540, len(wanted))).astype(np.int64)
    alike = np.where(
        wanted[chosen][:, None] == wanted, -1.0, _shared_words([data.texts[i] for i in chosen], data.texts)
    )
    first, second, same = [], [], []
    for number, place in enumerate(chosen):
        own = np.flatnonzero(wanted == wanted[place])
        after = own[(np.searchsorted(own, place) + 1) % len(own)]
        partner = after if number % 2 == 0 else alike[number].argmax()
        first.append(data.texts[place])
        second.append(data.texts[partner])
        same.append(int(wanted[partner] == wanted[place]))
    said = "Pairs of questions of a bank's customers: the same intent, or another one in much the same words."
    return build.from_labelled_pairs(first, second, same, name="banking-pairs", description=said)


def tatqa_summaries(max_items: int | None = None) -> AbsTask:
    """Tell how much of a summary is in its document (TAT-QA, dev part), as FinMTEB scores summarisation.

    Two sentences are taken from a paragraph as its summary. The score is 1 for them as they are, 0.75 with one fact
    changed, 0.5 with one sentence of another paragraph beside the same table, 0 with both of it. So the gold scores are
    made, not given by people.

    Args:
        max_items: Most pairs of document and summary; None for 600.

    Returns:
        The task, of mteb's type STS; its main score is Spearman's correlation.
    """
    from embedlab.data import load_tatqa_tables

    corpus = _tatqa(None).corpus
    rng = np.random.default_rng(0)
    documents, summaries, scores = [], [], []
    for table in load_tatqa_tables():
        parts = [(uid, split_sentences(corpus[uid].text)) for uid in table.paragraphs]
        long = [(uid, sentences) for uid, sentences in parts if len(sentences) >= 4]
        for place, (uid, own) in enumerate(long):
            other = long[place - 1][1]
            if other is own:
                continue
            mine, theirs = ([str(s) for s in rng.choice(group, size=2, replace=False)] for group in (own, other))
            changed = change_meaning(mine[0], rng)
            made = [(1.0, mine), (0.5, [mine[0], theirs[0]]), (0.0, theirs)]
            made += [(0.75, [changed, mine[1]])] * (changed != mine[0])
            for score, summary in made:
                documents.append(corpus[uid].text)
                summaries.append(" ".join(summary))
                scores.append(score)
    size = min(len(documents), max_items or 600)
    said = "Paragraphs of financial reports and summaries of which more or less is true to them."
    return build.from_document_summary_scores(
        documents[:size], summaries[:size], scores[:size], name="tatqa-summaries", description=said
    )


#: What a domain is compared with unless something else is asked for.
GENERAL = ("cranfield", "stsb", "sick-entailment", "trec", "medical-clusters")

#: The finance tasks by name.
FINANCE: Mapping[str, Build] = MappingProxyType(
    {
        "tatqa-retrieval": tatqa_retrieval,
        "tatqa-reranking": tatqa_reranking,
        "phrasebank-sentiment": phrasebank_sentiment,
        "banking-intents": banking_intents,
        "banking-clusters": banking_clusters,
        "sp500-sectors": sp500_sectors,
        "number-edits": number_edits,
        "banking-pairs": banking_pairs,
        "tatqa-summaries": tatqa_summaries,
    }
)


def finance_suite(names: Sequence[str] = tuple(FINANCE), *, max_items: int | None = None) -> DomainSuite:
    """Build the finance suite: nine tasks of all seven types of FinMTEB.

    Args:
        names: Which tasks.
        max_items: Most items a task, for a quick look; None for all.

    Returns:
        The suite.

    Raises:
        InputError: there is no such task.
        MissingDataError: a data set is not in ``EMBEDLAB_DATA``.
    """
    for name in names:
        if name not in FINANCE:
            raise unknown_name("finance task", name, FINANCE)
    types = {"tatqa-summaries": "Summarization"}
    return DomainSuite(
        "embedlab-finance",
        [FINANCE[name](max_items) for name in names],
        types={name: kind for name, kind in types.items() if name in names},
        description="Finance: reports, news and banking, from data on disk.",
    )


def general_suite(names: Sequence[str] = GENERAL) -> DomainSuite:
    """Build a general suite to compare a domain with, from the tasks of ``embedlab.evaluate.local_sets``.

    Args:
        names: Which tasks.

    Returns:
        The suite.

    Raises:
        InputError: there is no such task.
        MissingDataError: a data set is not in ``EMBEDLAB_DATA``.
    """
    from embedlab.evaluate.local_sets import local_tasks

    return DomainSuite("embedlab-general", local_tasks(names), description="General texts, from data on disk.")


def _tatqa(max_items: int | None) -> RetrievalData:
    from embedlab.data import load_tatqa

    data = load_tatqa()
    if max_items is None or max_items >= len(data.queries):
        return data
    queries = dict(list(data.queries.items())[:max_items])
    needed = {uid for query in queries for uid in data.qrels[query]}
    ids = list(data.corpus)
    last = max(place for place, uid in enumerate(ids) if uid in needed)
    corpus = {uid: data.corpus[uid] for uid in ids[: last + 1]}
    return RetrievalData(data.name, corpus, queries, {query: data.qrels[query] for query in queries})


def _spread(data: LabelData, max_items: int | None) -> LabelData:
    """Take every so many-th text of each class."""
    if max_items is None or max_items >= len(data.texts):
        return data
    order = sorted(range(len(data.texts)), key=lambda place: (data.labels[place], place))
    chosen = sorted(order[i * len(order) // max_items] for i in range(max_items))
    return LabelData([data.texts[i] for i in chosen], [data.labels[i] for i in chosen])


def _shared_words(one: Sequence[str], other: Sequence[str]) -> NDArray[np.float64]:
    """Share of words in common, for all pairs: (A, B)."""
    words = require("sklearn.feature_extraction.text", extra="evaluate").CountVectorizer(binary=True).fit(other)
    a, b = words.transform(one), words.transform(other)
    shared = (a @ b.T).toarray().astype(np.float64)
    sizes = np.asarray(a.sum(axis=1)) + np.asarray(b.sum(axis=1)).T
    found: NDArray[np.float64] = shared / np.maximum(sizes - shared, 1)
    return found
