"""What every embedding model offers, and the one function that finds a model by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError

DEFAULT = "default"


@runtime_checkable
class Encoder(Protocol):
    """A model that turns texts into unit vectors.

    Rows are float32 of length one, so the dot product is the cosine everywhere. A text without any known token gives
    the zero row, never NaN. ``encode_document`` and ``encode_query`` differ only for models that use prompts.

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


def load_model(
    name: str = DEFAULT, *, device: str | None = None, api_key: str | None = None, timeout_s: float = 30.0
) -> Encoder:
    """Load an embedding model by name.

    Args:
        name: ``"default"`` for the static model carried by this package; a folder written by ``StaticModel.save``;
            a folder or hub name of a sentence-transformers or model2vec model (extra ``train``); or an
            OpenAI-compatible endpoint as ``"https://host/v1#model-name"``.
        device: Where torch models run, e.g. ``"cpu"`` or ``"cuda"``; None lets the library choose.
        api_key: Key for an endpoint; None takes ``EMBEDLAB_ENDPOINT_API_KEY`` or ``OPENAI_API_KEY``.
        timeout_s: Longest time one request to an endpoint may take, in seconds.

    Returns:
        The model, ready to encode.

    Raises:
        InputError: no model has that name.
        MissingExtraError: the model needs the extra ``train``.
        EndpointError: the endpoint did not answer the first request as it should.

    Example:
        >>> model = load_model()
        >>> model.encode_query(["a text"]).shape == (1, model.dim)
        True
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"name={name!r}: expected 'default', a folder, a hub name or 'https://host/v1#model'")
    if name.startswith(("http://", "https://")):
        from embedlab.models.endpoint import EndpointModel

        return EndpointModel(name, api_key=api_key, timeout_s=timeout_s)
    from embedlab.models.static import StaticModel

    if name == DEFAULT:
        return StaticModel.load(Path(__file__).parent / "default", name=DEFAULT)
    if StaticModel.is_saved_at(name):
        return StaticModel.load(name)
    from embedlab.models.sentence_transformer import SentenceTransformerModel

    return SentenceTransformerModel(name, device=device)


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
