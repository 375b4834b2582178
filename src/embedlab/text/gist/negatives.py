"""Which candidates a guide drops, how right it is, and how triples are mined from labelled texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.text.gist.loss import TIE
from embedlab.text.gist.store import GuideStore

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class MaskReport:
    """What a guide did to the candidates of one batch.

    Attributes:
        dropped: Block (``QP``, ``QN``, ``QQ``, ``PP``) -> fraction of its candidates that were dropped, in [0, 1].
        emptied: Fraction of anchors left without any negative; these learn nothing from the batch.
        precision: Of the dropped candidates, the fraction of the anchor's own class; NaN if none or without labels.
        recall: Of the candidates of the anchor's own class, the fraction dropped; NaN if none or without labels.
        by_block: Block -> its precision and recall; only of blocks whose labels are known.
    """

    dropped: dict[str, float]
    emptied: float
    precision: float
    recall: float
    by_block: dict[str, tuple[float, float]]


def report_masks(
    store: GuideStore,
    anchors: Sequence[str],
    positives: Sequence[str],
    *negatives: Sequence[str],
    labels: Sequence[Any] | None = None,
    negative_labels: Sequence[Sequence[Any]] | None = None,
    margin: float = 0.0,
    margin_strategy: str = "absolute",
) -> MaskReport:
    """Count which candidates of a batch the guide drops and, where classes are known, how many it drops rightly.

    Counted are the candidates that could be negatives: a text with itself, and each anchor with its own positive, are
    left out.

    Args:
        store: The guide's vectors of all texts.
        anchors: B texts (paper: q).
        positives: Their positives, row by row (paper: p).
        negatives: Any number of columns of their hard negatives, row by row (paper: n); together the block QN.
        labels: Class of each row, shared by the anchor and its positive; needed for precision and recall.
        negative_labels: Class of each negative, a column for each; without it precision and recall leave QN out.
        margin: As in ``GuidedContrastiveLoss``.
        margin_strategy: As in ``GuidedContrastiveLoss``.

    Returns:
        Fractions per block, and precision and recall over all blocks.

    Raises:
        InputError: the columns differ in length, or the store lacks a text.

    Example:
        >>> place = {"a": [0, 1], "b": [1, 4], "c": [5, 1], "d": [9, 1]}
        >>> store = GuideStore.build(lambda texts: [place[t] for t in texts], place, fingerprint="plane:1")
        >>> report_masks(store, ["a", "c"], ["b", "d"]).dropped
        {'QP': 0.0, 'QQ': 0.0, 'PP': 0.0}
    """
    columns = [anchors, positives, *negatives]
    classes = [*([labels] if labels is not None else []), *(negative_labels or ())]
    sizes = [len(given) for given in (*columns, *classes)]
    if min(sizes) < 1 or len(set(sizes)) > 1:
        raise InputError(f"columns and labels of {sizes} entries: expected the same number of each, at least 1")
    if negative_labels is not None and (labels is None or len(negative_labels) != len(negatives)):
        raise InputError(
            f"negative_labels: {len(negative_labels)} columns for {len(negatives)} of negatives, with labels "
            f"{'missing' if labels is None else 'given'}: expected a column for each, and labels"
        )
    q, p, *n = (store.vectors(column) for column in columns)  # (B, D) each
    own = np.eye(len(q), dtype=bool)
    t = np.einsum("bd,bd->b", q, p)[:, None]  # (B, 1)
    bar = t - (margin * np.abs(t) if margin_strategy == "relative" and margin else margin + TIE)
    blocks = {"QP": q @ p.T, **({"QN": q @ np.concatenate(n).T} if n else {}), "QQ": q @ q.T, "PP": p @ p.T}
    candidate = {name: np.ones_like(each, dtype=bool) if name == "QN" else ~own for name, each in blocks.items()}
    drops = {name: (cosines > bar) & candidate[name] for name, cosines in blocks.items()}
    kept = np.concatenate([candidate[name] & ~drops[name] for name in blocks], axis=1)  # (B, 3B + KB)

    counts = {}  # block -> dropped rightly, dropped, of the same class
    for name in blocks if labels is not None else ():
        if name != "QN" or negative_labels is not None:
            of_candidates = np.concatenate(list(map(np.asarray, negative_labels or ()))) if name == "QN" else labels
            same = (np.asarray(labels)[:, None] == np.asarray(of_candidates)[None, :]) & candidate[name]
            counts[name] = np.array([(drops[name] & same).sum(), drops[name].sum(), same.sum()])
    precision, recall = _rates(sum(counts.values(), np.zeros(3, dtype=int)))
    return MaskReport(
        dropped={name: float(drop.sum() / max(1, candidate[name].sum())) for name, drop in drops.items()},
        emptied=float((~kept.any(axis=1)).mean()),
        precision=precision,
        recall=recall,
        by_block={name: _rates(count) for name, count in counts.items()},
    )


def _rates(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Precision and recall from how many were dropped rightly, dropped, and to be dropped."""
    right, dropped, wanted = map(int, counts)
    return right / dropped if dropped else float("nan"), right / wanted if wanted else float("nan")


def mine_class_triplets(
    texts: Sequence[str],
    labels: Sequence[Any],
    store: GuideStore,
    *,
    top_k: int = 100,
    temperature: float = 0.05,
    negative: Literal["uniform", "least_similar"] = "uniform",
    negative_top_k: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Turn labelled texts into triples: a near text of the same class, and any text of another.

    Each distinct text is an anchor once. Its positive is drawn from its ``top_k`` nearest texts of the same class in
    the guide's eyes with probability softmax(cosine / temperature); its negative uniformly from the texts of other
    classes. A text without a fellow in its class gives no row; one that occurs again counts once, with its first label.

    Args:
        texts: N texts.
        labels: Class of each.
        store: The guide's vectors of all texts.
        top_k: How many nearest fellows may become the positive, at least 1. Published 100.
        temperature: Sharpness of the draw among them, above 0. Published 0.05.
        negative: How the negative is drawn: ``"uniform"``, or ``"least_similar"`` with probability
            softmax(-cosine / temperature).
        negative_top_k: Draw it among so many nearest texts of other classes only, at least 1; None for all of them.
        seed: Decides all draws.

    Returns:
        A data set with the columns ``anchor``, ``positive``, ``negative`` and ``label`` (the anchor's), in the order of
        the texts. Drop ``label`` before training: the trainer hands it to the loss.

    Raises:
        InputError: fewer than two classes, different numbers of texts and labels, an option out of range, or a text
            that the store lacks.
        MissingExtraError: the extra ``train`` is not installed.

    Example:
        >>> texts = ["red", "rose", "blue", "sky", "lone"]
        >>> store = GuideStore.build(lambda ts: [[len(t), 1.0] for t in ts], texts, fingerprint="length:1")
        >>> mined = mine_class_triplets(texts, ["r", "r", "b", "b", "x"], store)
        >>> mined["anchor"][:], mined["positive"][:]
        (['red', 'rose', 'blue', 'sky'], ['rose', 'red', 'sky', 'blue'])

    References:
        Solatorio (2024), arXiv:2402.16829v1, section 4.1, "MTEB classification" triples.
    """
    if len(texts) != len(labels):
        raise InputError(f"labels: {len(labels)} for {len(texts)} texts, expected one for each")
    if top_k < 1 or not temperature > 0:
        raise InputError(f"top_k={top_k}, temperature={temperature}: expected at least 1, and above 0")
    if negative not in ("uniform", "least_similar"):
        raise InputError(f"negative={negative!r}: expected 'uniform' or 'least_similar'")
    if negative_top_k is not None and negative_top_k < 1:
        raise InputError(f"negative_top_k={negative_top_k}: must be at least 1, or None for all texts of other classes")
    datasets = require("datasets", extra="train")
    generator = np.random.default_rng(seed)
    first = dict(reversed(list(zip(texts, labels, strict=True))))  # a later entry wins, so the first label stays
    distinct = list(dict.fromkeys(texts))
    if len(set(first.values())) < 2:
        raise InputError(f"labels: {len(set(first.values()))} different, a negative needs at least 2")
    vectors = store.vectors(distinct)
    number_of = {label: i for i, label in enumerate(dict.fromkeys(first[text] for text in distinct))}
    classes = np.array([number_of[first[text]] for text in distinct])
    positive = np.full(len(distinct), -1)
    negatives = np.full(len(distinct), -1)
    for number in range(len(number_of)):
        members, others = np.flatnonzero(classes == number), np.flatnonzero(classes != number)
        if len(members) > 1:
            cosines = vectors[members] @ vectors[members].T  # (M, M)
            np.fill_diagonal(cosines, -np.inf)
            positive[members] = members[_draw(_nearest(cosines, min(top_k, len(members) - 1)), temperature, generator)]
            if negative == "uniform" and negative_top_k is None:
                negatives[members] = generator.choice(others, len(members))
            else:
                cosines = vectors[members] @ vectors[others].T  # (M, O)
                allowed = _nearest(cosines, min(negative_top_k or len(others), len(others)))
                logits = np.where(np.isfinite(allowed), -cosines if negative == "least_similar" else 0.0, -np.inf)
                negatives[members] = others[_draw(logits, temperature, generator)]
    rows = np.flatnonzero(positive >= 0)
    column = {"anchor": rows, "positive": positive[rows], "negative": negatives[rows]}
    found = {name: [distinct[i] for i in places] for name, places in column.items()}
    return datasets.Dataset.from_dict({**found, "label": [first[distinct[i]] for i in rows]})


def _nearest(cosines: NDArray[np.float32], top_k: int) -> NDArray[np.float32]:
    """Leave the largest of each row, and minus infinity elsewhere."""
    if top_k >= cosines.shape[1]:
        return cosines
    lowest = np.partition(cosines, -top_k, axis=1)[:, -top_k, None]  # (M, 1)
    return np.where(cosines >= lowest, cosines, np.float32(-np.inf))


def _draw(logits: NDArray[np.floating], temperature: float, generator: np.random.Generator) -> NDArray[np.intp]:
    """Draw a column for each row with probability softmax(logit / temperature)."""
    noise = generator.gumbel(size=logits.shape)  # the largest of logit + Gumbel noise is a draw from the softmax
    drawn: NDArray[np.intp] = np.argmax(logits / temperature + noise, axis=1)
    return drawn
