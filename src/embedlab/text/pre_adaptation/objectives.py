"""What a decoder is trained on before it is trained as an embedder: masked next tokens, and bags of words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from embedlab._core.errors import InputError
from embedlab.text.prompting.module import filler_token

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Target = Literal["self", "next"]


class MaskedNextTokenLoss(nn.Module):
    r"""Teach a decoder to use what stands after a token: hide tokens and guess each from the state before it (MNTP).

    A decoder that has just been allowed to look both ways does not know what to do with the later tokens. Its head
    guesses token i from state i - 1, so that is what it keeps doing, with token i hidden and both sides in view:
    ``L = - mean_{i hidden} log softmax(W h_{i-1})[x_i]``.

    Args:
        model: A sentence-transformers model that begins with a ``Transformer`` and looks both ways
            (``embedlab.models.bidirectional.to_bidirectional``).
        mask_share: Share of a text's tokens to hide, in (0, 1]; at least one. (LLM2Vec: 0.2)
        seed: Decides what is hidden while the model is in evaluation mode; in training mode the global state does,
            which the host's trainer seeds, stores and restores.

    Shape:
        one column of texts (B, T) -> loss () float

    Raises:
        InputError: ``mask_share`` is out of range, or the model has no head over its vocabulary, or no token can hide
            others.

    Example:
        >>> from embedlab.models.bidirectional import to_bidirectional
        >>> from embedlab.testing.tiny_decoder import tiny_decoder
        >>> model = to_bidirectional(tiny_decoder(["a cat sat on the mat"], pooling="mean"))
        >>> MaskedNextTokenLoss(model)([model.preprocess(["a cat sat"])]).ndim
        0

    References:
        BehnamGhader et al. (2024), LLM2Vec, arXiv:2404.05961v2, section 2. Official code McGill-NLP/llm2vec (read, not
        copied).
    """

    def __init__(self, model: SentenceTransformer, *, mask_share: float = 0.2, seed: int = 0) -> None:
        super().__init__()
        if not 0 < mask_share <= 1:
            raise InputError(f"mask_share={mask_share}: expected a number above 0, at most 1")
        self.model = model
        self.mask_share, self.seed = mask_share, seed
        self._head = Head(model)
        self._filler = filler_token(model.tokenizer)
        self._special = set(model.tokenizer.all_special_ids) - {model.tokenizer.unk_token_id}

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss of the first column; other columns and labels are not looked at."""
        features = next(iter(sentence_features))
        ids = features["input_ids"]
        hidden = self.hidden(ids, features["attention_mask"])
        shown = {**features, "input_ids": torch.where(hidden, self._filler, ids)}
        states = self.model[0](shown)["token_embeddings"]  # (B, T, D)
        guesses = self._head(states[:, :-1][hidden[:, 1:]])  # (M, V), from the state before
        if not len(guesses):
            nothing: Tensor = states.sum() * 0.0  # texts of one token have nothing to guess from
            return nothing
        return cross_entropy(guesses.float() if guesses.dtype != torch.float64 else guesses, ids[:, 1:][hidden[:, 1:]])

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Choose the tokens to hide: never a special token, nor one with no token before it.

        Shape:
            ids (B, T), mask (B, T) -> (B, T) bool
        """
        free = mask.bool()
        free[:, 1:] &= mask[:, :-1].bool()  # a state must stand before it, and not padding's
        free[:, 0] = False
        for special in self._special:
            free &= ids != special
        generator = None if self.model.training else torch.Generator().manual_seed(self.seed)
        luck = torch.rand(ids.shape, generator=generator).to(ids.device).masked_fill(~free, 2.0)
        counts = (free.sum(1, keepdim=True) * self.mask_share).round().clamp(min=1)
        chosen: Tensor = (luck.argsort(1).argsort(1) < counts) & free
        return chosen

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings."""
        return {"mask_share": self.mask_share, "seed": self.seed}


class BagOfWordsLoss(nn.Module):
    r"""Teach a decoder to put a whole text into one vector, from which its head must tell the words (EBAE, EBAR).

    ``L = - mean_{w in set} log softmax(W e)[w]`` with e the text's vector, W the head and the set of distinct tokens of
    the text itself (``"self"``, EBAE) or of the one that follows it (``"next"``, EBAR).

    Args:
        model: A sentence-transformers model of a causal language model; its own pooling gives e. With pooling over the
            last token, the mark of the end is the slot; with a ``PromptModule``, the prompt's last token is.
        target: ``"self"`` takes one column of texts, ``"next"`` two, text and following text.

    Shape:
        columns (B, T) -> loss () float

    Raises:
        InputError: ``target`` is unknown, a column is missing, or the model has no head over its vocabulary.

    Example:
        >>> from embedlab.testing.tiny_decoder import tiny_decoder
        >>> model = tiny_decoder(["a cat sat on the mat"])
        >>> BagOfWordsLoss(model)([model.preprocess(["a cat sat"])]).ndim
        0

    References:
        Liao et al. (2023), Making Large Language Models a Better Foundation for Dense Retrieval (LLaRA),
        arXiv:2312.15503v1, section 3.
    """

    def __init__(self, model: SentenceTransformer, *, target: Target = "self") -> None:
        super().__init__()
        if target not in get_args(Target):
            raise InputError(f"target={target!r}: expected one of {', '.join(get_args(Target))}")
        self.model, self.target = model, target
        self._head = Head(model)
        tokenizer = model.tokenizer
        self._special = sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss; labels are not looked at."""
        columns = list(sentence_features)
        if len(columns) < 1 + (self.target == "next"):
            raise InputError("target='next' needs two columns, text and following text; this batch has one")
        words = columns[1 if self.target == "next" else 0]
        vectors = self.model(dict(columns[0]))["sentence_embedding"]  # (B, D)
        scores = self._head(vectors)
        scores = scores.float() if scores.dtype != torch.float64 else scores
        return bag_loss(scores, self.bag(words, scores.shape[-1]))

    def bag(self, features: dict[str, Any], vocabulary: int) -> Tensor:
        """Mark the distinct tokens of each text, (B, V); special tokens and a prompt's own words do not count."""
        ids = features["input_ids"].flatten(1)
        counted = features.get("text_mask", features["attention_mask"]).flatten(1)
        bag = torch.zeros(len(ids), vocabulary, device=ids.device).scatter_reduce(1, ids, counted.float(), "amax")
        bag[:, self._special] = 0
        return bag

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings."""
        return {"target": self.target}


def bag_loss(scores: Tensor, bag: Tensor) -> Tensor:
    """Return the mean over texts of the mean negative log probability of their words; texts without words are left out.

    Args:
        scores: The head's output for each text's vector.
        bag: 1 for each token of the text, else 0.

    Shape:
        scores (B, V), bag (B, V) -> () float

    Returns:
        Nats; 0 if no text has a word.
    """
    bag = bag.to(scores.dtype)
    sizes = bag.sum(1)
    each = -(bag * scores.log_softmax(-1)).sum(1) / sizes.clamp(min=1)  # (B,)
    return each.sum() / (sizes > 0).sum().clamp(min=1)


class Head:
    """A model's own head over its vocabulary: states (..., D) -> logits (..., V).

    Args:
        model: A sentence-transformers model that begins with a transformer, or with a ``PromptModule``.

    Raises:
        InputError: it has none. A body loaded without its head has one only if it is tied to the word embeddings.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        body: Any = getattr(model[0], "model", None)
        if body is None or not hasattr(body, "get_input_embeddings"):
            raise InputError(f"model: begins with {type(model[0]).__name__}, expected a transformer")
        own = body.get_output_embeddings()
        if own is None and not getattr(body.config, "tie_word_embeddings", False):
            raise InputError(
                f"model: {type(body).__name__} was loaded without its head, which is not tied to the word embeddings; "
                "open the language model with embedlab.text.prompting.PromptEmbedder and train its host"
            )
        self._of = body.get_input_embeddings if own is None else body.get_output_embeddings

    def __call__(self, states: Tensor) -> Tensor:
        weight: Tensor = self._of().weight  # looked up each time: adapters may put another module in its place
        return states @ weight.T.to(states.dtype)
