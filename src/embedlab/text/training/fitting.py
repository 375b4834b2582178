"""One arm of a run: a model, a recipe's loss and data, through the host's trainer; resumable at every checkpoint."""

from __future__ import annotations

import copy
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import nn
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback, TrainerState

from embedlab._core.errors import EmbedlabError
from embedlab.text.training.recipe import Recipe, Setting, TrainingData

_log = logging.getLogger(__name__)
STATE = "state.safetensors"


class TrainingStopped(EmbedlabError):
    """Training was asked to stop, and left a checkpoint to go on from."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run has come.

    Attributes:
        arm: Name of the recipe that is being trained, or what is being done.
        step: Optimiser steps done.
        total: Optimiser steps in all.
        loss: The last loss, None before the first.
    """

    arm: str
    step: int
    total: int
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What training one arm gave.

    Attributes:
        model: The trained model, in evaluation mode.
        losses: Step -> training loss since the step before.
        steps: Optimiser steps.
        seconds: How long the steps of this process took; after a resume, only those since.
        trained_parameters: How many numbers were trained.
        arguments: Training arguments that differ from the host's defaults.
    """

    model: SentenceTransformer
    losses: Mapping[int, float]
    steps: int
    seconds: float
    trained_parameters: int


class Trainer(SentenceTransformerTrainer):
    """The host's trainer, whose checkpoints hold the weights of model and loss only, in one safetensors file.

    The host saves the model as a folder and rebuilds it from there, which loses weights that belong to the loss and
    cannot be done for a model with adapters inside.
    """

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave out the host's: the card is written once, from the report."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self._trained(), str(folder / STATE))

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        load_model(self._trained(), str(Path(checkpoint_path) / STATE), strict=False)

    def _trained(self) -> nn.Module:
        return _Trained(getattr(self.model, "_orig_mod", self.model), self.loss)


class _Trained(nn.Module):
    """The model, and the weights that the loss has of its own."""

    def __init__(self, model: nn.Module, loss: nn.Module | dict[str, nn.Module]) -> None:
        super().__init__()
        self.model = model
        known = {id(weight) for weight in model.parameters()}
        losses = loss if isinstance(loss, dict) else {"": loss}
        for place, each in enumerate(losses.values()):
            for name, weight in each.named_parameters():
                if weight.requires_grad and id(weight) not in known:
                    self.register_parameter(f"loss{place}_{name.replace('.', '_')}", weight)
                    known.add(id(weight))


def fit(
    recipe: Recipe,
    model: SentenceTransformer,
    data: Sequence[TrainingData],
    setting: Setting,
    *,
    lora: Mapping[str, Any] | None = None,
    resume: bool = True,
    score: Callable[[SentenceTransformer], float] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Fitted:
    """Train a model in place by a recipe.

    Args:
        recipe: Gives the loss and what goes with it.
        model: The model, with the recipe's modules.
        data: What ``recipe.data`` gave.
        setting: Options, folder, seed and the host's arguments.
        lora: Rank, alpha, dropout and where to keep the adapter: train low-rank matrices beside the linear layers
            instead of the transformer's weights, folded in at the end.
        resume: Go on from the last checkpoint in the folder.
        score: Judges every checkpoint, larger is better; the best one is kept. None keeps the last.
        on_step: Told about every step.

    Returns:
        The trained model and the course of the loss.

    Raises:
        TrainingStopped: interrupted by Ctrl-C or SIGTERM; a checkpoint was written.
        EmbedlabError: the loss became NaN or infinite.
    """
    from datasets import DatasetDict

    from embedlab.text.training.adapters import add_lora, merge_lora

    if recipe.loss is None:
        raise EmbedlabError(f"the recipe {recipe.name!r} has neither loss nor fit")
    if lora is not None:
        add_lora(model, lora, seed=setting.seed)
    arguments: SentenceTransformerTrainingArguments = setting.arguments
    if score is not None:
        arguments = _choosing(arguments)
    loss: Any = recipe.loss(model, data, setting)
    watch = _Watch(recipe.name, on_step)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=DatasetDict({each.name: each.rows for each in data}),
        loss=loss,
        evaluator=None if score is None else _Judge(score),
        data_collator=recipe.collator(loss, setting) if recipe.collator else None,
        callbacks=[watch, *(recipe.callbacks(loss, setting) if recipe.callbacks else ())],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    start = time.perf_counter()
    state = _run(trainer, watch, _last_checkpoint(setting.folder) if resume else None)
    losses = {int(each["step"]): float(each["loss"]) for each in state.log_history if "loss" in each}
    if lora is not None:
        merge_lora(model, keep=setting.folder / "adapter" if lora["keep"] else None)
    return Fitted(model.requires_grad_(True).eval(), losses, state.global_step, time.perf_counter() - start, trained)


def _run(trainer: Trainer, watch: _Watch, checkpoint: str | None) -> TrainerState:
    """Train to the end, or take the weights of a run that had come to its end already."""
    if checkpoint is not None:
        state: TrainerState = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        if state.global_step >= state.max_steps:  # the host would do one step more
            trainer._load_from_checkpoint(state.best_model_checkpoint or checkpoint)
            return state
    with watch.listening():
        trainer.train(resume_from_checkpoint=checkpoint)
    state = trainer.state
    if watch.stopped and state.global_step < state.max_steps:
        raise TrainingStopped(f"stopped after step {state.global_step} of {state.max_steps}")
    return state


def _choosing(arguments: SentenceTransformerTrainingArguments) -> SentenceTransformerTrainingArguments:
    """Have every checkpoint judged, and the best one loaded at the end."""
    changed = copy.copy(arguments)
    changed.eval_strategy = changed.save_strategy
    changed.eval_steps = changed.save_steps
    changed.metric_for_best_model = "eval_development"
    changed.greater_is_better = True
    changed.load_best_model_at_end = True
    return changed


class _Judge(BaseEvaluator):
    """Hands a function of the model to the host as one of its evaluators."""

    def __init__(self, score: Callable[[SentenceTransformer], float]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._score = score

    def __call__(self, model: Any, output_path: Any = None, epoch: float = -1, steps: int = -1) -> dict[str, float]:
        return {"development": self._score(model)}


def _last_checkpoint(folder: Path) -> str | None:
    found = [path for path in folder.glob("checkpoints/checkpoint-*") if (path / "trainer_state.json").is_file()]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


class _Watch(TrainerCallback):
    """Tells about steps, and stops at the end of one, with a checkpoint, when asked to by Ctrl-C or SIGTERM."""

    def __init__(self, arm: str, tell: Callable[[Step], None] | None) -> None:
        self._arm, self._tell = arm, tell
        self._loss: float | None = None
        self._asked = False
        self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        old = [signal.signal(each, self._ask) for each in signals]
        try:
            yield
        finally:
            for each, handler in zip(signals, old, strict=True):
                signal.signal(each, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        _log.warning("stopping after this step; once more stops at once, and loses the steps since the last checkpoint")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._report(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._loss = float(logs["loss"])
            if not math.isfinite(self._loss):
                raise EmbedlabError(
                    f"the loss is {self._loss} at step {state.global_step}: lower learning_rate, or raise temperature"
                )
            self._report(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._report(state)
        if self._agreed(args) and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def _agreed(self, args: Any) -> bool:
        """All processes must stop at the same step, or those that go on wait for the others forever."""
        if args.world_size < 2:
            return self._asked
        votes = torch.tensor([float(self._asked)], device=args.device)
        torch.distributed.all_reduce(votes)
        return bool(votes.item())

    def _report(self, state: Any) -> None:
        if self._tell is not None and state.is_world_process_zero:
            self._tell(Step(self._arm, state.global_step, state.max_steps, self._loss))
