"""What every embedding model offers, and the two steps that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError


@runtime_checkable
class Encoder(Protocol):
    """A model that turns texts into unit vectors.

    Rows are float32 of length one, so the dot product is the cosine everywhere. A text without any known token gives
    the zero row, never NaN. ``encode_document`` and ``encode_query`` differ only for models that use prompts. A model
    whose dimensions have names gives these as ``dimensions``, a tuple of D strings, and has no negative entries:
    searches then say which of them query and passage share.

    Attributes:
        name: What ``load_model`` was given.
        dim: Length of the vectors.
        fingerprint: ``"<family>:<16 hex>"``; another one whenever vectors could differ (weights, tokenizer, prompts).
    """

    name: str
    dim: int

    @property
    def fingerprint(self) -> str:
        """Identity of the vectors: two encoders with the same fingerprint may share a collection."""
        ...

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Return one unit row per document (N, D); ``on_progress`` is told the number of texts just finished."""
        ...

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit row per query (N, D)."""
        ...


def checked_texts(texts: Iterable[str]) -> list[str]:
    """Return the texts as a list, or say which one is not a text.

    Args:
        texts: The texts to encode.

    Returns:
        A new list.

    Raises:
        InputError: ``texts`` is itself one string, or holds something that is not a string.

    Example:
        >>> checked_texts(("a", "b"))
        ['a', 'b']
    """
    if isinstance(texts, (str, bytes)):
        raise InputError(f"texts={texts[:40]!r}: expected a sequence of strings; put a single text into a list")
    checked = list(texts)
    for place, text in enumerate(checked):
        if not isinstance(text, str):
            raise InputError(f"texts[{place}]={text!r:.80} is {type(text).__name__}: every text must be a str")
    return checked


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to length one in place; zero rows stay zero.

    Args:
        rows: The rows to scale, changed in place.

    Shape:
        rows (N, D) float32 -> (N, D) float32

    Returns:
        ``rows`` itself.

    Example:
        >>> unit_rows(np.array([[3, 4], [0, 0]], dtype=np.float32)).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    lengths[lengths == 0] = 1
    rows /= lengths[:, None]
    return rows
