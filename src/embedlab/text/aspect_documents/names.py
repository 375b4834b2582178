"""Names of aspects, and weights by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from embedlab._core.errors import InputError, unknown_name

#: The vectors as they are, specialised in nothing: may be mixed with aspects like one of them.
GENERIC = "generic"

_NAME = re.compile(r"[^\W\d][\w.-]{0,63}")


def check_aspect(name: str) -> str:
    """Return the name of an aspect if it is one.

    Args:
        name: A letter, then letters, digits, ``_``, ``-`` and ``.``, at most 64.

    Returns:
        The name.

    Raises:
        InputError: it is not allowed, or means something else.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == GENERIC:
        raise InputError(
            f"aspect {name!r:.80}: a name begins with a letter, holds letters, digits, '_', '-' and '.', at most 64, "
            f"and is not {GENERIC!r}, which means the vectors as they are"
        )
    return name


def check_weights(weights: Mapping[str, float], known: Iterable[str]) -> dict[str, float]:
    """Return the weights of a mix of aspects, scaled so that their sizes add up to 1.

    Args:
        weights: Weight of each aspect; ``"generic"`` is the plain vector. Below 0 means: not alike in this.
        known: Aspects there are.

    Returns:
        Name -> share; those of 0 are left out.

    Raises:
        InputError: an aspect is not known, a weight is no finite number, or all are 0.

    Example:
        >>> check_weights({"method": 1, "dataset": 0.25}, ["method", "dataset"])
        {'method': 0.8, 'dataset': 0.2}
    """
    names = [*known, GENERIC]
    for name, weight in weights.items():
        if name not in names:
            raise unknown_name("aspect", name, names)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise InputError(f"weight of aspect {name!r} is {weight!r}: must be a finite number")
    total = sum(abs(weight) for weight in weights.values())
    if not total:
        raise InputError(f"weights={dict(weights)}: at least one aspect needs a weight other than 0")
    return {name: weight / total for name, weight in weights.items() if weight}


def parse_weights(given: Sequence[str]) -> dict[str, float]:
    """Return weights as people write them.

    Args:
        given: ``NAME=WEIGHT``, or ``NAME`` alone for a weight of 1.

    Returns:
        Weight of each aspect.

    Raises:
        InputError: a weight is no number, or an aspect comes twice.

    Example:
        >>> parse_weights(["method", "dataset=0.3"])
        {'method': 1.0, 'dataset': 0.3}
    """
    weights: dict[str, float] = {}
    for text in given:
        name, _, weight = text.partition("=")
        if name in weights:
            raise InputError(f"aspect {text!r}: a weight for {name!r} was given already")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise InputError(f"aspect {text!r}: write NAME=WEIGHT with a number, such as method=0.5") from None
    return weights
