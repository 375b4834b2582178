"""``/v1``: embeddings as openai clients ask for them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Response
from numpy.typing import NDArray
from pydantic_core import to_json

from embedlab.serve.encoders import Encoders
from embedlab.serve.errors import ApiError
from embedlab.serve.metrics import Metrics
from embedlab.serve.pool import Pool
from embedlab.serve.schemas import EmbeddingsQuery
from embedlab.serve.settings import Limits


def embeddings_router(encoders: Encoders, pool: Pool, limits: Limits, metrics: Metrics) -> APIRouter:
    """Build the routes under ``/v1``.

    Args:
        encoders: Models on offer.
        pool: Threads to embed in.
        limits: Bounds on texts and batches.
        metrics: Where texts and tokens are counted.

    Returns:
        The routes.
    """
    router = APIRouter(prefix="/v1", tags=["embeddings"])

    @router.post("/embeddings", summary="Embed texts")
    async def create_embeddings(query: EmbeddingsQuery) -> Response:
        texts = _texts(query.input, limits)
        encoders.check(query.model)
        content, tokens = await pool.run(_embed, encoders, query, texts)
        metrics.embeddings.inc(len(texts))
        metrics.tokens.inc(tokens)
        return Response(content, media_type="application/json")

    @router.get("/models", summary="List models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in encoders.names]}

    @router.get("/models/{model:path}", summary="Show a model")
    async def show_model(model: str) -> dict[str, Any]:
        return _model(encoders.check(model))

    return router


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "embedlab"}


def _texts(given: Any, limits: Limits) -> list[str]:
    """Return the texts to embed, or say which of them can't be."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise ApiError(400, f"input is {type(given).__name__}: send a text or a list of texts", field="input")
    if not texts:
        raise ApiError(400, "input is an empty list: send at least one text", field="input")
    if len(texts) > limits.batch_texts:
        raise ApiError(
            400,
            f"input has {len(texts)} texts: at most {limits.batch_texts} are allowed, send several calls",
            field="input",
        )
    for place, text in enumerate(texts):
        field = "input" if isinstance(given, str) else f"input.{place}"
        if isinstance(text, int | list):
            raise ApiError(
                400,
                f"{field} holds token ids: they mean nothing without the model's tokenizer, send texts",
                field=field,
            )
        if not isinstance(text, str):
            raise ApiError(400, f"{field} is {type(text).__name__}: send a text", field=field)
        if not text:
            raise ApiError(400, f"{field} is empty: leave it out", field=field)
        if len(text) > limits.text_chars:
            raise ApiError(
                400,
                f"{field} has {len(text)} characters: at most {limits.text_chars} are allowed, split it",
                field=field,
            )
    total = sum(map(len, texts))
    if total > limits.batch_chars:
        raise ApiError(
            400,
            f"input has {total} characters: at most {limits.batch_chars} are allowed, send several calls",
            field="input",
        )
    return texts


def _embed(encoders: Encoders, query: EmbeddingsQuery, texts: list[str]) -> tuple[bytes, int]:
    encoder = encoders.get(query.model)
    if query.dimensions is not None and query.dimensions > encoder.dim:
        raise ApiError(
            400,
            f"dimensions={query.dimensions}: model {query.model!r} has {encoder.dim}, ask for 1 to {encoder.dim}",
            field="dimensions",
        )
    vectors = encoder.encode_query(texts) if query.input_type == "query" else encoder.encode_document(texts)
    vectors = shortened(vectors, query.dimensions)
    if not np.isfinite(vectors).all():
        raise ApiError(502, f"model {query.model!r} gave values that are not finite: check the model", field="model")
    tokens = encoders.count_tokens(query.model, texts)
    if query.encoding_format == "base64":
        rows: list[Any] = [base64.b64encode(row).decode("ascii") for row in vectors.astype("<f4")]
    else:
        rows = vectors.tolist()
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
        "model": query.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return to_json(answer), tokens


def shortened(vectors: NDArray[np.float32], dim: int | None) -> NDArray[np.float32]:
    """Keep the first values of each vector and scale it to unit length again.

    Args:
        vectors: Unit rows; zero rows stay zero.
        dim: How many values to keep; ``None`` keeps all.

    Shape:
        vectors (N, D) float32 -> (N, dim) float32

    Returns:
        A new array, or ``vectors`` itself if nothing is cut.

    Example:
        >>> shortened(np.array([[0.6, 0.0, 0.8]], dtype=np.float32), 2).tolist()
        [[1.0, 0.0]]
    """
    if dim is None or dim == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dim]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)  # (N, 1)
    lengths[lengths == 0] = 1
    return np.asarray(kept / lengths, np.float32)
