"""The data recipe of NV-Embed: classes and scores as rows of the contrastive loss, hard negatives, and no leaks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab._core.quiet import quiet_host

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

_LOG = logging.getLogger(__name__)


def classification_to_triplets(
    texts: Sequence[str],
    labels: Sequence[Any],
    *,
    mode: Literal["example", "label"] = "example",
    num_negatives: int = 7,
    label_texts: Mapping[Any, str] | None = None,
    seed: int = 0,
) -> Dataset:
    """Turn labelled texts into rows of anchor, positive and negatives.

    ``"example"``: the positive is another text of the class, the negatives are texts of other classes; better where
    there are many classes. ``"label"``: the positive is the name of the class, the negatives are other names; for two
    classes, whose texts tell little about each other.

    Args:
        texts: N texts.
        labels: Class of each.
        mode: ``"example"`` or ``"label"``.
        num_negatives: Negatives per row, at least 1. (paper: K) Published 7. By label no more than there are other
            classes.
        label_texts: Name of each class as a text; None for the label itself, underscores as spaces.
        seed: Decides all draws.

    Returns:
        A data set with the columns ``anchor``, ``positive``, ``negative_1``, ... By example, a class with a single text
        gives no row, which is logged as a warning, but serves as a negative.

    Raises:
        InputError: fewer than two classes, different numbers of texts and labels, an unknown mode, too few texts of
            other classes for the negatives, no class with two texts, or a class without a name.

    Example:
        >>> rows = classification_to_triplets(["red", "rose", "sky"], ["r", "r", "b"], num_negatives=1)
        >>> rows["positive"][:], rows["negative_1"][:]
        (['rose', 'red'], ['sky', 'sky'])

    References:
        Lee et al. (2024), NV-Embed, arXiv:2405.17428v3, section 4.2.
    """
    if mode not in ("example", "label"):
        raise unknown_name("mode", str(mode), ("example", "label"))
    if len(texts) != len(labels):
        raise InputError(f"labels: {len(labels)} for {len(texts)} texts, expected one for each")
    if num_negatives < 1:
        raise InputError(f"num_negatives={num_negatives}: must be at least 1")
    datasets = require("datasets", extra="train")
    classes = list(dict.fromkeys(labels))
    if len(classes) < 2:
        raise InputError(f"labels: {len(classes)} different, a negative needs at least 2")
    generator = np.random.default_rng(seed)
    number = {label: place for place, label in enumerate(classes)}
    member = np.array([number[label] for label in labels])
    if mode == "label":
        names = [str(label).replace("_", " ") if label_texts is None else label_texts.get(label) for label in classes]
        if None in names:
            raise InputError(f"label_texts: no name for the class {classes[names.index(None)]!r}")
        count = min(num_negatives, len(classes) - 1)
        pool: Sequence[Any] = names
        places = np.arange(len(texts))
        positive = member
        negative = np.stack([_draw(np.delete(np.arange(len(classes)), own), count, generator) for own in member])
    else:
        pool, count = texts, num_negatives
        places, positive, negative = _other_examples(member, classes, count, generator)
    columns = {"anchor": [texts[int(i)] for i in places], "positive": [pool[i] for i in positive]}
    columns |= {f"negative_{k + 1}": [pool[i] for i in negative[:, k]] for k in range(count)}
    return datasets.Dataset.from_dict(columns)


def sts_to_pairs(
    first: Sequence[str], second: Sequence[str], scores: Sequence[float], *, min_score: float = 4.0
) -> Dataset:
    """Turn pairs that people found alike into positive pairs, both ways round.

    Args:
        first: First texts.
        second: Second texts.
        scores: How alike each pair is; larger is nearer.
        min_score: Score from which a pair is a positive one, in the unit of ``scores``. Published 4 of 5.

    Returns:
        A data set with the columns ``anchor`` and ``positive``: (a, b) and (b, a) of each pair kept, without repeats
        and without pairs of equal texts.

    Raises:
        InputError: different numbers of texts and scores, or no pair reaches ``min_score``.

    Example:
        >>> sts_to_pairs(["a cat", "a dog"], ["a kitten", "rain"], [4.6, 0.2])["anchor"][:]
        ['a cat', 'a kitten']

    References:
        Lee et al. (2024), NV-Embed, arXiv:2405.17428v3, section 4.2.
    """
    if not len(first) == len(second) == len(scores):
        raise InputError(
            f"scores: {len(scores)} for {len(first)} first and {len(second)} second texts, expected one each"
        )
    datasets = require("datasets", extra="train")
    kept = [(a, b) for a, b, score in zip(first, second, scores, strict=True) if score >= min_score and a != b]
    if not kept:
        highest = max(scores, default=float("nan"))
        raise InputError(
            f"min_score={min_score}: no pair reaches it, the highest score is {highest:g}; on another scale?"
        )
    pairs = list(dict.fromkeys(pair for a, b in kept for pair in ((a, b), (b, a))))
    return datasets.Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [b for _, b in pairs]})


def mine_hard_negatives(
    pairs: Dataset,
    teacher: SentenceTransformer,
    *,
    corpus: Sequence[str] | None = None,
    num_negatives: int = 7,
    percent: float | None = 0.95,
    batch_size: int = 64,
) -> Dataset:
    """Find each pair's hard negatives with the host's miner: the nearest texts that stay clear of the positive.

    A candidate counts if its score is at most ``percent`` of the positive's (TopK-PercPos): what the teacher finds
    nearly as good as the positive may well be one.

    Args:
        pairs: With the columns ``anchor`` and ``positive``; an anchor may occur with several positives.
        teacher: A model that knows the texts.
        corpus: Texts to choose from; None for the positives.
        num_negatives: Negatives per row, at least 1. (paper: K)
        percent: Largest share of the positive's score that a negative may have, in (0, 1]; None for no bar (plain top
            K). Published 0.95.
        batch_size: Texts encoded at once.

    Returns:
        A data set with ``anchor``, ``positive``, ``negative_1``, ...; a pair with too few negatives is left out.

    Raises:
        InputError: an option is out of range, or no pair has enough negatives.

    References:
        Moreira et al. (2024), NV-Retriever, arXiv:2407.15831v2, section 4; used by NV-Embed, arXiv:2405.17428v3.
    """
    if num_negatives < 1 or (percent is not None and not 0 < percent <= 1):
        raise InputError(
            f"num_negatives={num_negatives}, percent={percent}: expected at least 1, and in (0, 1] or None"
        )
    from sentence_transformers.util import mine_hard_negatives as mine

    with quiet_host("sentence_transformers"):
        found = mine(
            pairs.select_columns(["anchor", "positive"]),
            teacher,
            corpus=list(corpus) if corpus is not None else None,
            num_negatives=num_negatives,
            relative_margin=None if percent is None else 1 - percent,
            sampling_strategy="top",
            output_format="n-tuple",
            batch_size=batch_size,
            verbose=False,
        )
    if len(found) == 0:
        raise InputError(f"num_negatives={num_negatives}: no pair has as many below {percent} of its positive's score")
    return found


def decontaminate(
    texts: Sequence[str], evaluation_texts: Sequence[str], *, max_similarity: float = 0.8
) -> tuple[list[int], list[int]]:
    """Part training texts into those that may stay and those that occur, about word for word, in evaluation texts.

    ``similarity(t, e) = BM25(t, e) / BM25(e, e)``: how much of what makes ``e`` findable is in ``t``; 1 for a copy and
    for whatever contains one. Equal texts go in any case, also where they hold no word that counts. For rewordings see
    the cosine of ``text.synthesis.QualityFilter``.

    Args:
        texts: Training texts.
        evaluation_texts: Queries and documents that the model will be measured on.
        max_similarity: Similarity from which a text is taken for a copy, in (0, 1].

    Returns:
        Positions of the texts that stay, and of those that go, in order.

    Raises:
        InputError: ``max_similarity`` is out of range.

    Example:
        >>> decontaminate(["Paris is in France.", "It rains."], ["paris is in france", "the sky"])
        ([1], [0])

    References:
        Lee et al. (2024), NV-Embed, arXiv:2405.17428v3, appendix; the threshold is ours.
    """
    if not 0 < max_similarity <= 1:
        raise InputError(f"max_similarity={max_similarity}: must be above 0 and at most 1")
    from embedlab.models.lexical import Bm25

    known = list(dict.fromkeys(evaluation_texts))
    gone = {place for place, text in enumerate(texts) if text in set(known)}
    left = [place for place in range(len(texts)) if place not in gone]
    if known and left and any(any(map(str.isalnum, text)) for text in known):
        model = Bm25(language=None).fit(known)
        documents = model.sparse_documents(known)
        asked = (model.sparse_queries(known) > 0).astype(np.float32)  # each word once
        full = np.asarray(asked.multiply(documents).sum(1)).ravel()
        whole = documents.T.multiply(
            1 / np.where(full > 0, full, np.inf)
        ).tocsr()  # (V, E), each column's words sum to 1
        given = (model.sparse_queries([texts[place] for place in left]) > 0).astype(np.float32)
        for start in range(0, len(left), 1024):
            nearest = (given[start : start + 1024] @ whole).max(1).toarray().ravel()
            gone |= {left[start + place] for place in np.flatnonzero(nearest >= max_similarity - 1e-6)}
    return [place for place in range(len(texts)) if place not in gone], sorted(gone)


def _other_examples(
    member: np.ndarray[Any, Any], classes: list[Any], count: int, generator: np.random.Generator
) -> tuple[Any, Any, Any]:
    sizes = np.bincount(member)
    lonely = np.flatnonzero(sizes == 1)
    if len(lonely) == len(sizes):
        raise InputError('labels: no class has two texts, so none can be a positive; use mode="label"')
    if len(lonely):
        shown = ", ".join(repr(classes[place]) for place in lonely[:3])
        _LOG.warning("%d classes have a single text, which gives no row: %s", len(lonely), shown)
    fewest = len(member) - sizes[sizes > 1].max()
    if fewest < count:
        raise InputError(
            f"num_negatives={count}: the largest class leaves {fewest} texts of others; take at most as many"
        )
    places = np.flatnonzero(sizes[member] > 1)
    positive, negative = [], []
    for own in places:
        fellows = np.flatnonzero(member == member[own])
        positive.append(generator.choice(fellows[fellows != own]))
        negative.append(_draw(np.flatnonzero(member != member[own]), count, generator))
    return places, np.array(positive), np.stack(negative)


def _draw(pool: np.ndarray[Any, Any], count: int, generator: np.random.Generator) -> Any:
    return generator.choice(pool, count, replace=False)
