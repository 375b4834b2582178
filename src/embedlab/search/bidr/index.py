"""Search in two grains: codes of all documents in memory find candidates, full vectors on disk put them in order."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_folder, atomic_write
from embedlab.search.bidr.vectors import Floats, Rows, TwoStageError, VectorStore, open_vectors
from embedlab.search.codecs import Codec, CodecError, Scanner, load_codec

_FORMAT = "embedlab two-stage index 1"
_BLOCK = 16_384  # rows encoded and written at once
_WITNESSES = 64  # rows by which full vectors are recognised


@dataclass(frozen=True, slots=True)
class Cost:
    """What an index holds and has done since it was opened.

    Attributes:
        memory_bytes: Bytes that are held for the codes, the same whatever is searched.
        documents: Number of documents.
        queries: Queries answered.
        candidates: Candidates verified.
        bytes_read: Bytes of full vectors read.
        disk_reads: Vectors that the system did not have in its page cache; -1 where nobody can tell.
    """

    memory_bytes: int
    documents: int
    queries: int
    candidates: int
    bytes_read: int
    disk_reads: int


class BiGranularIndex:
    """Find candidates by their codes in memory, then score them by their full vectors on disk.

    ``score = <q, d> + sparse_weight * (score of the codes)`` for the ``candidates`` best by codes; everything else is
    never read. Memory is the codes' (``bytes_per_vector`` per document), reads are ``candidates`` rows per query.

    Args:
        codec: The fitted codec of the codes.
        codes: Codes of all documents (N, B).
        vectors: Their full vectors: path of an npy file, a LanceDB table (columns ``row`` and ``vector``), or a
            ``VectorStore``.
        partitions: Centroids and each document's partition, as ``build`` makes them with ``lists=``; None to look at
            all codes. Takes 8 more bytes per document, and faiss.
        probes: Partitions that a query looks at, if there are any.
        max_candidates: Most candidates, and so reads, that a query may ask for.
        threads: Threads that look through the codes.

    Raises:
        TwoStageError: the numbers of codes and vectors differ.
        CodecError: these are no codes of this codec.

    Example:
        >>> import tempfile
        >>> from embedlab.search.codecs import make_codec
        >>> vectors = np.random.default_rng(0).normal(size=(300, 32)).astype(np.float32)
        >>> codec = make_codec("binary", 32).fit(vectors)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = BiGranularIndex.build(f"{folder}/index", codec, vectors)
        ...     scores, rows = index.search(vectors[:2], top_k=1, candidates=20)
        >>> rows.tolist(), index.cost.candidates
        ([[0], [1]], 40)

    References:
        Xiao et al. (2022), arXiv:2201.05409v1, sections 3.1 and 4; read, not copied: microsoft/BiDR, whose script adds
        0.3 times the sparse score.
    """

    def __init__(
        self,
        codec: Codec,
        codes: NDArray[np.uint8],
        vectors: str | Path | VectorStore | Any,
        *,
        partitions: tuple[Floats, NDArray[np.uint32]] | None = None,
        probes: int = 16,
        max_candidates: int = 10_000,
        threads: int | None = None,
    ) -> None:
        if max_candidates < 1 or probes < 1:
            raise InputError(f"max_candidates={max_candidates}, probes={probes}: both must be at least 1")
        self.codec, self.vectors = codec, open_vectors(vectors)
        self.max_candidates, self.threads = max_candidates, threads
        if len(codes) != len(self.vectors):
            raise TwoStageError(
                f"{len(codes)} codes but {len(self.vectors)} full vectors: they are not of one index; build it again"
            )
        self.scanner: Scanner
        if partitions is not None:
            from embedlab.search.bidr.partitions import PartitionedScanner

            self.scanner = PartitionedScanner(codec, codes, *partitions, probes=probes)
            self._memory_bytes = self.scanner.memory_bytes
        else:
            self.scanner = codec.scanner(codes)
            self._memory_bytes = len(codes) * codec.bytes_per_vector
        self._queries, self._before = 0, _counts(self.vectors)

    @classmethod
    def build(
        cls,
        folder: str | Path,
        codec: Codec,
        vectors: NDArray[np.floating],
        *,
        sparse_vectors: NDArray[np.floating] | None = None,
        dtype: str = "float32",
        lists: int = 0,
        **options: Any,
    ) -> Self:
        """Write an index to a folder, in one step, and open it.

        Args:
            folder: Where to; an index that is there is replaced.
            codec: The fitted codec.
            vectors: Full vectors (N, D); may be memory-mapped, they are read in blocks.
            sparse_vectors: What is encoded, row by row, where the codes are of another encoder; ``vectors`` by default.
            dtype: How full vectors are stored, ``"float32"`` or ``"float16"``.
            lists: Partitions of the codes, of which a query looks at ``probes``: for millions of documents, with a
                ``contrastive_pq`` codec. 0 to look at all codes.
            options: Those of the constructor.

        Returns:
            The index.

        Raises:
            InputError: shapes, number format or number of partitions that are not allowed.
        """
        coded = vectors if sparse_vectors is None else sparse_vectors
        if vectors.ndim != 2 or len(coded) != len(vectors) or not len(vectors):
            raise InputError(
                f"vectors {vectors.shape}, sparse_vectors {coded.shape}: expected as many rows, at least 1"
            )
        if dtype not in ("float32", "float16"):
            raise InputError(f"dtype={dtype!r}: expected 'float32' or 'float16'")
        with atomic_folder(folder) as fresh:
            codec.save(fresh / "codec")
            _write_npy(fresh / "vectors.npy", vectors.shape, np.dtype(dtype), _blocks(vectors, np.dtype(dtype)))
            codes = (codec.encode(block) for block in _blocks(coded, np.dtype(np.float32)))
            _write_npy(fresh / "codes.npy", (len(coded), codec.bytes_per_vector), np.dtype(np.uint8), codes)
            _seal(fresh, codec, open_vectors(fresh / "vectors.npy"), lists)
        return cls.open(folder, **options)

    @classmethod
    def build_beside(
        cls, folder: str | Path, codec: Codec, vectors: str | Path | Any, *, lists: int = 0, **options: Any
    ) -> Self:
        """Write an index of vectors that stay where they are: an npy file or a LanceDB table.

        Args:
            folder: Where the codes go; an index that is there is replaced.
            codec: The fitted codec.
            vectors: Path, table or store of the full vectors; give the same to ``open`` later on.
            lists: Partitions of the codes; see ``build``.
            options: Those of the constructor.

        Returns:
            The index.
        """
        store = open_vectors(vectors)
        with atomic_folder(folder) as fresh:
            codec.save(fresh / "codec")
            parts = (np.arange(at, min(at + _BLOCK, len(store))) for at in range(0, len(store), _BLOCK))
            codes = (codec.encode(store.read(part)) for part in parts)
            _write_npy(fresh / "codes.npy", (len(store), codec.bytes_per_vector), np.dtype(np.uint8), codes)
            _seal(fresh, codec, store, lists)
        return cls.open(folder, vectors=vectors, **options)

    @classmethod
    def open(cls, folder: str | Path, *, vectors: str | Path | Any | None = None, **options: Any) -> Self:
        """Open an index that ``build`` has written.

        Args:
            folder: The folder.
            vectors: Where the full vectors lie, if not in the folder.
            options: Those of the constructor.

        Returns:
            The index.

        Raises:
            TwoStageError: a file is missing or damaged, or the full vectors are not those that were encoded.
            CodecError: the codec is damaged, or the codes are of another one.
        """
        home = Path(folder)
        try:
            about = json.loads((home / "index.json").read_bytes())
            codes = np.load(home / "codes.npy", allow_pickle=False)
        except FileNotFoundError as error:
            raise TwoStageError(f"{folder} holds no two-stage index: {Path(error.filename).name} is missing") from error
        except (OSError, ValueError, EOFError) as error:
            raise TwoStageError(f"the index in {folder} is damaged, build it again: {error}") from error
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise TwoStageError(
                f"{folder}/index.json is not of the form {_FORMAT!r}: was it written by a later release?"
            )
        partitions = _read_partitions(home, codes, about)
        codec = load_codec(home / "codec")
        if codec.fingerprint != about["codec"]:
            raise CodecError(f"{folder}: codes were made by {about['codec']}, the codec there is {codec.fingerprint}")
        if _digest(codes) != about["codes_sha256"]:
            raise TwoStageError(f"{folder}/codes.npy is damaged: its checksum does not fit; build the index again")
        store = open_vectors(home / "vectors.npy" if vectors is None else vectors)
        if (len(store), store.dim) != (about["count"], about["dim"]):
            raise TwoStageError(
                f"full vectors of shape ({len(store)}, {store.dim}), the index in {folder} was built of "
                f"({about['count']}, {about['dim']}): give those, or build it again"
            )
        if _witness(store) != about["vectors_sample"]:
            raise TwoStageError(
                f"the full vectors are not those that the index in {folder} was built of: build it again"
            )
        return cls(codec, codes, store, partitions=partitions, **options)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def cost(self) -> Cost:
        """What the index holds and has done since it was opened."""
        done = [now - then for now, then in zip(_counts(self.vectors), self._before, strict=True)]
        if self.vectors.disk_reads < 0:
            done[2] = -1
        return Cost(self._memory_bytes, len(self), self._queries, *done)

    def search(
        self,
        queries: ArrayLike,
        *,
        top_k: int = 10,
        candidates: int = 1000,
        sparse_queries: ArrayLike | None = None,
        sparse_weight: float = 0.0,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[Floats, Rows]:
        """Find the nearest documents.

        Args:
            queries: Vectors of the side that verifies (Q, D).
            top_k: Documents to return for each.
            candidates: How many are read from disk and scored, at least ``top_k``; 0 to trust the codes and read none.
                Published 1000.
            sparse_queries: Vectors of the side that made the codes (Q, D'); ``queries`` by default.
            sparse_weight: Weight of the codes' score in the sum. Published 0 in the paper's text, 0.3 in the script.
            allowed: Which documents may be returned (N,); all by default.

        Shape:
            queries (Q, D) -> scores (Q, top_k), rows (Q, top_k)

        Returns:
            Scores, larger is nearer, and row numbers; -inf and -1 where there are fewer.

        Raises:
            InputError: an argument out of range or of another shape.
        """
        rows = np.atleast_2d(np.asarray(queries, np.float32))
        coarse = rows if sparse_queries is None else np.atleast_2d(np.asarray(sparse_queries, np.float32))
        if rows.shape[1] != self.vectors.dim or len(coarse) != len(rows):
            raise InputError(
                f"queries {rows.shape}, sparse_queries {coarse.shape}: expected as many, and {self.vectors.dim} wide"
            )
        if not (top_k >= 1 and (candidates == 0 or top_k <= candidates <= self.max_candidates)):
            raise InputError(
                f"top_k={top_k}, candidates={candidates}: expected candidates from top_k to max_candidates="
                f"{self.max_candidates}, or 0 to read none"
            )
        self._queries += len(rows)
        found = self.scanner.search(coarse, candidates or top_k, allowed=allowed, threads=self.threads)
        if candidates == 0:
            return found
        scores = np.full((len(rows), top_k), -np.inf, np.float32)
        best = np.full((len(rows), top_k), -1, np.int64)
        for query, (row, first, chosen) in enumerate(zip(rows, *found, strict=True)):
            known = chosen >= 0
            first, chosen = first[known], chosen[known]
            order = np.argsort(chosen)  # the disk likes to go one way
            first, chosen = first[order], chosen[order]
            exact = self.vectors.read(chosen) @ row
            if sparse_weight:
                exact = exact + np.float32(sparse_weight) * first
            ranked = np.argsort(-exact, kind="stable")[:top_k]
            scores[query, : len(ranked)], best[query, : len(ranked)] = exact[ranked], chosen[ranked]
        return scores, best


def _counts(store: VectorStore) -> tuple[int, int, int]:
    return store.reads, store.bytes_read, store.disk_reads


def _blocks(rows: NDArray[np.floating], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    for at in range(0, len(rows), _BLOCK):
        yield np.ascontiguousarray(rows[at : at + _BLOCK], dtype)


def _write_npy(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterator[NDArray[Any]]) -> None:
    """Write an array block by block, never holding it."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(map(int, shape))}
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.data)
        file.flush()
        os.fsync(file.fileno())


def _seal(folder: Path, codec: Codec, store: VectorStore, lists: int) -> None:
    codes = np.load(folder / "codes.npy", mmap_mode="r")
    about: dict[str, Any] = {
        "format": _FORMAT,
        "count": len(store),
        "dim": store.dim,
        "codec": codec.fingerprint,
        "codes_sha256": _digest(codes),
        "vectors_sample": _witness(store),
    }
    if lists:
        from embedlab.search.bidr.partitions import assign_partitions, learn_partitions

        centroids = learn_partitions(codec, codes, lists=lists, seed=codec.seed)
        assigned = assign_partitions(codec, codes, centroids)
        np.save(folder / "centroids.npy", centroids, allow_pickle=False)
        np.save(folder / "partitions.npy", assigned, allow_pickle=False)
        about["partitions_sha256"] = _digest(assigned) + _digest(centroids)
    atomic_write(folder / "index.json", json.dumps(about, indent=2) + "\n")


def _read_partitions(
    folder: Path, codes: NDArray[np.uint8], about: dict[str, Any]
) -> tuple[Floats, NDArray[np.uint32]] | None:
    if "partitions_sha256" not in about:
        return None
    try:
        centroids, assigned = (np.load(folder / f"{name}.npy") for name in ("centroids", "partitions"))
    except (OSError, ValueError, EOFError) as error:
        raise TwoStageError(f"the partitions in {folder} cannot be read, build the index again: {error}") from error
    if _digest(assigned) + _digest(centroids) != about["partitions_sha256"] or len(assigned) != len(codes):
        raise TwoStageError(f"the partitions in {folder} are damaged: build the index again")
    return centroids, assigned


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _witness(store: VectorStore) -> str:
    """Fingerprint some rows, evenly over all: other vectors of the same shape are noticed, at the cost of 64 reads."""
    rows = np.unique(np.linspace(0, len(store) - 1, _WITNESSES).astype(np.int64))
    return hashlib.sha256(store.read(rows).tobytes()).hexdigest()
