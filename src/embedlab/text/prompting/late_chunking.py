"""Late chunking: read a long text once, then pool each of its chunks from states that have seen the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.models.encoder import unit_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def late_chunks(
    model: SentenceTransformer, text: str, spans: Sequence[tuple[int, int]], *, overlap: int = 0
) -> NDArray[np.float32]:
    """Encode a text once and pool each chunk's tokens, so that "it" in a chunk knows what it stands for.

    A text longer than the model's context is read in windows that end with a chunk; each window begins with the last
    ``overlap`` chunks of the one before, read again for their sake of what follows and not pooled twice.

    Args:
        model: A model that begins with a ``Transformer`` of the host; chunks are pooled by the mean, whatever its own
            pooling is, and later modules are left out.
        text: The text.
        spans: Chunks as (start, end) in characters, in order, not overlapping.
        overlap: Chunks that windows share, at least 0.

    Shape:
        spans C -> (C, D) float32

    Returns:
        Unit rows; the zero row for a chunk without a token.

    Raises:
        InputError: a span is out of order or outside the text, or a chunk alone is longer than the context.

    References:
        Günther et al. (2024), Late Chunking, arXiv:2409.04701v1.
    """
    torch = require("torch", extra="train")
    _check_spans(text, spans, overlap)
    module: Any = model[0]
    tokenizer = module.tokenizer
    ids, offsets, leading, trailing = _tokenised(tokenizer, text)
    places = [_tokens(offsets, start, end) for start, end in spans]
    rows = np.zeros((len(spans), int(module.get_embedding_dimension())), dtype=np.float32)
    limit = int(model.max_seq_length or tokenizer.model_max_length) - len(leading) - len(trailing)
    for first, fresh, last in _windows(places, limit, overlap):
        begin = int(places[first][0]) if len(places[first]) else 0
        window = ids[begin : int(max(place[-1] for place in places[first:last] if len(place))) + 1]
        whole, shift = [*leading, *window, *trailing], begin - len(leading)
        with torch.inference_mode():
            batch = {"input_ids": torch.tensor([whole]), "attention_mask": torch.ones(1, len(whole), dtype=torch.long)}
            states = module({key: value.to(model.device) for key, value in batch.items()})["token_embeddings"][0]
        for chunk in range(fresh, last):
            if len(places[chunk]):
                rows[chunk] = states[places[chunk] - shift].float().mean(0).cpu().numpy()
    return unit_rows(rows)


def _check_spans(text: str, spans: Sequence[tuple[int, int]], overlap: int) -> None:
    if overlap < 0:
        raise InputError(f"overlap={overlap}: must be at least 0")
    before = 0
    for start, end in spans:
        if not before <= start <= end <= len(text):
            raise InputError(f"span ({start}, {end}): chunks must be in order, apart, and inside 0 to {len(text)}")
        before = end


def _tokenised(tokenizer: Any, text: str) -> tuple[list[int], NDArray[np.int64], list[int], list[int]]:
    """Return the text's tokens and their places, and the marks that the tokenizer puts before and after."""
    found = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, truncation=False, verbose=False
    )
    ids, special = found["input_ids"], found["special_tokens_mask"]
    first = next((place for place, mark in enumerate(special) if not mark), len(ids))
    last = max((place for place, mark in enumerate(special) if not mark), default=first - 1) + 1
    offsets = np.array(found["offset_mapping"][first:last], dtype=np.int64).reshape(-1, 2)
    return ids[first:last], offsets, ids[:first], ids[last:]


def _tokens(offsets: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    """Find the tokens that begin in a chunk: each token belongs to one at most."""
    middle = (offsets[:, 0] + offsets[:, 1]) / 2  # a token may begin with the space before the chunk
    return np.flatnonzero((middle >= start) & (middle < end) & (offsets[:, 1] > offsets[:, 0]))


def _windows(places: Sequence[NDArray[np.int64]], limit: int, overlap: int) -> list[tuple[int, int, int]]:
    """Cut chunks into windows (first, first that is new, one past the last) of at most ``limit`` tokens."""
    filled = [chunk for chunk, place in enumerate(places) if len(place)]
    for chunk in filled:
        if len(places[chunk]) > limit:
            raise InputError(
                f"chunk {chunk} has {len(places[chunk])} tokens, and the model's context holds {limit}: late chunking "
                "needs chunks smaller than the context"
            )

    def width(first: int, last: int) -> int:
        return int(places[filled[last]][-1] - places[filled[first]][0]) + 1

    windows, fresh = [], 0
    while fresh < len(filled):
        first = max(0, fresh - overlap)
        while width(first, fresh) > limit:
            first += 1
        last = fresh
        while last + 1 < len(filled) and width(first, last + 1) <= limit:
            last += 1
        windows.append((filled[first], filled[fresh], filled[last] + 1))
        fresh = last + 1
    return windows
