"""Product quantisers as faiss indexes: OPQ to start from, and codes searched where faiss is fast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.extras import require

Floats = NDArray[np.float32]
_SAMPLE = 65_536  # vectors that OPQ learns from, as many as faiss would take


def train_opq(
    vectors: Floats, *, parts: int, centroids: int = 256, rotate: bool = True, iterations: int = 50, seed: int = 0
) -> tuple[Floats, Floats | None]:
    """Learn a codebook, and the rotation that suits it, by the vectors' own errors: the conventional way.

    Args:
        vectors: Vectors (N, D), at least ``centroids`` of them; a sample of 65,536 is used.
        parts: Parts of a vector.
        centroids: Codewords of each part, 16 or 256.
        rotate: Whether to learn a rotation (OPQ); plain product quantisation otherwise.
        iterations: Rounds of OPQ. 50 is faiss' own choice.
        seed: Decides sample, starting rotation and k-means.

    Returns:
        Codebook (P, K, D/P) and rotation (D, D) or None.

    Raises:
        MissingExtraError: faiss is not installed.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
        >>> codebook, rotation = train_opq(vectors, parts=4, centroids=16, iterations=4)
        >>> codebook.shape, rotation.shape
        ((4, 16, 2), (8, 8))
    """
    faiss = require("faiss", extra="codecs")
    rng = np.random.default_rng(seed)
    if len(vectors) > _SAMPLE:
        vectors = vectors[np.sort(rng.choice(len(vectors), _SAMPLE, replace=False))]
    sample = np.ascontiguousarray(vectors, np.float32)
    dim, bits = sample.shape[1], centroids.bit_length() - 1
    rotation = None
    if rotate:
        turn = faiss.OPQMatrix(dim, parts)
        turn.niter = iterations
        inner = _quantizer(faiss, dim, parts, bits, seed)
        inner.cp.niter = 4  # k-means goes on from the last round's codebook
        turn.pq = inner
        start = np.linalg.qr(rng.normal(size=(dim, dim)))[0].astype(np.float32)  # faiss itself has one start for all
        turn.train(sample @ start.T)
        rotation = faiss.vector_to_array(turn.A).reshape(dim, dim) @ start
        sample = sample @ rotation.T
    quantizer = _quantizer(faiss, dim, parts, bits, seed)
    quantizer.train(sample)
    codebook = faiss.vector_to_array(quantizer.centroids).reshape(parts, centroids, dim // parts)
    return codebook, rotation


def product_index(codebook: Floats, rotation: Floats | None = None) -> Any:
    """Make an empty faiss index of a codebook.

    Args:
        codebook: Codewords (P, K, D/P), K of 16 or 256.
        rotation: What vectors are turned by first (D, D), None for nothing.

    Returns:
        ``IndexPQ`` with inner product, behind a ``LinearTransform`` if there is a rotation.

    Raises:
        MissingExtraError: faiss is not installed.
    """
    faiss = require("faiss", extra="codecs")
    parts, centroids, width = codebook.shape
    index = faiss.IndexPQ(parts * width, parts, centroids.bit_length() - 1, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.ascontiguousarray(codebook, np.float32).ravel(), index.pq.centroids)
    index.is_trained = True
    if rotation is None:
        return index
    turn = faiss.LinearTransform(index.d, index.d, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(rotation, np.float32).ravel(), turn.A)
    turn.is_trained = True
    turn.set_is_orthonormal()
    return faiss.IndexPreTransform(turn, index)


def _quantizer(faiss: Any, dim: int, parts: int, bits: int, seed: int) -> Any:
    quantizer = faiss.ProductQuantizer(dim, parts, bits)
    quantizer.cp.seed = seed + 1234  # 1234 is what faiss takes by itself
    quantizer.cp.min_points_per_centroid = 1  # a small corpus is no reason for a warning on the terminal
    return quantizer
