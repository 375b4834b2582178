"""Adapting an encoder to a domain with triplets, through the host's own trainer."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.evaluate.quiet import quiet_host
from embedlab.text.synthesis import Triplet

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adaptation: small matrices beside the linear layers are trained, and folded in at the end.

    Attributes:
        rank: Rank of the matrices, at least 1.
        alpha: Their weight is ``alpha / rank``.
        dropout: Share of inputs that are dropped in training, in [0, 1).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapted model.

    Attributes:
        model: The model, with the instruction as its prompt for queries.
        losses: Training loss of every step.
        seconds: How long the training took.
        trained_parameters: How many numbers were trained.
    """

    model: SentenceTransformer
    losses: tuple[float, ...]
    seconds: float
    trained_parameters: int


def domain_adapt(
    model: str | SentenceTransformer,
    triplets: Sequence[Triplet],
    *,
    groups: Sequence[Hashable] | None = None,
    instruction: str = "",
    steps: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-5,
    temperature: float = 0.02,
    warmup: float = 0.1,
    max_tokens: int | None = 256,
    chunk_size: int | None = None,
    lora: Lora | None = None,
    last_layers: int | None = None,
    seed: int = 0,
) -> Adapted:
    """Train an embedding model on (query, positive, negatives): contrast with all passages of the batch.

    The loss is InfoNCE over in-batch and given negatives, by the host's ``MultipleNegativesRankingLoss`` or, with
    ``chunk_size``, its cached form, which fits large batches into little memory. No batch holds a query or positive
    twice, nor two triplets of one group: each would be a negative of the other.

    Args:
        model: Folder or hub name, or a loaded model, which is left as it is.
        triplets: What to train on; all have the same number of negatives.
        groups: For each triplet its intent, source document or whatever makes two positives alike; None for none.
        instruction: Put before queries, in training and from then on, never before documents: for instruction models
            ``"Instruct: ...\\nQuery: "``, for others as a rule nothing.
        steps: Optimiser steps, at least 1.
        batch_size: Triplets a step, at least 2.
        learning_rate: Highest learning rate; it falls linearly after the warm-up.
        temperature: Divides cosines; (paper: T), about 0.01 to 0.02. All-MiniLM was trained at 0.05.
        warmup: Share of the steps in which the learning rate rises, in [0, 1).
        max_tokens: Longest text in training; None for the model's own limit.
        chunk_size: Texts encoded at once; None to encode a batch whole.
        lora: Train low-rank matrices instead of all weights.
        last_layers: Train only so many of the last transformer layers, at least 1; None for all.
        seed: Decides the order of the data and dropout.

    Returns:
        The adapted model, in evaluation mode.

    Raises:
        InputError: too few triplets or groups for a batch, triplets with different numbers of negatives, or a number
            out of range.
        MissingExtraError: the extra ``train`` is not installed.
    """
    _check(triplets, steps, batch_size, learning_rate, temperature, warmup, lora, last_layers)
    keys = _keys(triplets, groups, batch_size)
    host: Any = require("sentence_transformers", extra="train")
    student: Any = host.SentenceTransformer(model) if isinstance(model, str) else copy.deepcopy(model)
    longest = student.max_seq_length
    limited = max_tokens is not None and isinstance(longest, int)  # a table of word vectors has no limit to set
    if limited:
        student.max_seq_length = min(max_tokens or longest, longest)
    if last_layers is not None:
        _freeze_all_but(student, last_layers)
    if lora is not None:
        _add_lora(student, lora, seed)
    if instruction:
        student.prompts = {**student.prompts, "query": instruction}
    with quiet_host():
        losses, seconds = _train(
            student,
            _dataset(triplets),
            scale=1 / temperature,
            chunk_size=chunk_size,
            seed=seed,
            batch_sampler=lambda _, batch_size, seed=0, **__: _Batches(keys, batch_size, seed),
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            warmup_steps=math.floor(warmup * steps),
            prompts={"query": instruction} if instruction else None,
        )
    trained = sum(weight.numel() for weight in student.parameters() if weight.requires_grad)
    if lora is not None:
        student[0].model = student[0].model.merge_and_unload()
    if limited:
        student.max_seq_length = longest
    return Adapted(student.requires_grad_(True).eval(), losses, seconds, trained)


class _Batches:
    """Draw batches of places in which no key occurs twice, another order every epoch; a short last batch is left out.

    Args:
        keys: What each triplet must not share with another one of its batch.
        batch_size: Triplets a batch.
        seed: Decides the orders.
    """

    def __init__(self, keys: Sequence[frozenset[Hashable]], batch_size: int, seed: int) -> None:
        self.keys, self.batch_size, self.seed = keys, batch_size, seed
        self.epoch = 0

    def __len__(self) -> int:
        return max(1, len(self.keys) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins, as the host does."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        waiting = [int(place) for place in rng.permutation(len(self.keys))]
        while len(waiting) >= self.batch_size:
            batch: list[int] = []
            used: set[Hashable] = set()
            later = []
            for number, place in enumerate(waiting):
                if used & self.keys[place]:
                    later.append(place)
                    continue
                batch.append(place)
                used |= self.keys[place]
                if len(batch) == self.batch_size:
                    later += waiting[number + 1 :]
                    break
            if len(batch) < self.batch_size:
                return
            yield batch
            waiting = later


def _keys(triplets: Sequence[Triplet], groups: Sequence[Hashable] | None, batch_size: int) -> list[frozenset[Hashable]]:
    keys = [frozenset[Hashable]((each.query, each.positive)) for each in triplets]
    if groups is None:
        return keys
    if len(groups) != len(triplets):
        raise InputError(f"groups has {len(groups)} entries for {len(triplets)} triplets: give one each")
    if len(set(groups)) < batch_size:
        raise InputError(
            f"batch_size={batch_size}: there are only {len(set(groups))} groups, and a batch holds each once"
        )
    return [key | {("group", group)} for key, group in zip(keys, groups, strict=True)]


def _train(
    model: Any, data: Any, *, scale: float, chunk_size: int | None, seed: int, **settings: Any
) -> tuple[tuple[float, ...], float]:
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer import losses
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    loss: Any = losses.MultipleNegativesRankingLoss(model, scale=scale)
    if chunk_size is not None:
        loss = losses.CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=chunk_size)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            seed=seed,
            data_seed=seed,
            save_strategy="no",
            report_to="none",
            logging_steps=1,
            disable_tqdm=True,
            lr_scheduler_type="linear",
            dataloader_drop_last=True,
            dataloader_pin_memory=False,
            **settings,
        )
        trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss)
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
        history = trainer.state.log_history
    return tuple(float(entry["loss"]) for entry in history if "loss" in entry), time.perf_counter() - start


def _dataset(triplets: Sequence[Triplet]) -> Any:
    datasets: Any = require("datasets", extra="train")
    columns = {"query": [each.query for each in triplets], "positive": [each.positive for each in triplets]}
    for place in range(len(triplets[0].negatives)):
        columns[f"negative_{place + 1}"] = [each.negatives[place] for each in triplets]
    return datasets.Dataset.from_dict(columns)


def _freeze_all_but(model: Any, last_layers: int) -> None:
    body = model[0].model
    layers = getattr(getattr(body, "encoder", body), "layer", None) or getattr(body, "layers", None)
    if layers is None or last_layers > len(layers):
        count = "no list of layers" if layers is None else f"{len(layers)} layers"
        raise InputError(f"last_layers={last_layers}: the model has {count}; use None to train it all")
    model.requires_grad_(False)
    layers[-last_layers:].requires_grad_(True)
    for module in list(model)[1:]:
        module.requires_grad_(True)


def _add_lora(model: Any, lora: Lora, seed: int) -> None:
    torch: Any = require("torch", extra="train")
    peft: Any = require("peft", extra="train")
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type=peft.TaskType.FEATURE_EXTRACTION,
    )
    with quiet_host():  # the one library reads a name that the other warns about
        model[0].model = peft.get_peft_model(model[0].model, config)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_A" in name:  # as drawn by the library, but by our seed
            torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


def _check(
    triplets: Sequence[Triplet],
    steps: int,
    batch_size: int,
    learning_rate: float,
    temperature: float,
    warmup: float,
    lora: Lora | None,
    last_layers: int | None,
) -> None:
    for name, value, least in (("steps", steps, 1), ("batch_size", batch_size, 2), ("last_layers", last_layers, 1)):
        if value is not None and value < least:
            raise InputError(f"{name}={value}: must be at least {least}")
    for name, number in (("learning_rate", learning_rate), ("temperature", temperature)):
        if not 0 < number < math.inf:
            raise InputError(f"{name}={number}: must be above 0")
    if not 0 <= warmup < 1:
        raise InputError(f"warmup={warmup}: must be in [0, 1)")
    if len(triplets) < batch_size:
        raise InputError(f"batch_size={batch_size}: there are only {len(triplets)} triplets; make more, or lower it")
    counts = {len(each.negatives) for each in triplets}
    if len(counts) > 1:
        raise InputError(f"the triplets have {sorted(counts)} negatives: all need the same number")
    if lora is not None and not (lora.rank >= 1 and lora.alpha > 0 and 0 <= lora.dropout < 1):
        raise InputError(f"lora={lora}: rank must be at least 1, alpha above 0, dropout in [0, 1)")
    if lora is not None and last_layers is not None:
        raise InputError("lora and last_layers exclude each other: give one of them")
