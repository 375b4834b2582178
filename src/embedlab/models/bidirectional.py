"""Decoders whose tokens also see the ones after them, and a test that says whether they do."""

from __future__ import annotations

import copy
import inspect
from typing import Any, TypeVar

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedlab._core.errors import EmbedlabError, InputError

LAST_LAYERS = "bidirectional_last_layers"  # field of the configuration; the host's own is_causal speaks for all layers
_LISTS = ("layers", "h", "blocks")  # what decoders call their list of layers

Model = TypeVar("Model", PreTrainedModel, SentenceTransformer)


class PartlyBidirectional(Transformer):
    """The host's transformer module, for decoders of which only the last layers look both ways.

    What ``to_bidirectional(model, last_layers=n)`` makes of the first module, so that opening a saved model restores
    the switch. Open it with ``embedlab.models.load_model`` or ``SentenceTransformer(folder, trust_remote_code=True)``.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        restore_direction(self.model)


def to_bidirectional(model: Model, *, last_layers: int | None = None) -> Model:
    """Make a copy of a causal decoder in which tokens see later ones as well; no weight changes.

    With all layers, it is a field of the configuration that the host honours (``is_causal``), so the copy saves and
    loads like any other. With the last layers only, the field is ours: a saved ``SentenceTransformer`` needs
    ``embedlab`` to be opened, and after ``AutoModel.from_pretrained`` comes ``restore_direction``. The result has been
    tested, by changing a late token and looking at an early one.

    Args:
        model: A causal decoder, or a sentence-transformers model that begins with one.
        last_layers: How many layers, counted from the last, look both ways; None for all.

    Returns:
        The copy.

    Raises:
        InputError: ``last_layers`` is out of range; the model is no transformer; it has a sliding window and
            ``last_layers`` is given.
        EmbedlabError: the architecture does not heed the switch.

    Example:
        >>> from embedlab.testing.tiny_decoder import tiny_decoder
        >>> model = tiny_decoder(["a cat sat on the mat"])
        >>> sees_later_tokens(model), sees_later_tokens(to_bidirectional(model))
        (False, True)
    """
    body = _body(model)
    layers = decoder_layers(body)
    if last_layers is not None and not (isinstance(last_layers, int) and 1 <= last_layers <= len(layers)):
        raise InputError(f"last_layers={last_layers!r}: expected 1 to {len(layers)}, the number of layers, or None")
    if last_layers is not None and getattr(body.config, "sliding_window", None):
        kinds = getattr(body.config, "layer_types", None) or ["sliding_attention"]
        if "sliding_attention" in kinds:
            raise InputError(f"last_layers={last_layers}: not for models with a sliding window; switch all layers")
    made = copy.deepcopy(model)
    config = _body(made).config
    whole = last_layers in (None, len(layers))
    if whole:
        config.is_causal = False
        setattr(config, LAST_LAYERS, None)
    else:
        setattr(config, LAST_LAYERS, last_layers)
        restore_direction(_body(made))
        if isinstance(made, SentenceTransformer) and type(made[0]) is Transformer:
            made[0].__class__ = PartlyBidirectional  # the same state; what is saved names this class
    if isinstance(made, SentenceTransformer) and hasattr(made[0], "attention"):
        vars(made[0])["attention"] = "bidirectional" if whole else None  # what its own configuration says
    if not sees_later_tokens(made):
        raise EmbedlabError(
            f"{type(body).__name__} takes no notice of is_causal=False: its tokens still see earlier ones only"
        )
    return made


def restore_direction(model: PreTrainedModel) -> None:
    """Switch the layers that the configuration names; does nothing where it names none, or to a model switched before.

    Args:
        model: A decoder that was saved after ``to_bidirectional(model, last_layers=n)`` and has just been loaded. It is
            changed.
    """
    count = getattr(model.config, LAST_LAYERS, None)
    for layer in decoder_layers(model)[-count:] if count else ():
        if _look_both_ways not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_look_both_ways, with_kwargs=True)


@torch.no_grad()
def sees_later_tokens(model: PreTrainedModel | SentenceTransformer) -> bool:
    """Tell whether changing a late token changes an early one's state: on full rows, and with padding on either side.

    Kernels take another path where nothing is padded, and a switch can work on one path only.

    Args:
        model: A transformer, or a sentence-transformers model that begins with one.

    Returns:
        True if early tokens see late ones, False if they do not.

    Raises:
        InputError: the model is no transformer.
        EmbedlabError: they do on one path and do not on another.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> sees_later_tokens(tiny_encoder(["a cat sat"]))
        True
    """
    body = _body(model)
    device = next(body.parameters()).device
    words = torch.arange(2 * 8, device=device).view(2, 8) % body.config.vocab_size
    changed = words.clone()
    changed[:, 4] = (words[:, 4] + 7) % body.config.vocab_size
    full = torch.ones_like(words)
    right, left = full.clone(), full.clone()
    right[1, 5:], left[1, :3] = 0, 0
    was_training = body.training
    body.train(False)
    seen = {}
    for path, mask in (("no padding", full), ("padding on the right", right), ("padding on the left", left)):
        before, after = (_states(body, ids, mask)[:, 3] for ids in (words, changed))
        moved = (after - before).abs().amax(-1) > 1e-6 * before.abs().amax(-1)  # (2,)
        seen.update({f"{path}, row {row}": bool(answer) for row, answer in enumerate(moved)})
    body.train(was_training)
    if len(set(seen.values())) > 1:
        raise EmbedlabError(f"{type(body).__name__} sees later tokens on some paths only: {seen}")
    return all(seen.values())


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Find the list of layers of a transformer.

    Args:
        model: The transformer.

    Returns:
        Its layers, first to last: the list itself, not a copy.

    Raises:
        InputError: there is none that looks like it.
    """
    count = getattr(model.config, "num_hidden_layers", 0)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.split(".")[-1] in _LISTS and len(module) == count:
            return module
    raise InputError(f"model: {type(model).__name__} has no list of layers named {' or '.join(_LISTS)}")


def _body(model: Any) -> PreTrainedModel:
    body = getattr(model[0], "model", None) if isinstance(model, SentenceTransformer) else model
    if not isinstance(body, PreTrainedModel):
        raise InputError(f"model={type(body).__name__}: expected a transformer or a SentenceTransformer with one first")
    return body


def _states(body: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    found: Tensor = body.base_model(input_ids=ids, attention_mask=mask).last_hidden_state  # (2, 8, D)
    return found.float()


def _look_both_ways(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Hand a layer the mask of padding alone: the last row of a causal mask, which sees every token that is there."""
    names = list(inspect.signature(layer.forward).parameters)
    place = names.index("attention_mask")
    mask = given[place] if place < len(given) else named.get("attention_mask")
    if mask is not None and mask.ndim == 4:
        mask = mask[:, :, -1:].expand_as(mask)  # (B, 1, T, T)
    if place < len(given):
        given = (*given[:place], mask, *given[place + 1 :])
    else:
        named = {**named, "attention_mask": mask}
    return given, {**named, "is_causal": False}  # for the kernels that are told by a word instead of a mask
