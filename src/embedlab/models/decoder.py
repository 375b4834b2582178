"""The host's transformer module, for decoders that embed: direction, positions, instructions and layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from sentence_transformers.sentence_transformer.modules import Transformer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from embedlab._core.errors import InputError, unknown_name
from embedlab.models.bidirectional import decoder_layers, restore_direction
from embedlab.ops.pooling import last_token, masked_mean

Attention: TypeAlias = Literal["causal", "bidirectional"]
Summary: TypeAlias = Literal["last_token", "mean"]

INSTRUCTION_MASK = "instruction_mask"  # (B, T), 1 where a token belongs to the instruction before the text
LAYERS = "layer_summaries"  # (B, L, D), one state per layer
_INSTRUCTION = re.compile(r"Instruct: .*?\nQuery: ", re.DOTALL)
_TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


class DecoderTransformer(Transformer):
    """Run a decoder as the first module of a sentence-transformers model.

    Beside the host's module it (1) keeps the direction of attention in its own configuration, so that it survives where
    only an adapter is saved; (2) counts positions from the first real token, so that padding on the left changes
    nothing; (3) marks the tokens of each text's instruction, row by row, in ``features["instruction_mask"]``; (4) can
    sum up every layer inside the forward pass, in ``features["layer_summaries"]``, without keeping all tokens of all
    layers. Texts end with the end mark.

    Args:
        model_name_or_path: Folder or hub name of the decoder.
        attention: ``"causal"`` or ``"bidirectional"``; None as the model's own configuration says.
        layer_summary: ``"last_token"`` or ``"mean"`` over the real tokens, for each layer; None for none.
        options: Arguments of the host's module.

    Raises:
        InputError: an argument has a value that is not allowed.
    """

    config_keys = [*Transformer.config_keys, "attention", "layer_summary"]  # noqa: RUF012 - as the host declares it

    def __init__(
        self,
        model_name_or_path: str | Path,
        *,
        attention: Attention | None = None,
        layer_summary: Summary | None = None,
        **options: Any,
    ) -> None:
        if attention not in (None, *get_args(Attention)):
            raise unknown_name("attention", str(attention), get_args(Attention))
        if layer_summary not in (None, *get_args(Summary)):
            raise unknown_name("layer_summary", str(layer_summary), get_args(Summary))
        # Packed rows have no padding, which is what all of this is about. Without a word on modalities, the host would
        # wrap texts into the conversation format of a chat model.
        given = {"unpad_inputs": False, "modality_config": _TEXT_ONLY, "module_output_name": "token_embeddings"}
        super().__init__(str(model_name_or_path), **{**given, **options})
        self.attention, self.layer_summary = attention, layer_summary
        if attention is not None:
            self.model.config.is_causal = attention == "causal"
        restore_direction(self.model)
        end_with_mark(self.tokenizer)

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        processing_kwargs: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Tokenise as the host does, and mark the tokens of each text's instruction.

        An instruction is the prompt, and at the beginning of a text what reads ``Instruct: ...`` and, on the next line,
        ``Query: ``. A token that reaches into the text is of the text; a mark before the instruction goes with it.

        Args:
            inputs: The texts.
            prompt: Put before every text.
            processing_kwargs: Arguments of the tokenizer, as the host takes them.
            options: Further arguments of the host.

        Returns:
            The features, with ``instruction_mask`` (B, T).
        """
        asked: Any = dict(processing_kwargs or {})
        asked["text"] = {**asked.get("text", {}), "return_offsets_mapping": True}
        features: dict[str, Any] = super().preprocess(inputs, prompt=prompt, processing_kwargs=asked, **options)
        offsets = features.pop("offset_mapping", None)
        if offsets is not None:
            lengths = [len(prompt or "") + _instruction_length(text) for text in inputs]
            features[INSTRUCTION_MASK] = _mark(offsets[..., 1], features["attention_mask"], torch.tensor(lengths))
        return features

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Run the decoder; adds ``token_embeddings`` and, if asked for, ``layer_summaries``."""
        mask = features["attention_mask"]
        given = {key: value for key, value in features.items() if key != INSTRUCTION_MASK}
        if "position_ids" in self._declared_forward_params:
            given["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
        with self._summing_up(mask) as layers:
            made = super().forward(given, **options)
        made.pop("position_ids", None)
        if self.layer_summary is not None:
            # the last of all is the one after the closing norm, as in the host's hidden_states
            layers[len(layers) - 1] = self._sum_up(made["token_embeddings"], mask)
            made[LAYERS] = torch.stack([layers[place] for place in range(len(layers))], dim=1)  # (B, L, D)
        return {**features, **made}

    def _sum_up(self, states: Tensor, mask: Tensor) -> Tensor:
        return (last_token if self.layer_summary == "last_token" else masked_mean)(states, mask)

    @contextmanager
    def _summing_up(self, mask: Tensor) -> Iterator[dict[int, Tensor]]:
        """Collect the summary of each layer's output while the block runs, and nothing else of it."""
        found: dict[int, Tensor] = {}

        def keep(place: int) -> Any:
            def hook(layer: Any, given: Any, output: Any) -> None:
                states = output[0] if isinstance(output, tuple) else output  # (B, T, D)
                found[place] = self._sum_up(states, mask)

            return hook

        layers = decoder_layers(self.model) if self.layer_summary is not None else ()
        handles = [layer.register_forward_hook(keep(place)) for place, layer in enumerate(layers)]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


def as_decoder(body: Transformer, *, attention: Attention | None, layer_summary: Summary | None) -> DecoderTransformer:
    """Turn the host's transformer module into a ``DecoderTransformer``, keeping its weights and tokenizer.

    Args:
        body: The module; it is changed, so hand in a copy.
        attention: See ``DecoderTransformer``.
        layer_summary: See ``DecoderTransformer``.

    Returns:
        The same object, of the other class.
    """
    body.__class__ = DecoderTransformer
    made: DecoderTransformer = body  # type: ignore[assignment]
    made.attention, made.layer_summary = attention, layer_summary
    made.unpad_inputs = False
    if attention is not None:
        made.model.config.is_causal = attention == "causal"
    end_with_mark(made.tokenizer)
    return made


def end_with_mark(tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Let a tokenizer close every text with the end mark; does nothing if it does so already.

    Args:
        tokenizer: The tokenizer; it is changed. Without a padding token it is given the end mark as such.

    Raises:
        InputError: it has no end mark, or is not one of the tokenizers library.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.eos_token is None:
        raise InputError(f"tokenizer: {type(tokenizer).__name__} has no end mark, or is not of the tokenizers library")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        return
    from tokenizers.processors import Sequence as Both
    from tokenizers.processors import TemplateProcessing

    core, mark = tokenizer.backend_tokenizer, tokenizer.eos_token
    begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    start = [tokenizer.bos_token] if begins else []
    template = TemplateProcessing(
        single=[*start, "$A", mark],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in {*start, mark}],
    )
    old = core.post_processor
    byte_level = old is not None and type(old).__name__ == "ByteLevel"  # it only trims offsets, and may go on doing so
    core.post_processor = Both([old, template]) if byte_level else template


def instruct(task: str, text: str) -> str:
    """Put an instruction before a text, in the form that ``DecoderTransformer`` finds again.

    Args:
        task: What the text is for, in a sentence; empty for no instruction.
        text: The text.

    Returns:
        Both.

    Example:
        >>> instruct("Find answers", "who wrote Emma?")
        'Instruct: Find answers\\nQuery: who wrote Emma?'
    """
    return f"Instruct: {task}\nQuery: {text}" if task else text


def _instruction_length(text: Any) -> int:
    found = _INSTRUCTION.match(text) if isinstance(text, str) else None
    return found.end() if found else 0


def _mark(ends: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """Mark what comes before the first token that ends beyond the instruction, but never the end mark.

    ``ends`` are the tokens' ends in characters, 0 for marks and padding.
    """
    there = mask.bool()
    reaches_text = there & (ends > lengths[:, None])
    before = reaches_text.cumsum(1) == 0
    closing = (ends == 0) & ((ends > 0) & there).cumsum(1).bool()
    return (there & before & ~closing & (lengths > 0)[:, None]).long()  # (B, T)
