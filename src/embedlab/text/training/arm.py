"""One arm from start model to trained model: modules, data, loss, training and post-step of a recipe."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from embedlab.text.training.arguments import host_arguments, num_steps
from embedlab.text.training.fitting import Fitted, Step, fit
from embedlab.text.training.kinds import suited
from embedlab.text.training.processes import processes
from embedlab.text.training.recipe import Recipe, Setting, TrainingData


@dataclass(frozen=True, slots=True)
class Arm:
    """A trained model with what it was trained on.

    Attributes:
        fitted: The model and the course of its training.
        data: What the loss was given.
    """

    fitted: Fitted
    data: tuple[TrainingData, ...]


def train_arm(
    recipe: Recipe,
    start: SentenceTransformer,
    data: Sequence[TrainingData],
    folder: Path,
    *,
    options: Mapping[str, Any],
    arguments: Mapping[str, Any],
    lora: Mapping[str, Any] | None,
    seed: int,
    resume: bool = True,
    prepared: bool = False,
    score: Callable[[SentenceTransformer], float] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Arm:
    """Train a copy of a model by a recipe.

    Args:
        recipe: The recipe.
        start: The start model, left as it is.
        data: The training data.
        folder: Where checkpoints and stores go.
        options: All options of the recipe.
        arguments: All training arguments, under our names.
        lora: Settings of low-rank adaptation, or None.
        seed: Decides everything that is drawn.
        resume: Go on from the last checkpoint.
        prepared: The data went through a recipe's preparation already.
        score: Judges checkpoints on development data; the best is kept. None keeps the last.
        on_step: Told about every step.

    Returns:
        The trained model and its data.
    """
    with torch.random.fork_rng():  # hosts draw from the global state; give it back
        set_seed(seed)
        folder.mkdir(parents=True, exist_ok=True)
        setting = Setting(options, folder, seed)
        model = copy.deepcopy(start)
        with processes().main_process_first():  # the first fills stores and caches, the others find them
            rows = list(data)
            if recipe.data is not None and not prepared:
                rows = list(recipe.data(rows, model, setting))
            rows = suited(rows, recipe, seed=seed)
            if recipe.modules is not None:
                model = recipe.modules(model, setting)
            chosen = dict(arguments)
            longest, limit = model.max_seq_length, chosen.pop("max_length")
            host = host_arguments(chosen, rows, folder / "checkpoints", seed=seed)
            setting = Setting(options, folder, seed, host)
        base = copy.deepcopy(model) if recipe.post is not None else model
        limited = limit is not None and isinstance(longest, int) and limit < longest
        if limited:
            model.max_seq_length = limit
        set_seed(seed)
        began = time.perf_counter()
        if recipe.fit is not None:
            steps = num_steps(chosen, [len(each.rows) for each in rows])
            trained = sum(weight.numel() for weight in model.parameters())
            model = recipe.fit(model, rows, setting)
            fitted = Fitted(model.eval(), {}, steps, time.perf_counter() - began, trained)
        else:
            fitted = fit(recipe, model, rows, setting, lora=lora, resume=resume, score=score, on_step=on_step)
        model = fitted.model
        if limited:
            model.max_seq_length = longest
        if recipe.post is not None:
            model = recipe.post(model, base, setting).eval()
        _remember_prompts(model, host.prompts)
        return Arm(Fitted(model, fitted.losses, fitted.steps, fitted.seconds, fitted.trained_parameters), tuple(rows))


def _remember_prompts(model: SentenceTransformer, prompts: Any) -> None:
    """Give the model the prompts it was trained with, so that whoever encodes with it uses them too."""
    if not isinstance(prompts, Mapping) or not all(isinstance(each, str) for each in prompts.values()):
        return
    for column, role in (("anchor", "query"), ("positive", "document")):
        if column in prompts:
            model.prompts = {**model.prompts, role: prompts[column]}
