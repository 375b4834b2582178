"""The anchors: which items, in which order, and the fingerprint that keeps two lists from being mixed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.understand.relative import choosing
from embedlab.understand.relative.rows import Floats, keys, list_hash, matrix, text_keys

if TYPE_CHECKING:
    from embedlab.understand.relative.choosing import Strategy


@dataclass(frozen=True, slots=True, eq=False)
class AnchorSet:
    """A fixed list of anchor items. Coordinate i of every relative vector means similarity to anchor i.

    Two encoders speak the same coordinates only if their anchors are the same items in the same order, so the list
    carries a fingerprint, and everything here that joins two spaces refuses different ones.

    Attributes:
        hash: Fingerprint of the items and their order; both sides of parallel anchors share one.
        indices: Row of each anchor in the data they were chosen from, (K,).
        num_items: Rows of those data.
        texts: The anchors as texts, (K,); empty if they were chosen from vectors.
        labels: Class of each anchor where classes were given, (K,); else empty.

    Example:
        >>> corpus = ["a cat", "a dog", "a bird", "a fish"]
        >>> anchors = AnchorSet.select(corpus, 2, seed=1)
        >>> anchors.texts, len(anchors)
        (('a bird', 'a fish'), 2)
        >>> anchors.hash == AnchorSet.select(corpus[::-1], 2, seed=1).hash  # the order of the corpus does not matter
        True
    """

    hash: str
    indices: NDArray[np.intp]
    num_items: int
    texts: tuple[str, ...] = ()
    labels: tuple[Hashable, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    @classmethod
    def select(
        cls,
        data: Sequence[str] | ArrayLike,
        k: int,
        *,
        strategy: Strategy = "uniform",
        labels: Sequence[Hashable] | None = None,
        counts: ArrayLike | None = None,
        num_frequent: int | None = None,
        vectors: ArrayLike | None = None,
        seed: int = 0,
    ) -> AnchorSet:
        """Choose anchors from data.

        What decides is a keyed hash of each item, so the same items give the same anchors in any order of the data,
        and from texts for every encoder. Equal items count once, also texts whose ``vectors`` are equal (as of those
        that differ in punctuation alone); zero rows are never chosen.

        Args:
            data: Texts, or vectors of the items, (N, D).
            k: Number of anchors; typically 300 to 500, at most about D gains.
            strategy: ``"uniform"``; ``"stratified"`` takes the classes of ``labels`` in turns; ``"fps"`` (farthest
                point sampling) takes one after another the item least similar to all taken so far, in O(N k D);
                ``"kmeans"`` the item nearest to each of k centroids; ``"top"`` draws among the most frequent items.
            labels: One class per item, for ``"stratified"``; kept as ``labels`` of the set under any strategy.
            counts: Frequency of each item, for ``"top"``.
            num_frequent: How many of the most frequent items ``"top"`` draws from; None for k of them, so all.
            vectors: Vectors of the items, (N, D), when ``data`` are texts; needed for ``"fps"`` and ``"kmeans"``.
            seed: Decides what is left to chance.

        Returns:
            The anchors, in the order of the strategy.

        Raises:
            InputError: ``strategy`` is unknown or lacks what it needs, or ``k`` exceeds the number of different items.
        """
        if strategy not in choosing.STRATEGIES:
            raise unknown_name("strategy", strategy, choosing.STRATEGIES)
        texts = _texts(data)
        rows = None if texts is not None and vectors is None else matrix("data", data if texts is None else vectors)  # type: ignore[arg-type]
        own = text_keys(texts, seed) if texts is not None else keys(rows, seed)  # type: ignore[arg-type]
        for name, column in (("labels", labels), ("counts", counts), ("vectors", rows)):
            if column is not None and len(column) != len(own):  # type: ignore[arg-type]
                raise InputError(f"{name} has {len(column)} entries for {len(own)} items: give one per item")  # type: ignore[arg-type]
        order = _candidates(own, rows, texts is not None)
        if not 1 <= k <= len(order):
            raise InputError(f"k={k} anchors must be from 1 to the number of different non-zero items, {len(order)}")
        chosen = choosing.choose(
            strategy, order, k, rows=rows, labels=labels, counts=counts, num_frequent=num_frequent, seed=seed
        )
        # the fingerprint is of the items alone: another seed that takes the same list gives the same coordinates
        plain = text_keys(tuple(texts[i] for i in chosen)) if texts is not None else keys(rows[chosen])  # type: ignore[index]
        return cls(
            hash=list_hash(plain),
            indices=chosen,
            num_items=len(own),
            texts=() if texts is None else tuple(texts[i] for i in chosen),
            labels=() if labels is None else tuple(labels[i] for i in chosen),
        )

    @classmethod
    def of(cls, data: Sequence[str] | ArrayLike, *, labels: Sequence[Hashable] = ()) -> AnchorSet:
        """Take a given list as the anchors.

        Args:
            data: The anchors themselves, in order: texts, or vectors (K, D).
            labels: One class per anchor, or none.

        Returns:
            The anchors.

        Raises:
            InputError: there is none, two are equal, one is zero or not finite, or ``labels`` do not match.
        """
        if np.size(data) == 0:
            raise InputError("data holds no anchor: give at least one")
        texts = _texts(data)
        own = text_keys(texts) if texts is not None else keys(anchor_rows("data", data))
        _refuse_repeats("data", own)
        if labels and len(labels) != len(own):
            raise InputError(f"labels has {len(labels)} entries for {len(own)} anchors: give one per anchor, or none")
        return cls(list_hash(own), np.arange(len(own)), len(own), texts or (), tuple(labels))

    @classmethod
    def parallel(cls, left: Sequence[str], right: Sequence[str]) -> tuple[AnchorSet, AnchorSet]:
        """Take pairs in correspondence, such as translations, as the anchors of two domains.

        Args:
            left: The anchors of one domain.
            right: Their counterparts in the other, in the same order.

        Returns:
            One set per domain; both carry the fingerprint of the pairs.

        Raises:
            InputError: the lists differ in length, are empty, or hold a pair twice.

        Example:
            >>> english, spanish = AnchorSet.parallel(["one", "two"], ["uno", "dos"])
            >>> english.hash == spanish.hash, spanish.texts
            (True, ('uno', 'dos'))
        """
        sides = tuple(left), tuple(right)
        if isinstance(left, str) or isinstance(right, str) or len(left) != len(right) or not left:
            raise InputError(
                f"left and right must be lists of texts of one length, at least 1, got {len(left)} and {len(right)}"
            )
        pairs = np.char.add(text_keys(sides[0]), text_keys(sides[1]))
        _refuse_repeats("left and right", pairs)
        own = list_hash(pairs)
        first, second = (cls(own, np.arange(len(side)), len(side), side) for side in sides)
        return first, second

    def take(self, vectors: ArrayLike) -> Floats:
        """Pick the anchors' vectors out of vectors of all the items.

        Args:
            vectors: One row per item, in the order of the data the anchors were chosen from.

        Shape:
            vectors (N, D) -> (K, D)

        Returns:
            The anchors' vectors, in order.

        Raises:
            InputError: the number of rows is another one, or two anchors are equal, zero or not finite here.
        """
        rows = np.asanyarray(vectors)
        if rows.ndim != 2 or len(rows) != self.num_items:
            raise InputError(
                f"vectors of shape {rows.shape}: the anchors are rows of {self.num_items} items, so give as many"
            )
        return anchor_rows("vectors", rows[self.indices])


def anchor_rows(name: str, value: ArrayLike, *, dim: int | None = None) -> Floats:
    """Check vectors of anchors: a finite matrix without zero rows and without repeats.

    Args:
        name: The argument's name, for the message.
        value: The value received.
        dim: Number of columns it must have; None for any.

    Returns:
        The rows (K, D).

    Raises:
        InputError: it is not such a matrix.
    """
    rows = matrix(name, value, dim=dim)
    empty = ~rows.any(axis=1)
    if empty.any():
        raise InputError(
            f"{name}: anchor {int(empty.argmax())} is zero and has no direction (no known word in it?): leave it out"
        )
    _refuse_repeats(name, keys(rows))
    return rows


def demand_same_anchors(what: str, *spaces: Any) -> None:
    """Refuse to join relative spaces whose anchors differ.

    Args:
        what: What is being joined, for the message.
        spaces: Anchor sets, or objects that carry a fingerprint as ``anchors_hash``; those without one are trusted.

    Raises:
        InputError: two fingerprints differ.
    """
    found = [space.hash if isinstance(space, AnchorSet) else getattr(space, "anchors_hash", None) for space in spaces]
    known = sorted({each for each in found if each is not None})
    if len(known) > 1:
        raise InputError(
            f"{what}: the anchors differ ({', '.join(known)}), so the coordinates mean different things: make every "
            "space relative to one list of anchors, in one order"
        )


def _texts(data: Any) -> tuple[str, ...] | None:
    if isinstance(data, str):
        raise InputError(f"data={data[:40]!r} is one text: give a list of texts, or vectors")
    if isinstance(data, np.ndarray) or not len(data) or not isinstance(data[0], str):
        return None
    for place, text in enumerate(data):
        if not isinstance(text, str):
            raise InputError(f"data[{place}]={text!r:.40} is not a text like the first one")
    return tuple(data)


def _candidates(own: NDArray[np.bytes_], rows: Floats | None, are_texts: bool) -> NDArray[np.intp]:
    """Rows that may become anchors, by key: each item once, no zero vector, no two texts of one vector."""
    _, first = np.unique(own, return_index=True)  # sorted by key
    if rows is None:
        return first
    first = first[rows[first].any(axis=1)]
    return first[np.sort(np.unique(keys(rows[first]), return_index=True)[1])] if are_texts else first


def _refuse_repeats(name: str, own: NDArray[np.bytes_]) -> None:
    values, counts = np.unique(own, return_counts=True)
    if len(values) < len(own):
        first, second = np.flatnonzero(own == values[counts.argmax()])[:2]
        raise InputError(
            f"{name}: anchors {first} and {second} are equal, and would count twice: leave one out, as select does if "
            "it is given the vectors"
        )
