"""Where a transformer keeps its blocks, and a view of a model that ends after some of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Transformer
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedlab._core.errors import InputError
from embedlab.models.bidirectional import LAST_LAYERS

# Path of the blocks inside the transformer, and of the norm that comes after the last of them (pre-norm families).
PLACES = (
    ("encoder.layer", None),  # BERT, RoBERTa, XLM-R, MPNet, ELECTRA
    ("transformer.layer", None),  # DistilBERT
    ("layers", "final_norm"),  # ModernBERT
    ("layers", "norm"),  # Llama, Mistral, Qwen, Gemma
    ("h", "ln_f"),  # GPT-2
)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a model.

    Attributes:
        body: The transformer itself, without adapters around it.
        path: Dotted path from the host's model to the list of blocks.
        layers: The blocks, first to last.
        norm: What the transformer does after the last one; the identity in post-norm families.
    """

    body: PreTrainedModel
    path: str
    layers: nn.ModuleList
    norm: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.layers)


def find_blocks(model: SentenceTransformer) -> Blocks:
    """Find the blocks of a sentence-transformers model.

    Args:
        model: The model; adapters (peft) may be around or inside its transformer.

    Returns:
        The blocks.

    Raises:
        InputError: the model does not begin with a transformer, or the architecture is not one of ``PLACES``.
    """
    first = next(iter(model.children()), None)
    if not isinstance(first, Transformer):
        raise InputError(f"model: expected a Transformer as its first module, got {type(first).__name__}")
    name = next(name for name, module in model.named_children() if module is first)
    path, body = next((p, m) for p, m in first.named_modules(prefix=name) if isinstance(m, PreTrainedModel))
    modules = dict(body.named_modules())
    for place, norm in PLACES:
        layers = modules.get(place)
        if isinstance(layers, nn.ModuleList) and (norm is None or norm in modules):
            return Blocks(body, f"{path}.{place}", layers, modules[norm] if norm else nn.Identity())
    raise InputError(
        f"model: {type(body).__name__} (model_type {body.config.model_type!r}) keeps its layers in none of the known "
        f"places: {', '.join(place for place, _ in PLACES)}"
    )


def check_readout(model: SentenceTransformer) -> None:
    """Demand that the last block's output, after the norm, is what the transformer returns: nothing else comes between.

    Args:
        model: The model; one text of two tokens is run through it.

    Raises:
        InputError: it is not, so that a cut model would not do what its layers did in the whole one.
    """
    blocks = find_blocks(model)
    body: Any = blocks.body
    seen: dict[str, Tensor] = {}
    training = body.training
    handle = blocks.layers[-1].register_forward_hook(
        lambda _module, _inputs, output: seen.update(last=states_of(output))
    )
    try:
        body.eval()
        with torch.no_grad():
            ids = torch.ones((1, 2), dtype=torch.long, device=body.device)
            whole = body(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            same = torch.allclose(blocks.norm(seen["last"]), whole, rtol=1e-3, atol=1e-4)
    finally:
        handle.remove()
        body.train(training)
    if not same:
        raise InputError(f"model: {type(body).__name__} does more after its last layer than this library knows of")


def check_layer(layer: Any, blocks: Blocks) -> int:
    """Return a number of layers if the model has as many, or say that it has not.

    Args:
        layer: The number.
        blocks: The blocks of the model.

    Returns:
        ``layer`` itself.

    Raises:
        InputError: it is no whole number from 1 to the number of blocks.
    """
    if not isinstance(layer, int) or isinstance(layer, bool) or not 1 <= layer <= len(blocks):
        raise InputError(f"layers={layer!r}: the model has layers 1 to {len(blocks)}")
    return layer


def check_dim(dim: Any, width: int) -> int:
    """Return a width if the model's vectors are at least as wide, or say that they are not.

    Args:
        dim: The width.
        width: That of the model.

    Returns:
        ``dim`` itself.

    Raises:
        InputError: it is no whole number from 1 to ``width``.
    """
    if not isinstance(dim, int) or isinstance(dim, bool) or not 1 <= dim <= width:
        raise InputError(f"dim={dim!r}: the model's vectors have 1 to {width} dimensions")
    return dim


def states_of(output: Any) -> Tensor:
    """Return the token states from what a block gives.

    Args:
        output: A tensor, or a tuple that begins with it.

    Returns:
        The tensor.
    """
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


@contextmanager
def states_after(blocks: Blocks, layers: tuple[int, ...]) -> Iterator[dict[int, Tensor]]:
    """Collect, while the transformer runs, the token states after some of its layers, as its last norm leaves them.

    Args:
        blocks: The blocks.
        layers: After how many blocks; 0 is the output of the embedding layer.

    Yields:
        Number of blocks -> token states (B, T, H); filled by the run.
    """
    found: dict[int, Tensor] = {}

    def entering(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found[0] = blocks.norm(inputs[0])

    def leaving(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[layer] = blocks.norm(states_of(output))

        return keep

    handles = [
        blocks.layers[layer - 1].register_forward_hook(leaving(layer))
        if layer
        else blocks.layers[0].register_forward_pre_hook(entering)
        for layer in layers
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def view(model: SentenceTransformer, layers: int, dim: int) -> SentenceTransformer:
    """Make a model of the first layers and dimensions that shares every weight with the given one.

    Only the containers on the way to the list of blocks are new, and the configuration.

    Args:
        model: The model; it is left as it is.
        layers: Number of layers to keep.
        dim: Number of dimensions to keep.

    Returns:
        The view; moving it to another device moves the weights of both.

    Raises:
        InputError: there are not as many layers or dimensions, or the architecture is unknown.
    """
    blocks, width = find_blocks(model), width_of(model)
    check_layer(layers, blocks)
    check_dim(dim, width)
    made: SentenceTransformer = _shell(model)
    made.model_card_data = copy.copy(model.model_card_data)
    made.model_card_data.model = made
    owner: nn.Module = made
    *steps, last = blocks.path.split(".")
    for step in steps:
        owner._modules[step] = _shell(owner._modules[step])
        owner = owner._modules[step]  # type: ignore[assignment]
        if isinstance(owner, PreTrainedModel):
            owner.config = _shorter(owner.config, layers)
    owner._modules[last] = nn.ModuleList(blocks.layers[:layers])
    if dim < width:
        _narrow(made, dim)
    return made


def width_of(model: SentenceTransformer) -> int:
    """Return the length of the model's vectors, whatever it is set to cut them to.

    Args:
        model: The model.

    Returns:
        Number of dimensions.
    """
    widths = (getattr(module, "get_embedding_dimension", lambda: None)() for module in reversed(list(model.children())))
    return int(next(width for width in widths if width))


def _shell(module: Any) -> Any:
    """Copy a module but not what is in it."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made


def _shorter(config: Any, layers: int) -> Any:
    """Copy a configuration for fewer layers; fields with one entry per layer are cut too."""
    made, whole = copy.deepcopy(config), config.num_hidden_layers
    both_ways = getattr(config, LAST_LAYERS, None)  # counted from the last layer, which is another one now
    if both_ways:
        setattr(made, LAST_LAYERS, max(0, both_ways - (whole - layers)))
    for name, value in vars(config).items():
        if name.startswith("layer_") and isinstance(value, list) and len(value) == whole:
            setattr(made, name, value[:layers])
    made.num_hidden_layers = layers
    return made


def _narrow(model: SentenceTransformer, dim: int) -> None:
    """Put a module that keeps the first dimensions before the normalisation: one that every plain host can load."""
    modules = list(model._modules.items())
    end = len(modules)
    while isinstance(modules[end - 1][1], Normalize):
        end -= 1
    width = width_of(model)
    parameter = next(model.parameters())
    weight = torch.eye(dim, width, dtype=parameter.dtype, device=parameter.device)
    with torch.random.fork_rng(devices=[]):  # it draws weights first, which these replace
        keep = Dense(width, dim, bias=False, activation_function=nn.Identity(), init_weight=weight)
    keep.train(model.training)
    name = str(max(int(name) if name.isdecimal() else -1 for name, _ in modules) + 1)
    model._modules = dict([*modules[:end], (name, keep), *modules[end:]])
