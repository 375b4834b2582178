"""The recurrent binariser: any number of bits per dimension, trained from embeddings to embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require
from embedlab.search.bebr.development import Development
from embedlab.search.bebr.plan import Training, TrainingReport
from embedlab.search.bebr.recurrence import Codes, Floats, Recurrence, checked, rotation_start, unit, values
from embedlab.search.codecs.uniform import MOST_BITS, pack, unpack

Init = Literal["rotation", "random"]
_JUDGED = (50, 500)  # fewest and most development queries; with fewer chance would decide, and nothing is trained
_CORPUS, _START, _TRAINED = 3000, 20_000, 50_000  # most rows to judge by, to start from and to train on


@dataclass(frozen=True, slots=True)
class BinaryCodes:
    """Codes of some vectors.

    Attributes:
        codes: Integers (N, m) uint8 in 0..2^bits-1, whose bits are the signs.
        bits: Bits per dimension, u + 1.
    """

    codes: Codes
    bits: int

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.codes)

    @property
    def values(self) -> Floats:
        """The sums of signs (N, m)."""
        return values(self.codes, self.bits)

    @property
    def inv_norm(self) -> Floats:
        """One over the length of each sum (N,)."""
        return np.asarray(1 / np.linalg.norm(self.values, axis=1), np.float32)

    def pack(self) -> Codes:
        """Store codes as rows of bytes: the planes of signs, then the inverse norm in 16 bits.

        Returns:
            Rows (N, ceil(m / 8) * bits + 2).
        """
        return pack(self.codes, self.bits)

    @classmethod
    def unpack(cls, rows: Codes, code_dim: int, bits: int) -> BinaryCodes:
        """Read codes back from rows of bytes.

        Args:
            rows: What ``pack`` has given.
            code_dim: Dimensions m of the code.
            bits: Bits per dimension.

        Returns:
            The codes.
        """
        return cls(unpack(rows, code_dim, bits)[0], bits)

    def score(self, documents: BinaryCodes) -> Floats:
        """Compare these codes, as queries, with others: ``<b_q, b_d> / (|b_q| |b_d|)``, the symmetric distance.

        Where the documents' codes have fewer dimensions, as those of an old version may, the first ones are compared.

        Args:
            documents: Codes (N, m'), m' up to m.

        Returns:
            Cosines (Q, N).

        Raises:
            InputError: the documents have more dimensions than these codes.
        """
        return compare(self.values, documents)


class RecurrentBinarizer:
    """Turns vectors into sums of signs, b_0 + b_1/2 + ... + b_u/2^u, with as many bits per dimension as wanted.

    The first signs are taken of a map of the vector, the next of what the code so far fails to reconstruct::

        b = sign(W f);     b <- b + 2^-i sign(R_i(f - g_i normalize(B_i(b))))     for i = 1..u

    It is trained from stored vectors alone, from embedding to embedding, and starts as a rotation with the best uniform
    quantiser, which is good already: what training makes of it is kept only if development data say that it is better.

    Args:
        in_dim: Width D of the vectors.
        code_dim: Dimensions m of the code; D by default.
        rounds: Further signs after the first, 0 to 3, so that a dimension takes ``rounds + 1`` bits. (paper: u)
        hidden: Hidden units of each map W, B, R; 0 for affine maps.
        init: ``"rotation"``, or ``"random"`` as published.
        seed: Decides rotation, weights, development data and order.

    Attributes:
        recurrence: What was learned; None before ``fit``.
        report: What training did; None before ``fit``.

    Shape:
        vectors (N, D) -> codes (N, m) uint8

    Raises:
        InputError: a setting is out of range, or vectors are no finite matrix of width D.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 16))
        >>> binarizer = RecurrentBinarizer(16, rounds=1, hidden=0).fit(rows, training=Training(steps=0))
        >>> codes = binarizer.encode(rows)
        >>> codes.codes.shape, int(codes.codes.max()), codes.values[0, :3].tolist()
        ((200, 16), 3, [-1.5, 0.5, 1.5])

    References:
        Gan et al. (2023), Binary Embedding-based Retrieval at Tencent, arXiv:2302.08714v1, sections 3.2 to 3.4.
        Official code ganyk/BEBR and TencentARC/BEBR (read, not copied); ``METHOD["deviations"]`` says where it differs.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        code_dim: int | None = None,
        rounds: int = 1,
        hidden: int = 2048,
        init: Init = "rotation",
        seed: int = 0,
    ) -> None:
        for name, value, least in (("in_dim", in_dim, 1), ("code_dim", code_dim, 1), ("hidden", hidden, 0)):
            if value is not None and value < least:
                raise InputError(f"{name}={value} must be at least {least}")
        if rounds not in range(MOST_BITS):
            raise InputError(f"rounds={rounds} must be 0 to {MOST_BITS - 1}: 1 to {MOST_BITS} bits per dimension")
        if init not in get_args(Init):
            raise unknown_name("init", init, get_args(Init))
        self.in_dim, self.code_dim, self.rounds = in_dim, code_dim or in_dim, rounds
        self.hidden, self.init, self.seed = hidden, init, seed
        self.recurrence: Recurrence | None = None
        self.report: TrainingReport | None = None

    def fit(
        self,
        vectors: ArrayLike,
        *,
        pairs: tuple[ArrayLike, ArrayLike] | None = None,
        ids: ArrayLike | None = None,
        old: RecurrentBinarizer | BinaryCodes | None = None,
        training: Training | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Learn from stored vectors.

        With pairs, related vectors are drawn together and away from each other's hardest negatives; without, only the
        neighbourhoods of the vectors are kept. With ``old``, new queries also learn to find the codes that are there
        (compatible training), and the rotation starts from the one nearest to them.

        Args:
            vectors: Vectors (N, D) like those to encode.
            pairs: Queries and their documents, row by row, two times (P, D).
            ids: What each pair's document is (P,); documents of one id are never negatives, nor split off from each
                other. Equal vectors count as one without that.
            old: The binariser of an index, for vectors of the same model; or its codes of the documents of ``pairs``,
                which may come from another model.
            training: How; the published settings by default. ``steps=0`` leaves the start.
            on_progress: Called with the share done, in [0, 1].

        Returns:
            The binariser.

        Raises:
            InputError: vectors, pairs, ids and old do not fit each other.
            MissingExtraError: torch is missing (extra ``train``), and there is something to train.
        """
        training = training or Training()
        draw = np.random.default_rng(self.seed)
        rows = unit(_few(checked("vectors", vectors, self.in_dim), draw))
        queries, documents, numbers = None, rows, np.arange(len(rows))
        past = None
        if pairs is not None:
            queries, documents, numbers, past = self._pairs(pairs, ids, old, draw)
        elif old is not None:
            raise InputError("old needs pairs: which new queries shall find which old codes")
        known, explained = (rows, None) if past is None else (documents, past[:_START])
        start = rotation_start(known[:_START], self.code_dim, self.rounds, seed=self.seed, old=explained)
        aside = _held_out(numbers, draw)
        judged, free = np.flatnonzero(aside)[: _JUDGED[1]], ~aside
        if training.steps != 0 and len(judged) >= _JUDGED[0]:
            require("torch", extra="train")
            from embedlab.search.bebr.training import Rows, train

            if past is not None:
                corpus = documents[judged]  # what old codes there are
            else:
                corpus = np.concatenate([documents[judged], (rows[free] if pairs is None else rows)[:_CORPUS]])
            sides = [None if each is None else each[free] for each in (queries, None if past is None else unit(past))]
            start, self.report = train(
                start,
                Rows(documents[free], sides[0], sides[1], numbers[free]),
                Development(
                    (documents if queries is None else queries)[judged],
                    corpus,
                    np.arange(len(judged)),
                    itself=queries is None,
                    old=None if past is None else past[judged],
                ),
                training=training,
                hidden=self.hidden,
                random=self.init == "random",
                seed=self.seed,
                on_progress=on_progress,
            )
        self.recurrence = start.with_decoder(rows[:_START])
        return self

    def encode(self, vectors: ArrayLike) -> BinaryCodes:
        """Turn vectors into codes.

        Args:
            vectors: Vectors (N, D).

        Returns:
            Their codes (N, m).

        Raises:
            InputError: the binariser is not fitted, or vectors are no finite matrix of width D.
        """
        rows = unit(checked("vectors", vectors, self.in_dim).astype(np.float64))
        return BinaryCodes(self._fitted().codes(rows), self.rounds + 1)

    def floats(self, vectors: ArrayLike) -> Floats:
        """Turn queries into what is compared with codes without binarising them (the asymmetric mode).

        Args:
            vectors: Vectors (N, D).

        Returns:
            Unit vectors (N, m).

        Raises:
            InputError: the binariser is not fitted, or vectors are no finite matrix of width D.
        """
        return self._fitted().floats(unit(checked("vectors", vectors, self.in_dim)))

    def decode(self, codes: BinaryCodes) -> Floats:
        """Return the vectors that codes stand for, by the linear map that fits best.

        Args:
            codes: Codes (N, m) of this binariser.

        Returns:
            Vectors (N, D).

        Raises:
            InputError: the binariser is not fitted, or codes have another shape.
        """
        recurrence = self._fitted()
        if codes.codes.shape[1:] != (self.code_dim,) or codes.bits != recurrence.bits:
            raise InputError(
                f"codes of shape {codes.codes.shape} and {codes.bits} bits are not of this binariser: it gives "
                f"{self.code_dim} dimensions of {recurrence.bits} bits"
            )
        return recurrence.decode(codes.codes)

    def _fitted(self) -> Recurrence:
        if self.recurrence is None:
            raise InputError("the binariser is not fitted: call fit(vectors) first")
        return self.recurrence

    def _pairs(
        self,
        pairs: tuple[ArrayLike, ArrayLike],
        ids: ArrayLike | None,
        old: RecurrentBinarizer | BinaryCodes | None,
        draw: np.random.Generator,
    ) -> tuple[Floats, Floats, NDArray[np.int64], Floats | None]:
        """Return queries, documents, their ids and, if there are, the old codes of the documents as sums of signs."""
        queries, documents = (checked(f"pairs[{i}]", each, self.in_dim) for i, each in enumerate(pairs))
        numbers = np.arange(len(documents)) if ids is None else np.unique(np.asarray(ids), return_inverse=True)[1]
        if not len(queries) == len(documents) == len(numbers):
            raise InputError(f"pairs of {len(queries)} and {len(documents)} rows with {len(numbers)} ids: one each")
        chosen = _few(np.arange(len(documents)), draw)
        queries, documents, numbers = unit(queries[chosen]), unit(documents[chosen]), numbers[chosen]
        if old is None:
            return queries, documents, numbers, None
        if isinstance(old, BinaryCodes) and len(old) == len(pairs[1]):  # type: ignore[arg-type]
            old = BinaryCodes(old.codes[chosen], old.bits)
        codes = old.encode(documents) if isinstance(old, RecurrentBinarizer) else old
        if len(codes) != len(documents) or codes.codes.shape[1] > self.code_dim:
            raise InputError(
                f"old codes of shape {codes.codes.shape} do not fit: one row for each of {len(documents)} documents "
                f"and at most code_dim={self.code_dim} dimensions are needed"
            )
        return queries, documents, numbers, codes.values


def compare(queries: Floats, documents: BinaryCodes) -> Floats:
    """Compare vectors in the space of codes with codes; of longer queries the first dimensions.

    Args:
        queries: Codes as sums of signs, or floats (Q, m).
        documents: Codes (N, m'), m' up to m.

    Returns:
        Cosines (Q, N).

    Raises:
        InputError: the documents have more dimensions.
    """
    width = documents.codes.shape[1]
    if queries.shape[1] < width:
        raise InputError(f"queries of {queries.shape[1]} dimensions cannot search codes of {width}: encode them anew")
    scores: Floats = unit(queries[:, :width]) @ unit(documents.values).T
    return scores


def _few(rows: NDArray[Any], draw: np.random.Generator) -> NDArray[Any]:
    """Choose as many rows as training can use."""
    return rows[draw.permutation(len(rows))[:_TRAINED]]


def _held_out(ids: NDArray[Any], draw: np.random.Generator) -> NDArray[np.bool_]:
    """Choose a fifth of the ids, or enough for all that is judged."""
    distinct = np.unique(ids)
    share = min(0.2, _JUDGED[1] / max(1, len(ids)))
    chosen = draw.permutation(distinct)[: round(share * len(distinct))]
    return np.isin(ids, chosen)
