"""Which documents are alike in an aspect: labels in, pairs of documents out, in folds that share no document."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.aspect_documents.names import check_aspect

Rows = NDArray[np.int64]
Negatives = Literal["labelled", "unlabelled"]

_DRAWS_PER_NEGATIVE = 20  # where nearly all pairs are alike there are few others, and the search must end


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of documents, by their place in the list of documents.

    Args:
        positives: Pairs that are alike in the aspect (P, 2), each once, the lower place first.
        negatives: Pairs that are not (M, 2), likewise.
    """

    positives: Rows
    negatives: Rows


class Relation:
    """Who is alike in one aspect, among some of the documents: they share a label and do not belong together.

    Args:
        rows: Places of the documents concerned (n,), ascending.
        labels: Labels of every document, as numbers.
        groups: Group of every document (N,): documents of one group belong together, and are no pair.
        max_label_freq: Labels that at least so many of ``rows`` carry are dropped; None keeps all.
    """

    def __init__(
        self, rows: Rows, labels: Sequence[Sequence[int]], groups: Rows, *, max_label_freq: int | None = None
    ) -> None:
        self.rows, self.groups = rows, groups
        carriers: dict[int, list[int]] = {}
        for row in rows.tolist():
            for label in labels[row]:
                carriers.setdefault(label, []).append(row)
        kept = {k: v for k, v in carriers.items() if max_label_freq is None or len(v) < max_label_freq}
        #: Places of the documents that carry each label.
        self.carriers = {label: np.array(members, np.int64) for label, members in sorted(kept.items())}
        own: list[list[int]] = [[] for _ in range(len(groups))]
        for label, members in kept.items():
            for row in members:
                own[row].append(label)
        self._labels = np.full((len(groups), max(map(len, own), default=0) or 1), -1, np.int64)
        for row, found in enumerate(own):
            self._labels[row, : len(found)] = found

    @property
    def labelled(self) -> Rows:
        """Places of the documents that carry at least one label."""
        return np.asarray(self.rows[self._labels[self.rows, 0] >= 0])

    def alike(self, first: Rows, second: Rows) -> NDArray[np.bool_]:
        """Tell for every document of one list and every one of another whether they are alike.

        Args:
            first: Places (F,).
            second: Places (S,).

        Returns:
            True where they share a label and are of different groups, (F, S).
        """
        left, right = self._labels[first], self._labels[second]
        values = np.unique(left[left >= 0])
        shares = _one_hot(left, values) @ _one_hot(right, values).T > 0
        return np.asarray(shares & ~self.together(first, second))

    def together(self, first: Rows, second: Rows) -> NDArray[np.bool_]:
        """Tell in the same way whether they are of one group, and so no candidates of each other."""
        return np.asarray(self.groups[first][:, None] == self.groups[second])

    def sample(
        self, *, max_partners: int | None, neg_ratio: float, negatives: Negatives, rng: np.random.Generator
    ) -> Pairs:
        """Draw pairs.

        Args:
            max_partners: Most partners drawn for a document and a label; None takes all.
            neg_ratio: Negatives for each positive.
            negatives: ``"labelled"`` draws them among documents with a label; ``"unlabelled"`` wants at least one of
                the two to have none, as the official code does.
            rng: Source of chance.

        Returns:
            The pairs; fewer negatives than asked for where nearly all pairs are alike.
        """
        drawn = [self._partners(members, max_partners, rng) for members in self.carriers.values()]
        pairs = np.concatenate([np.empty((0, 2), np.int64), *drawn])
        pairs = pairs[self.groups[pairs[:, 0]] != self.groups[pairs[:, 1]]]
        positives = np.unique(np.sort(pairs, axis=1), axis=0)
        return Pairs(positives, self._negatives(int(neg_ratio * len(positives)), negatives, rng))

    @staticmethod
    def _partners(members: Rows, most: int | None, rng: np.random.Generator) -> Rows:
        count = len(members)
        if most is None or count - 1 <= most:
            first, second = np.triu_indices(count, 1)
            return np.stack([members[first], members[second]], axis=1)
        # a number below count - 1, moved by one from the own place on, is a partner other than oneself
        steps = np.stack([rng.choice(count - 1, most, replace=False) for _ in range(count)])
        steps += steps >= np.arange(count)[:, None]
        return np.stack([np.repeat(members, most), members[steps.ravel()]], axis=1)

    def _negatives(self, wanted: int, rule: Negatives, rng: np.random.Generator) -> Rows:
        pool = self.labelled if rule == "labelled" else self.rows
        found: dict[tuple[int, int], None] = {}
        for _ in range(_DRAWS_PER_NEGATIVE):
            if len(found) >= wanted or len(pool) < 2:
                break
            draws = np.sort(rng.choice(pool, (wanted, 2)), axis=1)
            left, right = self._labels[draws[:, 0]], self._labels[draws[:, 1]]
            same = ((left[:, :, None] == right[:, None, :]) & (left[:, :, None] >= 0)).any(axis=(1, 2))
            fits = ~same & (self.groups[draws[:, 0]] != self.groups[draws[:, 1]])
            if rule == "unlabelled":
                fits &= (left[:, 0] < 0) | (right[:, 0] < 0)
            found.update(dict.fromkeys((int(a), int(b)) for a, b in draws[fits]))
        return np.array(list(found)[:wanted], np.int64).reshape(-1, 2)


class AspectPairs:
    """Documents with their labels in each aspect, and the pairs that follow from them.

    Two documents are a positive pair of an aspect if they share a label of it. Folds are made of documents, so that
    training and test pairs share none; a document's group (such as its source) lies in one fold as a whole, and two
    documents of one group are never a pair: that they are alike teaches nothing.

    Use ``from_labels`` or ``from_examples``.

    Args:
        docs: Texts of the documents.
        ids: Their ids, for messages.
        labels: For each aspect the labels of every document.
        groups: Group of every document, or None if each stands alone.
        max_label_freq: A label on at least so many documents of a split is dropped: it says too little. None keeps all.
        neg_ratio: Negative pairs for each positive pair.
        max_partners: Most partners drawn for a document and a label; None takes all.
        negatives: Where negatives are drawn: among ``"labelled"`` documents, or by the official rule, ``"unlabelled"``.
        folds: Number of folds.
        seed: Decides folds and draws.

    Raises:
        InputError: an argument is out of range, lengths differ, or a document has no text.
    """

    def __init__(
        self,
        docs: Sequence[str],
        *,
        ids: Sequence[str],
        labels: Mapping[str, Sequence[Collection[str]]],
        groups: Sequence[str] | None,
        max_label_freq: int | None,
        neg_ratio: float,
        max_partners: int | None,
        negatives: Negatives,
        folds: int,
        seed: int,
    ) -> None:
        _check(max_label_freq, neg_ratio, max_partners, negatives, folds)
        self.docs, self.ids = list(docs), list(ids)
        for name, given in (
            ("ids", ids),
            ("groups", groups or ids),
            *((f"labels of {a!r}", x) for a, x in labels.items()),
        ):
            if len(given) != len(docs):
                raise InputError(f"{name}: {len(given)} for {len(docs)} documents; give one for each")
        for key, text in zip(self.ids, self.docs, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"document {key!r} has no text: leave it out, since nothing can be learnt from it")
        self.groups = np.unique(np.array(list(groups or ids)), return_inverse=True)[1].astype(np.int64)
        self._labels = {check_aspect(aspect): _numbered(aspect, given) for aspect, given in labels.items()}
        self._settings = {"max_partners": max_partners, "neg_ratio": neg_ratio, "negatives": negatives}
        self.max_label_freq, self.num_folds, self.seed = max_label_freq, folds, seed
        order = np.random.default_rng(seed).permutation(int(self.groups.max(initial=-1)) + 1)
        self.folds = (order % folds)[self.groups]

    @classmethod
    def from_labels(
        cls,
        docs: Sequence[str],
        labels: Mapping[str, Sequence[Collection[str]]],
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        max_label_freq: int | None = 100,
        neg_ratio: float = 0.5,
        max_partners: int | None = None,
        negatives: Negatives = "labelled",
        folds: int = 4,
        seed: int = 0,
    ) -> AspectPairs:
        """Make pairs from labels.

        Args:
            docs: Texts of the documents.
            labels: For each aspect one collection of labels per document, empty where nothing is known.
            ids: Ids of the documents; None numbers them.
            groups: Group of each document, such as its source; None takes each for itself.
            max_label_freq: Labels on at least so many documents of a split are dropped; None keeps all.
            neg_ratio: Negative pairs for each positive pair.
            max_partners: Most partners drawn for a document and a label; None takes all.
            negatives: ``"labelled"`` or ``"unlabelled"``.
            folds: Number of folds, at least 2.
            seed: Decides folds and draws.

        Returns:
            The pairs.

        Raises:
            InputError: as for the class.

        Example:
            >>> colours = [{"red"}, {"red", "blue"}, {"blue"}, {"green"}]
            >>> pairs = AspectPairs.from_labels(["a", "b", "c", "d"], {"colour": colours}, folds=2)
            >>> pairs.sample("colour").positives.tolist()
            [[0, 1], [1, 2]]
        """
        return cls(
            docs,
            ids=_ids(docs, ids),
            labels=labels,
            groups=groups,
            max_label_freq=max_label_freq,
            neg_ratio=neg_ratio,
            max_partners=max_partners,
            negatives=negatives,
            folds=folds,
            seed=seed,
        )

    @classmethod
    def from_examples(
        cls,
        docs: Sequence[str],
        examples: Mapping[str, Sequence[tuple[int, int]]],
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        neg_ratio: float = 0.5,
        folds: int = 4,
        seed: int = 0,
    ) -> AspectPairs:
        """Make pairs from examples of documents that are alike; nothing else is taken to be alike.

        Args:
            docs: Texts of the documents.
            examples: For each aspect pairs of places in ``docs``.
            ids: Ids of the documents; None numbers them.
            groups: Group of each document; None takes each for itself.
            neg_ratio: Negative pairs for each positive pair.
            folds: Number of folds, at least 2.
            seed: Decides folds and draws.

        Returns:
            The pairs.

        Raises:
            InputError: as for the class, or a place is none of a document.
        """
        labels: dict[str, list[set[str]]] = {}
        for aspect, given in examples.items():
            own = labels[aspect] = [set[str]() for _ in docs]
            for number, pair in enumerate(given):
                for place in pair:  # every example is a label of its own, on two documents
                    if not 0 <= place < len(docs):
                        raise InputError(f"examples of {aspect!r}: place {place} is none of {len(docs)} documents")
                    own[place].add(f"pair {number}")
        return cls.from_labels(
            docs, labels, ids=ids, groups=groups, max_label_freq=None, neg_ratio=neg_ratio, folds=folds, seed=seed
        )

    @property
    def aspects(self) -> tuple[str, ...]:
        """Names of the aspects."""
        return tuple(self._labels)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.docs)

    def rows(self, fold: int | None = None, *, test: bool = False) -> Rows:
        """Return the places of the documents of a split.

        Args:
            fold: The fold that is held out; None takes all documents.
            test: Return the documents of the fold instead of those of the others.

        Returns:
            Places (n,), ascending.
        """
        if fold is None:
            return np.arange(len(self), dtype=np.int64)
        if not 0 <= fold < self.num_folds:
            raise InputError(f"fold={fold}: must be from 0 to {self.num_folds - 1}")
        return np.flatnonzero((self.folds == fold) == test)

    def relation(self, aspect: str, rows: Rows | None = None) -> Relation:
        """Return who is alike in an aspect.

        Args:
            aspect: Its name.
            rows: Places of the documents concerned; None for all. The cut by frequency counts these alone.

        Returns:
            The relation.

        Raises:
            InputError: the aspect is not known.
        """
        if aspect not in self._labels:
            raise unknown_name("aspect", aspect, self._labels)
        chosen = self.rows() if rows is None else np.sort(rows)
        return Relation(chosen, self._labels[aspect], self.groups, max_label_freq=self.max_label_freq)

    def sample(self, aspect: str, rows: Rows | None = None) -> Pairs:
        """Return the pairs of an aspect; the same ones whenever it is asked for them.

        Args:
            aspect: Its name.
            rows: Places of the documents that may be in them; None for all.

        Returns:
            The pairs.

        Raises:
            InputError: the aspect is not known, or has no positive pair.
        """
        relation = self.relation(aspect, rows)
        pairs = relation.sample(rng=np.random.default_rng(self.seed), **self._settings)  # type: ignore[arg-type]
        if not len(pairs.positives):
            cut = f" carried by fewer than {self.max_label_freq} of them" if self.max_label_freq is not None else ""
            raise InputError(
                f"aspect {aspect!r} has no positive pair among {len(relation.rows)} documents: two of different groups "
                f"must share a label{cut}; give more labels, or leave the aspect out"
            )
        return pairs


def _one_hot(labels: Rows, values: Rows) -> NDArray[np.float32]:
    """Places of labels (N, m) among sorted values (V,), as ones in (N, V)."""
    hot = np.zeros((len(labels), len(values) + 1), np.float32)
    at = np.minimum(np.searchsorted(values, labels), len(values) - 1) if len(values) else np.zeros_like(labels)
    known = (values[at] == labels) if len(values) else np.zeros(labels.shape, np.bool_)
    np.put_along_axis(hot, np.where(known, at, len(values)), 1.0, axis=1)
    return hot[:, :-1]


def _numbered(aspect: str, given: Sequence[Collection[str]]) -> list[list[int]]:
    for own in given:
        if isinstance(own, str):
            raise InputError(f"labels of {aspect!r}: {own!r:.60} is a text; give a collection of labels per document")
    numbers = {name: number for number, name in enumerate(sorted({str(x) for own in given for x in own}))}
    return [sorted({numbers[str(name)] for name in own}) for own in given]


def _ids(docs: Sequence[str], ids: Sequence[str] | None) -> Sequence[str]:
    return [str(place) for place in range(len(docs))] if ids is None else ids


def _check(max_label_freq: int | None, neg_ratio: float, max_partners: int | None, negatives: str, folds: int) -> None:
    if max_label_freq is not None and max_label_freq < 3:
        raise InputError(f"max_label_freq={max_label_freq}: must be at least 3 (2 documents make a pair), or None")
    if not neg_ratio >= 0:
        raise InputError(f"neg_ratio={neg_ratio}: must be 0 or more")
    if max_partners is not None and max_partners < 1:
        raise InputError(f"max_partners={max_partners}: must be at least 1, or None for all")
    if negatives not in get_args(Negatives):
        raise unknown_name("rule for negatives", negatives, get_args(Negatives))
    if folds < 2:
        raise InputError(f"folds={folds}: must be at least 2, one to learn from and one to test on")
