"""What all scans share: the best of a block of scores, the best of two results, and the scan that decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from embedlab._core.errors import InputError
from embedlab.search.codecs.codec import Codec, Codes, Floats, Mask, Rows, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class DecodingScanner:
    """The scan that every codec has: score block by block with the codec's own ``score``.

    Args:
        codec: The codec.
        codes: Codes to start with (N, B).
    """

    def __init__(self, codec: Codec, codes: Codes) -> None:
        self.codec = codec
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def add(self, codes: Codes) -> None:
        """Append rows; see ``Scanner``.

        Args:
            codes: Codes (N, B).
        """
        self.codes = np.concatenate([self.codes, self.codec.checked_codes(codes)])

    def search(
        self, queries: ArrayLike, top_k: int, *, allowed: Mask | None = None, threads: int | None = None
    ) -> tuple[Floats, Rows]:
        """Find the nearest rows; see ``Scanner``.

        Args:
            queries: Vectors (Q, D).
            top_k: Number of rows.
            allowed: Which rows may be returned.
            threads: Not used: matrix products follow the environment (``OMP_NUM_THREADS``).

        Returns:
            Scores and rows, (Q, top_k) each.
        """
        rows = np.asarray(queries)
        demand_top_k(top_k)
        mask = checked_mask(allowed, len(self))

        def scored() -> Iterable[tuple[Rows, Floats]]:
            for part in blocks(len(self), 4 * (self.codec.dim + len(rows))):
                numbers = np.arange(part.start, part.stop)
                numbers = numbers if mask is None else numbers[mask[part]]
                if len(numbers):
                    codes = self.codes[part] if mask is None else self.codes[numbers]
                    yield numbers, self.codec.score(rows, codes)

        return best_of(scored(), len(rows), top_k)


def best_of(scored: Iterable[tuple[Rows, Floats]], num_queries: int, top_k: int) -> tuple[Floats, Rows]:
    """Keep the best rows of blocks of scores.

    Args:
        scored: Row numbers (n,) of a block, in ascending order, and their scores (Q, n); blocks in ascending order.
        num_queries: Q.
        top_k: Number of rows to keep for each query.

    Returns:
        Scores (Q, top_k) in falling order and their rows, the lower row first where scores are equal; -inf and -1 where
        there are fewer.
    """
    best = np.full((num_queries, top_k), -np.inf, np.float32)
    kept = np.full((num_queries, top_k), -1, np.int64)
    for numbers, scores in scored:
        better = scores > best[:, -1:]  # few after the first blocks: looking only at them saves the partitions
        found = np.count_nonzero(better, axis=1)
        if found.max(initial=0) > 4 * top_k:
            fresh, places = top_columns(scores, top_k)
            best, kept = merge(best, kept, fresh, numbers[places], top_k)
            continue
        for query in np.flatnonzero(found):
            places, one = np.flatnonzero(better[query]), slice(query, query + 1)
            best[one], kept[one] = merge(best[one], kept[one], scores[one, places], numbers[None, places], top_k)
    return best, kept


def top_columns(scores: Floats, top_k: int) -> tuple[Floats, Rows]:
    """Find the largest columns of every row, in any order, and of equals the first ones.

    Args:
        scores: Scores (Q, n).
        top_k: Number of columns.

    Returns:
        Scores and columns, (Q, min(top_k, n)) each.
    """
    count = scores.shape[1]
    if count <= top_k:
        return scores, np.broadcast_to(np.arange(count), scores.shape)
    places = np.argpartition(scores, count - top_k, axis=1)[:, count - top_k :]
    best = np.take_along_axis(scores, places, 1)
    least = best.min(axis=1, keepdims=True)
    for row in np.flatnonzero((scores == least).sum(axis=1) > (best == least).sum(axis=1)):  # some equals were left out
        above, equal = (np.flatnonzero(how(scores[row], least[row])) for how in (np.greater, np.equal))
        places[row] = np.concatenate([above, equal[: top_k - len(above)]])
        best[row] = scores[row, places[row]]
    return best, places


def merge(left: Floats, left_rows: Rows, right: Floats, right_rows: Rows, top_k: int) -> tuple[Floats, Rows]:
    """Merge two results of the same queries.

    Args:
        left: Scores (Q, a); -inf where there is none.
        left_rows: Their rows, -1 where there is none.
        right: Scores (Q, b).
        right_rows: Their rows.
        top_k: Number of rows to keep.

    Returns:
        Scores (Q, top_k) in falling order and their rows, the lower row first where scores are equal.
    """
    scores = np.concatenate([left, right], axis=1)
    rows = np.concatenate([left_rows, right_rows], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :top_k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def among(
    propose: Callable[[int], tuple[Floats, Rows]], num_queries: int, top_k: int, count: int, mask: Mask | None
) -> tuple[Floats, Rows]:
    """Find the best allowed rows with a search that knows of no mask, by asking for more until enough are allowed.

    Args:
        propose: Finds some number of best rows, -1 where there are fewer.
        num_queries: Q.
        top_k: Number of rows to return.
        count: Number of rows there are.
        mask: Rows that may be returned (count,); all if None.

    Returns:
        Scores (Q, top_k) in falling order and their rows, the lower row first where scores are equal; -inf and -1 where
        there are fewer.
    """
    none = np.full((num_queries, top_k), -np.inf, np.float32), np.full((num_queries, top_k), -1, np.int64)
    if not count or not num_queries:
        return none
    wanted = min(top_k, count if mask is None else int(mask.sum()))
    fetched = top_k if mask is None else int(1.5 * top_k * count / max(1, wanted and int(mask.sum()))) + 64
    while wanted:
        scores, rows = propose(min(fetched, count))
        if mask is not None:
            rows = np.where((rows >= 0) & mask[rows], rows, -1)
            scores = np.where(rows >= 0, scores, -np.inf).astype(np.float32)
        if fetched >= count or int((rows >= 0).sum(axis=1).min()) >= wanted:
            return merge(*none, scores, rows, top_k)
        fetched *= 4
    return none


def checked_mask(allowed: Mask | None, count: int) -> Mask | None:
    """Check which rows are allowed.

    Args:
        allowed: One truth value per row, or None.
        count: Number of rows.

    Returns:
        The mask, None if all rows are allowed.

    Raises:
        InputError: it is no mask of that length.
    """
    if allowed is None:
        return None
    mask = np.asarray(allowed)
    if mask.dtype != np.bool_ or mask.shape != (count,):
        raise InputError(f"allowed of shape {mask.shape} ({mask.dtype}) must be bool of shape ({count},)")
    return None if mask.all() else mask


def demand_top_k(top_k: int) -> None:
    """Refuse a number of rows that cannot be.

    Args:
        top_k: Number of rows asked for.

    Raises:
        InputError: it is below 1.
    """
    if top_k < 1:
        raise InputError(f"top_k={top_k} must be at least 1")
