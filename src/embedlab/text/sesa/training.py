"""The training loop: texts in batches, each with all its pairs, so that a text is read once for all its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedlab._core.errors import InputError
from embedlab.text.sesa.measures import auc
from embedlab.text.sesa.objective import MAX_POSITIVE_WEIGHT, Objective, concept_loss, relevance_loss
from embedlab.text.sesa.sides import Sides

Ids = NDArray[np.int64]
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs as numbers: which text, which item, relevant or not.

    Attributes:
        texts: All texts, each once: those of the first column, then those of items.
        text_of: The text of each pair's first column, (P,).
        item_of: The item of each pair's second column, (P,).
        item_text: The text of each item, -1 where it has none, (I,).
        item_set: The declared concepts of each item, zero where it has none, (I, m).
        labels: 1 for relevant pairs, 0 for others, (P,).
    """

    texts: Sequence[str]
    text_of: Ids
    item_of: Ids
    item_text: Ids
    item_set: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to.

    Attributes:
        loss: Mean over its batches.
        auc: Of the validation pairs; NaN where there are none.
    """

    loss: float
    auc: float


def train(
    sides: Sides,
    pairs: Pairs,
    declared: Tensor | None,
    objective: Objective,
    *,
    validation: Pairs | None,
    freeze: bool,
    normalize: bool,
    learning_rate: float,
    batch_size: int,
    epochs: int,
    patience: int,
    seed: int,
) -> list[Epoch]:
    """Train all that is trainable; at the end, the weights are those of the best epoch on the validation pairs.

    Args:
        sides: What is trained.
        pairs: Training pairs.
        declared: Concepts that are true of each text of the first column, (T, m), NaN rows where nothing is known;
            None for none at all.
        objective: The loss.
        validation: Pairs that decide when to stop; None trains all epochs.
        freeze: Whether the body is left as it is, and read once.
        normalize: Whether scores are cosines.
        learning_rate: Of Adam.
        batch_size: Texts in a batch; each comes with all its pairs.
        epochs: At most so many.
        patience: Stop after so many epochs without a better one.
        seed: Decides the order.

    Returns:
        What each epoch came to.
    """
    reading = Reading(sides, pairs.texts, freeze=freeze)
    checking = Reading(sides, validation.texts, freeze=freeze) if validation is not None else None
    weight = None if declared is None else _positive_weight(declared)
    weights = {name: one for name, one in sides.named_parameters() if one.requires_grad}
    trained = [one for name, one in weights.items() if not (freeze and _in_body(name, sides))]
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    rng = np.random.default_rng(seed)
    firsts = np.unique(pairs.text_of)
    of_text = _pairs_by_text(pairs.text_of, len(pairs.texts))
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    for _ in range(epochs):
        sides.train()
        losses = []
        order = rng.permutation(firsts)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = np.concatenate([of_text[text] for text in batch])
            loss = _loss(sides, reading, pairs, batch, rows, declared, weight, objective, normalize)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        score = float("nan") if checking is None or validation is None else _auc(sides, checking, validation, normalize)
        history.append(Epoch(float(np.mean(losses)), score))
        if checking is not None:
            scores = [epoch.auc for epoch in history]
            if int(np.argmax(scores)) == len(scores) - 1:
                best = {name: value.detach().clone() for name, value in sides.state_dict().items()}
            elif len(scores) - 1 - int(np.argmax(scores)) >= patience:
                break
    if best:
        sides.load_state_dict(best)
    sides.eval()
    return history


class Reading:
    """Reads texts by number: through the body, or from embeddings that were made once if the body is frozen.

    Args:
        sides: Whose body reads.
        texts: The texts.
        freeze: Whether the body is frozen.
    """

    def __init__(self, sides: Sides, texts: Sequence[str], *, freeze: bool) -> None:
        self._sides, self._texts, self._made = sides, texts, None
        if freeze:
            sides.eval()
            self._made = self.all()

    def __call__(self, places: Ids) -> Tensor:
        """Return the embeddings of some texts, (N, h)."""
        if self._made is not None:
            return self._made[torch.from_numpy(places)]
        return self._sides.embed([self._texts[place] for place in places])

    def all(self) -> Tensor:
        """Return the embeddings of all texts, (T, h), without a gradient."""
        with torch.no_grad():
            blocks = np.split(np.arange(len(self._texts)), range(_AT_ONCE, len(self._texts), _AT_ONCE))
            return torch.cat([self(places) for places in blocks])


def item_activations(sides: Sides, of_texts: Tensor, place: Tensor, declared: Tensor) -> Tensor:
    """Return the activations of items by what each has.

    Args:
        sides: The model.
        of_texts: Activations of texts, (T, m).
        place: The text of each item, -1 where it has none, (I,).
        declared: The declared concepts of each item, zero where it has none, (I, m).

    Returns:
        Activations (I, m).
    """
    has_text, has_set = place >= 0, (declared != 0).any(-1)
    found = sides.of_sets(declared)
    if bool(has_text.any()):
        texts = of_texts[place.clamp(min=0)]
        found = torch.where((has_text & has_set)[:, None], sides.blend(texts, found), found)
        found = torch.where((has_text & ~has_set)[:, None], texts, found)
    return found


def _loss(
    sides: Sides,
    reading: Reading,
    pairs: Pairs,
    batch: Ids,
    rows: Ids,
    declared: Tensor | None,
    weight: Tensor | None,
    objective: Objective,
    normalize: bool,
) -> Tensor:
    items, item_rows = np.unique(pairs.item_of[rows], return_inverse=True)
    needed = np.unique(np.concatenate([batch, pairs.item_text[items]]))
    needed = needed[needed >= 0]
    of_texts, logits = sides.of_texts(reading(needed))  # (T, m) each
    firsts = np.searchsorted(needed, batch)
    own = pairs.item_text[items]
    place = torch.from_numpy(np.where(own >= 0, np.searchsorted(needed, own), -1))
    of_items = item_activations(sides, of_texts, place, pairs.item_set[torch.from_numpy(items)])
    number = np.empty(len(pairs.texts), np.int64)
    number[batch] = np.arange(len(batch))
    texts = of_texts[torch.from_numpy(firsts)]
    loss = relevance_loss(
        objective,
        texts,
        of_items[torch.from_numpy(item_rows)],
        torch.from_numpy(number[pairs.text_of[rows]]),
        pairs.labels[torch.from_numpy(rows)],
        (sides.alpha, sides.beta),
        normalize=normalize,
    )
    loss = loss + objective.sparsity * texts.mean() + objective.sets * sides.sets.drift()
    if objective.concept and declared is not None and weight is not None:
        known = declared[torch.from_numpy(batch)]
        told = ~known.isnan().any(-1)
        if bool(told.any()):
            loss = loss + objective.concept * concept_loss(logits[torch.from_numpy(firsts)][told], known[told], weight)
    return loss


def _positive_weight(declared: Tensor) -> Tensor:
    told = declared[~declared.isnan().any(-1)]
    positives = told.sum(0)
    return ((len(told) - positives) / positives.clamp(min=1)).clamp(max=MAX_POSITIVE_WEIGHT, min=1e-3)


def _auc(sides: Sides, reading: Reading, pairs: Pairs, normalize: bool) -> float:
    sides.eval()
    with torch.no_grad():
        of_texts, _ = sides.of_texts(reading.all())
        items = item_activations(sides, of_texts, torch.from_numpy(pairs.item_text), pairs.item_set)
        left, right = of_texts[torch.from_numpy(pairs.text_of)], items[torch.from_numpy(pairs.item_of)]
        scores = torch.nn.functional.cosine_similarity(left, right) if normalize else (left * right).sum(-1)
    return auc(scores.numpy(), pairs.labels.numpy())


def _pairs_by_text(text_of: Ids, count: int) -> list[Ids]:
    order = np.argsort(text_of, kind="stable")
    return np.split(order, np.searchsorted(text_of[order], np.arange(1, count)))


def _in_body(name: str, sides: Sides) -> bool:
    """Tell whether a parameter belongs to the host's modules in front of the explicit layer."""
    return name.startswith("host.") and not name.startswith(f"host.{len(sides.host) - 1}.")


def check_steps(learning_rate: float, batch_size: int, epochs: int, patience: int) -> None:
    """Refuse settings of the loop that cannot be.

    Args:
        learning_rate: Above 0.
        batch_size: At least 1.
        epochs: At least 1.
        patience: At least 1.

    Raises:
        InputError: one is out of range.
    """
    if not learning_rate > 0 or min(batch_size, epochs, patience) < 1:
        raise InputError(
            f"learning_rate={learning_rate}, batch_size={batch_size}, epochs={epochs}, patience={patience}: "
            "the first must be above 0, the others at least 1"
        )
