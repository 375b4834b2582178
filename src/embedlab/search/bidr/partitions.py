"""Fast scans over product codes, by faiss: all of them, or the partitions near a query."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.search.bidr.faiss_index import product_index
from embedlab.search.codecs.codec import Codec, Codes, Floats, Mask, blocks
from embedlab.search.codecs.scanning import checked_mask, demand_top_k
from embedlab.search.codecs.threads import Found, faiss_threads, reduce_found, threads_of

if TYPE_CHECKING:
    from embedlab.search.bidr.codec import ContrastivePQCodec

_MOST_SHARDS = 8
_SMALL = 10_000  # documents below which threads cost more than they save
_TRAINED_ON = 64  # decoded vectors that k-means sees, for each partition


class ProductScanner:
    """Look at all codes: a table of scores per query, P look-ups per document, in one thread per shard.

    Row r is the (r // S)-th of shard r % S, so that shards stay equal however many rows are added.

    Args:
        codec: The fitted codec.
        codes: Codes to start with (N, B).
        shards: How many, and so threads at most; by default as many as the process may use, up to 8.

    Raises:
        MissingExtraError: faiss is not installed.
    """

    def __init__(self, codec: ContrastivePQCodec, codes: Codes, *, shards: int | None = None) -> None:
        self.codec = codec
        wanted = shards or min(_MOST_SHARDS, len(_processors()))
        self._shards = [product_index(codec.parameters["codebook"]) for _ in range(wanted)]
        self._count = 0
        self.add(codes)

    def __len__(self) -> int:
        return self._count

    def add(self, codes: Codes) -> None:
        """Append rows; see ``Scanner``.

        Args:
            codes: Codes (N, B).
        """
        codes, number = self.codec.checked_codes(codes), len(self._shards)
        for shard, index in enumerate(self._shards):
            part = np.ascontiguousarray(codes[(shard - self._count) % number :: number])
            if len(part):
                index.add_sa_codes(part)
        self._count += len(codes)

    def search(
        self, queries: ArrayLike, top_k: int, *, allowed: Mask | None = None, threads: int | None = None
    ) -> Found:
        """Find the nearest rows; see ``Scanner``.

        Args:
            queries: Vectors (Q, D).
            top_k: Number of rows.
            allowed: Which rows may be returned (N,).
            threads: Most threads to use.

        Returns:
            Scores and rows, (Q, top_k) each.
        """
        faiss, number = require("faiss", extra="codecs"), len(self._shards)
        demand_top_k(top_k)
        mask, turned = checked_mask(allowed, len(self)), self.codec.turned_queries(queries)

        def look(shard: int) -> Found:
            index, numbers = self._shards[shard], None
            if mask is not None:  # faiss knows no selection here: look at a copy of what is allowed
                numbers = np.flatnonzero(mask[shard::number])
                codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
                index = product_index(self.codec.parameters["codebook"])
                if len(numbers):
                    index.add_sa_codes(codes.reshape(-1, index.code_size)[numbers])
            with faiss_threads(1):  # of this thread's own
                scores, rows = index.search(turned, top_k)
            there = rows >= 0
            rows = rows if numbers is None or not len(numbers) else numbers[rows]
            return np.where(there, scores, -np.inf), np.where(there, rows * number + shard, -1)

        workers = min(number, threads_of(threads))
        if workers == 1 or len(self) < _SMALL:
            found = [look(shard) for shard in range(number)]
        else:
            with ThreadPoolExecutor(workers) as pool:
                found = list(pool.map(look, range(number)))
        return reduce_found(found, len(turned), top_k)


class PartitionedScanner:
    """Look at the partitions nearest to a query: inverted lists over the same codes.

    Codes stay as they are (no residuals), so that scores equal those of the full scan for every document looked at.

    Args:
        codec: The fitted codec, one with a codebook.
        codes: Codes (N, B).
        centroids: What ``learn_partitions`` has found (L, D).
        assigned: Partition of each document (N,), as ``assign_partitions`` gives it.
        probes: Partitions that a query looks at.

    Raises:
        InputError: the codec has no codebook.
        MissingExtraError: faiss is not installed.
    """

    def __init__(
        self, codec: Codec, codes: Codes, centroids: Floats, assigned: NDArray[np.integer], *, probes: int = 16
    ) -> None:
        self.codec, self.probes = demand_codebook(codec), min(probes, len(centroids))
        faiss = require("faiss", extra="codecs")
        self._centroids, self._coarse = len(centroids), _coarse(centroids)
        codebook = self.codec.parameters["codebook"]  # (P, K, D/P)
        parts, words, _ = codebook.shape
        kind = (codec.dim, len(centroids), parts, words.bit_length() - 1, faiss.METRIC_INNER_PRODUCT)
        self._index = faiss.IndexIVFPQ(self._coarse, *kind)
        self._index.by_residual = False
        faiss.copy_array_to_vector(codebook.ravel(), self._index.pq.centroids)
        self._index.is_trained = True
        self._count = 0
        self._append(self.codec.checked_codes(codes), assigned)

    def __len__(self) -> int:
        return self._count

    @property
    def memory_bytes(self) -> int:
        """Bytes of codes, row numbers and centroids."""
        return self._count * (self.codec.bytes_per_vector + 8) + 4 * self._centroids * self.codec.dim

    def add(self, codes: Codes) -> None:
        """Append rows; see ``Scanner``.

        Args:
            codes: Codes (N, B).
        """
        codes = self.codec.checked_codes(codes)
        self._append(codes, _assigned(self.codec, codes, self._coarse))

    def _append(self, codes: Codes, assigned: NDArray[np.integer]) -> None:
        faiss: Any = require("faiss", extra="codecs")
        for part in blocks(len(codes), 8 * self.codec.dim):
            order = np.argsort(assigned[part], kind="stable")
            lists, some = np.asarray(assigned[part])[order], np.ascontiguousarray(codes[part][order])
            rows = self._count + order.astype(np.int64)
            starts = np.flatnonzero(np.diff(lists.astype(np.int64), prepend=-1))
            for start, end in zip(starts, [*starts[1:], len(lists)], strict=True):
                numbers, kept = faiss.swig_ptr(rows[start:end]), faiss.swig_ptr(some[start:end])
                self._index.invlists.add_entries(int(lists[start]), int(end - start), numbers, kept)
            self._count += len(rows)
        self._index.ntotal = self._count

    def search(
        self, queries: ArrayLike, top_k: int, *, allowed: Mask | None = None, threads: int | None = None
    ) -> Found:
        """Find the nearest rows; see ``Scanner``.

        Args:
            queries: Vectors (Q, D).
            top_k: Number of rows.
            allowed: Which rows may be returned (N,).
            threads: Most threads to use.

        Returns:
            Scores and rows, (Q, top_k) each.
        """
        faiss: Any = require("faiss", extra="codecs")
        demand_top_k(top_k)
        mask, turned = checked_mask(allowed, len(self)), self.codec.turned_queries(queries)
        kept: NDArray[np.uint8] | None = None if mask is None else np.packbits(mask, bitorder="little")
        chosen = {} if kept is None else {"sel": faiss.IDSelectorBitmap(kept)}
        params = faiss.SearchParametersIVF(nprobe=self.probes, **chosen)
        with faiss_threads(threads_of(threads)):
            scores, rows = self._index.search(turned, top_k, params=params)
        return np.where(rows < 0, -np.inf, scores).astype(np.float32, copy=False), rows


def learn_partitions(codec: Codec, codes: Codes, *, lists: int, seed: int = 0) -> Floats:
    """Part the space of decoded vectors by spherical k-means.

    Args:
        codec: The fitted codec, one with a codebook.
        codes: Codes (N, B); a sample of 64 per partition is used.
        lists: Number of partitions L.
        seed: Decides the sample and the start.

    Returns:
        Centroids (L, D), unit rows, in the rotated space.

    Raises:
        InputError: the codec has no codebook, or there are fewer documents than partitions.
        MissingExtraError: faiss is not installed.
    """
    known = demand_codebook(codec)
    if not 1 <= lists <= len(codes):
        raise InputError(f"lists={lists}: must be at least 1, and at most the {len(codes)} documents")
    faiss = require("faiss", extra="codecs")
    sample = np.random.default_rng(seed).choice(len(codes), min(len(codes), _TRAINED_ON * lists), replace=False)
    means = faiss.Kmeans(codec.dim, lists, niter=10, spherical=True, seed=seed + 1, min_points_per_centroid=1)
    means.train(known.decode_turned(codes[np.sort(sample)]))
    return np.asarray(means.centroids, np.float32)


def assign_partitions(codec: Codec, codes: Codes, centroids: Floats) -> NDArray[np.uint32]:
    """Give every document the partition of its nearest centroid.

    Args:
        codec: The fitted codec.
        codes: Codes (N, B), also memory-mapped.
        centroids: Centroids (L, D).

    Returns:
        Number of a partition for each document (N,).
    """
    return _assigned(demand_codebook(codec), codes, _coarse(centroids))


def demand_codebook(codec: Codec) -> ContrastivePQCodec:
    """Refuse codecs that have no codebook to make partitions with.

    Args:
        codec: The codec.

    Returns:
        The same codec.

    Raises:
        InputError: it is another kind of codec.
    """
    from embedlab.search.bidr.codec import ContrastivePQCodec

    if not isinstance(codec, ContrastivePQCodec):
        raise InputError(f"lists: partitions need a contrastive_pq codec, this is {codec.name}; use lists=0")
    return codec


def _coarse(centroids: Floats) -> Any:
    coarse = require("faiss", extra="codecs").IndexFlatIP(centroids.shape[1])
    coarse.add(np.ascontiguousarray(centroids, np.float32))
    return coarse


def _assigned(codec: ContrastivePQCodec, codes: Codes, coarse: Any) -> NDArray[np.uint32]:
    found = np.empty(len(codes), np.uint32)
    for part in blocks(len(codes), 8 * codec.dim):
        found[part] = coarse.search(codec.decode_turned(np.asarray(codes[part])), 1)[1][:, 0]
    return found


def _processors() -> set[int] | range:
    import os

    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)
