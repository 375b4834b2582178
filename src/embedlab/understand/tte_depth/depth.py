"""The depth of texts in a reference corpus, and what follows from it: median, order, outliers, comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.understand.tte_depth.compare import Alternative, DepthTest, compare_depths, q_score
from embedlab.understand.tte_depth.rows import chunks, matrix, sum_of_units, units

Distance: TypeAlias = Callable[[NDArray[np.float64], NDArray[np.float64]], ArrayLike]  # (A, D), (B, D) -> (A, B)

_BLOCK = 1024  # rows on either side of a block of pairs
_MAX_PAIRED_ROWS = 10_000  # a whole matrix of pairs beyond this takes more than 800 MB


class TextDepth:
    """Rank texts by how central they are in a reference corpus, and compare other corpora with it.

    The depth of x in a corpus F is what the mean distance to F leaves of the largest distance there can be. A member of
    F is not measured against itself::

        D(x; F)   = sup - (1/N) sum_j delta(x, x_j)                 x from elsewhere
        D(x_i; F) = sup - (1/(N-1)) sum_{j != i} delta(x_i, x_j)    x_i in F

    With delta = 1 - cos and rows of unit length, sum_j delta(x, x_j) = N - x . s where s = sum_j x_j: one pass for s,
    one for the depths, exact, in O(N D) time and constant memory. Other distances go over all pairs, block by block.

    Args:
        distance: ``"cosine"`` (1 - cos, the default), ``"chord"`` (sqrt(2 (1 - cos))), or a function of two float64
            matrices that returns the distances between their rows, (A, D) and (B, D) -> (A, B). (paper: delta)
        sup: Largest value a custom ``distance`` can take, above 0. Cosine and chord have 2, so only for a custom one.

    Shape:
        reference (N, D), vectors (M, D), any real type -> depths (N,) or (M,) float64

    Attributes:
        count: Rows in the reference.
        total: Sum of the reference's unit rows, (D,) float64; with ``count`` all that cosine depth needs to know of a
            corpus, however large. None before ``fit`` and under other distances.

    Raises:
        InputError: ``distance`` is unknown, or ``sup`` is missing, superfluous or not above 0.

    Example:
        >>> corpus = [[1.0, 0.1], [1.0, 0.0], [1.0, -0.2], [0.0, 1.0]]
        >>> depth = TextDepth().fit(corpus)
        >>> depth.order().tolist(), depth.outliers(0.25).tolist()
        ([0, 1, 2, 3], [3])
        >>> depth.depths([[-1.0, 0.0]]).round(3).tolist()
        [0.256]

    References:
        Seegmiller and Preum (2023), Statistical Depth for Ranking and Characterizing Transformer-Based Text Embeddings,
        arXiv:2310.15010v1, section 3. Official code pkseeg/tte_depth (read, not copied); ``METHOD["deviations"]`` says
        where it differs.
    """

    def __init__(self, distance: Literal["cosine", "chord"] | Distance = "cosine", *, sup: float | None = None) -> None:
        if isinstance(distance, str):
            if distance not in ("cosine", "chord"):
                raise unknown_name("distance", distance, ("cosine", "chord"))
            if sup is not None:
                raise InputError(f"sup={sup!r} is for a custom distance; {distance} has 2: leave sup out")
        elif sup is None or not 0 < sup < math.inf:
            raise InputError(f"sup={sup!r}: a custom distance needs the largest value it can take, finite and above 0")
        self.distance = distance
        self.sup = 2.0 if sup is None else float(sup)
        self.count = 0
        self.total: NDArray[np.float64] | None = None
        self._reference: NDArray[Any] | None = None

    def fit(self, reference: ArrayLike) -> TextDepth:
        """Take a corpus as the reference, forgetting any earlier one.

        Args:
            reference: One vector per text, at least 2. The array is kept, not copied; a memory map stays on disk.

        Returns:
            The object itself.

        Raises:
            InputError: ``reference`` is not a finite (N >= 2, D) matrix, or has a zero row under cosine or chord.
        """
        rows = matrix("reference", reference, at_least=2)
        self.total = sum_of_units("reference", rows) if self.distance == "cosine" else None
        self.count, self._reference = len(rows), rows
        return self

    def update(self, vectors: ArrayLike) -> TextDepth:
        """Add rows to the reference and keep only their sum: for a corpus that arrives in batches.

        The rows themselves are then unknown, so ranking the reference needs them again: ``depths(rows, members=True)``.

        Args:
            vectors: Further rows of the reference.

        Returns:
            The object itself.

        Raises:
            InputError: the distance is not cosine, or ``vectors`` do not fit the earlier rows.
        """
        if self.distance != "cosine":
            raise InputError("update needs distance='cosine': other distances need every row at once, use fit")
        rows = self._matching("vectors", vectors)
        added = sum_of_units("vectors", rows)
        self.total = added if self.total is None else self.total + added
        self.count, self._reference = self.count + len(rows), None
        return self

    @classmethod
    def from_sum(cls, total: ArrayLike, count: int) -> TextDepth:
        """Rebuild the reference of cosine depth from the two attributes worth saving, for example beside an index.

        Args:
            total: ``total`` of the earlier object.
            count: ``count`` of the earlier object.

        Returns:
            An object that gives the same depths and takes further updates.

        Raises:
            InputError: ``total`` is not a finite vector, or is longer than ``count`` unit rows can add up to.
        """
        depth = cls()
        depth.total, depth.count = np.array(total, dtype=np.float64), int(count)
        length = float(np.linalg.norm(depth.total)) if depth.total.ndim == 1 else math.nan
        if not length <= count * (1 + 1e-9) or count < 1:
            raise InputError(
                f"total of shape {depth.total.shape} and length {length:.6g} is no sum of count={count} rows"
            )
        return depth

    def depths(self, vectors: ArrayLike | None = None, *, members: bool = False) -> NDArray[np.float64]:
        """Measure how central texts are in the reference; larger is more central.

        Args:
            vectors: Rows to measure; None for the rows given to ``fit``.
            members: The rows belong to the reference, so each is left out of its own mean. The caller says so, since a
                corpus of the same size need not be the same corpus. Cosine only; otherwise leave ``vectors`` out.

        Returns:
            Depths in [0, sup], in the order of the rows.

        Raises:
            InputError: there is no reference, its rows are not kept, or ``vectors`` do not fit it.
        """
        rows = self._kept() if vectors is None else self._matching("vectors", vectors)
        members = members or vectors is None
        if self.count < 1 + members:
            raise InputError(
                f"the reference has {self.count} rows, too few to measure depth in: call fit or update first"
            )
        if self.total is not None:
            # a row's distance to itself is 0 here, so members need no more than the smaller divisor
            cosines = np.concatenate([block @ self.total / lengths for block, lengths in chunks("vectors", rows)])
            return self.sup - (self.count - cosines) / (self.count - members)
        if members and vectors is not None:
            raise InputError(
                "members=True with vectors needs distance='cosine': leave vectors out to measure the reference"
            )
        return self.sup - self._sum_over_pairs(rows, members) / (self.count - members)

    def median(self) -> int:
        """Return the index of the deepest reference row, the first among equals."""
        return int(self.depths().argmax())

    def order(self) -> NDArray[np.intp]:
        """Return the indices of the reference rows from the centre outward; equal depths keep their order."""
        return np.argsort(-self.depths(), kind="stable")

    def outliers(self, fraction: float = 0.05) -> NDArray[np.intp]:
        """Return the indices of the least deep reference rows, outermost first.

        Args:
            fraction: Share of the corpus to return, in (0, 1]; rounded up, so one row at least.

        Returns:
            Indices into the rows given to ``fit``.

        Raises:
            InputError: ``fraction`` is not in (0, 1].
        """
        if not 0 < fraction <= 1:
            raise InputError(f"fraction={fraction!r} must be in (0, 1]")
        return np.argsort(self.depths(), kind="stable")[: math.ceil(fraction * self.count)]

    def q(self, other: ArrayLike, *, pooled: bool = False) -> float:
        """Estimate the chance that a text of another corpus is at least as central here as one of the reference.

        Args:
            other: Rows of the other corpus.
            pooled: Use the official code's ranks instead of the paper's definition.

        Returns:
            Q in [0, 1]: 1/2 under equality, less if ``other`` lies further out, more if it is nearer to the centre.
        """
        return q_score(self.depths(), self.depths(other), pooled=pooled)

    def test(
        self,
        other: ArrayLike,
        *,
        alternative: Alternative = "greater",
        method: Literal["asymptotic", "permutation"] = "asymptotic",
        num_resamples: int = 999,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> DepthTest:
        """Test whether another corpus comes from the reference's distribution.

        Read Q first: with many rows a Q near 1/2 can be significant, and a test without a finding proves nothing equal.

        Args:
            other: Rows of the other corpus.
            alternative: What is suspected: ``"greater"`` that the reference is deeper, so ``other`` lies further out
                (the paper's), ``"less"`` the reverse, ``"two-sided"`` either.
            method: ``"asymptotic"`` for Wilcoxon's rank-sum test; ``"permutation"`` splits the pooled rows anew and
                measures all depths again, which is right at any size and the choice below 50 rows.
            num_resamples: Splits of the permutation test.
            confidence: Level of the interval around Q, in (0, 1).
            seed: Decides the splits.

        Returns:
            Q with its interval, the statistic, the p-value and both sizes.

        Raises:
            InputError: ``other`` does not fit the reference, or an option has a value that is not allowed.
        """
        if method not in ("asymptotic", "permutation"):
            raise unknown_name("method", method, ("asymptotic", "permutation"))
        if num_resamples < 1:
            raise InputError(f"num_resamples={num_resamples} must be at least 1")
        inner, outer = self.depths(), self.depths(other)
        splits = None
        if method == "permutation":
            splits = self._split_qs(self._matching("other", other), num_resamples, np.random.default_rng(seed))
        return compare_depths(inner, outer, alternative=alternative, confidence=confidence, split_qs=splits)

    def _split_qs(self, other: NDArray[Any], num: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Q of random splits of the pooled rows into corpora of the same two sizes, each with depths of its own."""
        n, pooled = self.count, np.concatenate([self._kept(), other])  # (n + m, D)
        if self.distance == "cosine":
            rows, pairs = units("other", pooled), None
        elif len(pooled) <= _MAX_PAIRED_ROWS:
            rows, pairs = pooled, self._pairs(pooled, pooled)
            np.fill_diagonal(pairs, 0.0)
        else:
            raise InputError(
                f"method='permutation' takes {_MAX_PAIRED_ROWS} rows here, got {len(pooled)}: use 'asymptotic'"
            )
        qs = np.empty(num)
        for number in range(num):
            inside = np.zeros(n + len(other))
            inside[rng.permutation(len(inside))[:n]] = 1.0
            summed = n - rows @ (inside @ rows) if pairs is None else pairs @ inside  # (n + m,)
            depths = -summed / (n - inside)  # sup moves all depths alike and leaves Q as it is
            qs[number] = q_score(depths[inside == 1], depths[inside == 0])
        return qs

    def _sum_over_pairs(self, rows: NDArray[Any], members: bool) -> NDArray[np.float64]:
        reference = self._kept()
        sums = np.zeros(len(rows))
        for i in range(0, len(rows), _BLOCK):
            for j in range(0, len(reference), _BLOCK):
                block = self._pairs(rows[i : i + _BLOCK], reference[j : j + _BLOCK])  # (A, B)
                if members and i == j:  # skip oneself: rounding, or a custom distance, may put that above 0
                    np.fill_diagonal(block, 0.0)
                sums[i : i + _BLOCK] += block.sum(axis=1)
        return sums

    def _pairs(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
        if isinstance(self.distance, str):  # chord: |u - v| of unit rows
            cosines = units("vectors", left) @ units("reference", right).T
            return np.asarray(np.sqrt(np.maximum(2 - 2 * cosines, 0.0)))
        block = np.array(self.distance(left.astype(np.float64), right.astype(np.float64)), dtype=np.float64)
        if block.shape != (len(left), len(right)):
            raise InputError(f"distance must return shape {(len(left), len(right))} for these rows, got {block.shape}")
        if not (block.min() >= 0 and block.max() <= self.sup * (1 + 1e-9)):
            raise InputError(f"distance must stay in [0, sup={self.sup:g}], got {block.min():.6g} to {block.max():.6g}")
        return block

    def _kept(self) -> NDArray[Any]:
        if self._reference is None:
            raise InputError("the reference rows are not at hand: call fit, or after update depths(rows, members=True)")
        return self._reference

    def _matching(self, name: str, value: ArrayLike) -> NDArray[Any]:
        rows = matrix(name, value)
        dim = rows.shape[1] if self.count == 0 else len(self.total) if self.total is not None else self._kept().shape[1]
        if rows.shape[1] != dim:
            raise InputError(f"{name} has {rows.shape[1]} columns and the reference {dim}: use one encoder for both")
        return rows


@dataclass(frozen=True, slots=True)
class CorpusShift:
    """How a corpus strays from its reference, and which of its texts stray most.

    Attributes:
        test: Q, its interval, statistic and p-value.
        spread: Standard deviation of the reference's depths; tiny when the encoder crowds all texts together.
        depths: Depth of each row of the other corpus in the reference, (M,).
        order: Indices of the other corpus's rows, outermost first, (M,).
    """

    test: DepthTest
    spread: float
    depths: NDArray[np.float64]
    order: NDArray[np.intp]


def corpus_shift(reference: ArrayLike, other: ArrayLike, *, alternative: Alternative = "two-sided") -> CorpusShift:
    """Report how far a corpus, such as synthetic text or last week's queries, has moved from a reference.

    Args:
        reference: One vector per text of the reference.
        other: One vector per text of the other corpus.
        alternative: As in ``TextDepth.test``; two-sided here, since crowding at the centre is a finding too.

    Shape:
        reference (N, D), other (M, D) -> CorpusShift

    Returns:
        The test under cosine distance, the spread of the reference, and the other corpus's rows, outermost first.

    Raises:
        InputError: a corpus is not a finite matrix without zero rows, or their widths differ.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(300, 8)) + 1
        >>> report = corpus_shift(rows[:200], rows[200:] - 0.5)
        >>> round(report.test.q, 3), report.test.pvalue < 0.001
        (0.157, True)
    """
    depth = TextDepth().fit(reference)
    inner, outer = depth.depths(), depth.depths(other)
    order = np.argsort(outer, kind="stable")
    return CorpusShift(compare_depths(inner, outer, alternative=alternative), float(inner.std()), outer, order)
