"""Documents by aspect in memory: numbers in, nearest rows out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.text.aspect_documents.heads import AspectHeads
from embedlab.text.aspect_documents.names import GENERIC, check_weights

Floats = NDArray[np.float32]


class AspectIndex:
    """Documents by their vectors in every aspect, in memory.

    Args:
        heads: Heads of the aspects.

    Example:
        >>> from embedlab.text.aspect_documents import AspectHead
        >>> turn = AspectHead((np.array([[0.0, 1.0], [1.0, 0.0]]),), (np.zeros(2),))
        >>> index = AspectIndex(AspectHeads({"turned": turn}, "toy:1"))
        >>> index.add([[1.0, 0.0], [0.0, 1.0]])
        >>> scores, rows = index.search([[1.0, 0.2]], weights={"turned": 3, "generic": 1}, top_k=2)
        >>> rows.tolist()
        [[0, 1]]
    """

    def __init__(self, heads: AspectHeads) -> None:
        self.heads = heads
        self._vectors: Floats = np.empty((0, heads.dim), np.float32)
        self._spaces: dict[str, Floats] = {}

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._vectors)

    def add(self, vectors: ArrayLike) -> None:
        """Add documents; they are numbered in the order of adding.

        Args:
            vectors: Their vectors by the model of the heads, (N, D).

        Raises:
            InputError: the width is another.
        """
        rows = np.asarray(vectors, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.heads.dim:
            raise InputError(f"vectors of shape {rows.shape} do not fit: (N, {self.heads.dim}) is needed")
        self._vectors = np.concatenate([self._vectors, rows])

    def search(
        self,
        queries: ArrayLike,
        *,
        aspect: str | None = None,
        weights: Mapping[str, float] | None = None,
        top_k: int = 10,
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Find the nearest documents in one aspect or in a mix of several.

        The score of a mix is the mean of the cosines in each aspect, by weight.

        Args:
            queries: Vectors of the model, (Q, D).
            aspect: The aspect; or give weights.
            weights: Weight of each aspect; ``"generic"`` is the plain vector, below 0 means unlike.
            top_k: Most documents to return.

        Returns:
            Scores (Q, k) and rows (Q, k), best first, of equals the lower row.

        Raises:
            InputError: an unknown aspect, both or neither of aspect and weights, or ``top_k`` below 1.
        """
        if (aspect is None) == (weights is None):
            raise InputError("give either aspect or weights")
        if top_k < 1:
            raise InputError(f"top_k={top_k}: must be at least 1")
        shares = check_weights({aspect: 1.0} if aspect is not None else dict(weights or {}), self.heads.heads)
        asked = np.asarray(queries, np.float32)
        scores = np.zeros((len(asked), len(self)), np.float32)
        for name, share in shares.items():
            scores += np.float32(share) * (in_aspect(self.heads, name, asked) @ self._space(name).T)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return np.take_along_axis(scores, order, axis=1), order

    def _space(self, name: str) -> Floats:
        known = self._spaces.get(name)
        done = 0 if known is None else len(known)
        if known is None or done < len(self):
            fresh = in_aspect(self.heads, name, self._vectors[done:])
            known = self._spaces[name] = fresh if known is None else np.concatenate([known, fresh])
        return known


def in_aspect(heads: AspectHeads, name: str, vectors: Floats) -> Floats:
    """Return vectors in an aspect; in ``"generic"`` they are what they were.

    Args:
        heads: Heads of the aspects.
        name: The aspect.
        vectors: Unit vectors of the model.

    Shape:
        vectors (N, D) -> (N, d)

    Returns:
        Unit rows.
    """
    return vectors if name == GENERIC else heads.heads[name](vectors)
