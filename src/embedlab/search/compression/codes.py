"""All codes of a collection in memory: what finds candidates, in a fraction of what the vectors would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab.search.matrix import Floats, RowIds, allowed_rows, changes, none_if_all

if TYPE_CHECKING:
    from embedlab.search.codecs import Codec, Scanner

Codes = NDArray[np.uint8]
Read = Callable[[RowIds], tuple[Codes, NDArray[np.bool_]]]
_TAIL_SHARE = 8  # new rows are scanned apart until they are an eighth of all


@dataclass(frozen=True, slots=True)
class CodeTable:
    """Codes by row number, ready to scan; rows that were deleted since stay in place but are not usable.

    Scanners are never changed once made, so any number of threads may search while a later version is prepared: rows
    that came later are in a second, small one.

    Args:
        codec: The codec of the codes.
        rows: Row numbers in ascending order (N,).
        usable: Which of them are there and have a code (N,); None if all do.
        scanners: The scanners that hold the codes in this order, one or two.
    """

    codec: Codec
    rows: RowIds
    usable: NDArray[np.bool_] | None
    scanners: tuple[Scanner, ...]

    @classmethod
    def of(cls, codec: Codec, rows: RowIds, codes: Codes, there: NDArray[np.bool_]) -> CodeTable:
        """Make a table of rows in any order.

        Args:
            codec: The codec.
            rows: Row numbers (N,).
            codes: Their codes (N, B).
            there: Whether they have one (N,).
        """
        order = np.argsort(rows)
        if not np.array_equal(order, np.arange(len(rows))):
            rows, codes, there = rows[order], codes[order], there[order]
        return cls(codec, rows, none_if_all(there), (codec.scanner(codes),))

    @property
    def bytes_held(self) -> int:
        """Bytes of memory this holds, as far as they are stated."""
        return self.rows.nbytes + len(self.rows) * self.codec.bytes_per_vector

    def follow(self, present: RowIds, read: Read) -> CodeTable | None:
        """Return the table of a later version; arguments as for ``Matrix.follow``."""
        moved = changes(self.rows, present)
        if moved is None:
            return None
        there, fresh = moved
        first = len(self.scanners[0])
        rows = np.concatenate([self.rows, fresh])
        if (len(rows) - first) * _TAIL_SHARE > len(rows):
            return None
        usable = there if self.usable is None else there & self.usable
        scanners = self.scanners
        if len(fresh):
            kept = np.flatnonzero(there[first:])  # rows of the tail that are still there can be read again
            codes = np.zeros((len(rows) - first, self.codec.bytes_per_vector), np.uint8)
            reread, has_code = read(np.concatenate([self.rows[first:][kept], fresh]))
            places = np.concatenate([kept, np.arange(len(self.rows) - first, len(codes))])
            codes[places] = reread
            usable = np.concatenate([usable, has_code[len(kept) :]])
            scanners = (scanners[0], self.codec.scanner(codes))
        return CodeTable(self.codec, rows, none_if_all(usable), scanners)

    def nearest(self, vector: Floats, among: RowIds | None, depth: int) -> tuple[RowIds, Floats]:
        """Find the rows whose codes are nearest to a vector; arguments as for ``Matrix.nearest``.

        Returns:
            Rows and the codec's scores, best first; both (K,).
        """
        allowed = allowed_rows(self.rows, self.usable, among)
        found, scores = [], []
        start = 0
        for scanner in self.scanners:
            part = slice(start, start + len(scanner))
            mask = None if allowed is None else allowed[part]
            if len(scanner) and (mask is None or mask.any()):
                best, places = scanner.search(vector[None], min(depth, len(scanner)), allowed=mask, threads=1)
                kept = places[0] >= 0
                found.append(self.rows[part][places[0][kept]])
                scores.append(best[0][kept])
            start = part.stop
        if not found:
            return np.empty(0, np.uint64), np.empty(0, np.float32)
        every, all_scores = np.concatenate(found), np.concatenate(scores)
        order = np.argsort(-all_scores, kind="stable")[:depth]
        return every[order], all_scores[order]

    def scores(self, vector: Floats, rows: RowIds) -> Floats:
        """Score some rows by their codes.

        Args:
            vector: Unit vector (D,).
            rows: Row numbers (K,).

        Returns:
            The codec's scores (K,), in the order of the rows; 0 where there is no code.
        """
        found, scores = self.nearest(vector, rows, len(rows))
        known = dict(zip(found.tolist(), scores.tolist(), strict=True))
        return np.array([known.get(row, 0.0) for row in rows.tolist()], np.float32)
