"""The one function that finds a model by its name."""

from __future__ import annotations

from pathlib import Path

from embedlab._core.errors import InputError
from embedlab.models.encoder import Encoder
from embedlab.models.static import StaticModel
from embedlab.models.word_concepts import WordConcepts

DEFAULT = "default"


def load_model(
    name: str = DEFAULT, *, device: str | None = None, api_key: str | None = None, timeout_s: float = 30.0
) -> Encoder:
    """Load an embedding model by name.

    Args:
        name: ``"default"`` for the static model carried by this package; a folder written by ``StaticModel.save``
            or ``ESA.save``; a folder or hub name of a sentence-transformers or model2vec model (extra ``train``); or
            an OpenAI-compatible endpoint as ``"https://host/v1#model-name"``.
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
    if name == DEFAULT:
        return StaticModel.load(Path(__file__).parent / "default", name=DEFAULT)
    if StaticModel.is_saved_at(name):
        return StaticModel.load(name)
    if WordConcepts.is_saved_at(name):
        return WordConcepts.load(name)
    from embedlab.models.sentence_transformer import SentenceTransformerModel

    return SentenceTransformerModel(name, device=device)
