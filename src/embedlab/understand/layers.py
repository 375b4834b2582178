"""What each layer of a transformer would be worth as an embedding: the layers against each other, and on tasks.

The last layer is rarely the best one: it is made for the objective of training. Works for encoders and decoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.models.encoder import unit_rows
from embedlab.ops.weighted import midranks

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Floats: TypeAlias = NDArray[np.float64]
Encode: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
LayerPooling: TypeAlias = Literal["mean", "last_token"]


def layer_vectors(
    model: SentenceTransformer, texts: Sequence[str], *, pooling: LayerPooling = "mean", batch_size: int = 32
) -> NDArray[np.float32]:
    """Embed texts with every layer of the transformer that a model begins with, each pooled over its real tokens.

    A layer's states are what the host calls ``hidden_states``: in decoders all but the last come before the closing
    norm. The embedding layer is not among them. Modules after the transformer have no part in it.

    Args:
        model: The model; it is not changed.
        texts: N texts.
        pooling: ``"mean"`` or ``"last_token"``.
        batch_size: Texts in one forward pass.

    Shape:
        texts N -> (L, N, D) float32

    Returns:
        Unit rows, the first layer first.

    Raises:
        InputError: there are no texts, the pooling is unknown, or the model does not begin with a transformer.
    """
    torch = require("torch", extra="train")
    from embedlab.ops.pooling import last_token, masked_mean

    if not texts:
        raise InputError("texts: expected at least one")
    if pooling not in ("mean", "last_token"):
        raise InputError(f"pooling={pooling!r}: expected 'mean' or 'last_token'")
    body = getattr(model[0], "model", None)
    if body is None or not hasattr(body, "config"):
        raise InputError(f"model: it begins with {type(model[0]).__name__}, not with a transformer")
    pool = masked_mean if pooling == "mean" else last_token
    kept = []
    was_training = model.training
    model.train(False)
    with torch.no_grad():
        for start in range(0, len(texts), batch_size):
            features = model.preprocess(list(texts[start : start + batch_size]))
            names = ("input_ids", "attention_mask", "token_type_ids")
            given = {name: features[name].to(model.device) for name in names if name in features}
            if not given["attention_mask"][:, 0].all():  # padded on the left: positions begin with the text
                given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
            states = body.base_model(**given, output_hidden_states=True).hidden_states[1:]
            kept.append(torch.stack([pool(layer, given["attention_mask"]) for layer in states]).float().cpu().numpy())
    model.train(was_training)
    vectors = np.concatenate(kept, axis=1)  # (L, N, D)
    return np.stack([unit_rows(layer) for layer in vectors])


def layer_correlation(
    model: SentenceTransformer, texts: Sequence[str], *, pooling: LayerPooling = "mean", batch_size: int = 32
) -> Floats:
    """Correlate the layers of a model by how they order pairs of texts.

    Entry (i, j) is Spearman's correlation of the cosines of all pairs of texts at layer i with those at layer j; equal
    cosines share their mean rank.

    Args:
        model: A model that begins with a transformer.
        texts: N texts, at least three.
        pooling: ``"mean"`` or ``"last_token"``.
        batch_size: Texts in one forward pass.

    Shape:
        texts N -> (L, L) float64

    Returns:
        A symmetric matrix with ones on the diagonal, in [-1, 1]; 0 for a layer to which all pairs are alike.

    Raises:
        InputError: fewer than three texts; otherwise as ``layer_vectors``.

    Example:
        >>> from embedlab.testing.tiny_decoder import tiny_decoder
        >>> texts = ["a cat", "a dog ran", "it rained", "a cat ran"]
        >>> layer_correlation(tiny_decoder(texts, num_layers=3), texts).shape
        (3, 3)

    References:
        Tang and Yang (2024), arXiv:2409.02727v2, section 2.
    """
    if len(texts) < 3:
        raise InputError(f"texts: {len(texts)}, expected at least 3: their pairs are what is ordered")
    vectors = layer_vectors(model, texts, pooling=pooling, batch_size=batch_size).astype(np.float64)
    upper = np.triu_indices(len(texts), 1)
    cosines = np.stack([(layer @ layer.T)[upper] for layer in vectors])  # (L, pairs)
    ranks = midranks(cosines.round(6))  # beyond six places is rounding
    ranks -= ranks.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(ranks, axis=1, keepdims=True)
    ranks = np.divide(ranks, lengths, out=np.zeros_like(ranks), where=lengths > 0)
    found = np.clip(ranks @ ranks.T, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return np.asarray((found + found.T) / 2)


def layer_scores(
    model: SentenceTransformer,
    tasks: Mapping[str, Callable[[Encode], float]],
    *,
    pooling: LayerPooling = "mean",
    batch_size: int = 32,
) -> dict[str, list[float]]:
    """Score every single layer on tasks; the model reads each text once for all layers and tasks.

    Args:
        model: A model that begins with a transformer.
        tasks: Name -> function of an encoder that gives a score: it is called once for each layer, with a function from
            texts to unit rows (N, D), and must ask for the same texts each time.
        pooling: ``"mean"`` or ``"last_token"``.
        batch_size: Texts in one forward pass.

    Returns:
        Name -> one score for each layer, the first layer first.

    Raises:
        InputError: as ``layer_vectors``.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> def near(encode):
        ...     first, second = encode(["a cat", "a dog"])
        ...     return float(first @ second)
        >>> len(layer_scores(tiny_encoder(["a cat", "a dog"], num_layers=3), {"near": near})["near"])
        3

    References:
        Tang and Yang (2024), arXiv:2409.02727v2, section 2.
    """
    known: dict[str, NDArray[np.float32]] = {}  # text -> (L, D)

    def every_layer(texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            vectors = layer_vectors(model, new, pooling=pooling, batch_size=batch_size)
            known.update({text: vectors[:, place] for place, text in enumerate(new)})
        return np.stack([known[text] for text in texts], axis=1)  # (L, N, D)

    count = len(every_layer(["a"]))
    found: dict[str, list[float]] = {}
    for name, task in tasks.items():
        scores = [float(task(_layer(every_layer, place))) for place in range(count)]
        found[name] = scores
    return found


def _layer(every_layer: Callable[[Sequence[str]], Any], place: int) -> Encode:
    return lambda texts: np.asarray(every_layer(texts)[place])
