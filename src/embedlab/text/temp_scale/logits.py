"""Where a model keeps what its attention logits are linear in: query projections, query gains, position bias tables.

Attention layers differ in names, not in kind. Every parameter of a layer must be one that this file knows; one that it
does not know might add to the logits or bend them, so it is refused by name rather than passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

# The first part of a parameter's name within its attention layer, as the model families of transformers have it.
_QUERY = {"query", "query_global", "query_proj", "pos_query_proj", "q", "q_lin", "q_proj"}
_FUSED = {"Wqkv", "c_attn"}  # ModernBERT, GPT-2: queries first, then as many keys, then as many values
_GAIN = {
    "q_norm",
    "q_layernorm",
    "query_layernorm",
}  # a gain after normalisation: the projection's length is lost there
_BIAS = {"relative_attention_bias"}  # T5 has it in its first layer, MPNet in its encoder
_OTHER = {
    *(
        "key",
        "key_global",
        "key_proj",
        "pos_key_proj",
        "k",
        "k_lin",
        "k_proj",
        "k_norm",
        "k_layernorm",
        "key_layernorm",
    ),
    *("value", "value_global", "value_proj", "v", "v_lin", "v_proj"),
    *("dense", "o", "o_proj", "out", "out_lin", "out_proj", "c_proj", "Wo", "LayerNorm"),
}


@dataclass(frozen=True, slots=True)
class LogitPart:
    """One parameter that the attention logits are linear in.

    Attributes:
        name: Dotted name in the model.
        owner: The module that holds it.
        key: Its name in the owner.
        query_first: The parameter holds queries, keys and values along this axis, and only the first third counts.
        offset: The effective value is the stored one plus this; 1 in norms that store their gain that way.
    """

    name: str
    owner: nn.Module
    key: str
    query_first: int | None = None
    offset: float = 0.0

    @property
    def values(self) -> torch.Tensor:
        """The stored values that count, as a view of the parameter."""
        whole: torch.Tensor = getattr(self.owner, self.key).data
        if self.query_first is None:
            return whole
        return whole.narrow(self.query_first, 0, whole.shape[self.query_first] // 3)


def logit_parts(model: nn.Module) -> list[LogitPart]:
    """Find all parameters of a model that its attention logits are linear in.

    Args:
        model: A model with attention layers, from sentence-transformers, transformers or torch.

    Returns:
        The parameters; scaling all of them by c scales all logits by c.

    Raises:
        InputError: the model has no attention layer, or one whose logits this library does not understand.
    """
    parts: list[LogitPart] = []
    for host in hosts(model):
        _refuse_bent_logits(host)
    layers = list(_attention_layers(model))
    if not layers:
        raise InputError(f"{type(model).__name__} has no attention layer, so no temperature: use a transformer")
    for name, layer in layers:
        parts += _layer_parts(name, layer)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _BIAS:
            parts.append(LogitPart(f"{name}.weight", module, "weight"))
    return parts


def hosts(model: nn.Module) -> list[PreTrainedModel]:
    """Find the transformers models that a module is or holds, leaving out those inside another.

    Args:
        model: Any module.

    Returns:
        The outermost ones, in order; each has a ``config`` that is saved with it.
    """
    from transformers import PreTrainedModel

    if isinstance(model, PreTrainedModel):
        return [model]
    return [host for child in model.children() for host in hosts(child)]


def _attention_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the innermost modules called attention; the outer ones only wrap them, or hold the output's projection."""
    for name, module in model.named_modules():
        if _is_attention(module) and not any(_is_attention(child) for child in module.modules() if child is not module):
            yield name, module


def _is_attention(module: nn.Module) -> bool:
    return "attention" in type(module).__name__.lower()


def _layer_parts(name: str, layer: nn.Module) -> list[LogitPart]:
    from torch import nn

    if isinstance(layer, nn.MultiheadAttention):
        return _torch_parts(name, layer)
    children = dict(layer.named_children())
    own = [key for key, _ in layer.named_parameters(recurse=False)]
    norms = [key for key, child in children.items() if "norm" in key.lower() and not isinstance(child, nn.Identity)]
    learned = [key for key, child in children.items() if any(True for _ in child.parameters())]
    for key in (*own, *norms, *learned):
        if key not in _QUERY | _FUSED | _GAIN | _BIAS | _OTHER:
            raise _unsupported(name, layer, f"{key!r} may change the logits in a way that is not known here")
    gains = [key for key in norms if key in _GAIN]
    if gains:
        return [part for key in gains for part in _gain_parts(name, layer, key, children[key])]
    parts = [
        LogitPart(f"{name}.{key}.{own_key}", children[key], own_key, query_first=_query_axis(name, layer, key))
        for key in learned
        if key in _QUERY | _FUSED
        for own_key, _ in _linear(name, layer, key).named_parameters(recurse=False)
    ]
    if not parts:
        raise _unsupported(
            name, layer, f"it has no query projection among {', '.join(children) or 'its (no) children'}"
        )
    return parts


def _linear(name: str, layer: nn.Module, key: str) -> nn.Module:
    """Return a projection that is known to be one: adapters around it, or packed weights, would not scale."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    module: nn.Module = layer.get_submodule(key)
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    if not isinstance(module, nn.Linear | Conv1D) or weight is None or not weight.is_floating_point():
        raise _unsupported(
            name, layer, f"{key!r} is {type(module).__name__}, no plain linear layer: merge adapters first"
        )
    return module


def _query_axis(name: str, layer: nn.Module, key: str) -> int | None:
    """Along which axis of its parameters a fused projection holds queries, keys and values; None if it is not fused."""
    from torch import nn

    if key not in _FUSED:
        return None
    shape = _linear(name, layer, key).get_parameter("weight").shape
    axis = 0 if isinstance(layer.get_submodule(key), nn.Linear) else -1  # Conv1D is the transpose
    if shape[axis] != 3 * shape[-1 - axis]:
        raise _unsupported(name, layer, f"{key!r} of shape {tuple(shape)} does not hold three equal projections")
    return axis


def _gain_parts(name: str, layer: nn.Module, key: str, norm: nn.Module) -> list[LogitPart]:
    """Take the gain, and bias, of a norm on the queries, after trying out whether it is stored as it acts or less 1."""
    import torch
    from torch.func import functional_call

    stored = {own_key: value.detach() for own_key, value in norm.named_parameters()}
    if "weight" in stored and not any("." in own_key for own_key in stored):
        probe = torch.linspace(-1, 2, stored["weight"].numel()).view_as(stored["weight"]).to(stored["weight"])
        for offset in (0.0, 1.0):
            doubled = {k: 2 * (v + offset) - offset if k == "weight" else 2 * v for k, v in stored.items()}
            if torch.allclose(functional_call(norm, doubled, (probe,)), 2 * norm(probe), rtol=1e-2):
                return [LogitPart(f"{name}.{key}.{k}", norm, k, offset=offset * (k == "weight")) for k in stored]
    raise _unsupported(name, layer, f"{key!r} ({type(norm).__name__}) has no gain that its output is linear in")


def _torch_parts(name: str, layer: nn.MultiheadAttention) -> list[LogitPart]:
    keys = ("in_proj_weight", "q_proj_weight", "in_proj_bias")
    return [
        LogitPart(f"{name}.{key}", layer, key, query_first=0 if key.startswith("in") else None)
        for key in keys
        if getattr(layer, key) is not None
    ]


def _refuse_bent_logits(host: PreTrainedModel) -> None:
    for key, value in _leaves(host.config.to_dict()):
        if value == "alibi" or (value and ("alibi" in key or ("softcap" in key and "final" not in key))):
            kind = type(host).__name__
            raise InputError(
                f"{kind} has {key}={value!r}: its logits are not linear in the queries, no temperature fits"
            )


def _leaves(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield str(key), value


def _unsupported(name: str, layer: nn.Module, why: str) -> InputError:
    return InputError(f"unsupported attention layer {name!r} ({type(layer).__name__}): {why}")
