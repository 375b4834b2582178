"""BEBR as a codec: rows of packed signs, compared in registers, that need numpy alone once they are learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from embedlab._core.errors import InputError
from embedlab.search.bebr.binarizer import RecurrentBinarizer
from embedlab.search.bebr.plan import Training, TrainingReport
from embedlab.search.bebr.recurrence import Recurrence, unit
from embedlab.search.codecs.codec import Codec, Codes, Floats, Parameters, Scanner
from embedlab.search.codecs.sdc import KernelName, SDCIndex
from embedlab.search.codecs.signs import UniformScanner
from embedlab.search.codecs.uniform import MOST_BITS, dequantise, pack, row_bytes, stored_inverse, unit_scale, unpack

BATCH = 512


class BebrCodec(Codec):
    """Stores vectors as sums of signs, learned from the vectors to keep their neighbours or, with pairs, for the task.

    Without pairs it learns by distillation: what is near by the vectors stays near by the codes. With pairs it learns
    what belongs together, and keeps neighbourhoods beside that. Either way it starts as a rotation with the best
    uniform quantiser, and stays that unless development data kept aside say that training helped. The settings are
    frugal ones, chosen for seconds to minutes on one processor; ``RecurrentBinarizer`` has the published ones.

    Args:
        dim: Width D of the vectors, which are compared by cosine.
        bits: Bits per dimension of the code, 1 to 4. (paper: u + 1)
        code_dim: Dimensions m of the code; D by default. Fewer keep the principal directions.
        symmetric: Whether queries are binarised too, and so need no more memory than documents; otherwise they are
            compared as they are, which finds more.
        hidden: Hidden units of each learned map, used when there are pairs.
        steps: Steps of training; 0 keeps the start and needs no torch.
        distillation: With pairs, the weight of keeping neighbourhoods.
        budget_s: Longest time for training in seconds, after which results depend on the machine; None for no limit.
        seed: Decides everything random.

    Attributes:
        report: What training did; None before ``fit``, after loading, and where there was too little to train on.

    Shape:
        vectors (N, D) -> codes (N, B) uint8, B = ceil(m / 8) * bits + 2

    Raises:
        InputError: a setting is out of range; vectors are no finite matrix of width D; the codec is not fitted.

    Example:
        >>> import numpy as np
        >>> rows = np.random.default_rng(0).normal(size=(200, 64))
        >>> codec = BebrCodec(64, bits=2, steps=0).fit(rows)
        >>> codec.bytes_per_vector, codec.encode(rows).shape
        (18, (200, 18))
        >>> codec.score(rows[:3], codec.encode(rows)).argmax(axis=1).tolist()
        [0, 1, 2]

    References:
        Gan et al. (2023), Binary Embedding-based Retrieval at Tencent, arXiv:2302.08714v1, sections 3.2 to 3.5.
        Official code ganyk/BEBR and TencentARC/BEBR (read, not copied); ``METHOD["deviations"]`` says where it differs.
    """

    name: ClassVar[str] = "bebr"
    learns_from_pairs: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        bits: int = 2,
        code_dim: int | None = None,
        symmetric: bool = False,
        hidden: int = 128,
        steps: int = 60,
        distillation: float = 1.0,
        budget_s: float | None = None,
        seed: int = 0,
    ) -> None:
        if bits not in range(1, MOST_BITS + 1):
            raise InputError(f"bits={bits!r} must be 1, 2, 3 or 4 per dimension of the code")
        self.bits, self.code_dim, self.symmetric = int(bits), dim if code_dim is None else code_dim, symmetric
        settings = {
            "bits": self.bits,
            "code_dim": code_dim,
            "symmetric": symmetric,
            "hidden": hidden,
            "steps": steps,
            "distillation": distillation,
            "budget_s": budget_s,
        }
        super().__init__(dim, bytes_per_vector=row_bytes(self.code_dim, self.bits), seed=seed, **settings)
        self.hidden = hidden
        self.training = Training(steps=steps, batch_size=BATCH, distillation=distillation, budget_s=budget_s)
        self.report: TrainingReport | None = None
        self._old: BebrCodec | None = None
        self._recurrence: Recurrence | None = None

    def fit(
        self,
        vectors: ArrayLike,
        *,
        pairs: tuple[ArrayLike, ArrayLike] | None = None,
        on_progress: Callable[[float], None] | None = None,
        old: BebrCodec | None = None,
    ) -> Self:
        """Learn from vectors, and from pairs if there are any.

        Args:
            vectors: Vectors (N, D) like those to encode.
            pairs: Vectors of queries and of their documents, row by row, two times (P, D).
            on_progress: Called with the share done, in [0, 1].
            old: A fitted codec whose codes queries of this one shall find as well; needs pairs. With the same bits and
                dimensions, codes of both can be searched together.

        Returns:
            The codec.

        Raises:
            InputError: vectors, pairs and old do not fit each other.
            MissingExtraError: torch is missing (extra ``train``), and there is something to train.
        """
        self._old = old
        return super().fit(vectors, pairs=pairs, on_progress=on_progress)

    @property
    def binarizer(self) -> RecurrentBinarizer:
        """The binariser that was learned.

        Raises:
            InputError: the codec is not fitted.
        """
        self._demand_fitted()
        made = RecurrentBinarizer(
            self.dim, code_dim=self.code_dim, rounds=self.bits - 1, hidden=self.hidden, seed=self.seed
        )
        made.recurrence, made.report = self._recurrence, self.report
        return made

    def scanner(self, codes: Codes, *, kernel: KernelName = "auto") -> Scanner:
        """Make the exhaustive scan over codes, by symmetric distance calculation.

        Args:
            codes: Codes (N, B).
            kernel: See ``SDCIndex``.

        Returns:
            The scanner.

        Raises:
            InputError: the codec is not fitted.
            CodecError: these are no codes of this codec.
        """
        index = SDCIndex(self.code_dim, self.bits, kernel=kernel)
        return UniformScanner(self, self.checked_codes(codes), index, lambda rows: rows, self._queries)

    def _queries(self, queries: Floats) -> Floats | Codes:
        return self._encode(queries) if self.symmetric else self._learned().floats(unit(queries))

    def _score(self, queries: Floats, codes: Codes) -> Floats:
        levels, inverse = unpack(codes, self.code_dim, self.bits)
        numbers, scale = dequantise(levels, self.bits), inverse * unit_scale(self.code_dim)
        if self.symmetric:
            own, lengths = unpack(self._encode(queries), self.code_dim, self.bits)
            asked = dequantise(own, self.bits) * (lengths * unit_scale(self.code_dim))[:, None]
        else:
            asked = self._learned().floats(unit(queries))
        scores: Floats = asked @ numbers.T * scale
        return scores

    def _learn(
        self, vectors: Floats, pairs: tuple[Floats, Floats] | None, on_progress: Callable[[float], None] | None
    ) -> Parameters:
        hidden = self.hidden if pairs is not None else 0  # keeping neighbours wants little more than a rotation
        binarizer = RecurrentBinarizer(
            self.dim, code_dim=self.code_dim, rounds=self.bits - 1, hidden=hidden, seed=self.seed
        )
        old = None if self._old is None else self._old.binarizer
        binarizer.fit(vectors, pairs=pairs, old=old, training=self.training, on_progress=on_progress)
        self.report = binarizer.report
        return {} if binarizer.recurrence is None else binarizer.recurrence.parameters()

    def _prepare(self) -> None:
        self._recurrence = Recurrence.of(self.parameters)

    def _learned(self) -> Recurrence:
        self._demand_fitted()
        if self._recurrence is None:
            raise InputError(f"the {self.name} codec is not fitted: call fit(vectors) first")
        return self._recurrence

    def _encode(self, vectors: Floats) -> Codes:
        rows = unit(vectors.astype(np.float64))  # so that a row is coded alike in any company
        return pack(self._learned().codes(rows), self.bits, zero=np.logical_not(vectors.any(axis=1)))

    def _decode(self, codes: Codes) -> Floats:
        levels, _ = unpack(codes, self.code_dim, self.bits)
        return self._learned().decode(levels) * (stored_inverse(codes) > 0)[:, None]
