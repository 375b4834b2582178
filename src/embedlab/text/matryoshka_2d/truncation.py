"""Cut a model to its first layers and dimensions for good."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab.text.matryoshka_2d.blocks import check_readout, find_blocks, view, width_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def truncate(model: SentenceTransformer, *, layers: int | None = None, dim: int | None = None) -> SentenceTransformer:
    """Make a smaller, faster model of the first layers and the first dimensions of a model.

    Its vectors are those that the whole model's states after these layers would pool to (with the final norm, in
    pre-norm families), cut, and normalised where the model normalises. It is a plain sentence-transformers model: it
    saves, and loads without this library. For models that were not trained for it, quality falls steeply.

    Args:
        model: A model whose transformer is of the kind of BERT, RoBERTa, MPNet, DistilBERT, ModernBERT, Llama or GPT-2.
            It is left as it is. Adapters (peft) are folded in.
        layers: Number of layers to keep, from 1; None for all.
        dim: Number of dimensions to keep, from 1; None for all.

    Shape:
        encode: N texts -> (N, dim) float32

    Returns:
        The smaller model, which shares nothing with the given one.

    Raises:
        InputError: there are not as many layers or dimensions; the architecture is unknown; adapters cannot be
            folded in.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> model = tiny_encoder(["a cat sat", "a dog ran"], num_layers=4)
        >>> small = truncate(model, layers=2, dim=8)
        >>> small.encode(["a cat ran"]).shape
        (1, 8)
        >>> sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
        True

    References:
        Li, Li, Li, Xie and Li (2024), 2D Matryoshka Sentence Embeddings, arXiv:2402.14776v1, section 3 (inference).
    """
    blocks = find_blocks(model)
    layers = len(blocks) if layers is None else layers
    dim = width_of(model) if dim is None else dim
    small = copy.deepcopy(view(model, layers, dim))
    _fold_adapters(small)
    body = find_blocks(small).body
    for module in body.modules():  # one configuration again, which the host may switch in one place
        if type(getattr(module, "config", None)) is type(body.config):
            module.config = body.config
    if small.truncate_dim is not None:
        small.truncate_dim = min(small.truncate_dim, dim)
    check_readout(small)
    return small


def _fold_adapters(model: SentenceTransformer) -> None:
    first: Any = model[0]
    if hasattr(first.model, "merge_and_unload"):
        first.model = first.model.merge_and_unload()
    if any("lora_" in name for name, _ in first.named_parameters()):
        raise InputError("model: it has adapters that cannot be folded in here: merge them into its layers first")
