"""Two copies of a language model: one writes a context into memory tokens, the other reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedlab._core.errors import InputError
from embedlab.text.soft_context.reader import VectorReader, VectorReaderConfig


class MemoryReader(VectorReader):  # type: ignore[no-untyped-call]
    """A frozen language model that reads what a second copy of it has written into memory tokens.

    The second copy reads [tokens | memory tokens], and its states at the memory tokens, projected, are the soft tokens
    of the first. Attention is causal, so few memory tokens give the first ones of many: one training serves all sizes.

    Args:
        config: As for ``VectorReader``, with ``dim`` the width of the model and one soft token for each vector; its
            field ``num_memory`` says how many memory tokens there are.
    """

    def __init__(self, config: VectorReaderConfig) -> None:
        super().__init__(config)
        table = self.decoder.get_input_embeddings().weight
        self.encoder = type(self.decoder.base_model)(self.decoder.base_model.config)
        self.memory = nn.Parameter(torch.zeros(int(getattr(config, "num_memory", 1)), table.shape[1]))

    @classmethod
    def between(cls, decoder: PreTrainedModel, *, num_memory: int, seed: int = 0) -> MemoryReader:
        """Build one from two copies of a language model; the reading copy is frozen.

        Args:
            decoder: A causal language model, which is left as it is.
            num_memory: Largest number of memory tokens, at least 1; (paper: m).
            seed: Decides the start weights of memory and projector.

        Returns:
            The reader, in float32.

        Raises:
            InputError: ``num_memory`` is below 1.
        """
        if num_memory < 1:
            raise InputError(f"num_memory={num_memory}: must be at least 1")
        table: Any = decoder.get_input_embeddings().weight
        scale = float(table.detach().float().square().mean().sqrt())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = VectorReaderConfig(decoder.config.to_dict(), table.shape[1], 1, num_memory=num_memory)
            reader = cls(config)
            nn.init.normal_(reader.memory, std=scale)
        reader.decoder.load_state_dict(decoder.state_dict())
        reader.encoder.load_state_dict(decoder.base_model.state_dict())
        nn.init.constant_(reader.project.norm.weight, scale)
        reader.decoder.requires_grad_(False)
        return reader

    def remember(
        self, context_ids: Tensor, context_mask: Tensor, num_tokens: int, before: Tensor | None = None
    ) -> Tensor:
        """Write contexts into memory tokens.

        Args:
            context_ids: Tokens, padding first.
            context_mask: 1 for tokens, 0 for padding.
            num_tokens: How many memory tokens to use.
            before: Memory of earlier segments, which is read first; None for none.

        Shape:
            context_ids, context_mask (B, T), before (B, P, H) -> (B, num_tokens, H)

        Returns:
            States at the memory tokens.
        """
        table = self.encoder.get_input_embeddings()
        memory = self.memory[:num_tokens].expand(len(context_ids), -1, -1)
        early = [] if before is None else [self.project(before)]
        inputs = torch.cat([*early, table(context_ids), memory], dim=1)
        ahead = inputs.shape[1] - context_ids.shape[1] - num_tokens
        ones = context_mask.new_ones
        mask = torch.cat([ones(len(inputs), ahead), context_mask, ones(len(inputs), num_tokens)], dim=1)
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)  # padding comes first and must not count
        out = self.encoder(inputs_embeds=inputs, attention_mask=mask, position_ids=places, use_cache=False)
        states: Tensor = out.last_hidden_state
        return states[:, -num_tokens:]

    def forward(  # type: ignore[override]
        self,
        context_ids: Tensor,
        context_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        num_tokens: int | None = None,
        **host: Any,
    ) -> Any:
        """Predict tokens from the memory of a context, shapes as in ``remember`` and ``VectorReader.forward``.

        Args:
            context_ids: Tokens of the contexts, padding first.
            context_mask: 1 for tokens, 0 for padding.
            input_ids: Tokens that follow.
            attention_mask: 1 for tokens, 0 for padding.
            labels: What to predict, ``IGNORED`` where nothing.
            num_tokens: Memory tokens to use; None for all.
            host: Passed on to the language model.

        Returns:
            The host's output, with ``loss`` if there are labels.
        """
        vectors = self.remember(context_ids, context_mask, num_tokens or len(self.memory))
        return super().forward(vectors, input_ids, attention_mask, labels, **host)
