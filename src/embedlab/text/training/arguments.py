"""Training arguments: a few short names for what everybody sets, and every other one by the host's own name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.training.recipe import TrainingData

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformerTrainingArguments

#: our name -> what it means; sizes and counts are those of the whole run, over all processes
SHORT: Mapping[str, str] = {
    "steps": "optimiser steps; none to go by epochs",
    "epochs": "passes over the data, above 0; counts only without steps",
    "batch_size": "rows of a batch over all processes, at least 2",
    "learning_rate": "highest learning rate, above 0",
    "warmup": "share of the steps in which the learning rate rises, in [0, 1)",
    "max_length": "longest text in tokens while training; none for the model's own limit",
}
DEFAULTS: Mapping[str, Any] = {
    "steps": None,
    "epochs": 1,
    "batch_size": 64,
    "learning_rate": 2e-5,
    "warmup": 0.1,
    "max_length": None,
}
#: the host's name -> ours, so that either may be written
_HOST: Mapping[str, str] = {
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "warmup_steps": "warmup",
    "warmup_ratio": "warmup",
    "lr": "learning_rate",
}
# set by the run itself
_OURS = (
    "output_dir",
    "seed",
    "data_seed",
    "resume_from_checkpoint",
    "disable_tqdm",
    "report_to",
    "do_train",
    "do_eval",
    "do_predict",
    "push_to_hub",
    "remove_unused_columns",
    "load_best_model_at_end",
)


def argument_names() -> frozenset[str]:
    """Return every name that ``settle`` takes: ours, and the host's."""
    from sentence_transformers import SentenceTransformerTrainingArguments

    host = {each.name for each in fields(SentenceTransformerTrainingArguments) if each.init}
    return frozenset((host - set(_OURS)) | set(SHORT) | set(_HOST))


def settle(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Put layers of training arguments over each other, later ones over earlier, under our names.

    Args:
        layers: A recipe's arguments, then the user's.

    Returns:
        The arguments, defaults included.

    Raises:
        InputError: an unknown name, one that the run sets itself, or a value out of range.

    Example:
        >>> settle({"lr": 1e-4}, {"max_steps": 10})["steps"]
        10
    """
    known = argument_names()
    settled = dict(DEFAULTS)
    for layer in layers:
        if "epochs" in layer or "num_train_epochs" in layer:
            settled["steps"] = None  # the later layer wins, whichever of the two it names
        for name, value in layer.items():
            if name in _OURS:
                raise InputError(f"{name} is set by the run itself: leave it out (seed and out are given to train)")
            if name not in known:
                raise unknown_name("training argument", name, known)
            settled[_HOST.get(name, name)] = value
    _check(settled)
    return settled


def _check(settled: Mapping[str, Any]) -> None:
    steps, size = settled["steps"], settled["batch_size"]
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise InputError(f"steps={steps!r}: must be a whole number of at least 1")
    if isinstance(size, bool) or not isinstance(size, int) or size < 2:
        raise InputError(f"batch_size={size!r}: must be a whole number of at least 2")
    length = settled["max_length"]
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 2):
        raise InputError(f"max_length={length!r}: must be a whole number of at least 2, or none")
    for name, low, high in (("epochs", 0.0, math.inf), ("learning_rate", 0.0, math.inf)):
        value = _number(name, settled[name])
        if not low < value < high:
            raise InputError(f"{name}={value}: must be above 0 and finite")
    warmup = _number("warmup", settled["warmup"])
    if not (0 <= warmup < 1 or warmup == int(warmup)):
        raise InputError(f"warmup={warmup}: must be a share of the steps in [0, 1), or a whole number of steps")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = "; in YAML, write 2.0e-5, for 2e-5 is a text" if isinstance(value, str) and "e" in value else ""
        raise InputError(f"{name}={value!r}: must be a number{hint}")
    return float(value)


def num_steps(settled: Mapping[str, Any], rows: Sequence[int]) -> int:
    """Return the optimiser steps of a run: those that were set, or as many as whole batches in all epochs.

    Args:
        settled: What ``settle`` gave.
        rows: Rows of each data set.

    Example:
        >>> num_steps(settle({"batch_size": 32, "epochs": 2}), [100])
        6
    """
    if settled["steps"] is not None:
        return int(settled["steps"])
    size = int(settled["batch_size"])
    batches = [count // size if min(rows) >= size else -(-count // size) for count in rows]
    return max(1, math.ceil(sum(batches) * float(settled["epochs"])))


def host_arguments(
    settled: Mapping[str, Any], data: Sequence[TrainingData], folder: Path, *, seed: int
) -> SentenceTransformerTrainingArguments:
    """Make the host's arguments: bf16 where the device has it, no duplicates in a batch, ten checkpoints a run.

    Args:
        settled: What ``settle`` gave.
        data: What is trained on.
        folder: Where checkpoints go.
        seed: Decides the order of rows, and dropout.

    Returns:
        The arguments.

    Raises:
        InputError: the batch cannot be parted among the processes, or the host refuses a value.
    """
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments

    from embedlab.text.training.processes import has_accelerator, processes

    chosen = dict(settled)
    steps, epochs, size, warmup = (chosen.pop(name) for name in ("steps", "epochs", "batch_size", "warmup"))
    share = processes().num_processes * int(chosen.get("gradient_accumulation_steps", 1))
    if size % share:
        raise InputError(f"batch_size={size}: must be a multiple of processes x accumulation steps = {share}")
    rows = [len(each.rows) for each in data]
    whole = min(rows) >= size
    total = num_steps(settled, rows)
    contrasts = any(each.kind in ("pairs", "tuples") for each in data)
    given = {
        "batch_sampler": "no_duplicates" if contrasts else "batch_sampler",
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not chosen.get("fp16", False),
        "dataloader_drop_last": whole,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_nan_inf_filter": False,  # a loss that is no number shall be seen
        "logging_steps": max(1, total // 200),
        "save_strategy": "steps",
        "save_steps": max(1, total // 10),
        "save_total_limit": 1,
        "use_cpu": not has_accelerator(),
        **chosen,
    }
    try:
        return SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            seed=seed,
            data_seed=seed,
            max_steps=steps or -1,
            num_train_epochs=epochs,
            per_device_train_batch_size=size // share,
            warmup_steps=warmup,
            disable_tqdm=True,
            report_to="none",
            **given,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"training arguments: the host refuses them: {error}") from error
