"""A causal language model on this machine as a generator."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.text.synthesis.generators import Usage

if TYPE_CHECKING:
    import torch


class LocalGenerator:
    """Let a causal language model of the transformers library write.

    What a prompt gets depends on the prompt and the seed alone, not on the prompts beside it (but for rounding): each
    row draws its words by noise of its own.

    Args:
        model: Folder or hub name of the model, or the loaded model.
        tokenizer: Its tokenizer; None to load it from the same place.
        device: Where torch runs, e.g. ``"cpu"``; None leaves a loaded model where it is.
        temperature: How freely words are drawn, at least 0; 0 always takes the likeliest.
        batch_size: Prompts in one pass, at least 1.

    Attributes:
        name: The folder's or the model's name.

    Raises:
        InputError: a number is out of range, or a loaded model comes without tokenizer.
        MissingExtraError: the extra ``train`` is not installed.
    """

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any = None,
        device: str | None = None,
        temperature: float = 0.7,
        batch_size: int = 8,
    ) -> None:
        transformers = require("transformers", extra="train")
        if not temperature >= 0:
            raise InputError(f"temperature={temperature}: must be at least 0")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        named = isinstance(model, str | os.PathLike)
        if tokenizer is None and not named:
            raise InputError("tokenizer=None: a model that is loaded already needs its tokenizer")
        self.name = Path(model).name if named else str(getattr(model.config, "name_or_path", "") or "local")
        self._tokenizer = tokenizer or transformers.AutoTokenizer.from_pretrained(str(model))
        self._model = transformers.AutoModelForCausalLM.from_pretrained(str(model)) if named else model
        self._model = self._model.to(device) if device is not None else self._model
        self._model.eval()
        self._temperature, self._batch_size = temperature, batch_size
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """What was asked so far, and the tokens of it."""
        return self._usage

    def generate(self, prompts: Sequence[str], *, max_tokens: int = 256, seed: int = 0) -> list[str]:
        """Continue each prompt, up to the model's end mark or ``max_tokens``."""
        torch = require("torch", extra="train")
        answers: list[str] = []
        for start in range(0, len(prompts), self._batch_size):
            block = prompts[start : start + self._batch_size]
            rows = [self._ids(prompt, max_tokens) for prompt in block]
            ids, mask = self._padded(rows, left=True)
            with torch.no_grad():
                out = self._model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=max_tokens,
                    do_sample=False,
                    num_beams=1,
                    pad_token_id=self._pad,
                    logits_processor=[_RowNoise(block, self._temperature, seed)] if self._temperature else [],
                )
            made = [self._until_end(row) for row in out[:, ids.shape[1] :].tolist()]
            self._usage = Usage(
                self._usage.prompts + len(block),
                self._usage.prompt_tokens + sum(map(len, rows)),
                self._usage.completion_tokens + sum(map(len, made)),
            )
            answers += self._tokenizer.batch_decode(made, skip_special_tokens=True)
        return answers

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        """Return the log probability of each option's tokens after the prompt."""
        torch = require("torch", extra="train")
        given = self._ids(prompt, 0)
        tails = [self._tokenizer(option, add_special_tokens=False)["input_ids"] for option in options]
        scores: list[float] = []
        for start in range(0, len(options), self._batch_size):
            block = tails[start : start + self._batch_size]
            ids, mask = self._padded([given + tail for tail in block], left=False)
            with torch.no_grad():
                logits = self._model(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)  # (B, T, V)
            for row, tail in enumerate(block):
                places = torch.arange(len(given) - 1, len(given) + len(tail) - 1)
                scores.append(float(logits[row, places, torch.tensor(tail, dtype=torch.long)].sum()))
        return scores

    @property
    def _pad(self) -> int:
        special = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id, 0)
        return int(next(each for each in special if each is not None))

    def _ids(self, prompt: str, room: int) -> list[int]:
        """Tokenise a prompt, in the model's chat form if it has one, and keep its end where it is too long."""
        if getattr(self._tokenizer, "chat_template", None):
            messages = [{"role": "user", "content": prompt}]
            prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        else:
            ids = self._tokenizer(prompt)["input_ids"]
        longest = int(getattr(self._model.config, "max_position_embeddings", 0) or 0)
        kept = list(ids)[-max(longest - room, 1) :] if longest else list(ids)
        return kept or [self._pad]

    def _padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        torch = require("torch", extra="train")
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad, device=self._model.device)
        mask = torch.zeros_like(ids)
        for row, each in enumerate(rows):
            place = slice(width - len(each), width) if left else slice(0, len(each))
            ids[row, place] = torch.tensor(each, device=ids.device)
            mask[row, place] = 1
        return ids, mask

    def _until_end(self, ids: list[int]) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        marks = set(ends) if isinstance(ends, list) else {ends, self._tokenizer.eos_token_id}
        stop = next((place for place, token in enumerate(ids) if token in marks), len(ids))
        return ids[:stop]


class _RowNoise:
    """Draw words by adding Gumbel noise to the logits: the largest then is a sample, and each row has its own noise."""

    def __init__(self, prompts: Sequence[str], temperature: float, seed: int) -> None:
        torch = require("torch", extra="train")
        self._temperature = temperature
        digests = [hashlib.sha256(f"{seed} {prompt}".encode()).digest()[:7] for prompt in prompts]
        self._sources = [torch.Generator().manual_seed(int.from_bytes(digest, "big")) for digest in digests]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        noise = [torch.empty(scores.shape[-1]).exponential_(generator=source) for source in self._sources]
        gumbel = -torch.stack(noise).log().to(scores)  # (B, V)
        return torch.add(gumbel, scores / self._temperature)
