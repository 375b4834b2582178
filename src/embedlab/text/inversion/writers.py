"""Inverters that write: a language model reads the vector as a prefix, and a second one corrects the first's guess."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedlab._core.errors import InputError
from embedlab.models.encoder import Encoder
from embedlab.text.inversion.measures import Inverter, checked, cosines
from embedlab.text.soft_context.reader import VectorReader, right_padded, train


class _Writer:
    """What both inverters are: a reader of vectors on a copy of a language model, trained to write texts."""

    def __init__(
        self,
        decoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tokens_per_vector: int,
        max_tokens: int,
        seed: int,
    ) -> None:
        for name, value, least in (("tokens_per_vector", tokens_per_vector, 1), ("max_tokens", max_tokens, 2)):
            if value < least:
                raise InputError(f"{name}={value}: must be at least {least}")
        for token in ("bos", "eos", "pad"):
            if getattr(tokenizer, f"{token}_token_id") is None:
                raise InputError(f"the tokenizer has no {token} token: set tokenizer.{token}_token")
        self._decoder, self._tokenizer = decoder, tokenizer
        self._tokens_per_vector, self._max_tokens, self._seed = tokens_per_vector, max_tokens, seed
        self.reader: VectorReader | None = None
        self.losses: tuple[float, ...] = ()

    def _learn(
        self,
        views: NDArray[np.float64],  # (N, S, D)
        prompts: Sequence[list[int]],
        texts: Sequence[str],
        folder: Path | None,
        **arguments: Any,
    ) -> None:
        """Train a fresh reader to write each text after its vectors and its prompt."""
        self.reader = VectorReader.on(
            self._decoder, dim=views.shape[2], tokens_per_vector=self._tokens_per_vector, seed=self._seed
        )
        cut = self._cut(texts, self._max_tokens - 1)
        targets = [[*ids, self._tokenizer.eos_token_id] for ids in cut]
        samples = [Sample(*parts) for parts in zip(views, prompts, targets, strict=True)]
        with tempfile.TemporaryDirectory() as spare:
            self.losses = train(
                self.reader,
                samples,
                folder=folder or Path(spare),
                collate=Collate(self._tokenizer.pad_token_id),
                seed=self._seed,
                **arguments,
            )

    def _cut(self, texts: Sequence[str], length: int) -> list[list[int]]:
        cut = self._tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=length)
        return list(cut["input_ids"])


class PrefixInverter(_Writer):
    """Write the text of a vector: the vector becomes soft tokens in front of a causal language model.

    Everything is trained, projector and language model, to predict the text after its vector.

    Args:
        decoder: A causal language model, which is left as it is; a small one trained on like texts is enough.
        tokenizer: Its tokenizer, with a start, an end and a padding token.
        tokens_per_vector: Soft tokens a vector becomes; (paper: the projected prefix).
        max_tokens: Longest text, in tokens; longer training texts are cut.
        seed: Decides start weights and the order of the data.

    Raises:
        InputError: a number is below 1, or the tokenizer lacks a token.

    Example:
        >>> from embedlab.text.inversion import example
        >>> train = example()["trainer"].train  # a tiny model, eight sentences, vectors drawn at random
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained = train(Path(folder), seed=0, max_steps=8)
        >>> trained.losses[-1] < trained.losses[0]
        True

    References:
        Li, Xu & Song (2023), "Sentence embedding leaks more information than you expect: generative embedding inversion
        attack to recover the whole sentence", arXiv:2305.03010v1 (a prefix of one token there).
    """

    def __init__(
        self,
        decoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tokens_per_vector: int = 4,
        max_tokens: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(decoder, tokenizer, tokens_per_vector=tokens_per_vector, max_tokens=max_tokens, seed=seed)

    def fit(
        self,
        vectors: ArrayLike,
        texts: Sequence[str],
        *,
        steps: int = 1000,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        folder: Path | None = None,
        **host: Any,
    ) -> PrefixInverter:
        """Learn on texts whose vectors are known.

        Args:
            vectors: Their vectors.
            texts: The texts.
            steps: Optimiser steps.
            batch_size: Texts a step.
            learning_rate: Highest learning rate.
            folder: Folder for checkpoints; a run that finds one goes on from it. None keeps none.
            host: Further ``TrainingArguments`` of the host, such as ``bf16`` or ``save_steps``.

        Shape:
            vectors (N, D)

        Returns:
            Itself; ``losses`` has the training loss of every step, in nats a token.

        Raises:
            InputError: ``vectors`` do not fit the texts, or a number is out of range.
        """
        rows = checked(vectors, texts)
        start = [self._tokenizer.bos_token_id]
        budget = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
        self._learn(rows[:, None], [start] * len(rows), texts, folder, **budget, **host)
        return self

    def invert(self, vectors: ArrayLike, *, num_beams: int = 1) -> list[str]:
        """Write the likeliest text of every vector.

        Args:
            vectors: Vectors of the width that was learnt on.
            num_beams: Texts followed at the same time, at least 1.

        Shape:
            vectors (N, D)

        Returns:
            One text for each.

        Raises:
            InputError: it has not been fitted, or ``vectors`` do not fit.
        """
        rows = _fitting(vectors, self.reader)
        written = _fitted(self.reader).write(rows, self._tokenizer, max_tokens=self._max_tokens, num_beams=num_beams)
        return [text for (text,) in written]


@dataclass(frozen=True, slots=True)
class Correction:
    """How correcting went.

    Attributes:
        texts: The best guess for each vector.
        cosines: Cosine of the best guess so far with the vector, a column for each round, the first guess first.
    """

    texts: list[str]
    cosines: NDArray[np.float64]


class IterativeCorrector(_Writer):
    """Correct a guess by looking at where its own vector lies: embed it, compare, write a better one, and again.

    A language model is trained to write the text from the vector e, the vector e' of a guess, their difference, and the
    words of the guess. In each round it proposes several texts; the one whose vector is nearest to e is kept, if it is
    nearer than the guess so far. It stops when no text changes, or after so many rounds.

    Args:
        encoder: The encoder under attack: the attacker can embed any text with it.
        first: A fitted inverter that makes the first guess.
        decoder: A causal language model, which is left as it is. The first inverter's own trained one is a good start.
        tokenizer: Its tokenizer.
        tokens_per_vector: Soft tokens for each of the three vectors.
        max_tokens: Longest text, in tokens.
        seed: Decides start weights and the order of the data.

    Raises:
        InputError: a number is below 1, or the tokenizer lacks a token.

    References:
        Morris, Kuleshov, Shmatikov & Rush (2023), "Text embeddings reveal (almost) as much as text",
        arXiv:2310.06816v1, section 3; official code jxmorris12/vec2text (read, not copied), with an encoder-decoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        first: Inverter,
        decoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tokens_per_vector: int = 4,
        max_tokens: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(decoder, tokenizer, tokens_per_vector=tokens_per_vector, max_tokens=max_tokens, seed=seed)
        self._encoder, self._first = encoder, first

    def fit(
        self,
        vectors: ArrayLike,
        texts: Sequence[str],
        *,
        steps: int = 1000,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        folder: Path | None = None,
        **host: Any,
    ) -> IterativeCorrector:
        """Learn to correct the first inverter's guesses at texts whose vectors are known.

        The first inverter should not have learnt on these texts, or its guesses are better here than later.

        Args:
            vectors: Their vectors.
            texts: The texts.
            steps: Optimiser steps.
            batch_size: Texts a step.
            learning_rate: Highest learning rate.
            folder: Folder for checkpoints; a run that finds one goes on from it. None keeps none.
            host: Further ``TrainingArguments`` of the host.

        Shape:
            vectors (N, D)

        Returns:
            Itself.

        Raises:
            InputError: ``vectors`` do not fit the texts, or a number is out of range.
        """
        rows = checked(vectors, texts)
        guesses = self._first.invert(rows)
        views = _views(rows, self._embed(guesses))
        budget = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
        self._learn(views, self._prompts(guesses), texts, folder, **budget, **host)
        return self

    def correct(self, vectors: ArrayLike, *, rounds: int = 5, num_beams: int = 4) -> Correction:
        """Guess, then correct.

        Args:
            vectors: Vectors of the width that was learnt on.
            rounds: Largest number of rounds, at least 1.
            num_beams: Texts proposed in each, at least 1.

        Shape:
            vectors (N, D)

        Returns:
            The texts, and the cosines after each round.

        Raises:
            InputError: it has not been fitted, ``vectors`` do not fit, or a number is out of range.
        """
        if rounds < 1:
            raise InputError(f"rounds={rounds}: must be at least 1")
        rows = _fitting(vectors, self.reader)
        texts = self._first.invert(rows)
        places = self._embed(texts)
        near = [cosines(rows, places)]
        open_ = np.arange(len(rows))
        for _ in range(rounds):
            if not len(open_):
                break
            written = _fitted(self.reader).write(
                _views(rows[open_], places[open_]),
                self._tokenizer,
                prompts=self._prompts([texts[row] for row in open_]),
                max_tokens=self._max_tokens,
                num_beams=num_beams,
                num_texts=num_beams,
            )
            found = self._embed([text for each in written for text in each])
            ahead = cosines(np.repeat(rows[open_], num_beams, axis=0), found).reshape(len(open_), num_beams)
            best = ahead.argmax(axis=1)
            latest = near[-1].copy()
            better = ahead[np.arange(len(open_)), best] > latest[open_] + 1e-9
            for number in np.flatnonzero(better):
                row = open_[number]
                texts[row], latest[row] = written[number][best[number]], ahead[number, best[number]]
                places[row] = found[number * num_beams + best[number]]
            near.append(latest)
            open_ = open_[better]  # the same guess would be answered the same way again
        return Correction(texts, np.stack(near, axis=1))

    def invert(self, vectors: ArrayLike) -> list[str]:
        """Guess and correct with the default rounds, shape (N, D); one text for each vector."""
        return self.correct(vectors).texts

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.asarray(self._encoder.encode_document(list(texts)), dtype=np.float64)

    def _prompts(self, guesses: Sequence[str]) -> list[list[int]]:
        return [[*ids, self._tokenizer.bos_token_id] for ids in self._cut(guesses, self._max_tokens)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One training row: vectors (S, D), tokens that stand before the text, and the text's own tokens."""

    vectors: NDArray[Any]
    prompt: list[int]
    target: list[int]


class Collate:
    """Make a batch of samples; only the text's tokens are predicted.

    Args:
        pad: Token for the ends of short rows.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Pad to the longest row: vectors (B, S, D); input_ids, attention_mask and labels (B, T)."""
        rows = right_padded([each.prompt for each in samples], [each.target for each in samples], self.pad)
        vectors = torch.as_tensor(np.stack([each.vectors for each in samples]), dtype=torch.float32)
        return {"vectors": vectors, **rows}


def _views(vectors: NDArray[np.float64], guessed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stack what the corrector reads: e, e', e - e', shape (N, 3, D)."""
    return np.stack([vectors, guessed, vectors - guessed], axis=1)


def _fitted(reader: VectorReader | None) -> VectorReader:
    if reader is None:
        raise InputError("the inverter has not learnt yet: call fit(vectors, texts) first")
    return reader


def _fitting(vectors: ArrayLike, reader: VectorReader | None) -> NDArray[np.float64]:
    rows = np.asarray(vectors, dtype=np.float64)
    dim = _fitted(reader).config.dim
    if rows.ndim != 2 or rows.shape[1] != dim or not np.isfinite(rows).all():
        raise InputError(f"vectors has shape {rows.shape}: give a finite matrix (N, {dim})")
    return rows
