"""One decoder that embeds and writes: a sentence loss with attention both ways, and next-token prediction without.

``L = L_emb + weight * L_gen``. For the first term tokens see later ones and the states are pooled; for the second the
same weights run with the causal mask and predict every next token of the texts. The pattern is that of GritLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from embedlab._core.errors import InputError

_NOT_PREDICTED = -100


class JointLoss(nn.Module):
    """Train a decoder to embed by any sentence loss, and to keep writing.

    Args:
        model: A sentence-transformers model that begins with a causal decoder.
        loss: Any loss of the host on the same model; it sees attention both ways.
        weight: Weight of next-token prediction, at least 0; (paper: lambda).
        write: Which columns of a row are texts to predict, by number; as a rule the documents, not the queries.
        head: From states to vocabulary; None takes the token embeddings, which is right where the two are tied.

    Attributes:
        parts: The two terms of the latest step, without weight.

    Shape:
        one feature dict a column, ids (B, T) -> loss () float

    Raises:
        InputError: ``weight`` is negative, or ``write`` names no column.

    References:
        Muennighoff et al. (2024), "Generative representational instruction tuning", arXiv:2402.09906v1, equation 3;
        official code ContextualAI/gritlm (read, not copied). There the two terms have data of their own.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module,
        *,
        weight: float = 1.0,
        write: Sequence[int] = (1,),
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not weight >= 0:
            raise InputError(f"weight={weight}: must be at least 0")
        if not write or min(write) < 0:
            raise InputError(f"write={tuple(write)}: name at least one column, counted from 0")
        self.model, self.loss, self.weight, self.write, self.head = model, loss, weight, tuple(write), head
        self.parts: dict[str, float] = {}

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Compute the sum of both terms for a batch, as the host's losses do.

        Args:
            sentence_features: For each column what the tokenizer gave.
            labels: Passed on to the sentence loss.

        Returns:
            The loss.

        Raises:
            InputError: ``write`` names a column that is not there.
        """
        features = list(sentence_features)
        if max(self.write) >= len(features):
            raise InputError(f"write={self.write}: there are only {len(features)} columns")
        with attention(self.model, causal=False):
            embedding: Tensor = self.loss([dict(column) for column in features], labels)
        with attention(self.model, causal=True):
            writing = torch.stack([self._next_token(features[column]) for column in self.write]).mean()
        self.parts = {"embedding": float(embedding.detach()), "writing": float(writing.detach())}
        return embedding + self.weight * writing

    def _next_token(self, column: dict[str, Tensor]) -> Tensor:
        body: Any = self.model[0].model
        ids, mask = column["input_ids"], column["attention_mask"]
        states = body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]  # (B, T - 1, H)
        logits = self.head(states) if self.head is not None else states @ body.get_input_embeddings().weight.T
        known = mask[:, 1:].bool() & mask[:, :-1].bool()  # a pad may be the end mark: only the mask tells
        targets = ids[:, 1:].masked_fill(~known, _NOT_PREDICTED)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_NOT_PREDICTED)


@contextmanager
def attention(model: SentenceTransformer, *, causal: bool) -> Iterator[None]:
    """Switch the direction of attention of a decoder while the block runs; no weight changes.

    Args:
        model: A sentence-transformers model that begins with a decoder.
        causal: True: tokens see earlier ones only; False: all.

    Raises:
        InputError: the model does not begin with a transformer.
    """
    body = getattr(model[0], "model", None)
    if body is None or not hasattr(body, "config"):
        raise InputError(f"the model begins with {type(model[0]).__name__}: expected a transformer")
    before = getattr(body.config, "is_causal", None)
    body.config.is_causal = causal
    try:
        yield
    finally:
        if before is None:
            del body.config.is_causal
        else:
            body.config.is_causal = before
