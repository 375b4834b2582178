"""What is shared in named dimensions: contributions that sum to the score, and vectors as names with weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.text.sesa.space import Comparable, ConceptSpace

Floats = NDArray[np.float32]


def contributions(a: ArrayLike, b: ArrayLike, *, normalize: bool = True) -> NDArray[np.float64]:
    """Say what each dimension contributes to the score of vectors, row by row.

    contrib_k = u_k v_k with u, v the vectors, at length one if ``normalize``; their sum is the cosine, or the dot
    product. A vector of zeros shares nothing: its score is 0.

    Args:
        a: Vectors without negative entries, since two of these would speak for each other.
        b: Vectors to compare them with.
        normalize: Whether the score is the cosine; otherwise the dot product.

    Shape:
        a (..., m), b (..., m) -> (..., m) float64

    Returns:
        Contributions, at least 0.

    Raises:
        InputError: a number is negative or not finite, or the shapes differ.

    Example:
        >>> contributions([3.0, 4.0, 0.0], [0.0, 2.0, 0.0]).round(2).tolist()
        [0.0, 0.8, 0.0]
    """
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.shape != right.shape:
        raise InputError(f"a has shape {left.shape}, b {right.shape}: expected the same")
    for name, rows in (("a", left), ("b", right)):
        if not (np.isfinite(rows).all() and (rows >= 0).all()):
            raise InputError(f"{name}: numbers must be finite and at least 0, or what is shared cannot be told")
    if normalize:
        left, right = _unit(left), _unit(right)
    return left * right


def decode(
    embeddings: ArrayLike, names: Sequence[str], *, top_k: int | None = None
) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
    """Write vectors as the names of their dimensions with their weights, as the host's sparse models do.

    Args:
        embeddings: One vector, or several.
        names: Names of the dimensions.
        top_k: At most so many of each vector, the largest; None for all that are not 0.

    Shape:
        embeddings (m,) or (N, m)

    Returns:
        Names and weights, largest first (of equals the earlier dimension first); a list of such lists for several.

    Raises:
        InputError: ``top_k`` is below 1, or there are not as many names as dimensions.

    Example:
        >>> decode([0.0, 2.0, 5.0], ["a", "b", "c"])
        [('c', 5.0), ('b', 2.0)]
    """
    rows = np.asarray(embeddings)
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k={top_k}: must be at least 1, or None for all")
    if rows.ndim not in (1, 2) or rows.shape[-1] != len(names):
        raise InputError(f"embeddings of shape {rows.shape}: expected ({len(names)},) or (N, {len(names)})")
    found = []
    for row in np.atleast_2d(rows):
        places = np.argsort(-row, kind="stable")
        kept = places[row[places] != 0][:top_k]
        found.append([(names[place], float(row[place])) for place in kept])
    return found[0] if rows.ndim == 1 else found


class Explaining(ABC):
    """What models of a concept space share: score a pair of items, and say which concepts make up the score.

    Attributes:
        space: The concepts.
        normalize: Whether the score is the cosine; otherwise the dot product.
    """

    space: ConceptSpace
    normalize: bool = True

    @abstractmethod
    def vectors(self, items: Sequence[Comparable]) -> Floats:
        """Encode items, each by what it has.

        Args:
            items: Texts or items.

        Shape:
            items N -> (N, m) float32

        Returns:
            Rows of numbers of at least 0, columns in the order of ``space.names``.
        """

    def score_pairs(self, pairs: Sequence[tuple[Comparable, Comparable]]) -> NDArray[np.float64]:
        """Score pairs of items.

        Args:
            pairs: The pairs.

        Shape:
            pairs N -> (N,) float64

        Returns:
            The scores, larger is nearer; the cosine of an item that says nothing is 0.
        """
        if not pairs:
            return np.zeros(0)
        left, right = (self.vectors(side) for side in zip(*pairs, strict=True))
        return np.asarray(contributions(left, right, normalize=self.normalize).sum(axis=-1))

    def score(self, x: Comparable, y: Comparable) -> float:
        """Score two items.

        Args:
            x: A text or an item.
            y: Another.

        Returns:
            The score, larger is nearer.
        """
        return float(self.score_pairs([(x, y)])[0])

    def explain(self, x: Comparable, y: Comparable, *, top_k: int | None = 10) -> list[tuple[str, float]]:
        """Name the concepts that two items share.

        Args:
            x: A text or an item.
            y: Another.
            top_k: At most so many, the largest contributions; None for all, which sum to ``score(x, y)``.

        Returns:
            Concepts and what each adds to the score, largest first.

        Raises:
            InputError: ``top_k`` is below 1.
        """
        left, right = self.vectors([x]), self.vectors([y])
        (found,) = decode(contributions(left, right, normalize=self.normalize), self.space.names, top_k=top_k)
        return found  # type: ignore[return-value]

    def decode(
        self, embeddings: ArrayLike, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """Write vectors as concepts with their weights; see ``embedlab.text.sesa.decode``.

        Args:
            embeddings: One vector (m,), or several (N, m).
            top_k: At most so many of each.

        Returns:
            Concepts and weights, largest first.
        """
        return decode(embeddings, self.space.names, top_k=top_k)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.sqrt(np.square(rows).sum(axis=-1, keepdims=True))
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))
