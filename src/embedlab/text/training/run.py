"""Train a text embedding model by a recipe, from data to a folder with the model, its card and a report."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.files import atomic_folder
from embedlab.text.training.recipe import Setting

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.text.training.fitting import Step
    from embedlab.text.training.report import TrainingReport


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    model: str | Path | SentenceTransformer | None = None,
    data: Any = None,
    out: str | Path | None = None,
    compare: bool | None = None,
    evaluate: Any = None,
    resume: bool = True,
    seed: int | None = None,
    on_progress: Callable[[Step], None] | None = None,
    **overrides: Any,
) -> TrainingReport:
    """Train (first form)."""
    from embedlab._core.extras import require

    require("sentence_transformers", extra="train")
    from sentence_transformers import SentenceTransformer
    from transformers import set_seed

    from embedlab._core.quiet import quiet_host
    from embedlab.text.training.adapters import settle_lora
    from embedlab.text.training.arguments import argument_names, host_arguments, settle
    from embedlab.text.training.catalogue import compose
    from embedlab.text.training.fitting import fit
    from embedlab.text.training.report import TrainingReport
    from embedlab.text.training.sources import as_sources, load

    chosen = compose(str(recipe), {})
    lora = settle_lora(overrides.pop("lora", None))
    options = {**chosen.options, **{k: v for k, v in overrides.items() if k in chosen.options}}
    arguments = {k: v for k, v in overrides.items() if k not in chosen.options}
    unknown = [k for k in arguments if k not in argument_names()]
    if unknown:
        from embedlab._core.errors import unknown_name

        raise unknown_name("option", unknown[0], [*chosen.options, *argument_names()])
    settled = settle(chosen.arguments, arguments)
    place = Path(out)
    work = place.with_name(place.name + ".unfinished")
    seed = seed or 0
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    with quiet_host("sentence_transformers", "transformers", "accelerate", "datasets"):
        set_seed(seed)
        student = copy.deepcopy(model) if isinstance(model, SentenceTransformer) else SentenceTransformer(str(model))
        folder = work / chosen.name
        folder.mkdir(parents=True, exist_ok=True)
        setting = Setting(options, folder, seed)
        rows = [each.data for each in load(as_sources(data))]
        if chosen.modules:
            student = chosen.modules(student, setting)
        if chosen.data:
            rows = list(chosen.data(rows, student, setting))
        host = host_arguments(settled, rows, folder / "checkpoints", seed=seed)
        setting = Setting(options, folder, seed, host)
        base = copy.deepcopy(student) if chosen.post else student
        if chosen.fit:
            student, losses = chosen.fit(student, rows, setting), {}
        else:
            fitted = fit(chosen, student, rows, setting, lora=lora, resume=resume, on_step=on_progress)
            student, losses = fitted.model, fitted.losses
        if chosen.post:
            student = chosen.post(student, base, setting)
        with atomic_folder(place) as fresh:
            student.save_pretrained(str(fresh), create_model_card=False)
        shutil.rmtree(work)
    return TrainingReport(folder=place, recipe=chosen.name, losses=losses)
