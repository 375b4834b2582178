"""Training from stored vectors alone: on pairs, on neighbourhoods, or towards codes that are there already."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedlab.search.bebr.development import Development, Judgement, Scores, surely_better
from embedlab.search.bebr.network import Network
from embedlab.search.bebr.objectives import hard_contrast, kept_neighbours, same_items
from embedlab.search.bebr.plan import Training, TrainingReport
from embedlab.search.bebr.recurrence import Floats, Recurrence

_CHECKS = 6


@dataclass(frozen=True, slots=True)
class Rows:
    """What to train on.

    Attributes:
        documents: Unit vectors (N, D).
        queries: Unit vectors of what belongs to them, row by row (N, D), or None.
        old: Codes of the documents by an old binariser at unit length (N, m'), or None.
        ids: Rows of one id are never each other's negatives (N,).
    """

    documents: Floats
    queries: Floats | None
    old: Floats | None
    ids: NDArray[np.int64]


def train(
    start: Recurrence,
    rows: Rows,
    development: Development,
    *,
    training: Training,
    hidden: int,
    random: bool = False,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[Recurrence, TrainingReport]:
    """Train a binariser and keep the best of its states on development data, the start among them.

    Args:
        start: What to start from.
        rows: What to train on.
        development: What to judge by.
        training: How.
        hidden: Hidden units of every map that has none.
        random: Draw all weights instead of taking those of ``start``.
        seed: Decides the weights that are drawn and the order of the rows.
        on_progress: Called with the share done, in [0, 1].

    Returns:
        The binariser, with the decoder of ``start``, and what happened.
    """
    began = time.monotonic()
    network = Network(start, hidden=hidden, random=random, seed=seed)
    kept = first = network.recurrence()
    best = before = development.judge(first, signs=training.signs)
    optimiser, objective = _optimiser(network, training), _Objective(network, training)
    num_steps = training.num_steps(len(rows.documents))
    losses: list[float] = []
    for batch in _batches(len(rows.documents), training.batch_size, num_steps, np.random.default_rng(seed)):
        spent = (time.monotonic() - began) / training.budget_s if training.budget_s else 0.0
        share = max(len(losses) / num_steps, spent)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = training.learning_rate * (1.0 if share < training.decay_at else 0.1)
        loss = objective(rows, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), training.clip)
        optimiser.step()
        losses.append(float(loss.detach()))
        if len(losses) % max(1, num_steps // _CHECKS) == 0:
            now = network.recurrence()
            found = development.judge(now, signs=training.signs)
            if found.aim.mean() > best.aim.mean():
                kept, best = now, found
            if on_progress is not None:
                on_progress(share)
    if on_progress is not None:
        on_progress(1.0)
    if not random and not surely_better(best.aim, before.aim):
        kept, best = first, before
    return kept, _report(before, best, kept is not first, losses, time.monotonic() - began)


class _Objective:
    """The loss of a batch, with the queue of earlier vectors if there is one."""

    def __init__(self, network: Network, training: Training) -> None:
        self.network, self.training = network, training
        self.slow = copy.deepcopy(network).requires_grad_(False) if training.queue else None
        self.past: tuple[Tensor, ...] | None = None  # codes of queries and documents, and their vectors

    def __call__(self, rows: Rows, batch: NDArray[np.intp]) -> Tensor:
        documents = torch.from_numpy(rows.documents[batch])
        if rows.queries is None:
            codes, floats = self.network(documents)
            return self._distilled(documents, codes, floats)
        queries, ids = torch.from_numpy(rows.queries[batch]), torch.from_numpy(rows.ids[batch])
        codes, floats = self.network(torch.cat([queries, documents]))  # both sides in one batch norm
        (asked, stored), (asked_floats, stored_floats) = codes.chunk(2), floats.chunk(2)
        if not self.training.signs:
            asked, stored = asked_floats, stored_floats
        same = same_items(queries, queries) | same_items(documents, documents) | (ids[:, None] == ids)
        loss = self._both_ways(asked, stored, same, queries, documents)
        if self.training.signs:
            loss = loss + self._contrast(asked_floats, stored, same)
        if rows.old is not None:
            old = torch.from_numpy(rows.old[batch])
            for each in (asked, asked_floats):
                new = nn.functional.normalize(each[:, : old.shape[1]], dim=1)
                loss = loss + (self._contrast(new, old, same) + self._contrast(old, new, same.T)) / 2
        if self.training.distillation:
            loss = loss + self.training.distillation * self._distilled(documents, stored, stored_floats)
        return loss

    def _both_ways(self, asked: Tensor, stored: Tensor, same: Tensor, queries: Tensor, documents: Tensor) -> Tensor:
        """Symmetric contrast within the batch and against the queue."""
        if self.slow is None:
            return (self._contrast(asked, stored, same) + self._contrast(stored, asked, same.T)) / 2
        past = self.past or tuple(each[:0].detach() for each in (asked, stored, queries, documents))
        older = same_items(queries, past[2]) | same_items(documents, past[3])  # (B, queue)
        forth = self._contrast(asked, torch.cat([stored, past[1]]), torch.cat([same, older], dim=1))
        back = self._contrast(stored, torch.cat([asked, past[0]]), torch.cat([same.T, older], dim=1))
        fresh = (*_followed(self.slow, self.network, self.training, queries, documents), queries, documents)
        self.past = tuple(torch.cat(each)[: self.training.queue] for each in zip(fresh, past, strict=True))
        return (forth + back) / 2

    def _contrast(self, anchors: Tensor, candidates: Tensor, same: Tensor) -> Tensor:
        settings = self.training
        return hard_contrast(anchors, candidates, same, temperature=settings.temperature, negatives=settings.negatives)

    def _distilled(self, rows: Tensor, codes: Tensor, floats: Tensor) -> Tensor:
        stored = codes if self.training.signs else floats
        loss = kept_neighbours(rows, stored, floats, temperature=self.training.temperature)
        if self.training.signs:
            loss = loss + kept_neighbours(rows, stored, temperature=self.training.temperature)
        return loss


@torch.no_grad()
def _followed(slow: Network, quick: Network, training: Training, queries: Tensor, documents: Tensor) -> list[Tensor]:
    """Move the slow copy a little towards the network, and encode both sides of the batch with it."""
    for old, new in zip(slow.parameters(), quick.parameters(), strict=True):
        old.lerp_(new, 1 - training.slowness)
    codes, floats = slow(torch.cat([queries, documents]))
    return list((codes if training.signs else floats).chunk(2))


def _batches(num_rows: int, batch_size: int, steps: int, draw: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Go through all rows in a new order again and again; a rest that fills no batch is left to the next time."""
    size = min(batch_size, num_rows)
    order: NDArray[np.intp] = np.empty(0, np.intp)
    for _ in range(steps):
        if len(order) < size:
            order = draw.permutation(num_rows)
        yield order[:size]
        order = order[size:]


def _optimiser(network: Network, training: Training) -> torch.optim.Optimizer:
    matrices = [each for each in network.parameters() if each.ndim > 1]
    others = [each for each in network.parameters() if each.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(
        groups, lr=training.learning_rate, momentum=training.momentum, nesterov=training.momentum > 0
    )


def _report(before: Judgement, best: Judgement, kept: bool, losses: list[float], seconds: float) -> TrainingReport:
    def mean(scores: Scores) -> float:
        return float(scores.mean()) if len(scores) else float("nan")

    each = {name: mean(getattr(best, name)) for name in ("fidelity", "task", "old")}
    start = {f"{name}_start": mean(getattr(before, name)) for name in each}
    return TrainingReport(kept=kept, steps=len(losses), seconds=seconds, losses=tuple(losses), **each, **start)
