"""How new is a benchmark to a model, and which models are worth their cost?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta


def zero_shot(model: ModelMeta | Iterable[str] | None, tasks: Sequence[str]) -> int | None:
    """Say which percentage of a benchmark's tasks a model was not trained on, as mteb defines it.

    int(100 - 100 |training data in the benchmark| / |tasks|), where tasks similar to or derived from training data,
    and the data of a model it was adapted from, count as training data.

    Args:
        model: mteb's record of a model, or the names of its training data, or None where they are not known.
        tasks: Names of the tasks.

    Returns:
        A whole number from 0 to 100; None where the training data are unknown, never 100.

    Raises:
        InputError: there are no tasks.
        MissingExtraError: the extra ``evaluate`` is not installed.

    Example:
        >>> zero_shot({"NQ", "MSMARCO"}, ["NQ", "SciFact", "ArguAna"])
        66
        >>> zero_shot(None, ["SciFact"]) is None
        True
    """
    if isinstance(tasks, str) or not tasks:
        raise InputError(f"tasks={tasks!r} must name at least one task")
    if model is None:
        return None
    record: Any = model
    if not hasattr(record, "zero_shot_percentage"):
        meta = require("mteb.models.model_meta", extra="evaluate").ModelMeta
        record = meta.create_empty(overwrites={"training_datasets": set(record)})
    share: int | None = record.zero_shot_percentage(list(tasks))
    return share


def pareto(costs: ArrayLike, scores: ArrayLike) -> NDArray[np.bool_]:
    """Tell which models nobody beats: no other has at most the same costs and at least the same score, and one better.

    Args:
        costs: One or several costs per model; smaller is better.
        scores: One or several scores per model; larger is better.

    Shape:
        costs (N,) or (N, C), scores (N,) or (N, S) -> (N,) bool

    Returns:
        Whether each model is on the front; equal models share their place.

    Raises:
        InputError: sizes differ, or a number is missing.

    Example:
        >>> pareto([1.0, 2.0, 3.0], [0.5, 0.4, 0.9]).tolist()
        [True, False, True]
    """
    spent, gained = (np.asarray(given, dtype=np.float64) for given in (costs, scores))
    spent, gained = (given[:, None] if given.ndim == 1 else given for given in (spent, gained))
    if spent.ndim != 2 or gained.ndim != 2 or len(spent) != len(gained):
        raise InputError(f"costs and scores must have a row per model, got shapes {spent.shape} and {gained.shape}")
    points = np.concatenate([spent, -gained], axis=1)
    if not np.isfinite(points).all():
        raise InputError("costs and scores must be finite: leave out models of which one is not known")
    beaten = [bool(np.any((points <= row).all(axis=1) & (points < row).any(axis=1))) for row in points]
    return ~np.array(beaten, dtype=bool)
