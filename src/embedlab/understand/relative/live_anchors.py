"""Anchors that follow a model while it changes: embedded anew, fingerprinted, and known to be stale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from embedlab._core.errors import InputError

_CHUNK = 64  # anchors embedded at once


def embed_anchors(model: Any, before: Sequence[nn.Module], texts: Sequence[str]) -> Tensor:
    """Embed anchor texts with the modules of a model as they are now: in evaluation mode and without gradient.

    Args:
        model: The model, for its tokenizer and device.
        before: The modules to run.
        texts: The anchors.

    Returns:
        Embeddings (K, D); the modules' modes are as they were.
    """
    modes = [(part, part.training) for module in before for part in module.modules()]
    try:
        for module in before:
            module.eval()
        with torch.inference_mode(False), torch.no_grad():
            found = []
            for start in range(0, len(texts), _CHUNK):
                features = _on_device(model.preprocess(list(texts[start : start + _CHUNK])), model.device)
                for module in before:
                    features = module(features)
                found.append(features["sentence_embedding"])
            vectors = torch.cat(found)
    finally:
        for part, mode in modes:
            part.training = mode
    return vectors


def fingerprint(modules: Iterable[nn.Module]) -> str:
    """Return ``"encoder:<16 hex>"`` over the kinds and weights of some modules.

    Args:
        modules: The modules, in order.

    Returns:
        The fingerprint.
    """
    digest = blake2b(digest_size=8)
    for module in modules:
        digest.update(type(module).__name__.encode())
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return f"encoder:{digest.hexdigest()}"


def modules_before(model: Any, module: nn.Module) -> list[nn.Module]:
    """Return the modules of a model that run before one of them.

    Args:
        model: A sentence-transformers model.
        module: One of its modules.

    Returns:
        The modules before it.

    Raises:
        InputError: the model does not hold it.
    """
    found: list[nn.Module] = []
    for each in model:
        if each is module:
            return found
        found.append(each)
    raise InputError("model does not hold this module: append it, or call on_model_ready on the copy that it holds")


def weights_of(modules: Iterable[nn.Module]) -> tuple[Any, ...]:
    """Return what changes when weights do: an optimiser's step or a load changes a tensor's version.

    Args:
        modules: The modules to watch.

    Returns:
        Something to compare with what was returned before.
    """
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    return tuple((id(t), 0 if t.is_inference() else t._version) for t in tensors)


def _on_device(features: Any, device: Any) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in features.items()}
