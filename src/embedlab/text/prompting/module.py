"""A causal language model with a prompt around every text, as a first module of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Self

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedlab._core.errors import InputError
from embedlab.models.bidirectional import decoder_layers, restore_direction
from embedlab.text.prompting.filling import fill
from embedlab.text.prompting.templates import Template


class PromptModule(InputModule):
    r"""Embed texts by prompts: the weighted sum, over prompts, of the states that each prompt pools.

    The state of a prompt p around text x is pooled from layer l: the state of the prompt's last token, or the mean over
    the tokens of the last copy of x. The vector is ``sum_p weight_p * state_p(x)``: one prompt for EOL and echo, equal
    weights for a mean over tasks, a negative one for what shall be taken away.

    Args:
        model: A causal language model, or its body, of transformers; it is used as it is.
        tokenizer: Its fast tokenizer.
        templates: The prompts.
        weights: One per prompt; None for the mean.
        demos: (text, word) pairs shown before each prompt.
        layer: Which hidden states: -1 the last, after the final norm; -2 the layer before; 0 the word embeddings.
        slot_layers: How many layers, from the second on, read the last token's state of the layer below at the slot,
            for templates that have one; None for a quarter of the layers.
        max_seq_length: Most tokens of a prompt; None for what the model takes.
        padding_side: Where shorter prompts of a batch are filled up; the vectors are the same.

    Shape:
        B texts, P prompts: input_ids (B, P, T), or (B, T) for one prompt -> sentence_embedding (B, D) float

    Raises:
        InputError: a value is out of range, or the tokenizer is not fast.

    Example:
        >>> from embedlab.text.prompting import example
        >>> module = example()["module"].module
        >>> features = module.preprocess(["a cat sat"])
        >>> module.tokenizer.decode(features["input_ids"][0][features["pool_weights"][0] > 0])
        'a cat sat'
        >>> module(features)["sentence_embedding"].shape
        torch.Size([1, 32])

    References:
        Jiang et al. (2023), Scaling Sentence Embeddings with Large Language Models, arXiv:2307.16645v1.
        Springer et al. (2024), Repetition Improves Language Model Embeddings, arXiv:2402.15449v1.
        Lei et al. (2024), Meta-Task Prompting Elicits Embeddings from Large Language Models, arXiv:2402.18458v2.
        Fu et al. (2024), Token Prepending, arXiv:2412.11556v1.
    """

    config_file_name = "prompt_config.json"
    config_keys = ["templates", "weights", "demos", "layer", "slot_layers", "max_seq_length", "padding_side"]  # noqa: RUF012

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        templates: Sequence[Template],
        weights: Sequence[float] | None = None,
        demos: Sequence[tuple[str, str]] | None = None,
        layer: int = -1,
        slot_layers: int | None = None,
        max_seq_length: int | None = None,
        padding_side: str = "right",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model: Any = model
        self.tokenizer = tokenizer
        self.templates = list(templates)
        if not self.templates:
            raise InputError("templates=[]: at least one prompt is needed")
        self.weights = list(weights) if weights is not None else [1 / len(self.templates)] * len(self.templates)
        if len(self.weights) != len(self.templates):
            raise InputError(f"weights={self.weights}: {len(self.templates)} prompts need as many weights")
        self.demos = [(text, word) for text, word in demos or ()]
        count = len(decoder_layers(self.body))
        if not -count - 1 <= layer <= count:
            raise InputError(f"layer={layer}: expected {-count - 1} to {count}, for {count} layers and the embeddings")
        self.layer = layer
        self.slot_layers = max(1, count // 4) if slot_layers is None else slot_layers
        if not 1 <= self.slot_layers < max(count, 2):
            raise InputError(f"slot_layers={slot_layers}: expected 1 to {count - 1}, for {count} layers")
        limits = [getattr(self.body.config, "max_position_embeddings", None), tokenizer.model_max_length]
        self.max_seq_length = max_seq_length or min(int(one) for one in limits if one)
        if padding_side not in ("left", "right"):
            raise InputError(f"padding_side={padding_side!r}: expected 'left' or 'right'")
        self.padding_side = padding_side
        self._before = ["".join(one.demonstration(*demo) for demo in self.demos) for one in self.templates]

    @property
    def body(self) -> Any:
        """The transformer without the head over the vocabulary."""
        return self.model.base_model

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return int(self.body.config.hidden_size)

    def preprocess(self, inputs: Any, prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Put each text into each prompt.

        Args:
            inputs: The texts; a text that is too long loses its end.
            prompt: An instruction, which stands before everything.

        Shape:
            inputs B -> input_ids (B, T), or (B, P, T) for P > 1 prompts; the other features alike

        Returns:
            ``input_ids``, ``attention_mask``, ``pool_weights``, ``text_mask`` (1 on the text's own tokens, in its last
            copy), and ``slot_mask`` where a prompt has a slot.
        """
        slot_id = filler_token(self.tokenizer) if any(one.has_slot for one in self.templates) else None
        columns = [
            fill(
                template,
                list(inputs),
                self.tokenizer,
                max_length=self.max_seq_length,
                before=(prompt or "") + before,
                slot_id=slot_id,
            )
            for template, before in zip(self.templates, self._before, strict=True)
        ]
        rows = [column[place] for place in range(len(inputs)) for column in columns]  # B x P, prompt by prompt
        width = max((len(row.ids) for row in rows), default=0)
        ids = torch.full((len(rows), width), pad_token(self.tokenizer))
        mask, slots, texts = torch.zeros_like(ids), torch.zeros_like(ids), torch.zeros_like(ids)
        pool = torch.zeros(ids.shape)
        for place, row in enumerate(rows):
            first = width - len(row.ids) if self.padding_side == "left" else 0
            where = slice(first, first + len(row.ids))
            ids[place, where], mask[place, where] = torch.tensor(row.ids), 1
            pool[place, where] = torch.tensor(row.weights)
            texts[place, torch.tensor(row.text_tokens, dtype=torch.long) + first] = 1
            if row.slot >= 0:
                slots[place, first + row.slot] = 1
        found = {"input_ids": ids, "attention_mask": mask, "pool_weights": pool, "text_mask": texts}
        if slot_id is not None:
            found["slot_mask"] = slots
        if len(columns) > 1:
            found = {key: value.view(len(inputs), len(columns), width) for key, value in found.items()}
        return found

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Run the model on all prompts and pool.

        Shape:
            input_ids (B, T) or (B, P, T) -> sentence_embedding (B, D)
        """
        mask = features["attention_mask"].flatten(0, -2)  # (B P, T)
        states = self.states(features)
        weights = (features["pool_weights"].flatten(0, -2) * mask).to(states.dtype)
        pooled = (weights.unsqueeze(1) @ states).view(-1, len(self.templates), states.shape[-1])  # (B, P, D)
        return {**features, "sentence_embedding": torch.einsum("p,bpd->bd", pooled.new_tensor(self.weights), pooled)}

    def states(self, features: dict[str, Any]) -> Tensor:
        """Return the states of the chosen layer.

        Shape:
            input_ids (B, P, T) -> (B P, T, D)
        """
        ids, mask = (features[key].flatten(0, -2) for key in ("input_ids", "attention_mask"))
        places = (mask.cumsum(-1) - 1).clamp(min=0)  # so that padding on the left moves no position
        slots = features["slot_mask"].flatten(0, -2) * mask if "slot_mask" in features else None
        with self._prepending(slots, mask):
            found = self.body(
                input_ids=ids * mask,
                attention_mask=mask,
                position_ids=places,
                output_hidden_states=self.layer != -1,
                use_cache=False,
            )
        states: Tensor = found.last_hidden_state if self.layer == -1 else found.hidden_states[self.layer]
        return states

    @contextmanager
    def _prepending(self, slots: Tensor | None, mask: Tensor) -> Iterator[None]:
        """Let early layers read, at the slot, what the layer below has made of the last token."""
        if slots is None:
            yield
            return
        ends = mask.shape[-1] - 1 - mask.flip(-1).argmax(-1)  # (B P)
        rows = torch.arange(len(mask), device=mask.device)

        def put(states: Tensor) -> Tensor:
            last = states[rows, ends].unsqueeze(1)  # (B P, 1, D)
            return torch.where(slots.bool().unsqueeze(-1), last, states)

        layers = decoder_layers(self.body)[1 : 1 + self.slot_layers]
        handles = [layer.register_forward_pre_hook(_on_states(put), with_kwargs=True) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, prompts included."""
        return {**super().get_config_dict(), "templates": [asdict(one) for one in self.templates]}

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write the model, its tokenizer and the prompts to a folder."""
        self.model.save_pretrained(output_path)
        self.save_tokenizer(output_path)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, *_: Any, **options: Any) -> Self:
        """Open what ``save`` has written."""
        hub = {key: options[key] for key in ("token", "revision", "local_files_only") if key in options}
        config = cls.load_config(model_name_or_path, **hub)
        config["templates"] = [Template(**entry) for entry in config["templates"]]
        model = AutoModelForCausalLM.from_pretrained(model_name_or_path, **hub, **(options.get("model_kwargs") or {}))
        restore_direction(model)
        return cls(model, AutoTokenizer.from_pretrained(model_name_or_path, **hub), **config)


def filler_token(tokenizer: Any) -> int:
    """Find a token that stands for nothing: the mask if there is one, else an underscore.

    Args:
        tokenizer: A tokenizer of transformers.

    Returns:
        Its id.

    Raises:
        InputError: it has neither.
    """
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    for text in ("_", " _"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
    raise InputError("tokenizer: it has no mask token, and no token for an underscore that could stand for it")


def pad_token(tokenizer: Any) -> int:
    """Find what to fill rows up with; any token will do, as nothing looks at it.

    Args:
        tokenizer: A tokenizer of transformers.

    Returns:
        The id of the padding, else of the end mark, else 0.
    """
    found = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(one for one in found if one is not None))


def _on_states(change: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Any, dict[str, Any]]]:
    def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if given:
            return (change(given[0]), *given[1:]), named
        return given, {**named, "hidden_states": change(named["hidden_states"])}

    return hook
