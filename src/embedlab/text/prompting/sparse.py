"""Sparse vectors from a language model's head, and one ranking from dense and sparse scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require

if TYPE_CHECKING:
    from torch import Tensor


def sparse_weights(logits: Tensor, text_tokens: Tensor, *, top_k: int = 128) -> Tensor:
    """Turn the logits of the next token into term weights: log(1 + relu(logit)) of the text's own tokens, the largest.

    Args:
        logits: What the model expects after the prompt.
        text_tokens: 1 for each token that occurs in the text, 0 for the others.
        top_k: Most weights above 0 in a row.

    Shape:
        logits (B, V) float, text_tokens (B, V) -> (B, V) float32

    Returns:
        The weights, at least 0.

    Raises:
        InputError: ``top_k`` is below 1.

    References:
        Zhuang et al. (2024), PromptReps, arXiv:2404.18424v2.
    """
    if top_k < 1:
        raise InputError(f"top_k={top_k}: must be at least 1")
    weights = logits.float().relu().log1p() * text_tokens
    if top_k < weights.shape[-1]:
        kept = weights.topk(top_k, dim=-1)
        weights = weights.new_zeros(weights.shape).scatter(-1, kept.indices, kept.values)
    return weights


def head_matrix(model: Any) -> Any:
    """Find the matrix that turns states into logits.

    Args:
        model: A causal language model, or its body with words that are tied to the head.

    Returns:
        The matrix (V, D).

    Raises:
        InputError: the model has no head, and its words are not tied to one.
    """
    head = model.get_output_embeddings()
    if head is not None:
        return head.weight
    if getattr(model.config, "tie_word_embeddings", False):
        return model.get_input_embeddings().weight
    raise InputError(
        f"model={type(model).__name__}: has no head over its vocabulary; load it as a causal language model"
    )


def fuse_scores(dense: ArrayLike, sparse: ArrayLike, *, weight: float = 0.5) -> NDArray[np.float64]:
    """Fuse two rankings: each query's scores go to [0, 1] by their smallest and largest, then weight their sum.

    Args:
        dense: Scores of every document for every query.
        sparse: The same of another kind, in the same order.
        weight: Of the dense scores, in [0, 1].

    Shape:
        dense (Q, N), sparse (Q, N) -> (Q, N) float

    Returns:
        ``weight * dense + (1 - weight) * sparse`` of the scaled scores, in [0, 1]; equal scores of a query scale to 0.

    Raises:
        InputError: the shapes differ, or ``weight`` is out of range.

    Example:
        >>> fuse_scores([[0.2, 0.4, 0.3]], [[9.0, 0.0, 3.0]]).round(3).tolist()
        [[0.5, 0.5, 0.417]]
    """
    first, second = np.asarray(dense, dtype=np.float64), np.asarray(sparse, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2 or not first.shape[1]:
        raise InputError(f"dense {first.shape} and sparse {second.shape}: expected two of one shape (Q, N), N above 0")
    if not 0 <= weight <= 1:
        raise InputError(f"weight={weight}: expected a number from 0 to 1")
    return weight * _scaled(first) + (1 - weight) * _scaled(second)


def _scaled(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = scores.min(1, keepdims=True), scores.max(1, keepdims=True)
    scaled: NDArray[np.float64] = (scores - low) / np.where(high > low, high - low, 1.0)
    return scaled


def as_csr(rows: list[Any], width: int) -> Any:
    """Join batches of weights to one sparse matrix of scipy.

    Args:
        rows: Weights (B, V) of each batch.
        width: V, for no batch at all.

    Returns:
        The matrix (N, V).
    """
    sparse = require("scipy.sparse", extra="train")
    parts = [sparse.csr_matrix(row.cpu().numpy()) for row in rows]
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, width), dtype=np.float32)
