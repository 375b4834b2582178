"""The probe: a small balanced sample that a merge is judged on, and the batches it is looked at in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn

from embedlab._core.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    MakeLoss = Callable[[SentenceTransformer], nn.Module]
    Losses = MakeLoss | Mapping[str, MakeLoss]

LABELS = ("label", "labels", "score", "scores")  # columns that the host hands to the loss as labels


def balanced_probe(
    data: Mapping[str, Dataset], *, per_task: int = 256, seed: int = 0, exclude: Sequence[str] = ()
) -> dict[str, Dataset]:
    """Draw the same number of rows from every data set, none of which holds a text that is tested on.

    Balanced means per data set, not per row of all rows: a data set ten times as large gets no more say.

    Args:
        data: Name -> rows, as for training.
        per_task: Rows of each, at least 2.
        seed: Decides the draw.
        exclude: Texts of the evaluation; rows that hold one are left out.

    Returns:
        Name -> its drawn rows.

    Raises:
        InputError: no data set, or one with too few rows left; the message says how many there are.
    """
    if not data:
        raise InputError("data: got no data set to draw a probe from")
    if per_task < 2:
        raise InputError(f"per_task={per_task}: expected at least 2, a text needs others to be told from")
    held = set(exclude)
    drawn = {}
    for name, rows in data.items():
        texts = text_columns(rows)
        columns = [rows[column] for column in texts]
        free = [place for place, row in enumerate(zip(*columns, strict=True)) if not held.intersection(row)]
        if len(free) < per_task:
            raise InputError(f"per_task={per_task}: {name!r} has {len(free)} rows that are not tested on")
        order = torch.randperm(len(free), generator=torch.Generator().manual_seed(seed))[:per_task]
        drawn[name] = rows.select([free[place] for place in order.tolist()])
    return drawn


def as_probe(probe: Mapping[str, Dataset] | Dataset) -> dict[str, Dataset]:
    """Name the data sets of a probe, and refuse an empty one.

    Args:
        probe: One data set, or several by name.

    Returns:
        Name -> rows.

    Raises:
        InputError: there is none, one has fewer than two rows, or one has no texts.
    """
    found = dict(probe) if isinstance(probe, Mapping) else {"probe": probe}
    if not found or not all(len(rows) > 1 for rows in found.values()):
        sizes = {name: len(rows) for name, rows in found.items()}
        raise InputError(f"probe: rows per data set {sizes}; expected at least one data set, with at least 2 rows each")
    for name, rows in found.items():
        if not text_columns(rows):
            raise InputError(f"probe: {name!r} has no column of texts, only {', '.join(rows.column_names)}")
    return found


def text_columns(rows: Dataset) -> list[str]:
    """Tell which columns hold texts.

    Args:
        rows: A data set.

    Returns:
        Their names, in order.
    """
    return [name for name in rows.column_names if name not in LABELS and name != "dataset_name"]


def batches(rows: Dataset, *, batch_size: int, seed: int, epoch: int = 0) -> list[list[int]]:
    """Cut rows into batches in which no text occurs twice, by the host's sampler.

    Args:
        rows: A data set.
        batch_size: Rows of a batch; shorter ones are left out, unless there is no other.
        seed: Decides the order, together with ``epoch``.
        epoch: Number of the pass.

    Returns:
        Places of the rows of each batch.
    """
    texts = rows.select_columns(text_columns(rows))
    size = min(batch_size, len(texts))
    made = NoDuplicatesBatchSampler(texts, batch_size=size, drop_last=False, generator=torch.Generator(), seed=seed)
    made.set_epoch(epoch)
    found = list(made)
    full = [batch for batch in found if len(batch) == size]
    return full or [max(found, key=len)]


def loss_of(loss: nn.Module, model: SentenceTransformer, rows: Dataset, places: list[int]) -> Tensor:
    """Compute a loss of the host on some rows: texts tokenised column by column, labels as a tensor.

    Args:
        loss: The loss, bound to the model.
        model: The model.
        rows: The data set.
        places: Which rows.

    Returns:
        The loss, a scalar with a gradient.
    """
    batch = rows[places]
    tokenise = getattr(loss, "preprocess", model.preprocess)
    features = [_on(model.device, tokenise(list(batch[column]))) for column in text_columns(rows)]
    labels = next((batch[name] for name in LABELS if name in batch), None)
    value = loss(features, None if labels is None else torch.tensor(labels, device=model.device))
    total: Tensor = torch.stack(list(value.values())).sum() if isinstance(value, dict) else value
    return total


def losses_for(loss: Losses | None, model: SentenceTransformer, names: Sequence[str]) -> dict[str, nn.Module]:
    """Make the loss of each data set for one model.

    Args:
        loss: What makes it, for all data sets or by name; None for InfoNCE with in-batch and hard negatives.
        model: The model.
        names: Names of the data sets.

    Returns:
        Name -> loss, in evaluation mode.

    Raises:
        InputError: a data set has none, or a loss is bound to a model already.
    """
    if loss is None:
        loss = MultipleNegativesRankingLoss
    makers = dict(loss) if isinstance(loss, Mapping) else dict.fromkeys(names, loss)
    missing = [name for name in names if name not in makers]
    if missing:
        raise InputError(f"loss: none for {', '.join(missing)}; given for {', '.join(makers)}")
    if any(isinstance(makers[name], nn.Module) or not callable(makers[name]) for name in names):
        raise InputError("loss: expected what makes a loss for a model, such as its class, not a loss of some model")
    return {name: makers[name](model).to(model.device).eval() for name in names}


def each_batch(
    probe: Mapping[str, Dataset], *, batch_size: int, seed: int, epoch: int = 0
) -> Iterator[dict[str, list[int]]]:
    """Go through a probe, one batch of every data set at a time; the one with the fewest batches ends the pass.

    Args:
        probe: Name -> rows.
        batch_size: Rows of a batch.
        seed: Decides the batches, together with ``epoch``.
        epoch: Number of the pass.

    Yields:
        Name -> places of the rows.
    """
    cut = {name: batches(rows, batch_size=batch_size, seed=seed, epoch=epoch) for name, rows in probe.items()}
    for step in range(min(len(found) for found in cut.values())):
        yield {name: found[step] for name, found in cut.items()}


def _on(device: Any, features: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in features.items()}
