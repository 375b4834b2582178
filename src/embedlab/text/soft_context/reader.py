"""A causal language model that reads vectors as if they were tokens, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from embedlab._core.errors import InputError

IGNORED = -100  # the host's mark for a place that is not predicted


class VectorReaderConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of a ``VectorReader``.

    Args:
        decoder: Configuration of the language model, as a dict.
        dim: Width of the vectors; (paper: d).
        tokens_per_vector: Soft tokens that one vector becomes, at least 1; (paper: k, m).
        host: Further fields of the host's configuration.
    """

    model_type = "embedlab-vector-reader"

    def __init__(
        self, decoder: dict[str, Any] | None = None, dim: int = 1, tokens_per_vector: int = 1, **host: Any
    ) -> None:
        self.decoder, self.dim, self.tokens_per_vector = decoder, dim, tokens_per_vector
        super().__init__(**host)


class SoftTokens(nn.Module):
    """Turn vectors into soft tokens that look to a language model like its own token embeddings.

    Two linear layers with GELU between them, then a LayerNorm whose gain starts at the root mean square of the model's
    token embeddings. Without the right scale the model ignores soft tokens, or is drowned by them.

    Args:
        dim: Width of a vector.
        hidden: Width of a token embedding.
        tokens_per_vector: Soft tokens for each vector.
        scale: Root mean square of the entries of the model's token embeddings.

    Shape:
        vectors (B, S, D) -> tokens (B, S * tokens_per_vector, H)
    """

    def __init__(self, dim: int, hidden: int, tokens_per_vector: int, scale: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.inner = nn.Linear(dim, 2 * hidden)
        self.outer = nn.Linear(2 * hidden, tokens_per_vector * hidden)
        self.norm = nn.LayerNorm(hidden)
        nn.init.constant_(self.norm.weight, scale)

    def forward(self, vectors: Tensor) -> Tensor:
        """Project, shape (B, S, D) -> (B, S * tokens_per_vector, H)."""
        tokens: Tensor = self.outer(nn.functional.gelu(self.inner(vectors)))
        scaled: Tensor = self.norm(tokens.reshape(len(vectors), -1, self.hidden))
        return scaled


class VectorReader(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A causal language model with a projector in front of it: [soft tokens of the vectors | tokens] -> next tokens.

    A model of the host's: ``save_pretrained`` and ``from_pretrained`` work, and so does its trainer.

    Args:
        config: See ``VectorReaderConfig``; ``VectorReader.on`` makes one around a model that is there.
    """

    config_class = VectorReaderConfig
    base_model_prefix = "reader"

    def __init__(self, config: VectorReaderConfig) -> None:
        super().__init__(config)
        settings = dict(config.decoder or {})
        inner = AutoConfig.for_model(settings.pop("model_type"), **settings)
        self.decoder: Any = AutoModelForCausalLM.from_config(inner)  # type: ignore[no-untyped-call]
        hidden = self.decoder.get_input_embeddings().weight.shape[1]
        self.project = SoftTokens(config.dim, hidden, config.tokens_per_vector, scale=1.0)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Leave weights as their modules drew them: the host's small ones would drown in the LayerNorm's epsilon."""

    @classmethod
    def on(cls, decoder: PreTrainedModel, *, dim: int, tokens_per_vector: int = 1, seed: int = 0) -> VectorReader:
        """Put a projector in front of a copy of a language model.

        Args:
            decoder: A causal language model, which is left as it is.
            dim: Width of the vectors.
            tokens_per_vector: Soft tokens for each vector, at least 1.
            seed: Decides the projector's start weights.

        Returns:
            The reader, in float32.

        Raises:
            InputError: a number is below 1.
        """
        for name, value in (("dim", dim), ("tokens_per_vector", tokens_per_vector)):
            if value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            reader = cls(VectorReaderConfig(decoder.config.to_dict(), dim, tokens_per_vector))
        reader.decoder.load_state_dict(decoder.state_dict())
        table: Any = decoder.get_input_embeddings().weight
        nn.init.constant_(reader.project.norm.weight, float(table.detach().float().square().mean().sqrt()))
        return reader

    def soft_inputs(self, vectors: Tensor, input_ids: Tensor) -> Tensor:
        """Join soft tokens and embedded tokens, shapes (B, S, D) and (B, T) -> (B, S * tokens_per_vector + T, H)."""
        table = self.decoder.get_input_embeddings()
        return torch.cat([self.project(vectors.to(table.weight.dtype)), table(input_ids)], dim=1)

    def forward(
        self, vectors: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, **host: Any
    ) -> Any:
        """Predict every token from the vectors and the tokens before it.

        Args:
            vectors: The vectors, the same number for each row.
            input_ids: Tokens that follow them.
            attention_mask: 1 for tokens, 0 for padding.
            labels: What to predict at each token, ``IGNORED`` where nothing; None for no loss.
            host: Passed on to the language model.

        Shape:
            vectors (B, S, D), input_ids, attention_mask and labels (B, T) -> logits (B, S * tokens_per_vector + T, V)

        Returns:
            The host's output, with ``loss``, the mean cross-entropy in nats, if there are labels.
        """
        inputs = self.soft_inputs(vectors, input_ids)
        ahead = inputs.shape[1] - input_ids.shape[1]
        seen = torch.cat([attention_mask.new_ones(len(inputs), ahead), attention_mask], dim=1)
        if labels is not None:
            labels = torch.cat([labels.new_full((len(inputs), ahead), IGNORED), labels], dim=1)
        return self.decoder(inputs_embeds=inputs, attention_mask=seen, labels=labels, use_cache=False, **host)

    @torch.no_grad()
    def write(
        self,
        vectors: NDArray[np.floating[Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        prompts: Sequence[Sequence[int]] | None = None,
        max_tokens: int = 32,
        num_beams: int = 1,
        num_texts: int = 1,
        batch_size: int = 64,
    ) -> list[list[str]]:
        """Write texts from vectors, the likeliest token at each step or by beam search.

        Args:
            vectors: Vectors; a matrix counts as one vector a row.
            tokenizer: Of the language model; needs a start, an end and a padding token.
            prompts: For each row tokens that stand between its vectors and the text; None for the start token only.
            max_tokens: Longest text in tokens, at least 1.
            num_beams: Texts followed at the same time, at least ``num_texts``.
            num_texts: Texts for each row, the likeliest first.
            batch_size: Rows at once.

        Shape:
            vectors (N, D) or (N, S, D)

        Returns:
            For each row its ``num_texts`` texts.

        Raises:
            InputError: a number is out of range.
        """
        if not 1 <= num_texts <= num_beams or max_tokens < 1:
            raise InputError(
                f"num_texts={num_texts}, num_beams={num_beams}, max_tokens={max_tokens}: "
                "need 1 <= num_texts <= num_beams and max_tokens of at least 1"
            )
        rows = torch.as_tensor(np.asarray(vectors, dtype=np.float32), device=self.device)
        rows = rows[:, None] if rows.ndim == 2 else rows
        starts = [list(each) for each in prompts] if prompts is not None else [[tokenizer.bos_token_id]] * len(rows)
        texts: list[list[str]] = [[] for _ in rows]
        order = sorted(range(len(rows)), key=lambda row: len(starts[row]))  # by length, so that little is padded
        was_training = self.training
        self.train(False)
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            ids, mask = left_padded([starts[place] for place in places], tokenizer.pad_token_id, self.device)
            inputs = self.soft_inputs(rows[places], ids)
            ahead = inputs.shape[1] - ids.shape[1]
            inputs, mask = _padding_first(inputs, mask, ahead)
            out = self.decoder.generate(
                inputs_embeds=inputs,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                do_sample=False,
                num_beams=num_beams,
                num_return_sequences=num_texts,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            written = [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]
            for place, start in zip(places, range(0, len(written), num_texts), strict=True):
                texts[place] = written[start : start + num_texts]
        self.train(was_training)
        return texts


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Put rows of token ids into one matrix, padding first.

    Args:
        rows: Token ids.
        pad: Token to fill up with.
        device: Where the result shall be.

    Returns:
        Ids and mask, both (B, T).
    """
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def right_padded(prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Put rows of prompt and target into a batch, padding last; only the targets' tokens are labels.

    Args:
        prompts: Token ids that are read only.
        targets: Token ids that follow and are predicted.
        pad: Token to fill up with.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, all (B, T).
    """
    rows = [[*prompt, *target] for prompt, target in zip(prompts, targets, strict=True)]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        labels[number, len(prompts[number]) : len(row)] = torch.tensor(targets[number])
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _padding_first(inputs: Tensor, mask: Tensor, ahead: int) -> tuple[Tensor, Tensor]:
    """Move the padding between soft tokens and prompt to the front, (B, S + T, H): generation needs it there."""
    seen = torch.cat([mask.new_ones(len(mask), ahead), mask], dim=1)
    order = torch.argsort(seen, dim=1, stable=True)  # zeros first, the rest in order
    return inputs.gather(1, order[..., None].expand_as(inputs)), seen.gather(1, order)


def train(
    model: nn.Module,
    rows: Any,
    *,
    folder: Path,
    steps: int,
    batch_size: int,
    learning_rate: float,
    collate: Any,
    seed: int,
    resume: bool = True,
    **host: Any,
) -> tuple[float, ...]:
    """Train a model that gives its own loss with the host's trainer, which resumes from what the folder holds.

    Args:
        model: A module whose output has ``loss``; trained in place.
        rows: Training rows with a length and places.
        folder: Folder for checkpoints.
        steps: Optimiser steps in all, at least 1.
        batch_size: Rows a step, at least 1.
        learning_rate: Highest learning rate; it rises over a tenth of the steps, then falls to zero.
        collate: Makes a batch of rows.
        seed: Decides order and dropout.
        resume: Go on from the last checkpoint in the folder.
        host: Further ``TrainingArguments``, such as ``bf16``.

    Returns:
        The loss of every step that this call ran, in nats.

    Raises:
        InputError: a number is out of range, or there are no rows.
    """
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name}={value}: must be at least 1")
    if not learning_rate > 0:
        raise InputError(f"learning_rate={learning_rate}: must be above 0")
    if len(rows) == 0:
        raise InputError("there are no texts to train on: give at least one")
    settings: dict[str, Any] = {"logging_steps": 1, "save_strategy": "no", "warmup_steps": steps // 10} | host
    with torch.random.fork_rng(devices=[]):
        trainer = Trainer(
            model,
            TrainingArguments(
                output_dir=str(folder),
                max_steps=steps,
                per_device_train_batch_size=batch_size,
                learning_rate=learning_rate,
                seed=seed,
                data_seed=seed,
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
                **settings,
            ),
            train_dataset=rows,
            data_collator=collate,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        done: str | None = get_last_checkpoint(str(folder)) if resume and folder.is_dir() else None  # type: ignore[no-untyped-call]
        trainer.train(resume_from_checkpoint=done)
    start = int(Path(done).name.rpartition("-")[2]) if done else 0
    model.eval()
    return tuple(
        float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry and entry["step"] > start
    )
