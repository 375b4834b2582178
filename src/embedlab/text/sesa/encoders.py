"""What reads the texts: a recurrent network made here, the embedded default model, or any model of the host."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from string import punctuation

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import LSTM, Pooling, StaticEmbedding, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from torch import nn

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.models.sentence_transformer import SentenceTransformerModel
from embedlab.models.static import StaticModel
from embedlab.models.words import load_tokenizer

LSTM_NAME = "lstm"


def body_of(encoder: str | SentenceTransformer, texts: Sequence[str], *, seed: int = 0) -> list[nn.Module]:
    """Make the modules that turn a text into one embedding, in front of the explicit layer.

    Args:
        encoder: ``"lstm"``, a name for ``load_model`` of a static or sentence-transformers model, or a model of the
            host; it is copied.
        texts: Training texts, whose words the recurrent network will know.
        seed: Decides its first weights.

    Returns:
        The modules.

    Raises:
        InputError: the model has no torch modules to build on, such as an endpoint.
    """
    if encoder == LSTM_NAME:
        return list(recurrent_model(texts, seed=seed))
    if isinstance(encoder, SentenceTransformer):
        return list(copy.deepcopy(encoder))
    found = load_model(encoder)
    if isinstance(found, StaticModel):
        return [StaticEmbedding(load_tokenizer(found.tokenizer_json), embedding_weights=found.rows)]
    if isinstance(found, SentenceTransformerModel):
        return list(found.host)
    raise InputError(f"encoder={encoder!r}: expected 'lstm', 'default', or a sentence-transformers model")


def recurrent_model(
    texts: Sequence[str],
    *,
    token_dim: int | None = None,
    hidden_dim: int = 64,
    max_length: int = 64,
    min_count: int = 2,
    max_words: int = 30_000,
    pooling: str = "max",
    seed: int = 0,
) -> SentenceTransformer:
    """Make word vectors, a bidirectional LSTM over them and a pooling, untrained.

    Args:
        texts: Texts whose words become the vocabulary; common English words are left out, as the host's tokenizer has
            it, and other words are passed over.
        token_dim: Width of a word vector, drawn at random; None starts from the words' vectors in the embedded default
            model, as recurrent networks were commonly started from published ones.
        hidden_dim: Width of each direction.
        max_length: Longest text in words; the rest is not read.
        min_count: How often a word must occur to be known.
        max_words: Most words to know, the frequent ones.
        pooling: ``"max"``, ``"mean"`` or ``"lasttoken"``.
        seed: Decides the weights.

    Returns:
        The model; its embedding is 2 * ``hidden_dim`` wide.

    Raises:
        InputError: no word occurs often enough.
    """
    tokenizer = WhitespaceTokenizer(do_lower_case=True)
    counts = Counter(each.strip(punctuation) for text in texts for each in text.lower().split())  # as it will cut them
    kept = [word for word, count in counts.items() if word and count >= min_count and word not in tokenizer.stop_words]
    words = sorted(kept, key=lambda word: (-counts[word], word))[:max_words]
    if not words:
        raise InputError(f"texts: no word occurs {min_count} times in {len(texts)} texts; give more of them")
    tokenizer.set_vocab(["PADDING_TOKEN", *words])  # texts are put into lower case, so none holds this one
    generator = torch.Generator().manual_seed(seed)
    if token_dim is None:
        known = torch.from_numpy(load_model().encode_document(words))
        vectors = known * known.shape[1] ** 0.5  # at unit variance, as random ones are
    else:
        vectors = torch.randn(len(words), token_dim, generator=generator)
    vectors = torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])
    with torch.random.fork_rng(devices=[]):  # the host draws its first weights from the global state; give it back
        reading = LSTM(vectors.shape[1], hidden_dim)
    with torch.no_grad():
        for weight in reading.parameters():
            weight.uniform_(-(hidden_dim**-0.5), hidden_dim**-0.5, generator=generator)
    table = WordEmbeddings(tokenizer, np.asarray(vectors), update_embeddings=True, max_seq_length=max_length)
    modules = [table, reading, Pooling(2 * hidden_dim, pooling_mode=pooling)]
    return SentenceTransformer(modules=modules, device="cpu")
