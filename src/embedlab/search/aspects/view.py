"""One version of a collection by aspect: worked out from the stored vectors, in memory, when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

from embedlab.search.aspects.index import in_aspect
from embedlab.search.matrix import Floats, Matrix, RowIds, allowed_rows, best_rows
from embedlab.search.snapshot import Found, Snapshot
from embedlab.text.aspect_documents.heads import AspectHeads
from embedlab.text.aspect_documents.names import GENERIC, check_weights

_BLOCK = 65536  # passages mapped at once
_DEPTH_ON_DISK = 1000  # plain candidates that are put in a new order, where aspect vectors do not fit in memory


class AspectSpace:
    """The passages of one version of a collection, by their vectors in every aspect that was asked for.

    Args:
        heads: Heads of the aspects.
        snapshot: The version.
        cache_bytes: Largest matrix of aspect vectors to hold; where one would be larger, plain candidates are put in
            a new order instead.
        before: The space of an earlier version; what it has worked out holds for rows that are still there.
    """

    def __init__(
        self, heads: AspectHeads, snapshot: Snapshot, *, cache_bytes: int, before: AspectSpace | None = None
    ) -> None:
        self.heads, self.snapshot, self._cache_bytes = heads, snapshot, cache_bytes
        self._guard = threading.Lock()
        self._present = np.sort(snapshot.row_ids())
        self._known: dict[str, Matrix] = {}
        for name, matrix in before._known.items() if before is not None and before.heads is heads else ():
            followed = matrix.follow(self._present, partial(self._mapped, name))
            if followed is not None:
                self._known[name] = followed

    def mixed(self, weights: Mapping[str, float]) -> AspectView:
        """Return the search by a mix of aspects.

        Args:
            weights: Weight of each aspect; ``"generic"`` is the plain vector.

        Returns:
            What stands in for the snapshot where vectors are compared.

        Raises:
            InputError: an unknown aspect, or a weight that is none.
        """
        return AspectView(self, check_weights(weights, self.heads.heads))

    def matrices(self, names: Iterable[str]) -> list[Matrix] | None:
        """Return the vectors of all passages in some aspects, all with the same rows; None if they are too many.

        Args:
            names: The aspects.
        """
        with self._guard:
            for name in names:
                if name in self._known:
                    continue
                dim = self.heads.dim if name == GENERIC else self.heads.heads[name].dim_out
                if len(self._present) * dim * 4 > self._cache_bytes:
                    return None
                parts = [
                    self._mapped(name, self._present[at : at + _BLOCK]) for at in range(0, len(self._present), _BLOCK)
                ]
                self._known[name] = Matrix.of(self._present, np.concatenate([np.empty((0, dim), np.float32), *parts]))
            if len({len(each.rows) for each in self._known.values()}) > 1:  # older ones still hold rows that are gone
                for name, each in self._known.items():
                    self._known[name] = Matrix.of(self._present, each.of_rows(self._present))
            return [self._known[name] for name in names]

    def of_rows(self, name: str, rows: RowIds) -> Floats:
        """Return the vectors of some rows in an aspect, in their order.

        Args:
            name: The aspect.
            rows: Row numbers of this version.
        """
        found = self._known.get(name)
        return self._mapped(name, rows) if found is None else found.of_rows(rows)

    def _mapped(self, name: str, rows: RowIds) -> Floats:
        return in_aspect(self.heads, name, self.snapshot.vectors(rows))


class AspectView:
    """Nearest passages by a mix of aspects, asked for as a snapshot is asked for plain ones.

    Args:
        space: Passages by aspect.
        shares: Share of each aspect, sizes adding up to 1.
    """

    def __init__(self, space: AspectSpace, shares: Mapping[str, float]) -> None:
        self.space, self.shares = space, shares

    def dense(self, vector: Floats, where: str | None, depth: int) -> Found:
        """Return the rows with the largest mixed cosine."""
        snapshot = self.space.snapshot
        if not snapshot.count or not vector.any():
            return Found(np.empty(0, np.uint64), np.empty(0, np.float32))
        matrices = self.space.matrices(self.shares)
        if matrices is None:
            rows = np.sort(snapshot.dense(vector, where, max(depth, _DEPTH_ON_DISK)).rows)
            scores, allowed = self.cosines(vector, rows), None
        else:
            rows = matrices[0].rows
            scores = np.zeros(len(rows), np.float32)
            for (name, share), each in zip(self.shares.items(), matrices, strict=True):
                scores += np.float32(share) * np.vecdot(each.vectors, self._asked(name, vector))
            allowed = allowed_rows(rows, matrices[0].usable, snapshot.row_ids(where) if where else None)
        return Found(*best_rows(rows, scores, allowed, depth))

    def cosines(self, vector: Floats, rows: RowIds) -> Floats:
        """Return the mixed cosine of some rows, in their order."""
        scores = np.zeros(len(rows), np.float32)
        for name, cosine in self.parts(vector, rows).items():
            scores += np.float32(self.shares[name]) * cosine
        return scores

    def parts(self, vector: Floats, rows: RowIds) -> dict[str, Floats]:
        """Return the cosine of some rows in each aspect of the mix."""
        return {name: np.vecdot(self.space.of_rows(name, rows), self._asked(name, vector)) for name in self.shares}

    def _asked(self, name: str, vector: Floats) -> Floats:
        return np.asarray(in_aspect(self.space.heads, name, vector[None])[0])
