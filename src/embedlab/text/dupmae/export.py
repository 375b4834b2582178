"""A masked language model as a sentence-transformers model: the encoder alone, or with both halves of DupMAE."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedlab._core.errors import InputError
from embedlab._core.quiet import quiet_host
from embedlab.text.dupmae.heads import VocabularyHead
from embedlab.text.dupmae.pooling import DuplexPooling, Mode


def plain_sentence_transformer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    pooling: str = "cls",
    normalize: bool = False,
) -> SentenceTransformer:
    """Take the encoder of a masked language model out of it.

    Args:
        model: The masked language model; it is not changed.
        tokenizer: Its tokenizer.
        max_length: Longest text in tokens.
        pooling: One of the host's pooling modes.
        normalize: Whether vectors are brought to length one.

    Returns:
        A model of its own, on the same device, in evaluation mode.
    """
    body = _transformer(model, tokenizer, max_length)
    modules = [
        body,
        Pooling(int(model.config.hidden_size), pooling_mode=pooling),
        *([Normalize()] if normalize else []),
    ]
    return SentenceTransformer(modules=modules, device=str(model.device)).eval()


def duplex_sentence_transformer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    dense_dim: int = 384,
    sparse_k: int = 384,
    mode: Mode = "both",
    max_length: int | None = None,
    seed: int = 0,
) -> SentenceTransformer:
    """Keep the vocabulary head beside the encoder, in a ``DuplexPooling``.

    Args:
        model: The masked language model; it is not changed.
        tokenizer: Its tokenizer.
        dense_dim: As in ``DuplexPooling``, as are those that follow but the next.
        sparse_k: Words kept of a document.
        mode: Which parts the embedding has.
        max_length: Longest text in tokens; None takes the tokenizer's limit, at most 512.
        seed: Decides the projection.

    Returns:
        A model of its own, on the same device, in evaluation mode.

    Raises:
        InputError: an option is out of range.
    """
    limit = min(512, int(tokenizer.model_max_length))
    if max_length is not None and not 3 <= max_length <= limit:
        raise InputError(f"max_length={max_length}: must be from 3 to {limit}, the most that the model takes")
    head = copy.deepcopy(VocabularyHead.of(model))
    pooling = DuplexPooling(head, dense_dim=dense_dim, sparse_k=sparse_k, mode=mode, seed=seed)
    body = _transformer(model, tokenizer, max_length or limit)
    return SentenceTransformer(modules=[body, pooling], device=str(model.device)).eval()


def _transformer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Transformer:
    encoder: Any = model.base_model
    with tempfile.TemporaryDirectory() as folder, quiet_host("transformers"):  # the host takes encoders by folder only
        encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made: Transformer = Transformer(folder, max_seq_length=max_length)
    return made
