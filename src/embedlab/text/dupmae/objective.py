"""The three terms that are learned from: masked words, the text behind [CLS], the words behind the other tokens."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, scaled_dot_product_attention
from transformers import PreTrainedModel

from embedlab._core.errors import InputError
from embedlab.text.dupmae.heads import VocabularyHead
from embedlab.text.dupmae.masking import IGNORE

Objective = Literal["mlm", "retromae", "dupmae"]


class EnhancedDecoder(nn.Module):
    r"""Rebuild every token from [CLS] and the few other tokens that its row may see; one transformer layer.

    With queries :math:`H_1`, context :math:`H_2` and the mask M: :math:`A = \mathrm{softmax}(QK^T / \sqrt{d} + M) V`
    where Q comes from :math:`H_1`, K and V from :math:`H_2`; then residual on :math:`H_1`, norm and feed-forward.

    Args:
        config: Of the encoder; gives width, heads, dropout and the feed-forward's width.
        seed: Decides the first weights.
    """

    def __init__(self, config: Any, *, seed: int = 0) -> None:
        super().__init__()
        dim, inner = config.hidden_size, config.intermediate_size
        self.num_heads, self.dropout = config.num_attention_heads, config.hidden_dropout_prob
        with torch.random.fork_rng(devices=[]):  # the host draws first weights from the global state; others follow
            self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
            self.widen, self.narrow = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.attended, self.done = (nn.LayerNorm(dim, eps=config.layer_norm_eps) for _ in range(2))
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.query, self.key, self.value, self.out, self.widen, self.narrow):
            nn.init.normal_(layer.weight, 0.0, config.initializer_range, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, context: Tensor, visible: Tensor) -> Tensor:
        """Decode: queries (B, T, D), context (B, T, D), visible (B, T, T) bool -> (B, T, D)."""
        q, k, v = (
            layer(given).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, T, D / H)
            for layer, given in ((self.query, queries), (self.key, context), (self.value, context))
        )
        share = self.dropout if self.training else 0.0
        read = scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None], dropout_p=share)
        mixed = self.attended(queries + self._drop(self.out(read.transpose(1, 2).flatten(2))))
        return cast(Tensor, self.done(mixed + self._drop(self.narrow(nn.functional.gelu(self.widen(mixed))))))

    def _drop(self, given: Tensor) -> Tensor:
        return dropout(given, self.dropout, self.training)


class MaskedAutoEncoder(nn.Module):
    """A masked language model with what its objective adds; gives each term of the loss by name.

    Args:
        model: The masked language model; trained in place.
        objective: ``"mlm"``; ``"retromae"``, which adds the decoder; ``"dupmae"``, which adds the bag of words as well.
        bow_weight: Weight of the bag of words, at least 0. Published 0.1 in the code, 1 in the paper.
        exclude_masked: Whether masked tokens are left out of the bag's maxima, as in the paper; the code keeps them.
        seed: Decides the decoder's first weights.

    Raises:
        InputError: an option is out of range, or the model's embeddings cannot be used by a decoder.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        objective: Objective,
        bow_weight: float = 0.1,
        exclude_masked: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if objective not in ("mlm", "retromae", "dupmae"):
            raise InputError(f"objective={objective!r}: expected 'mlm', 'retromae' or 'dupmae'")
        if not bow_weight >= 0:
            raise InputError(f"bow_weight={bow_weight}: must be at least 0; published 0.1")
        self.model, self.objective = model, objective
        self.bow_weight, self.exclude_masked = bow_weight, exclude_masked
        self.head = VocabularyHead.of(model)
        self.decoder: EnhancedDecoder | None = None
        if objective != "mlm":
            places = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
            if not isinstance(places, nn.Embedding) or not hasattr(model.config, "intermediate_size"):
                raise InputError(
                    f"objective={objective!r} needs an encoder with learned positions, such as BERT: "
                    f"{type(model).__name__} has none; use 'mlm'"
                )
            self.decoder = EnhancedDecoder(model.config, seed=seed)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        decoder_input_ids: Tensor | None = None,
        decoder_labels: Tensor | None = None,
        bow_labels: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms for a batch of ``MaskCollator``.

        Returns:
            ``loss``, their weighted sum, and of ``mlm``, ``decoder`` and ``bow`` those that the objective has.
        """
        encoder: Any = self.model.base_model
        states = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        terms = {"mlm": self._words(states, labels)}
        loss = terms["mlm"]
        if self.decoder is not None and decoder_input_ids is not None and decoder_labels is not None:
            queries, context = self._streams(states[:, :1], decoder_input_ids)
            terms["decoder"] = self._words(self.decoder(queries, context, visible), decoder_labels)
            loss = loss + terms["decoder"]
        if self.objective == "dupmae" and bow_labels is not None:
            counted = attention_mask.bool().index_fill(1, torch.tensor([0], device=states.device), False)
            if self.exclude_masked:
                kept = counted & (labels == IGNORE)
                counted = torch.where(kept.any(dim=1, keepdim=True), kept, counted)
            terms["bow"] = bag_of_words_loss(self.head.strongest(states, counted), bow_labels, decoder_labels)
            loss = loss + self.bow_weight * terms["bow"]
        return {"loss": loss, **terms}

    def _words(self, states: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the labelled tokens; the vocabulary is scored for these alone."""
        asked = labels != IGNORE
        return cross_entropy(_at_least_single(self.head(states[asked])), labels[asked])

    def _streams(self, cls: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Make queries H1 and context H2, both (B, T, D), from the [CLS] state (B, 1, D) and the unmasked tokens."""
        embed: Any = self.model.base_model.embeddings
        context = torch.cat([cls, embed(input_ids=ids)[:, 1:]], dim=1)
        everywhere = cls.expand(-1, ids.shape[1], -1)
        if self.objective == "dupmae":  # as a token of its own: type, position and norm are put on it
            return embed(inputs_embeds=everywhere), context
        return everywhere + embed.position_embeddings(embed.position_ids[:, : ids.shape[1]]), context


def bag_of_words_loss(scores: Tensor, unique: Tensor, tokens: Tensor | None) -> Tensor:
    r"""Cross-entropy of a text's words under the softmax of its strongest scores.

    :math:`L = -\frac{1}{|X|} \sum_{x \in set(X)} \log softmax(\mu)[x]`, the mean over texts. A word that occurs again
    counts once, but :math:`|X|`, the number of tokens, counts it again, as in the official code.

    Args:
        scores: The strongest score of each word (paper: mu).
        unique: Ids of the words of the text, each once; elsewhere -100.
        tokens: Ids of all tokens, whose number divides; elsewhere -100. None divides by the number of unique ones.

    Shape:
        scores (B, V), unique (B, T), tokens (B, T) -> () float

    Returns:
        The loss, in nats.
    """
    wanted = unique != IGNORE
    logs = _at_least_single(scores).log_softmax(dim=-1).gather(1, unique.clamp(min=0))  # (B, T)
    length = (wanted if tokens is None else tokens != IGNORE).sum(dim=1).clamp(min=1)
    return -((logs * wanted).sum(dim=1) / length).mean()


def _at_least_single(scores: Tensor) -> Tensor:
    """A softmax over thousands of words is not taken in half precision."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
