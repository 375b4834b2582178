"""Training a head on frozen vectors: Siamese, by ranking in the batch, or by classifying pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.text.aspect_documents.heads import AspectHead
from embedlab.text.aspect_documents.pairs import Pairs, Relation, Rows

if TYPE_CHECKING:
    from torch import Tensor

Way = Literal["siamese", "classification", "retrofitting"]
WAYS: tuple[Way, ...] = ("siamese", "classification", "retrofitting")
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """How a Siamese or classification head is made and trained.

    Args:
        hidden: Width of the hidden layer.
        epochs: How often each pair is seen. (paper: 3)
        batch_size: Pairs in a step; in the Siamese way also the number of candidates each is told from.
        learning_rate: Of AdamW; falls to 0 along a line.
        temperature: Of the ranking, above 0.
        weight_decay: Of AdamW.

    Raises:
        InputError: a number is out of range.
    """

    hidden: int = 512
    epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 1e-3
    temperature: float = 0.1
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name in ("hidden", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.batch_size < 2:
            raise InputError(f"batch_size={self.batch_size}: a pair needs another to be told from; at least 2")
        if not (self.learning_rate > 0 and self.temperature > 0 and self.weight_decay >= 0):
            raise InputError(f"{self}: learning_rate and temperature must be above 0, weight_decay at least 0")


def train_head(
    vectors: Floats,
    pairs: Pairs,
    relation: Relation,
    *,
    way: Literal["siamese", "classification"] = "siamese",
    settings: HeadSettings | None = None,
    seed: int = 0,
) -> AspectHead:
    """Train a head on the vectors of a frozen model.

    ``f(v) = v + W_2 relu(W_1 v + b_1) + b_2`` starts at the plain space and moves away from it as far as the pairs ask.
    The Siamese way ranks the partner of each document above those of the others in the batch, but for partners that are
    alike too. Classification tells positive from negative pairs by ``|f(u) - f(v)|`` and ``f(u) f(v)``, by weights that
    are learnt too and begin as ``10 cos``.

    Args:
        vectors: Vectors of all documents.
        pairs: Pairs to learn from.
        relation: Who is alike, to leave such candidates out of a batch.
        way: ``"siamese"`` or ``"classification"``.
        settings: How; None for the defaults.
        seed: Decides first weights and the order of the pairs.

    Shape:
        vectors (N, D)

    Returns:
        The head, in numpy.

    Raises:
        InputError: the way is unknown, there are too few pairs, or the training diverged.
        MissingExtraError: the extra ``train`` is not installed.
    """
    torch: Any = require("torch", extra="train")
    if way not in ("siamese", "classification"):
        raise InputError(f"way={way!r}: a head is trained 'siamese' or by 'classification'; see also ExplicitRetrofit")
    chosen = settings or HeadSettings()
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    rows = torch.from_numpy(np.ascontiguousarray(unit, np.float32))
    dim = rows.shape[1]

    def drawn(*shape: int, scale: float) -> Tensor:
        return (scale * torch.randn(shape, generator=generator)).requires_grad_()  # type: ignore[no-any-return]

    first, last = drawn(chosen.hidden, dim, scale=dim**-0.5), torch.zeros(dim, chosen.hidden, requires_grad=True)
    biases = [torch.zeros(n, requires_grad=True) for n in (chosen.hidden, dim)]
    # the judge of pairs begins as 10 cos(u, v), so that what it asks for is near what a search compares
    judge = torch.cat([torch.zeros(dim), torch.full((dim,), 10.0), torch.zeros(1)]).requires_grad_()
    trained = [first, last, *biases, *([judge] if way == "classification" else [])]
    optimiser = torch.optim.AdamW(trained, lr=chosen.learning_rate, weight_decay=chosen.weight_decay)

    def mapped(places: Rows) -> Tensor:
        v = rows[torch.from_numpy(places)]
        f = v + (v @ first.T + biases[0]).relu() @ last.T + biases[1]
        return torch.nn.functional.normalize(f, dim=1)  # type: ignore[no-any-return]

    batches = _batches(pairs, chosen, rng, way)
    for step, (left, right, gold) in enumerate(batches):
        u, v = mapped(left), mapped(right)
        if way == "siamese":
            out = relation.alike(left, right) | relation.together(left, right)
            loss = ranking_loss(u, v, out=torch.from_numpy(out), temperature=chosen.temperature)
        else:
            seen = torch.cat([(u - v).abs(), u * v], dim=1) @ judge[:-1] + judge[-1]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(seen, torch.from_numpy(gold))
        optimiser.param_groups[0]["lr"] = chosen.learning_rate * (1 - step / len(batches))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    weights, offsets = ([w.detach().numpy() for w in each] for each in ([first, last], biases))
    return AspectHead(tuple(weights), tuple(offsets), residual=True)


def ranking_loss(anchors: Tensor, positives: Tensor, *, out: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each anchor's own positive among those of the batch, false negatives left out.

    ``-log( e^(cos(a_i, p_i)/t) / sum_j e^(cos(a_i, p_j)/t) )`` over the j that are i or not left out.

    Args:
        anchors: Unit rows.
        positives: Unit rows, the i-th for the i-th anchor.
        out: Candidates that are alike too and so no negatives; the diagonal does not count.
        temperature: t, above 0.

    Shape:
        anchors (B, D), positives (B, D), out (B, B) bool -> ()

    Returns:
        Mean over the anchors.
    """
    torch: Any = require("torch", extra="train")
    own = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    scores = (anchors @ positives.T / temperature).masked_fill(out.to(anchors.device) & ~own, -torch.inf)
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(anchors), device=anchors.device))  # type: ignore[no-any-return]


def _batches(
    pairs: Pairs, settings: HeadSettings, rng: np.random.Generator, way: str
) -> list[tuple[Rows, Rows, Floats]]:
    """All steps of all epochs: left sides, right sides, 1 for positives; which side is left is drawn by lot."""
    both = pairs.positives
    gold = np.ones(len(both), np.float32)
    if way == "classification":
        if not len(pairs.negatives):
            raise InputError("pairs: classification needs negative pairs; set neg_ratio above 0")
        both = np.concatenate([both, pairs.negatives])
        gold = np.concatenate([gold, np.zeros(len(pairs.negatives), np.float32)])
    if len(both) < 2:
        raise InputError(f"pairs: {len(both)} is too few to learn from; at least 2 are needed")
    size = min(settings.batch_size, len(both))
    found = []
    for _ in range(settings.epochs):
        order = rng.permutation(len(both))
        for start in range(0, len(both) - size + 1, size):
            chosen = order[start : start + size]
            turned = rng.random(size) < 0.5
            sides = np.where(turned[:, None], both[chosen, ::-1], both[chosen])
            found.append((sides[:, 0], sides[:, 1], gold[chosen]))
    return found
