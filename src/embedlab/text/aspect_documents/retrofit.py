"""Explicit retrofitting: learn from pairs that are alike a map of the whole space, and keep the rest in its place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.text.aspect_documents.heads import AspectHead
from embedlab.text.aspect_documents.pairs import Pairs

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]


class ExplicitRetrofit:
    """Move vectors so that documents alike in an aspect come near, by a network that also moves unseen ones.

    Each positive pair (i, j) stands in a micro-batch with near neighbours of i and of j. With ``dist = 1 - cos`` of the
    mapped vectors, gold distance g_0 = 0 for the pair and g_k = the original distance for the neighbours::

        L = sum_k ((g_k - g_0) - (dist_k - dist_0))^2  +  regularisation * sum (1 - cos(f(v), v))  +  l2 * |W|^2

    so the pair comes together while its distance to the surroundings stays as it was. The network is of ``layers``
    layers with tanh behind each, and begins near the identity.

    Args:
        hidden: Width of the layers but the last; below D it begins as a projection. (paper: 1000)
        layers: Number of layers. (paper: 5)
        neighbours: Nearest neighbours that micro-batches draw from. (paper: 49)
        drawn: How many are drawn for each side of a pair. (paper: 4)
        regularisation: Weight of staying close. (paper: 0.3)
        l2: Weight of the squared weights. (paper: 1e-4)
        learning_rate: Of Adam. (paper: 1e-4)
        batch_size: Micro-batches in a step. (paper: 100)
        steps: Most steps.
        check_every: Steps between two evaluations. (paper: 100)
        patience: Evaluations without a better one before it stops. (paper: 30)
        held_out: Share of the pairs that evaluations use. (paper: 0.01)
        seed: Decides first weights, neighbours and order.

    Attributes:
        head_: The fitted network, in numpy; None before ``fit``.
        loss_: Loss on the held-out pairs at the best evaluation, per micro-batch.
        mean_cosine_: Mean cosine of mapped vectors with each other; near 1 the space has collapsed to a direction.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(40, 8))
        >>> near = Pairs(np.array([[0, 1], [2, 3], [4, 5]]), np.empty((0, 2), np.int64))
        >>> retrofit = ExplicitRetrofit(hidden=32, layers=2, steps=40, learning_rate=1e-2).fit(vectors, near)
        >>> before, after = vectors, retrofit.transform(vectors)
        >>> bool(after[0] @ after[1] > before[0] @ before[1] / np.linalg.norm(before[0]) / np.linalg.norm(before[1]))
        True

    References:
        Glavas, Vulic (2018), Explicit Retrofitting of Distributional Word Vectors, ACL 2018, section 3; as used by
        Ostendorff et al. (2022), arXiv:2203.14541v1, section 3. Official code codogogo/explirefit (read, not copied).
    """

    def __init__(
        self,
        *,
        hidden: int = 1000,
        layers: int = 5,
        neighbours: int = 49,
        drawn: int = 4,
        regularisation: float = 0.3,
        l2: float = 1e-4,
        learning_rate: float = 1e-4,
        batch_size: int = 100,
        steps: int = 3000,
        check_every: int = 100,
        patience: int = 30,
        held_out: float = 0.01,
        seed: int = 0,
    ) -> None:
        whole = {"hidden": hidden, "layers": layers, "neighbours": neighbours, "drawn": drawn}
        whole |= {"batch_size": batch_size, "steps": steps, "check_every": check_every, "patience": patience}
        for name, value in whole.items():
            if value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        if drawn > neighbours:
            raise InputError(f"drawn={drawn}: must be at most neighbours={neighbours}")
        if not (regularisation >= 0 and l2 >= 0 and learning_rate > 0 and 0 < held_out < 1):
            raise InputError(
                f"regularisation={regularisation}, l2={l2}, learning_rate={learning_rate}, held_out={held_out}: "
                "weights must be at least 0, the rate above 0, the share in (0, 1)"
            )
        self.hidden, self.layers, self.neighbours, self.drawn = hidden, layers, neighbours, drawn
        self.regularisation, self.l2, self.learning_rate = regularisation, l2, learning_rate
        self.batch_size, self.steps, self.check_every, self.patience = batch_size, steps, check_every, patience
        self.held_out, self.seed = held_out, seed
        self.head_: AspectHead | None = None
        self.loss_ = float("nan")
        self.mean_cosine_ = float("nan")

    def fit(self, vectors: ArrayLike, pairs: Pairs) -> ExplicitRetrofit:
        """Learn the map.

        Args:
            vectors: Vectors of the documents, (N, D), of any length; directions count.
            pairs: Pairs of their places; the positives alone are used, as in the paper.

        Returns:
            The object itself.

        Raises:
            InputError: there is no positive pair, or vectors are no finite matrix.
            MissingExtraError: the extra ``train`` is not installed.
        """
        torch: Any = require("torch", extra="train")
        rows = _unit(vectors)
        if not len(pairs.positives):
            raise InputError("pairs: there is no positive pair to learn from")
        rng, generator = np.random.default_rng(self.seed), torch.Generator().manual_seed(self.seed)
        micro, gold = self._micro_batches(rows, pairs.positives, rng)  # (P, 1 + 2K, 2), (P, 1 + 2K)
        order = rng.permutation(len(micro))
        kept_back = min(max(1, int(self.held_out * len(micro))), len(micro) - 1)  # a single pair is checked on itself
        checked, learnt = order[:kept_back] if kept_back else order, order[kept_back:]

        widths = [rows.shape[1], *[self.hidden] * (self.layers - 1), rows.shape[1]]
        weights = [
            (torch.eye(out, into) + 0.01 * torch.randn(out, into, generator=generator)).requires_grad_()
            for into, out in pairwise(widths)
        ]
        biases = [torch.zeros(out, requires_grad=True) for out in widths[1:]]
        optimiser = torch.optim.Adam([*weights, *biases], lr=self.learning_rate)
        base = torch.from_numpy(rows)

        def loss_of(chosen: NDArray[np.int64]) -> Tensor:
            v = base[torch.from_numpy(micro[chosen])]  # (B, 1 + 2K, 2, D)
            f = v
            for weight, bias in zip(weights, biases, strict=True):
                f = (f @ weight.T + bias).tanh()
            return retrofit_loss(f, v, torch.from_numpy(gold[chosen]), self.regularisation)

        best, waited, kept = np.inf, 0, [w.detach().clone() for w in (*weights, *biases)]
        batches = _forever(learnt, self.batch_size, rng)
        for step in range(1, self.steps + 1):
            chosen = next(batches)
            loss = loss_of(chosen) / len(chosen) + self.l2 * sum(w.square().sum() for w in weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % self.check_every == 0 or step == self.steps:
                with torch.no_grad():
                    now = float(loss_of(checked)) / len(checked)
                if not now < best:
                    waited += 1
                    if waited >= self.patience:
                        break
                    continue
                best, waited, kept = now, 0, [w.detach().clone() for w in (*weights, *biases)]
        numbers = [w.numpy() for w in kept]
        self.loss_ = best
        self.head_ = AspectHead(tuple(numbers[: self.layers]), tuple(numbers[self.layers :]), "tanh", True)
        mean = self.head_(rows).mean(axis=0)
        self.mean_cosine_ = float((len(rows) * mean @ mean - 1) / max(len(rows) - 1, 1))
        return self

    def transform(self, vectors: ArrayLike) -> Floats:
        """Return where vectors are mapped to, seen in ``fit`` or not.

        Args:
            vectors: Vectors of the same model, (N, D).

        Returns:
            Unit rows (N, D); zero rows stay zero.

        Raises:
            InputError: ``fit`` was not called, or the width differs.
        """
        if self.head_ is None:
            raise InputError("there is no map yet: call fit first")
        return self.head_(vectors)

    def _micro_batches(
        self, rows: Floats, positives: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], Floats]:
        """Beside each pair, ``drawn`` neighbours of either side; original distances, 0 between known partners."""
        sides = np.unique(positives)
        count = min(self.neighbours, len(rows) - 1)
        near: dict[int, NDArray[np.int64]] = {}
        for start in range(0, len(sides), 1024):
            part = sides[start : start + 1024]
            scores = rows[part] @ rows.T
            scores[np.arange(len(part)), part] = -np.inf
            top = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            near.update(zip(part.tolist(), top, strict=True))
        take = min(self.drawn, count)
        micro = np.empty((len(positives), 1 + 2 * take, 2), np.int64)
        micro[:, 0] = positives
        for place, pair in enumerate(positives.tolist()):
            for side, doc in enumerate(pair):
                block = micro[place, 1 + side * take : 1 + (side + 1) * take]
                block[:, 0], block[:, 1] = doc, rng.choice(near[doc], take, replace=False)
        gold = 1 - np.einsum("pkd,pkd->pk", rows[micro[..., 0]], rows[micro[..., 1]])
        ordered = np.sort(micro, axis=2)
        keys, known = (each[..., 0] * len(rows) + each[..., 1] for each in (ordered, np.sort(positives, axis=1)))
        gold[np.isin(keys, known)] = 0.0
        return micro, gold.astype(np.float32)


def retrofit_loss(mapped: Tensor, original: Tensor, gold: Tensor, regularisation: float) -> Tensor:
    """Loss of some micro-batches, added up; the first pair of each is the one that is alike.

    Args:
        mapped: Both sides of each pair after the network.
        original: Both sides before it.
        gold: Distance wanted of each pair.
        regularisation: Weight of staying close.

    Shape:
        mapped (B, K, 2, D), original (B, K, 2, D), gold (B, K) -> ()

    Returns:
        The sum over the micro-batches.
    """
    torch: Any = require("torch", extra="train")
    cosine = torch.nn.functional.cosine_similarity
    distance = 1 - cosine(mapped[:, :, 0], mapped[:, :, 1], dim=-1)  # (B, K)
    differs = (gold[:, 1:] - gold[:, :1]) - (distance[:, 1:] - distance[:, :1])
    moved = 1 - cosine(mapped, original, dim=-1)  # (B, K, 2)
    return differs.square().sum() + regularisation * moved.sum()  # type: ignore[no-any-return]


def _forever(places: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    size = min(size, len(places))
    while True:
        order = rng.permutation(places)
        yield from (order[start : start + size] for start in range(0, len(order) - size + 1, size))


def _unit(vectors: ArrayLike) -> Floats:
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
        raise InputError(f"vectors of shape {rows.shape}: a finite matrix of at least two rows is needed")
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
