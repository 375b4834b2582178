"""Compress a passage into a few vectors that a language model reads in place of the passage's tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_folder
from embedlab.text.soft_context.memory import MemoryReader
from embedlab.text.soft_context.reader import IGNORED, VectorReader, left_padded, right_padded, train

_TOKENIZER = "tokenizer"  # a folder of its own, or the host takes the model's configuration for the tokenizer's


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well texts are predicted, over all their tokens.

    Attributes:
        nats: Mean cross-entropy of a token, in nats.
        tokens: How many tokens.
    """

    nats: float
    tokens: int

    @property
    def value(self) -> float:
        """Perplexity, ``exp(nats)``."""
        return float(np.exp(self.nats))


class ContextCompressor:
    """Compress passages into ``num_tokens`` vectors for a frozen language model, which then continues or repeats them.

    Trained on (context, continuation): the model must predict the continuation from the memory, and, after a mark, the
    context itself (auto-encoding). Every step draws how many memory tokens are used: one compressor serves all sizes.

    Args:
        decoder: A causal language model, which is left as it is.
        tokenizer: Its tokenizer, with a start, an end and a padding token.
        num_tokens: Numbers of soft tokens to train for; the largest is the most that can be asked for; (paper: m).
        max_context: Longest context, in tokens; longer ones are cut, or compressed in segments (``compress_long``).
        max_continuation: Longest continuation in training, in tokens.
        seed: Decides start weights, the order of the data and the numbers drawn.

    Attributes:
        losses: Training loss of every step, in nats a token.

    Raises:
        InputError: a number is below 1, or the tokenizer lacks a token.

    Example:
        >>> import tempfile
        >>> from transformers import AutoModelForCausalLM, AutoTokenizer
        >>> from embedlab.testing.tiny_decoder import save_tiny_decoder
        >>> passages = ["Ann keeps a cat at home", "Ben keeps a boat at sea"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tiny_decoder(folder, texts=passages)
        ...     decoder = AutoModelForCausalLM.from_pretrained(folder)
        ...     tokenizer = AutoTokenizer.from_pretrained(folder)
        >>> compressor = ContextCompressor(decoder, tokenizer, num_tokens=(1, 4))
        >>> compressor.compress(passages).shape, compressor.compress(passages, num_tokens=1).shape
        ((2, 4, 32), (2, 1, 32))

    References:
        Ge et al. (2023), "In-context autoencoder for context compression in a large language model", arXiv:2307.06945v1
        (memory tokens, auto-encoding and continuation; low-rank encoder there, a full copy here). Chevalier et al.
        (2023), "Adapting language models to compress contexts", arXiv:2305.14788v1 (segments that read earlier memory).
        A frozen embedder's vector instead of memory (xRAG, Cheng et al. 2024, arXiv:2405.13792v1) is ``VectorReader``
        with its decoder frozen.
    """

    def __init__(
        self,
        decoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_tokens: Sequence[int] = (1, 4, 16),
        max_context: int = 128,
        max_continuation: int = 64,
        seed: int = 0,
    ) -> None:
        if not num_tokens or min(num_tokens) < 1:
            raise InputError(f"num_tokens={tuple(num_tokens)}: give at least one number, each at least 1")
        for name, value in (("max_context", max_context), ("max_continuation", max_continuation)):
            if value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        for token in ("bos", "eos", "pad"):
            if getattr(tokenizer, f"{token}_token_id") is None:
                raise InputError(f"the tokenizer has no {token} token: set tokenizer.{token}_token")
        self.num_tokens, self.max_context, self.max_continuation = tuple(num_tokens), max_context, max_continuation
        self.seed = seed
        self._tokenizer = tokenizer
        self.reader = MemoryReader.between(decoder, num_memory=max(num_tokens), seed=seed)
        self.losses: tuple[float, ...] = ()

    def fit(
        self,
        contexts: Sequence[str],
        continuations: Sequence[str],
        *,
        steps: int = 1000,
        batch_size: int = 16,
        learning_rate: float = 5e-4,
        reconstruct: float = 0.5,
        folder: Path | None = None,
        **host: Any,
    ) -> ContextCompressor:
        """Train memory, projector and the writing copy; the reading copy stays frozen.

        Args:
            contexts: Passages.
            continuations: What follows each.
            steps: Optimiser steps.
            batch_size: Passages a step.
            learning_rate: Highest learning rate.
            reconstruct: Share of the rows that repeat the context instead of continuing it, in [0, 1].
            folder: Folder for checkpoints; a run that finds one goes on from it. None keeps none.
            host: Further ``TrainingArguments`` of the host, such as ``bf16``.

        Returns:
            Itself.

        Raises:
            InputError: the lists differ in length, or a number is out of range.
        """
        if len(contexts) != len(continuations):
            raise InputError(f"{len(contexts)} contexts for {len(continuations)} continuations: give one each")
        if not 0 <= reconstruct <= 1:
            raise InputError(f"reconstruct={reconstruct}: must be in [0, 1]")
        early = self._ids(contexts, self.max_context)
        late = self._ids(continuations, self.max_continuation)
        rng = np.random.default_rng(self.seed)
        rows = []
        for number, (context, following) in enumerate(zip(early, late, strict=True)):
            repeated = rng.random() < reconstruct
            prompt = self._prompt(repeat=repeated)
            rows.append(_Row(number, context, prompt, [*(context if repeated else following), self._end]))
        with tempfile.TemporaryDirectory() as spare:
            self.losses = train(
                self.reader,
                rows,
                folder=folder or Path(spare),
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                collate=_Collate(self._tokenizer.pad_token_id, self.num_tokens, self.seed),
                seed=self.seed,
                **host,
            )
        return self

    @torch.no_grad()
    def compress(
        self, contexts: Sequence[str], *, num_tokens: int | None = None, batch_size: int = 32
    ) -> NDArray[np.float32]:
        """Compress passages.

        Args:
            contexts: Passages; those longer than ``max_context`` tokens are cut.
            num_tokens: Vectors for each, from 1 to the most trained for; None for the most.
            batch_size: Passages at once.

        Shape:
            -> (N, num_tokens, H)

        Returns:
            Vectors for ``perplexity`` and ``write``.

        Raises:
            InputError: ``num_tokens`` is out of range.
        """
        count = self._count(num_tokens)
        found = []
        for start in range(0, len(contexts), batch_size):
            ids = self._ids(contexts[start : start + batch_size], self.max_context)
            found.append(self.reader.remember(*self._padded(ids), count))
        return torch.cat(found).numpy(force=True)

    @torch.no_grad()
    def compress_long(self, context: str, *, num_tokens: int | None = None) -> NDArray[np.float32]:
        """Compress a passage of any length, segment by segment; each segment also reads the memory of those before it.

        Args:
            context: A passage.
            num_tokens: Vectors for each segment of ``max_context`` tokens; None for the most trained for.

        Shape:
            -> (1, segments * num_tokens, H)

        Returns:
            Vectors for ``perplexity`` and ``write``.

        Raises:
            InputError: ``num_tokens`` is out of range, or the context is empty.
        """
        count = self._count(num_tokens)
        (ids,) = self._ids([context], None)
        if not ids:
            raise InputError("the context is empty: give at least one token")
        memory: Tensor | None = None
        for start in range(0, len(ids), self.max_context):
            written = self.reader.remember(*self._padded([ids[start : start + self.max_context]]), count, before=memory)
            memory = written if memory is None else torch.cat([memory, written], dim=1)
        return _numbers(memory)

    @torch.no_grad()
    def perplexity(
        self,
        continuations: Sequence[str],
        *,
        memory: NDArray[np.floating[Any]] | None = None,
        contexts: Sequence[str] | None = None,
        batch_size: int = 32,
    ) -> Perplexity:
        """Measure how well continuations are predicted from memory, from the contexts' own tokens, or from nothing.

        Args:
            continuations: What follows; at least one token each.
            memory: What ``compress`` gave; None for none.
            contexts: Passages read as tokens; None for none. Not together with ``memory``.
            batch_size: Rows at once.

        Shape:
            memory (N, S, H)

        Returns:
            Cross-entropy and perplexity of the continuations' tokens.

        Raises:
            InputError: both are given, lengths differ, or there is nothing to predict.
        """
        if memory is not None and contexts is not None:
            raise InputError("memory and contexts exclude each other: give one of them, or none")
        for name, given in (("memory", memory), ("contexts", contexts)):
            if given is not None and len(given) != len(continuations):
                raise InputError(f"{len(given)} rows of {name} for {len(continuations)} continuations: give one each")
        late = self._ids(continuations, self.max_continuation)
        early = self._ids(contexts, self.max_context) if contexts is not None else [[] for _ in late]
        total, count = 0.0, 0
        for start in range(0, len(late), batch_size):
            part = slice(start, start + batch_size)
            prompts = [[*self._prompt(), *context] for context in early[part]]
            rows = right_padded(prompts, late[part], self._tokenizer.pad_token_id)
            labels = rows.pop("labels")[:, 1:]
            if memory is None:
                out = self.reader.decoder(**rows, use_cache=False)
            else:
                out = VectorReader.forward(self.reader, torch.as_tensor(memory[part], dtype=torch.float32), **rows)
            logits = out.logits[:, -labels.shape[1] - 1 : -1]
            total += float(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"))
            count += int((labels != IGNORED).sum())
        if not count:
            raise InputError("the continuations have no token to predict: give texts that are not empty")
        return Perplexity(total / count, count)

    def write(
        self, memory: NDArray[np.floating[Any]], *, repeat: bool = False, max_tokens: int = 64, num_beams: int = 1
    ) -> list[str]:
        """Write what the language model makes of compressed passages.

        Args:
            memory: What ``compress`` gave.
            repeat: Write the passage itself down again, instead of what follows.
            max_tokens: Longest text, in tokens.
            num_beams: Texts followed at the same time.

        Shape:
            memory (N, S, H)

        Returns:
            One text for each.
        """
        prompts = [self._prompt(repeat=repeat)] * len(memory)
        written = self.reader.write(
            memory, self._tokenizer, prompts=prompts, max_tokens=max_tokens, num_beams=num_beams
        )
        return [text for (text,) in written]

    def save(self, folder: Path) -> None:
        """Write model and tokenizer to a folder, in one step.

        Args:
            folder: A folder that does not exist yet, or one that ``save`` has written.
        """
        with atomic_folder(folder) as draft:
            settings = {"num_tokens": list(self.num_tokens), "lengths": [self.max_context, self.max_continuation]}
            self.reader.config.update({"compressor": settings | {"seed": self.seed}})
            self.reader.save_pretrained(draft)
            self._tokenizer.save_pretrained(Path(draft) / _TOKENIZER)

    @classmethod
    def load(cls, folder: Path) -> ContextCompressor:
        """Open what ``save`` has written.

        Args:
            folder: The folder.

        Returns:
            The compressor.

        Raises:
            InputError: the folder holds none.
        """
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} holds no compressor: give a folder that save() has written")
        reader = MemoryReader.from_pretrained(folder)
        settings = getattr(reader.config, "compressor", None)
        if settings is None:
            raise InputError(f"{folder} holds a model, but no compressor: give a folder that save() has written")
        made = cls.__new__(cls)
        made.num_tokens, (made.max_context, made.max_continuation) = tuple(settings["num_tokens"]), settings["lengths"]
        made.seed, made.losses = settings["seed"], ()
        made._tokenizer = AutoTokenizer.from_pretrained(folder / _TOKENIZER)
        made.reader = reader.train(False)
        made.reader.decoder.requires_grad_(False)
        return made

    @property
    def _end(self) -> int:
        return int(self._tokenizer.eos_token_id)

    def _prompt(self, *, repeat: bool = False) -> list[int]:
        return [self._tokenizer.bos_token_id] * (2 if repeat else 1)  # the mark for repeating is a second start token

    def _ids(self, texts: Sequence[str], longest: int | None) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [ids[:longest] for ids in found]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        return left_padded(rows, self._tokenizer.pad_token_id, self.reader.device)

    def _count(self, num_tokens: int | None) -> int:
        most = max(self.num_tokens)
        if num_tokens is not None and not 1 <= num_tokens <= most:
            raise InputError(f"num_tokens={num_tokens}: must be from 1 to {most}, the most it was trained for")
        return num_tokens or most


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    context: list[int]
    prompt: list[int]
    target: list[int]


class _Collate:
    """Make a batch, and draw for it how many memory tokens are used; the draw depends on the rows, not on the past."""

    def __init__(self, pad: int, num_tokens: Sequence[int], seed: int) -> None:
        self.pad, self.num_tokens, self.seed = pad, tuple(num_tokens), seed

    def __call__(self, rows: Sequence[_Row]) -> dict[str, Any]:
        context_ids, context_mask = left_padded([row.context for row in rows], self.pad, torch.device("cpu"))
        following = right_padded([row.prompt for row in rows], [row.target for row in rows], self.pad)
        rng = np.random.default_rng([self.seed, *(row.number for row in rows)])
        return {
            "context_ids": context_ids,
            "context_mask": context_mask,
            **following,
            "num_tokens": int(rng.choice(self.num_tokens)),
        }


def _numbers(memory: Tensor | None) -> NDArray[np.float32]:
    return np.empty((1, 0, 0), dtype=np.float32) if memory is None else memory.numpy(force=True)
