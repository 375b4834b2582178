"""Read sentence vectors after several layers of one forward pass, and hand vectors to a loss as if just encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses import column_merging_disabled
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab.text.matryoshka_2d.blocks import find_blocks, states_after

VECTORS = "sentence_embedding"


@contextmanager
def reading(model: nn.Module, layers: Sequence[int]) -> Iterator[None]:
    """Let a model give one vector per layer, before normalisation, stacked as (B, number of layers, D).

    The transformer runs once; the modules after it run once per layer, as they would in a model cut there.

    Args:
        model: A sentence-transformers model, or what training wraps it in.
        layers: After how many blocks to read; 0 is the output of the embedding layer.
    """
    host = unwrapped(model)
    with _forward_replaced(host, partial(_read, host, tuple(layers))):
        yield


@contextmanager
def replaying(model: nn.Module, columns: Sequence[Mapping[str, Any]], vectors: Sequence[Tensor]) -> Iterator[None]:
    """Let a model give these vectors for these columns instead of encoding them.

    Args:
        model: The model as the loss holds it; wrappers are not run.
        columns: The tokenised columns.
        vectors: The vectors of each, (B, d).
    """
    known = {id(column["input_ids"]): rows for column, rows in zip(columns, vectors, strict=True)}

    def replay(features: dict[str, Any], **_options: Any) -> dict[str, Any]:
        rows = known.get(id(features["input_ids"]))
        if rows is None:
            raise InputError(
                "loss: it encodes other texts than the columns of the batch, which cannot be read by layer"
            )
        return {**features, VECTORS: rows}

    with _forward_replaced(model, replay), column_merging_disabled():
        yield


def unwrapped(model: nn.Module) -> SentenceTransformer:
    """Return the host's model from what data-parallel training or compilation wraps it in.

    Args:
        model: The model, or a wrapper of it.

    Returns:
        The model itself.

    Raises:
        InputError: there is none inside.
    """
    while not isinstance(model, SentenceTransformer):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            raise InputError(f"model: expected a SentenceTransformer, got {type(model).__name__}")
        model = inner
    return model


def trailing_normalisation(model: SentenceTransformer) -> int:
    """Count the normalising modules at the end of a model.

    Args:
        model: The model.

    Returns:
        How many there are; most models have one or none.
    """
    count = 0
    for module in reversed(list(model.children())):
        if not isinstance(module, Normalize):
            break
        count += 1
    return count


def _read(
    host: SentenceTransformer, layers: tuple[int, ...], features: dict[str, Any], **_options: Any
) -> dict[str, Any]:
    blocks, modules = find_blocks(host), list(host.children())
    first, *after = modules[: len(modules) - trailing_normalisation(host)]
    with states_after(blocks, tuple(n for n in layers if n < len(blocks))) as states:
        encoded = first(dict(features))
    states[len(blocks)] = encoded["token_embeddings"]
    vectors = []
    for layer in layers:
        made = {**encoded, "token_embeddings": states[layer]}
        for module in after:
            made = module(made)
        vectors.append(made[VECTORS])
    return {VECTORS: torch.stack(vectors, dim=1)}  # (B, layers, D)


@contextmanager
def _forward_replaced(module: nn.Module, forward: Any) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
