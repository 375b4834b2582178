"""Products of bit-sliced codes by counting bits: the planes in memory, and the two loops over them.

``<b_q, b_d> = m (L_q - 1)(L_d - 1) - 2 sum_ij 2**(places of i and j) popcount(q_i ^ d_j)``, over query planes i and
document planes j. Planes lie in blocks of rows, and in a block word by word, so that one instruction counts the same
word of many rows; a block stays in the cache for all queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from embedlab._core.extras import require
from embedlab.search.codecs.codec import Codes, Floats, Mask, Rows
from embedlab.search.codecs.scanning import best_of
from embedlab.search.codecs.uniform import Inverse, Levels, plane_bytes, stored_inverse

Words: TypeAlias = NDArray[np.uint64]

BLOCK = 512  # rows; with their words side by side a pass over one word of all of them is 4 KiB
_CHUNK = 32  # blocks that the loop without a compiler takes at once
_SPARE = 1.25
_compiled_before: set[int] = set()


class Planes:
    """Bit planes and inverse norms of all rows, in blocks.

    Args:
        m: Number of coordinates.
        bits: Bits per coordinate.
    """

    def __init__(self, m: int, bits: int) -> None:
        self.m, self.bits, self.count = m, bits, 0
        self.words: Words = np.zeros((0, bits, -(-m // 64), BLOCK), np.uint64)
        self.inverse: Inverse = np.zeros((0, BLOCK), np.uint16)

    def add(self, rows: Codes) -> None:
        """Append stored rows.

        Args:
            rows: Rows (N, B) as ``pack`` makes them.
        """
        start, self.count = self.count, self.count + len(rows)
        self._make_room(-(-self.count // BLOCK))
        for block in range(start // BLOCK, -(-self.count // BLOCK)):
            low, high = max(start, block * BLOCK), min(self.count, (block + 1) * BLOCK)
            part, place = rows[low - start : high - start], slice(low - block * BLOCK, high - block * BLOCK)
            self.words[block, :, :, place] = words_of(part, self.m, self.bits).transpose(1, 2, 0)
            self.inverse[block, place] = stored_inverse(part)

    def rows(self, numbers: Rows) -> Codes:
        """Return stored rows, as they were added.

        Args:
            numbers: Row numbers (n,).

        Returns:
            Rows (n, B).
        """
        block, place = np.divmod(numbers, BLOCK)
        planes = np.ascontiguousarray(self.words[block, :, :, place]).astype("<u8", copy=False)  # (n, bits, W)
        kept = planes.view(np.uint8)[:, :, : plane_bytes(self.m)].reshape(len(numbers), -1)
        inverse = self.inverse[block, place].astype("<u2")[:, None].view(np.uint8)
        return np.concatenate([kept, inverse], axis=1)

    def _make_room(self, blocks: int) -> None:
        if blocks <= len(self.words):
            return
        room = blocks if not len(self.words) else int(blocks * _SPARE) + 1
        for name in ("words", "inverse"):
            old = getattr(self, name)
            fresh = np.zeros((room, *old.shape[1:]), old.dtype)
            fresh[: len(old)] = old
            setattr(self, name, fresh)


def words_of(rows: Codes, m: int, bits: int) -> Words:
    """Read planes as 64-bit words, padded with zeros.

    Args:
        rows: Stored rows (N, B); what follows the planes is not read.
        m: Number of coordinates.
        bits: Number of planes.

    Returns:
        Words (N, bits, W).
    """
    width = plane_bytes(m)
    padded = np.zeros((len(rows), bits, 8 * -(-m // 64)), np.uint8)
    padded[:, :, :width] = rows[:, : bits * width].reshape(len(rows), bits, width)
    return padded.view("<u8").astype(np.uint64, copy=False)


def query_words(levels: Levels, bits: int) -> Words:
    """Cut queries into planes, of any number of bits up to 8.

    Args:
        levels: Codes (Q, m), each below 2**bits.
        bits: Number of planes.

    Returns:
        Words (Q, W, bits).
    """
    planes = [np.packbits((levels >> (bits - 1 - plane)) & 1, axis=1) for plane in range(bits)]
    return np.ascontiguousarray(words_of(np.concatenate(planes, axis=1), levels.shape[1], bits).transpose(0, 2, 1))


def scan(
    planes: Planes, words: Words, top_k: int, *, mask: Mask | None, first: int, last: int, compiled: bool
) -> tuple[Floats, Rows]:
    """Find the best rows of some blocks.

    Args:
        planes: The rows.
        words: Queries (Q, W, query bits).
        top_k: Number of rows to find.
        mask: Rows that may be found (N,); all if None.
        first: First block.
        last: The block behind the last one.
        compiled: Whether to use the compiled loop.

    Returns:
        ``product * inverse norm`` (Q, top_k) in falling order and rows, the lower first where equal; -inf and -1 where
        there are fewer.
    """
    query_bits = words.shape[2]
    base = planes.m * ((1 << query_bits) - 1) * ((1 << planes.bits) - 1)
    if not compiled:
        return _scan_with_numpy(planes, words, top_k, base, mask, first, last)
    best = np.full((len(words), top_k), -np.inf, np.float32)
    kept = np.full((len(words), top_k), -1, np.int64)
    allowed = np.zeros(0, np.bool_) if mask is None else np.ascontiguousarray(mask)
    loop = _compiled(query_bits)
    _compiled_before.add(query_bits)
    loop(planes.words, planes.inverse, words, base, allowed, first, last, planes.count, best, kept)
    return best, kept


def has_compiler() -> bool:
    """Tell whether the compiled loop can be had.

    Returns:
        True if numba is installed.
    """
    return find_spec("numba") is not None


def is_compiled(query_bits: int) -> bool:
    """Tell whether the compiled loop for some number of query planes is there already.

    Args:
        query_bits: Number of query planes.

    Returns:
        True if using it costs no time to compile.
    """
    return query_bits in _compiled_before


def _scan_with_numpy(
    planes: Planes, words: Words, top_k: int, base: int, mask: Mask | None, first: int, last: int
) -> tuple[Floats, Rows]:
    def scored() -> Any:
        for start in range(first, last, _CHUNK):
            chunk = slice(start, min(start + _CHUNK, last))
            held, inverse = planes.words[chunk], planes.inverse[chunk].reshape(-1).astype(np.float32)
            low, high = chunk.start * BLOCK, min(chunk.stop * BLOCK, planes.count)
            scores = np.empty((len(words), high - low), np.float32)
            for query, query_planes in enumerate(words):
                numbers = (base - 2 * _differing(held, query_planes, planes.m)).reshape(-1).astype(np.float32)
                scores[query] = (numbers * inverse)[: high - low]
            rows = np.arange(low, high)
            if mask is not None:
                rows, scores = rows[mask[low:high]], scores[:, mask[low:high]]
            yield rows, scores

    return best_of(scored(), len(words), top_k)


def _differing(held: Words, query_planes: Words, m: int) -> NDArray[np.int32]:
    """Count differing bits of blocks (n, bits, W, BLOCK) and a query (W, query bits), weighted by place: (n, BLOCK)."""
    bits, query_bits = held.shape[1], query_planes.shape[1]
    total = np.zeros((len(held), BLOCK), np.int32)
    for i in range(query_bits):
        for j in range(bits):
            count = np.zeros(total.shape, np.uint16 if m < 1 << 16 else np.uint32)  # narrow numbers add up faster
            for word in range(len(query_planes)):
                count += np.bitwise_count(held[:, j, word] ^ query_planes[word, i])
            total += count.astype(np.int32) << (query_bits - 1 - i + bits - 1 - j)
    return total


@cache
def _compiled(query_bits: int) -> Callable[..., None]:
    """Compile the loop for one number of query planes, so that the sum over them is laid out flat."""
    numba = require("numba", extra="codecs")
    extending = require("numba.extending", extra="codecs")

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def popcount(context: Any, word: Any) -> Any:
        def emit(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.ctpop(arguments[0])

        return numba.uint64(numba.uint64), emit

    @numba.njit(nogil=True)
    def loop(planes, inverse, words, base, allowed, first, last, count, best, kept):  # type: ignore[no-untyped-def]
        bits, width = planes.shape[1], planes.shape[2]
        top_k = best.shape[1]
        total = np.empty(BLOCK, np.int64)
        scores = np.empty(BLOCK, np.float32)
        for block in range(first, last):
            present = min(BLOCK, count - block * BLOCK)
            for query in range(words.shape[0]):
                total[:] = 0
                for j in range(bits):
                    for word in range(width):
                        for row in range(BLOCK):
                            held = planes[block, j, word, row]
                            differ = np.int64(0)
                            for i in range(query_bits):
                                count_i = np.int64(popcount(held ^ words[query, word, i]))
                                differ += count_i << np.int64(query_bits - 1 - i)
                            total[row] += differ << np.int64(bits - 1 - j)
                worst, better = best[query, top_k - 1], 0
                for row in range(BLOCK):
                    score = np.float32(np.int32(base - 2 * total[row])) * np.float32(inverse[block, row])
                    scores[row] = score
                    better += score > worst
                if better == 0:
                    continue
                for row in range(present):
                    score, number = scores[row], block * BLOCK + row
                    if score > best[query, top_k - 1] and (allowed.size == 0 or allowed[number]):
                        place = top_k - 1
                        while place > 0 and best[query, place - 1] < score:
                            best[query, place] = best[query, place - 1]
                            kept[query, place] = kept[query, place - 1]
                            place -= 1
                        best[query, place] = score
                        kept[query, place] = number

    return cast(Callable[..., None], loop)
