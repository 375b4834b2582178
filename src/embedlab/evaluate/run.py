"""Evaluate models on tasks with mteb, keeping what mteb does not: a value for each item, costs, and every result."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import EmbedlabError, InputError
from embedlab._core.extras import require
from embedlab.evaluate.cache import VectorCache, cache_home
from embedlab.evaluate.costs import PeakMemory, cost_of, cost_of_counting
from embedlab.evaluate.encoders import HostedEncoder, HostedLexical
from embedlab.evaluate.kept import Hosted, KeptResults
from embedlab.evaluate.overlap import overlaps, training_sets
from embedlab.evaluate.quiet import quiet_host
from embedlab.evaluate.scores import ModelCost, ModelRun, TaskScore
from embedlab.models.encoder import Encoder

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from embedlab.evaluate.report import Evaluation

_log = logging.getLogger(__name__)

COUNTING = ("bow", "tfidf", "lsa", "bm25")


@dataclass(frozen=True, slots=True)
class Step:
    """How far an evaluation has come.

    Attributes:
        model: The model at work.
        task: The task at work.
        number: Which pair of model and task this is, from 0.
        total: How many pairs there are.
        texts_done: Texts of this task that have their vectors.
        texts_total: Texts of this task.
    """

    model: str
    task: str
    number: int
    total: int
    texts_done: int
    texts_total: int


def evaluate(
    models: Sequence[str | Encoder | Any],
    tasks: Sequence[AbsTask],
    *,
    cache: Path | None = None,
    training_datasets: Mapping[str, Collection[str]] | None = None,
    seed: int = 0,
    fresh: bool = False,
    costs: bool = True,
    on_progress: Callable[[Step], None] | None = None,
) -> Evaluation:
    """Evaluate every model on every task.

    Scores are those of ``mteb.evaluate`` on the same tasks. Around it, vectors come from a ``VectorCache``, ties are
    drawn (see below), and each finished task is kept on disk under the model's fingerprint and the task's data, so that
    an interrupted run goes on where it stopped and a repeated one takes no time.

    *Chance.* A model that tells nothing apart scores as chance would, on every task: equal similarities are ranked by
    lot, seeded, where mteb ranks by position or id, and a correlation with constant cosines, which mteb gives as NaN,
    is 0 and has a note. For models without ties nothing changes.

    Args:
        models: Names as for ``load_model``; ``"bow"``, ``"tfidf"``, ``"lsa"``, ``"bm25"``, which are fitted on the
            texts of each task; encoders; or ``SentenceTransformer`` objects.
        tasks: Tasks of mteb, or made by the functions of ``embedlab.evaluate.tasks``.
        cache: Folder for vectors and results; None for this user's (``EMBEDLAB_CACHE``).
        training_datasets: For a model's name, data sets it was trained on, where its card does not say it.
        seed: Decides ties.
        fresh: Measure anew what was kept; vectors are still taken from the cache.
        costs: Whether to measure what a model costs, which takes a few seconds the first time.
        on_progress: Told about every batch of texts.

    Returns:
        The scores, with tables, comparison and files.

    Raises:
        InputError: no model or no task, two models or two tasks of one name, or a model that cannot be loaded.
        EmbedlabError: a model gives vectors that are not finite, or a task has no score.
        MissingExtraError: the extra ``evaluate`` is not installed.

    Example:
        >>> import tempfile
        >>> from embedlab.evaluate.tasks import from_scored_pairs
        >>> first, second = ["a cat", "a cat", "a cat"], ["a kitten", "a dog", "tax law"]
        >>> task = from_scored_pairs(first, second, [5, 3, 0], name="cats")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = evaluate(["default"], [task], cache=Path(folder))
        >>> result.runs[0].tasks["cats"].score
        1.0
    """
    from embedlab.evaluate.report import Evaluation

    require("mteb", extra="evaluate")
    chosen = list(tasks)
    names = [task.metadata.name for task in chosen]
    if not models or not chosen:
        raise InputError(f"models={list(models)!r}, tasks={names}: give at least one of each")
    if len(set(names)) < len(names):
        raise InputError(f"tasks={names}: every task needs a name of its own")
    _refuse_aggregates(chosen)
    home = Path(cache) if cache is not None else cache_home()
    vectors = VectorCache(home / "vectors")
    hosts = [_hosted(model, vectors, training_datasets or {}, seed) for model in models]
    called = [host.name for host in hosts]
    if len(set(called)) < len(called):
        raise InputError(f"models={called}: two models have one name; load one of them under another path or name")
    runs = []
    for number, host in enumerate(hosts):
        place = _Place(number * len(chosen), len(hosts) * len(chosen), on_progress)
        runs.append(_run(host, chosen, KeptResults(home / "results", fresh, seed), costs, place))
    short = _short_names(called)
    runs = [replace(run, model=name, loaded_from=run.model) for run, name in zip(runs, short, strict=True)]
    return Evaluation(tuple(runs), {task.metadata.name: task.metadata.description for task in chosen})


def _short_names(names: list[str]) -> list[str]:
    """Return the last two parts of paths, where that still tells all models apart."""
    short = [
        "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() or Path(name).is_dir() else name for name in names
    ]
    return short if len(set(short)) == len(names) else names


def _refuse_aggregates(tasks: Sequence[AbsTask]) -> None:
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    for task in tasks:
        if isinstance(task, AbsTaskAggregate):
            parts = ", ".join(part.metadata.name for part in task.metadata.tasks)
            raise InputError(f"the task {task.metadata.name!r} is a mean of others: give those instead: {parts}")


@dataclass(slots=True)
class _Place:
    """Where in the whole an evaluation is, to be told to the caller."""

    number: int
    total: int
    tell: Callable[[Step], None] | None
    done: int = 0

    def begin(self, host: Hosted, task: str, texts: int) -> None:
        self.done = 0
        if self.tell is None:
            return
        tell, number, total = self.tell, self.number, self.total

        def count(texts_done: int) -> None:
            self.done += texts_done
            tell(Step(host.name, task, number, total, min(self.done, texts), texts))

        count(0)
        if isinstance(host, HostedEncoder):
            host.on_progress = count


def _hosted(model: Any, cache: VectorCache, training: Mapping[str, Collection[str]], seed: int) -> Hosted:
    """Return a model as mteb wants it."""
    if isinstance(model, str) and model in COUNTING:
        return HostedLexical(model, seed=seed)
    encoder = model
    if isinstance(model, str):
        from embedlab.models import load_model

        encoder = load_model(model)
    elif type(model).__module__.startswith("sentence_transformers"):
        from embedlab.models.sentence_transformer import SentenceTransformerModel

        card = getattr(model, "model_card_data", None)
        encoder = SentenceTransformerModel.of(model, name=getattr(card, "base_model", None) or "sentence-transformer")
    if not isinstance(encoder, Encoder):
        raise InputError(
            f"models holds {type(model).__name__}: expected a name, an encoder with encode_document, encode_query, dim "
            "and fingerprint, or a SentenceTransformer"
        )
    given = training.get(encoder.name)
    known = frozenset(given) if given is not None else training_sets(encoder.name, encoder)
    return HostedEncoder(encoder, cache, training_datasets=known, seed=seed)


def _run(host: Hosted, tasks: Sequence[AbsTask], kept: KeptResults, costs: bool, place: _Place) -> ModelRun:
    scores: dict[str, TaskScore] = {}
    cost: ModelCost | None = None
    for task in tasks:
        name = task.metadata.name
        if isinstance(host, HostedEncoder) or host.applies_to(str(task.metadata.type)):
            found = kept.load(host, task)
            if costs and cost is None:
                cost = kept.load_cost(host, task)
            if found is None or (costs and cost is None):
                with _loaded(task):
                    if found is None:
                        found = _scored(host, task, place)
                        kept.save(host, task, found)
                    if costs and cost is None:
                        cost = _measured(host, task)
                        kept.save_cost(host, task, cost)
            scores[name] = found
        place.number += 1
    if cost is not None:
        cost = replace(cost, seconds=sum(score.seconds for score in scores.values()))
    known = {task.metadata.name: overlaps(task, host.training_datasets) for task in tasks}
    return ModelRun(host.name, host.fingerprint, scores, cost, host.training_datasets, known)


def _scored(host: Hosted, task: AbsTask, place: _Place) -> TaskScore:
    """Run mteb on a task whose data are loaded, and gather what it gives about items."""
    import mteb

    from embedlab.evaluate.items import items_of, texts_in, watched

    texts, queries = texts_in(task)
    place.begin(host, task.metadata.name, len(texts) + len(queries))
    if isinstance(host, HostedLexical) and not queries:
        host.prepare(texts, f"{task.metadata.name} {task.metadata.revision}")
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)  # as in a new object
    start = time.perf_counter()
    with quiet_host(), watched(task) as seen:
        result = mteb.evaluate(
            host,
            task,
            cache=None,
            co2_tracker=False,
            overwrite_strategy="always",
            prediction_folder=Path("kept-in-memory"),
            show_progress_bar=False,
        ).task_results[0]
        parts = [
            (split, entry["hf_subset"], dict(entry), items_of(task, split, entry["hf_subset"], seen, dict(entry), host))
            for split, entries in result.scores.items()
            for entry in entries
        ]
    return _gathered(task, parts, time.perf_counter() - start)


def _gathered(task: AbsTask, parts: list[tuple[str, str, dict[str, Any], Any]], seconds: float) -> TaskScore:
    """Join splits and subsets: scores as means, items one after the other."""
    mains = [float(entry["main_score"]) for _, _, entry, _ in parts]
    note = ""
    values = [items.values for *_, items in parts]
    if any(map(math.isnan, mains)):
        if task.metadata.type not in ("STS", "Summarization"):
            raise EmbedlabError(f"the task {task.metadata.name!r} has no score ({task.metadata.main_score} is NaN)")
        note = "all cosines are equal: the correlation is taken as 0"
        mains = [0.0 if math.isnan(main) else main for main in mains]
        rng = np.random.default_rng(0)  # equal values are ordered by lot
        values = [each if np.ptp(each) > 1e-9 else each + 1e-9 * rng.random(len(each)) for each in values]
    single = len(parts) == 1
    names = [name if single else f"{split}/{subset}/{name}" for split, subset, _, it in parts for name in it.names]
    others = {
        key: float(np.mean([entry[key] for _, _, entry, _ in parts]))
        for key, value in parts[0][2].items()
        if isinstance(value, (int, float)) and not key.startswith("nauc") and all(key in part[2] for part in parts)
    }
    first = parts[0][3]
    gold = None if first.gold is None else np.concatenate([items.gold for *_, items in parts])
    lengths = None if first.lengths is None else np.concatenate([items.lengths for *_, items in parts])
    return TaskScore(
        task=task.metadata.name,
        type=str(task.metadata.type),
        metric=task.metadata.main_score,
        score=float(np.mean(mains)),
        scores={key: value for key, value in others.items() if math.isfinite(value)},
        unit=first.unit,
        items=tuple(names),
        values=np.concatenate(values),
        gold=gold,
        lengths=lengths,
        languages=_languages(task, parts),
        seconds=round(seconds, 3),
        note=note,
    )


def _languages(task: AbsTask, parts: list[tuple[str, str, dict[str, Any], Any]]) -> tuple[str, ...] | None:
    own: tuple[str, ...] | None = getattr(task, "item_languages", None)
    unit = parts[0][3].unit
    if own is not None and len(parts) == 1 and unit != "repeat":
        places = parts[0][3].names
        return own if len(own) == len(places) else tuple(own[int(place)] for place in places)
    spoken = task.metadata.hf_subsets_to_langscripts
    if len(spoken) < 2 or unit == "repeat":
        return None
    return tuple("+".join(spoken[subset]) for _, subset, _, items in parts for _ in items.names)


def _measured(host: Hosted, task: AbsTask) -> ModelCost:
    from embedlab.evaluate.items import texts_in

    texts, queries = texts_in(task)
    memory = PeakMemory()
    if isinstance(host, HostedLexical):
        found = cost_of_counting(host.new(), texts, queries)
    else:
        found = cost_of(host.encoder, texts, queries)
    return replace(found, peak_mb=memory.mb())


@contextmanager
def _loaded(task: AbsTask) -> Iterator[None]:
    """Have the task's data in memory inside the block, and let go of what was loaded for it."""
    own = not task.data_loaded
    if own:
        try:
            with quiet_host():
                task.load_data()
        except (OSError, ValueError) as error:
            raise EmbedlabError(
                f"mteb cannot load the data of {task.metadata.name!r} ({type(error).__name__}: {str(error)[:300]}): "
                "without a network, use the sets on this machine or data of your own"
            ) from error
    try:
        yield
    finally:
        if own:
            task.unload_data()
