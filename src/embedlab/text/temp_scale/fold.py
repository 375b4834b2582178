"""The temperature of a model's attention, folded into its weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from embedlab._core.errors import InputError
from embedlab.text.temp_scale.logits import LogitPart, hosts, logit_parts

if TYPE_CHECKING:
    import torch
    from torch import nn

ModelT = TypeVar("ModelT", bound="nn.Module")

log = logging.getLogger(__name__)

_FIELD = "attention_temperature"  # in the model's configuration, so that a saved model tells its temperature
_BEFORE = "_values_at_temperature_one"  # on the module that holds a scaled parameter, so that copies carry it along
_ALLOWED = (0.01, 10.0)


def tempered_copy(model: ModelT, temperature: float) -> ModelT:
    """Copy a model and divide the attention logits of the copy by a temperature, in every layer and head.

    Attention averages over tokens, so it works as a low-pass filter, and the longer the text the harder it filters:
    embeddings of long texts crowd together. A temperature below 1 sharpens attention and weakens the filter, without
    training::

        A = softmax(Q K^T / (tau sqrt(d)))

    It is folded into the weights: queries, and position biases where logits have them, are divided by tau. Any
    attention kernel then computes the equation exactly, and a saved model needs nothing of this library.

    Args:
        model: A transformer of sentence-transformers, transformers or torch; it stays as it is.
        temperature: The divisor, in [0.01, 10]; 1 changes nothing, and useful values lie in [0.5, 0.95]. (paper: tau)

    Shape:
        the same inputs and outputs as ``model``

    Returns:
        The copy. Its configuration carries ``attention_temperature``, which is saved and loaded with it.

    Raises:
        InputError: ``temperature`` is not allowed, or the model has no attention layer or one that is not understood.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> model = tiny_encoder(["a cat sat on a mat"])
        >>> sharper = tempered_copy(model, 0.8)
        >>> get_temperature(sharper), get_temperature(model)
        (0.8, 1.0)

    References:
        Zhou et al. (2024), Length-Induced Embedding Collapse in Transformer-based Models, arXiv:2410.24200v1,
        section 4.
        Official code Yuqi-Zhou/Length_Collapse (read, not copied); ``METHOD["deviations"]`` says where it differs.
    """
    copied = copy.deepcopy(model)
    set_temperature(copied, temperature)
    return copied


def set_temperature(model: nn.Module, temperature: float) -> None:
    """Set the temperature of a model's attention, in place.

    The value is absolute: setting 0.8 twice is setting it once, and 1.0 brings the original weights back to the last
    bit. A model that was saved and loaded in between has lost the originals, as has one trained in between; 1.0 then
    takes the factor out again, which is exact but for one rounding.

    Args:
        model: A transformer of sentence-transformers, transformers or torch.
        temperature: The divisor of the attention logits, in [0.01, 10]. (paper: tau)

    Raises:
        InputError: as for ``tempered_copy``; the model is then unchanged.
    """
    import torch

    _check(temperature)
    parts = logit_parts(model)
    current = get_temperature(model)
    if temperature == current:
        return
    with torch.no_grad():
        originals = [_at_one(part, current) for part in parts]
        changed = [_at(part, original, temperature) for part, original in zip(parts, originals, strict=True)]
        for part, values in zip(parts, changed, strict=True):
            if not values.isfinite().all():
                raise InputError(f"temperature={temperature} takes {part.name} beyond {values.dtype}: use a larger one")
        for part, original, values in zip(parts, originals, changed, strict=True):
            part.values.copy_(values)
            kept = vars(part.owner).setdefault(_BEFORE, {})
            kept[part.key] = original
            if temperature == 1.0:
                del vars(part.owner)[_BEFORE][part.key]
    for bearer in _bearers(model):
        if temperature == 1.0:
            delattr(bearer, _FIELD)
        else:
            setattr(bearer, _FIELD, float(temperature))
    log.debug("attention temperature %g -> %g in %d parameters", current, temperature, len(parts))


def get_temperature(model: nn.Module) -> float:
    """Tell the temperature of a model's attention.

    Args:
        model: Any torch module.

    Returns:
        The divisor of its attention logits; 1.0 if it was never set.

    Raises:
        InputError: the model has parts with different temperatures.
    """
    found = {float(getattr(bearer, _FIELD, 1.0)) for bearer in _bearers(model)}
    if len(found) > 1:
        raise InputError(f"the model has parts with temperatures {sorted(found)}: bring each to 1.0 first")
    return found.pop()


@contextmanager
def attention_temperature(model: ModelT, temperature: float) -> Iterator[ModelT]:
    """Give a model another attention temperature inside a ``with`` block.

    Args:
        model: A transformer of sentence-transformers, transformers or torch.
        temperature: The divisor of the attention logits, in [0.01, 10]. (paper: tau)

    Yields:
        The same model; when the block ends, also by an error, its weights are what they were, to the last bit.

    Raises:
        InputError: as for ``tempered_copy``.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> model = tiny_encoder(["a cat sat on a mat"])
        >>> with attention_temperature(model, 0.7) as sharper:
        ...     get_temperature(sharper)
        0.7
        >>> get_temperature(model)
        1.0
    """
    before = get_temperature(model)
    set_temperature(model, temperature)
    try:
        yield model
    finally:
        set_temperature(model, before)


def _check(temperature: float) -> None:
    low, high = _ALLOWED
    if not (isinstance(temperature, int | float) and low <= temperature <= high):  # NaN fails the comparison
        raise InputError(f"temperature={temperature!r} must be a number in [{low}, {high}]; 1 changes nothing")


def _bearers(model: nn.Module) -> list[object]:
    """The objects that say which temperature a model has: its configurations, or itself if it has none."""
    return [host.config for host in hosts(model)] or [model]


def _at_one(part: LogitPart, current: float) -> torch.Tensor:
    """Values at temperature 1: those put aside, unless the parameter was changed since, as by training."""
    values = part.values
    kept: torch.Tensor | None = vars(part.owner).get(_BEFORE, {}).get(part.key)
    if kept is not None and kept.shape == values.shape and _at(part, kept, current).equal(values):
        return kept
    return values.clone() if current == 1.0 else (values.double() + part.offset) * current - part.offset


def _at(part: LogitPart, original: torch.Tensor, temperature: float) -> torch.Tensor:
    """Values at a temperature, rounded once to the original's type and once to the parameter's, should they differ."""
    original = original.to(part.values.device)
    if temperature == 1.0:
        return original.to(part.values.dtype)
    scaled = (original.double() + part.offset) / temperature - part.offset
    return scaled.to(original.dtype).to(part.values.dtype)
