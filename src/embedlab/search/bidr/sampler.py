"""Batches of neighbours: grown through the graph of queries and the candidates that the compact index finds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab.search.bidr.false_negatives import FalseNegatives

Strategy = Literal["snowball", "random_walk"]
Triple = tuple[int, ...]  # query, its positive, then its hard negatives; -1 where a query has none left


class LocalityCentricBatchSampler(torch.utils.data.Sampler[list[Triple]]):
    """Yield batches whose queries and documents lie close together, so that all of them are hard negatives.

    A batch starts at a random query: it takes the query, its positive and some of its candidates as hard negatives.
    All unused queries that have one of these among their own candidates wait in line; the next query comes from there,
    first in first out (snowball: the neighbourhood, evenly) or last in first out (random walk: away along a path). When
    nobody waits, a random query begins anew. Every query comes once per epoch, in an order decided by the seed.

    Give it to ``torch.utils.data.DataLoader(dataset, batch_sampler=...)``: the data set is asked for
    ``dataset[query, positive, negative]``. ``rows()`` gives the queries alone, for hosts that want row numbers.

    Args:
        query_to_pos: The document that answers each query (Q,).
        query_to_candidates: What the index found for each query, best first (Q, C); -1 where there are fewer.
        batch_size: Queries in a batch. Published 128 per device.
        strategy: ``"snowball"`` or ``"random_walk"``.
        num_negatives: Hard negatives of each query (paper: h), 0 or more. Published 1.
        pick_ranks: Ranks, first and last but one, that hard negatives are picked from. Published (0, 200).
        link_ranks: Ranks at which a document links back to a query. Published (200, 400) or (0, 200).
        patches: How many times the line is cleared within a batch, plus one: several small neighbourhoods.
        false_negatives: Which documents are never picked; by default only the query's own positive.
        drop_last: Whether a last batch that is not full is left out.
        seed: Decides everything drawn, together with the epoch.

    Raises:
        InputError: shapes that do not fit, or an argument out of range.

    Example:
        >>> sampler = LocalityCentricBatchSampler([0, 1, 2], [[1, 2], [0, 2], [1, 0]], batch_size=2)
        >>> [len(batch) for batch in sampler], sorted(query for batch in sampler for query, *_ in batch)
        ([2, 1], [0, 1, 2])

    References:
        Xiao et al. (2022), arXiv:2201.05409v1, section 3.3; read, not copied: microsoft/BiDR.
    """

    def __init__(
        self,
        query_to_pos: ArrayLike,
        query_to_candidates: ArrayLike,
        *,
        batch_size: int = 128,
        strategy: Strategy = "snowball",
        num_negatives: int = 1,
        pick_ranks: tuple[int, int] = (0, 200),
        link_ranks: tuple[int, int] = (0, 200),
        patches: int = 1,
        false_negatives: FalseNegatives | None = None,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        self.positives = np.asarray(query_to_pos, np.int64)
        candidates = np.asarray(query_to_candidates, np.int64)
        if self.positives.ndim != 1 or candidates.ndim != 2 or len(candidates) != len(self.positives):
            raise InputError(
                f"query_to_pos of shape {self.positives.shape} and query_to_candidates of {candidates.shape}: expected "
                "(Q,) and (Q, C)"
            )
        if strategy not in get_args(Strategy):
            raise unknown_name("strategy", strategy, get_args(Strategy))
        if not 1 <= patches <= batch_size or num_negatives < 0:
            raise InputError(
                f"batch_size={batch_size}, patches={patches}, num_negatives={num_negatives}: expected 1 <= patches <= "
                "batch_size, and at least 0 negatives"
            )
        for name, (first, end) in (("pick_ranks", pick_ranks), ("link_ranks", link_ranks)):
            if not 0 <= first < end:
                raise InputError(f"{name}={(first, end)}: expected 0 <= first < end")
        self.batch_size, self.patches, self.strategy = batch_size, patches, strategy
        self.num_negatives, self.drop_last, self.seed, self.epoch = num_negatives, drop_last, seed, 0
        unsafe = false_negatives or FalseNegatives(self.positives)
        pickable = candidates[:, slice(*pick_ranks)]
        self._pickable = np.where(unsafe.mask(np.arange(len(pickable)), pickable), -1, pickable)
        self._links, self._linked_queries = _inverted(candidates[:, slice(*link_ranks)])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides the order together with the seed; loaders of the hosts call it.

        Args:
            epoch: From 0.
        """
        self.epoch = epoch

    def at(self, epoch: int) -> Self:
        """Choose the epoch, and give the sampler back: what ``train_dense`` takes as batches.

        Args:
            epoch: From 0.

        Returns:
            The sampler.
        """
        self.set_epoch(epoch)
        return self

    def __len__(self) -> int:
        whole, rest = divmod(len(self.positives), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[Triple]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = deque(rng.permutation(len(self.positives)).tolist())
        used = np.zeros(len(self.positives), bool)
        for _ in range(len(self)):
            yield self._grow(order, used, rng)

    def rows(self) -> RowBatches:
        """Give the same batches as row numbers, for trainers whose data set has one row per query.

        With sentence-transformers give ``batch_sampler=lambda *_, **__: sampler.rows()`` to the training arguments; the
        positives of the neighbours are then the hard negatives, so ``num_negatives=0`` will do.

        Returns:
            A batch sampler that follows this one.
        """
        return RowBatches(self)

    def _grow(self, order: deque[int], used: NDArray[np.bool_], rng: np.random.Generator) -> list[Triple]:
        batch: list[Triple] = []
        documents: set[int] = set()  # of this batch, positives and negatives
        line: deque[int] = deque()
        patch_size = -(-self.batch_size // self.patches)
        while len(batch) < self.batch_size:
            if len(batch) % patch_size == 0:
                line.clear()
            query = self._next(line, order, used)
            if query is None:
                break
            used[query] = True
            documents.add(int(self.positives[query]))
            negatives = self._pick(query, documents, rng)
            documents.update(negatives)
            batch.append((query, int(self.positives[query]), *negatives, *[-1] * (self.num_negatives - len(negatives))))
            for document in negatives or [int(self.positives[query])]:
                waiting = self._queries_of(document)
                line.extend(rng.permutation(waiting[~used[waiting]]).tolist())
        return batch

    def _next(self, line: deque[int], order: deque[int], used: NDArray[np.bool_]) -> int | None:
        """Take the next unused query from the line, from the shuffled rest if nobody waits, None if all are used."""
        for source, take in ((line, line.popleft if self.strategy == "snowball" else line.pop), (order, order.popleft)):
            while source:
                query = take()
                if not used[query]:
                    return query
        return None

    def _pick(self, query: int, taken: set[int], rng: np.random.Generator) -> list[int]:
        picked: list[int] = []
        for candidate in rng.permutation(self._pickable[query]).tolist():
            if len(picked) == self.num_negatives:
                break
            if candidate >= 0 and candidate not in taken and candidate not in picked:
                picked.append(candidate)
        return picked

    def _queries_of(self, document: int) -> NDArray[np.int64]:
        if document + 1 >= len(self._links):
            return self._linked_queries[:0]
        return self._linked_queries[self._links[document] : self._links[document + 1]]


class RowBatches(torch.utils.data.Sampler[list[int]]):
    """The batches of a ``LocalityCentricBatchSampler`` as numbers of queries.

    Args:
        sampler: What to follow.
    """

    def __init__(self, sampler: LocalityCentricBatchSampler) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, sampler.batch_size, sampler.drop_last

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch.

        Args:
            epoch: From 0.
        """
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.sampler:
            yield [query for query, *_ in batch]


def random_batches(
    positives: ArrayLike,
    *,
    batch_size: int = 128,
    candidates: ArrayLike | None = None,
    num_documents: int | None = None,
    num_negatives: int = 1,
    false_negatives: FalseNegatives | None = None,
    seed: int = 0,
    epoch: int = 0,
) -> Iterator[list[Triple]]:
    """Yield batches of queries in random order, with negatives drawn at random or from each query's candidates.

    Args:
        positives: The document that answers each query (Q,).
        batch_size: Queries in a batch.
        candidates: Where hard negatives are drawn from (Q, C); None to draw from all documents.
        num_documents: Number of documents; needed when there are no candidates.
        num_negatives: Negatives of each query.
        false_negatives: Which documents are never drawn; by default only the query's own positive.
        seed: Decides everything drawn, together with the epoch.
        epoch: From 0.

    Yields:
        As ``LocalityCentricBatchSampler`` does.

    Raises:
        InputError: neither ``candidates`` nor ``num_documents`` is given.
    """
    own = np.asarray(positives, np.int64)
    if candidates is None and num_documents is None:
        raise InputError("candidates or num_documents must be given: where shall the negatives come from?")
    unsafe = false_negatives or FalseNegatives(own)
    rng = np.random.default_rng((seed, epoch))
    listed = None if candidates is None else np.asarray(candidates, np.int64)
    for rows in np.split(rng.permutation(len(own)), range(batch_size, len(own), batch_size)):
        drawn = (
            rng.integers(num_documents or 1, size=(len(rows), 4 * num_negatives))  # to spare, as a few may be unsafe
            if listed is None
            else rng.permuted(listed[rows], axis=1)
        )
        safe = np.where(unsafe.mask(rows, drawn), -1, drawn)
        first = np.argsort(safe < 0, axis=1, kind="stable")[:, :num_negatives]
        negatives = np.take_along_axis(safe, first, axis=1)
        yield [tuple(row) for row in np.column_stack([rows, own[rows], negatives]).tolist()]


def columns_of(batch: Sequence[Triple]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part a batch into its queries and its documents.

    Args:
        batch: B tuples of query, positive and negatives.

    Returns:
        Queries (B,), and documents: the positives in the queries' order, then the distinct negatives there are.
    """
    table = np.array(batch, np.int64)  # (B, 2 + h)
    negatives = np.unique(table[:, 2:])
    return table[:, 0], np.concatenate([table[:, 1], negatives[negatives >= 0]])


def _inverted(candidates: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn query -> documents into document -> queries: where each document's queries begin, and the queries."""
    there = candidates >= 0
    queries = np.broadcast_to(np.arange(len(candidates))[:, None], candidates.shape)[there]
    documents = candidates[there]
    order = np.argsort(documents, kind="stable")
    counts = np.bincount(documents, minlength=1)
    return np.concatenate([[0], np.cumsum(counts)]), queries[order]
