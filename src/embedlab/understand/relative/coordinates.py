"""Relative coordinates in numpy, for vectors that are there already: no torch."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.files import atomic_write
from embedlab.understand.relative.anchors import AnchorSet, anchor_rows
from embedlab.understand.relative.choosing import STRATEGIES, Strategy
from embedlab.understand.relative.rows import Floats, blocks, keys, list_hash, matrix, unit

Similarity: TypeAlias = Literal["cosine", "dot", "euclidean", "basis_change"]
Normalization: TypeAlias = Literal["none", "l2", "layer"]

LAYER_EPSILON = 1e-5


def relative_coordinates(
    vectors: ArrayLike,
    anchors: ArrayLike,
    *,
    similarity: Similarity = "cosine",
    mean: ArrayLike | None = None,
    normalization: Normalization = "none",
    quantize: float | None = None,
    subspaces: int = 1,
) -> Floats:
    """Express vectors by their similarities to anchors.

    Args:
        vectors: What to express; zero rows (texts without a known word) are similar to nothing: 0.
        anchors: Vectors of the anchors by the same encoder.
        similarity: ``"cosine"``; ``"dot"``, divided by sqrt(D); ``"euclidean"``, the distance with its sign turned;
            ``"basis_change"``, least-squares coordinates in the basis of the anchors.
        mean: What to subtract from vectors and anchors beforehand; None for nothing.
        normalization: What to do to each relative vector: ``"none"``, ``"l2"`` (unit length) or ``"layer"`` (mean 0,
            variance 1).
        quantize: Width of the bins that similarities are rounded to, above 0; None leaves them.
        subspaces: Parts that D is split into, each compared on its own; the results are put one behind another.

    Shape:
        vectors (N, D), anchors (K, D), mean (D,) -> (N, K * subspaces), float32 only if both are

    Returns:
        Relative vectors; cosines lie in [-1, 1].

    Raises:
        InputError: an option is unknown or out of range, or the arrays are not finite matrices of one width, or an
            anchor is zero or a repeat.

    Example:
        >>> relative_coordinates([[2.0, 0.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 5.0]]).round(2).tolist()
        [[1.0, 0.0], [0.6, 0.8]]
    """
    check_options(similarity, normalization, quantize, subspaces)
    basis = anchor_rows("anchors", anchors)
    rows = matrix("vectors", vectors, dim=basis.shape[1])
    if basis.shape[1] % subspaces:
        raise InputError(f"subspaces={subspaces} must divide the width of the vectors, {basis.shape[1]}")
    dtype = np.result_type(rows, basis)
    centre = None if mean is None else matrix("mean", np.atleast_2d(mean), dim=basis.shape[1])[0].astype(dtype)
    basis = basis.astype(dtype) if centre is None else basis.astype(dtype) - centre
    parts = np.split(basis, subspaces, axis=1)
    prepared = [_prepare(part, similarity) for part in parts]
    found = np.empty((len(rows), len(basis) * subspaces), dtype=dtype)
    for block in blocks(len(rows)):
        chunk = rows[block].astype(dtype, copy=False)
        chunk = chunk if centre is None else np.where(chunk.any(axis=1, keepdims=True), chunk - centre, 0)
        heads = np.split(chunk, subspaces, axis=1)
        result = np.concatenate([_compare(h, a, similarity) for h, a in zip(heads, prepared, strict=True)], axis=1)
        if quantize is not None:
            result = np.round(result / dtype.type(quantize)) * dtype.type(quantize)
        found[block] = _normalized(result, normalization)
    return found


class RelativeEmbedder:
    """Turn the vectors of any encoder into relative ones, with scikit-learn's ``fit`` and ``transform``.

    Every item is described by its similarities to the same anchors a_1 ... a_k instead of by its coordinates::

        r(x) = (sim(e(x), e(a_1)), ..., sim(e(x), e(a_k)))          sim = cosine by default

    Encoders trained apart give different e but, as far as they agree on what is alike, the same r: it does not change
    under rotation, reflection and scaling of the space, with ``center`` not under translation either. A head trained on
    the r of one encoder then works on the r of another.

    Args:
        num_anchors: Anchors to choose when ``fit`` is given none. (paper: k; 300 for words, the width for transformers)
        strategy: How to choose them, as in ``AnchorSet.select``.
        similarity: ``"cosine"``, ``"dot"``, ``"euclidean"`` or ``"basis_change"``.
        center: Subtract the mean of the data given to ``fit`` first; anisotropic encoders need it.
        normalization: Of each relative vector: ``"none"``, ``"l2"`` or ``"layer"``.
        quantize: Width of the bins that similarities are rounded to; None leaves them.
        subspaces: Parts that the width is split into, each compared on its own.
        seed: Decides the choice of anchors.

    Shape:
        data (N, D), any real type -> (N, num_anchors * subspaces)

    Attributes:
        anchors_: The anchors after ``fit``.
        anchor_vectors_: Their vectors, (K, D).
        mean_: What is subtracted, (D,), or None.

    Raises:
        InputError: an option is unknown or out of range.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(50, 8))
        >>> turned = rows @ np.linalg.qr(rows[:8])[0] * 3.7
        >>> one = RelativeEmbedder(5).fit(rows)
        >>> other = RelativeEmbedder(5).fit(turned, anchors=one.anchors_)
        >>> bool(np.allclose(one.transform(rows), other.transform(turned)))
        True

    References:
        Moschella et al. (2023), Relative Representations Enable Zero-Shot Latent Space Communication,
        arXiv:2209.15430v4, section 3. Official code lucmos/relreps (read, not copied).
    """

    def __init__(
        self,
        num_anchors: int = 300,
        *,
        strategy: Strategy = "uniform",
        similarity: Similarity = "cosine",
        center: bool = False,
        normalization: Normalization = "none",
        quantize: float | None = None,
        subspaces: int = 1,
        seed: int = 0,
    ) -> None:
        check_options(similarity, normalization, quantize, subspaces)
        if strategy not in STRATEGIES:
            raise unknown_name("strategy", strategy, STRATEGIES)
        if num_anchors < 1:
            raise InputError(f"num_anchors={num_anchors} must be at least 1")
        self.num_anchors = num_anchors
        self.strategy: Strategy = strategy
        self.similarity: Similarity = similarity
        self.center = center
        self.normalization: Normalization = normalization
        self.quantize = quantize
        self.subspaces = subspaces
        self.seed = seed
        self.anchors_: AnchorSet | None = None
        self.anchor_vectors_: Floats | None = None
        self.mean_: Floats | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings, as scikit-learn does; ``deep`` changes nothing here."""
        names = (
            "num_anchors", "strategy", "similarity", "center", "normalization", "quantize", "subspaces", "seed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    @property
    def anchors_hash(self) -> str | None:
        """Fingerprint of the anchors, by which spaces are kept from being mixed; None before ``fit``."""
        return None if self.anchors_ is None else self.anchors_.hash

    def fit(
        self, data: ArrayLike, labels: Sequence[Hashable] | None = None, *, anchors: AnchorSet | None = None
    ) -> RelativeEmbedder:
        """Choose the anchors among the data, or take given ones, and keep their vectors.

        Args:
            data: Vectors of the items, one row each.
            labels: One class per item, for ``strategy="stratified"``.
            anchors: The anchors of another space of the same items, row for row; None chooses anew.

        Returns:
            The embedder itself.

        Raises:
            InputError: ``data`` is no finite matrix, or holds fewer different rows than anchors are wanted.
        """
        rows = matrix("data", data)
        chosen = anchors
        if chosen is None:
            chosen = AnchorSet.select(rows, self.num_anchors, strategy=self.strategy, labels=labels, seed=self.seed)
        return self._keep(chosen, chosen.take(rows), rows)

    def fit_anchors(self, anchors: AnchorSet, vectors: ArrayLike, *, data: ArrayLike | None = None) -> RelativeEmbedder:
        """Take anchors whose vectors are not rows of the data, such as parallel anchors embedded for the purpose.

        Args:
            anchors: The anchors.
            vectors: Their vectors by this encoder, (K, D), in order.
            data: Data to take the mean of with ``center``; None takes that of the anchors.

        Returns:
            The embedder itself.

        Raises:
            InputError: the number of vectors is not that of the anchors, or one is zero, a repeat or not finite.
        """
        rows = anchor_rows("vectors", vectors)
        if len(rows) != len(anchors):
            raise InputError(f"vectors has {len(rows)} rows for {len(anchors)} anchors: give one per anchor, in order")
        return self._keep(anchors, rows, rows if data is None else matrix("data", data, dim=rows.shape[1]))

    def transform(self, data: ArrayLike) -> Floats:
        """Return the relative vectors of some items.

        Args:
            data: Vectors by the encoder of ``fit``, (N, D).

        Returns:
            Relative vectors (N, num_anchors * subspaces).

        Raises:
            InputError: ``fit`` was not called, or ``data`` is no finite matrix of that width.
        """
        if self.anchor_vectors_ is None:
            raise InputError("there are no anchors yet: call fit first")
        return relative_coordinates(
            data,
            self.anchor_vectors_,
            similarity=self.similarity,
            mean=self.mean_,
            normalization=self.normalization,
            quantize=self.quantize,
            subspaces=self.subspaces,
        )

    def fit_transform(self, data: ArrayLike, labels: Sequence[Hashable] | None = None) -> Floats:
        """Call ``fit`` and return the relative vectors of the same data."""
        return self.fit(data, labels).transform(data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings, anchors and their fingerprint to one ``.npz`` file, without pickle.

        Args:
            path: The file to write.

        Raises:
            InputError: ``fit`` was not called.
        """
        if self.anchors_ is None or self.anchor_vectors_ is None:
            raise InputError("there are no anchors yet: call fit first")
        about = {
            "settings": self.get_params(),
            "anchors": {"hash": self.anchors_.hash, "num_items": self.anchors_.num_items, "texts": self.anchors_.texts},
            "vectors": list_hash(keys(self.anchor_vectors_)),
        }
        buffer = io.BytesIO()
        arrays = {"vectors": self.anchor_vectors_, "indices": self.anchors_.indices}
        np.savez(buffer, about=np.array(json.dumps(about)), mean=_mean_or_empty(self.mean_), **arrays)  # type: ignore[arg-type]
        atomic_write(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RelativeEmbedder:
        """Read what ``save`` has written.

        Args:
            path: The file.

        Returns:
            The embedder, fitted.

        Raises:
            InputError: there is no such file, it is damaged, or its anchors are not those it was saved with.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                vectors, indices, mean = stored["vectors"], stored["indices"], stored["mean"]
            embedder = cls(**about["settings"])
            listed = AnchorSet(
                about["anchors"]["hash"], indices, about["anchors"]["num_items"], tuple(about["anchors"]["texts"])
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"path={str(path)!r}: no relative embedder there ({error}); write one with save"
            ) from error
        if about["vectors"] != list_hash(keys(vectors)):
            raise InputError(f"path={str(path)!r}: the anchors are not those of {listed.hash}: the file was changed")
        embedder.anchors_, embedder.anchor_vectors_ = listed, vectors
        embedder.mean_ = mean if mean.size else None
        return embedder

    def _keep(self, anchors: AnchorSet, vectors: Floats, data: Floats) -> RelativeEmbedder:
        if vectors.shape[1] % self.subspaces:
            raise InputError(f"subspaces={self.subspaces} must divide the width of the vectors, {vectors.shape[1]}")
        self.anchors_, self.anchor_vectors_ = anchors, vectors.copy()
        self.mean_ = data.mean(axis=0, dtype=np.float64).astype(data.dtype) if self.center else None
        return self


def check_options(similarity: str, normalization: str, quantize: float | None, subspaces: int) -> None:
    """Refuse options that are not there.

    Args:
        similarity: Kind of similarity.
        normalization: Kind of normalisation.
        quantize: Width of the bins, or None.
        subspaces: Parts of the width.

    Raises:
        InputError: one of them is unknown or out of range.
    """
    if similarity not in get_args(Similarity):
        raise unknown_name("similarity", similarity, get_args(Similarity))
    if normalization not in get_args(Normalization):
        raise unknown_name("normalization", normalization, get_args(Normalization))
    if quantize is not None and not 0 < quantize < np.inf:
        raise InputError(f"quantize={quantize!r} must be a width above 0, or None")
    if subspaces < 1:
        raise InputError(f"subspaces={subspaces} must be at least 1")


def _prepare(anchors: Floats, similarity: Similarity) -> Floats:
    """What the rows are multiplied with: (K, D)."""
    if similarity == "cosine":
        return unit(anchors)
    if similarity == "dot":
        return np.asarray(anchors / np.sqrt(anchors.shape[1]).astype(anchors.dtype))
    if similarity == "basis_change":
        # coordinates c of x minimise |x - A^T c|: c = pinv(A^T) x, the shortest ones if there are many
        return np.linalg.pinv(anchors.T.astype(np.float64)).astype(anchors.dtype)
    return anchors


def _compare(rows: Floats, anchors: Floats, similarity: Similarity) -> Floats:
    """Similarities (B, K) of rows (B, D) to prepared anchors (K, D)."""
    if similarity == "euclidean":
        x, a = rows.astype(np.float64), anchors.astype(np.float64)  # squares cancel: single precision loses half
        squares = (x * x).sum(axis=1)[:, None] + (a * a).sum(axis=1) - 2 * x @ a.T
        return np.asarray(-np.sqrt(np.maximum(squares, 0)), dtype=rows.dtype)
    found = (unit(rows) if similarity == "cosine" else rows) @ anchors.T
    return np.asarray(np.clip(found, -1, 1) if similarity == "cosine" else found)


def _normalized(rows: Floats, normalization: Normalization) -> Floats:
    if normalization == "l2":
        return unit(rows)
    if normalization == "layer":
        spread = np.sqrt(rows.var(axis=1, keepdims=True) + rows.dtype.type(LAYER_EPSILON))
        return np.asarray((rows - rows.mean(axis=1, keepdims=True)) / spread)
    return rows


def _mean_or_empty(mean: Floats | None) -> NDArray[Any]:
    return np.empty(0) if mean is None else mean
