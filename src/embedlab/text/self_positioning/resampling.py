"""Resampling data sets before joint training: the usual answer to imbalance, and a baseline for merging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from embedlab._core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from datasets import Dataset

#: The settings of the paper: parts of one task to parts of the other.
PUBLISHED_RATIOS = ((3, 1), (3, 2), (3, 3), (2, 3), (1, 3))
VARIANTS = ("total", "max")


def resample(
    data: Mapping[str, Dataset], ratio: Mapping[str, float], *, variant: str = "total", seed: int = 0
) -> dict[str, Dataset]:
    """Bring data sets to a ratio of sizes, by leaving rows out or taking them more than once.

    A set that must grow is taken whole as often as it fits, and the rest is drawn without repeats; one that must shrink
    is drawn without repeats. Each is shuffled.

    Args:
        data: Name -> rows.
        ratio: Name -> its part, above 0; ``PUBLISHED_RATIOS`` has the paper's.
        variant: ``"total"``: as many rows in all as before; ``"max"``: the largest set stays as it is, and the others
            are brought to the ratio.
        seed: Decides what is drawn.

    Returns:
        Name -> its new rows.

    Raises:
        InputError: an empty data set, an unknown variant, or a part that is missing or not above 0.

    Example:
        >>> from datasets import Dataset
        >>> data = {"small": Dataset.from_dict({"a": range(10)}), "large": Dataset.from_dict({"a": range(90)})}
        >>> {name: len(rows) for name, rows in resample(data, {"small": 1, "large": 1}).items()}
        {'small': 50, 'large': 50}
        >>> {name: len(rows) for name, rows in resample(data, {"small": 1, "large": 3}, variant="max").items()}
        {'small': 30, 'large': 90}

    References:
        Li et al. (2024), arXiv:2410.15035v1, section 5, resampling by total length and by max length.
    """
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    sizes = {name: len(rows) for name, rows in data.items()}
    if not sizes or not all(sizes.values()):
        raise InputError(f"data: rows per data set {sizes}; expected at least one data set, none of them empty")
    if ratio.keys() != data.keys() or not all(0 < part < float("inf") for part in ratio.values()):
        raise InputError(f"ratio={dict(ratio)}: expected a number above 0 for each of {', '.join(data)}")
    if variant == "total":
        unit = sum(sizes.values()) / sum(ratio.values())
    else:
        largest = max(sizes, key=lambda name: sizes[name])
        unit = sizes[largest] / ratio[largest]
    generator = torch.Generator().manual_seed(seed)
    return {name: _draw(rows, max(1, round(unit * ratio[name])), generator) for name, rows in data.items()}


def _draw(rows: Dataset, count: int, generator: torch.Generator) -> Dataset:
    places: list[int] = []
    while len(places) < count:  # whole rounds first, so that no row is taken twice more often than another
        places += torch.randperm(len(rows), generator=generator).tolist()[: count - len(places)]
    return rows.select(places)
