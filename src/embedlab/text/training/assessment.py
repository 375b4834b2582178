"""The bridge to ``embedlab.evaluate``: is the trained model better than the one it began with?

This is the one place of this room that looks up to a higher floor, for a run must end with a judgement; so all imports
from there stand inside functions here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embedlab._core.errors import EmbedlabError, InputError
from embedlab._core.extras import require
from embedlab.text.training.recipe import TrainingData
from embedlab.text.training.split import text_key

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from sentence_transformers import SentenceTransformer

Verdict = Literal["better", "not distinguishable", "worse", "not judged"]
START = "start model"
TRAINED = "trained model"


@dataclass(frozen=True, slots=True)
class Score:
    """One model on one task.

    Attributes:
        task: Name of the task.
        metric: Its main score.
        model: ``"start model"``, ``"trained model"``, or the baseline's name.
        score: The main score, larger is better.
        low: Lower end of the 95% interval; None where there is none.
        high: Upper end.
        items: Queries, pairs or texts that were scored.
    """

    task: str
    metric: str
    model: str
    score: float
    low: float | None
    high: float | None
    items: int


@dataclass(frozen=True, slots=True)
class Duel:
    """The trained model against another on one task.

    Attributes:
        task: Name of the task.
        against: The other model.
        difference: Trained model less the other.
        low: Lower end of the difference's 95% interval.
        high: Upper end.
        pvalue: Of a paired test, corrected over tasks (Holm).
        verdict: What may be said of the trained model.
    """

    task: str
    against: str
    difference: float
    low: float
    high: float
    pvalue: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the evaluation of a run found.

    Attributes:
        verdict: The trained model against the start model: ``"worse"`` if it is worse on any task, else ``"better"`` if
            it is better on one.
        sentence: The same in words.
        scores: Scores on the test part and the named tasks.
        duels: Tests on these.
        development: Scores on the development part, which no test was made on.
        notes: What a reader must know beside the numbers.
    """

    verdict: Verdict
    sentence: str
    scores: tuple[Score, ...] = ()
    duels: tuple[Duel, ...] = ()
    development: tuple[Score, ...] = ()
    notes: tuple[str, ...] = ()


def unjudged(reason: str) -> Assessment:
    """Return the assessment of a run that was not evaluated."""
    return Assessment("not judged", f"Whether the trained model is better than the start model is not known: {reason}.")


@dataclass(frozen=True, slots=True)
class Exam:
    """Tasks, made before training so that what is wrong with them is said before the time is spent.

    Attributes:
        test: Tasks of the test part, and the named ones.
        development: Tasks of the development part.
        cache: Folder for vectors and results.
        seed: Decides ties and resamples.
    """

    test: tuple[AbsTask, ...]
    development: tuple[AbsTask, ...] = ()
    cache: Path | None = None
    seed: int = 0
    notes: tuple[str, ...] = field(default=())

    def sit(self, models: Mapping[str, SentenceTransformer]) -> Assessment:
        """Evaluate all models.

        Args:
            models: ``START``, ``TRAINED`` and perhaps a baseline's name -> the model.

        Returns:
            Scores, tests and the verdict.
        """
        if not self.test:
            return unjudged("there was nothing to evaluate on")
        from embedlab.evaluate.comparison import compare

        found = self._evaluated(models, self.test)
        scores, comparison = _scores(found), compare(found, seed=self.seed)
        duels = [
            _duel(comparison.duel(task, TRAINED, other), other)
            for task in found.tasks
            for other in models
            if other != TRAINED
        ]
        development = _scores(self._evaluated(models, self.development)) if self.development else ()
        verdict, sentence = judge([each for each in duels if each.against == START])
        own = tuple(note for note in found.notes() if "training data unknown" not in note)
        return Assessment(verdict, sentence, scores, tuple(duels), development, (*self.notes, *own))

    def development_score(self, model: SentenceTransformer) -> float:
        """Return the mean score of a model on the development part."""
        if not self.development:
            raise InputError("select='best' needs held-out data: raise held_out, or give more rows")
        run = self._evaluated({TRAINED: model}, self.development).runs[0]
        return float(sum(score.score for score in run.tasks.values()) / len(run.tasks))

    def _evaluated(self, models: Mapping[str, SentenceTransformer], tasks: Sequence[AbsTask]) -> Any:
        from embedlab.evaluate.run import evaluate
        from embedlab.models.sentence_transformer import SentenceTransformerModel

        encoders = [SentenceTransformerModel.of(model, name=name) for name, model in models.items()]
        return evaluate(encoders, list(tasks), cache=self.cache, costs=False, seed=self.seed)


def make_exam(
    test: Sequence[TrainingData],
    development: Sequence[TrainingData],
    train: Sequence[TrainingData],
    *,
    names: Sequence[str] = (),
    cache: Path | None = None,
    seed: int = 0,
) -> Exam:
    """Make tasks of the held-out data, and find the named ones.

    Pairs and tuples become retrieval (find the positive among all positives and negatives of the part), scored pairs a
    correlation, labelled texts a classification, learnt on training texts and tested on held-out ones.

    Args:
        test: The test part.
        development: The development part.
        train: What is trained on.
        names: Tasks by name, as for ``embedlab evaluate``.
        cache: Folder for vectors and results; None for this user's.
        seed: Decides ties and resamples.

    Returns:
        The exam.

    Raises:
        InputError: no task of that name.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    require("mteb", extra="evaluate")
    from embedlab.evaluate.naming import find_tasks

    notes: list[str] = []
    known = {
        text_key(text)
        for each in train
        for name in each.rows.column_names
        if name not in ("score", "label")
        for text in each.rows[name]
    }
    parts = [
        tuple(task for each in part if (task := _task(each, train, known, word, notes)) is not None)
        for part, word in ((test, "test"), (development, "development"))
    ]
    named = find_tasks(names) if names else []
    taken = {task.metadata.name for task in parts[0]}
    for task in named:
        if task.metadata.name in taken:
            raise InputError(f"tasks: {task.metadata.name!r} is the name of held-out data too: name the data otherwise")
    return Exam((*parts[0], *named), parts[1], cache, seed, tuple(notes))


def judge(duels: Sequence[Duel]) -> tuple[Verdict, str]:
    """Say of a model, from its tests against the start model, what may be said of it.

    Args:
        duels: One per task.

    Returns:
        The verdict, and a sentence with the tasks it rests on.
    """
    if not duels:
        return "not judged", unjudged("no task applies to both").sentence
    tasks = {verdict: [each.task for each in duels if each.verdict == verdict] for verdict in ("better", "worse")}
    better, worse = (", ".join(tasks[word]) for word in ("better", "worse"))
    if worse:
        also = f", though better on {better}" if better else ""
        return "worse", f"The trained model is WORSE than the start model on {worse}{also}."
    if better:
        rest = len(duels) - len(tasks["better"])
        also = f", and not distinguishable on {rest} other{'s' if rest > 1 else ''}" if rest else ""
        return "better", f"The trained model is better than the start model on {better}{also}."
    return (
        "not distinguishable",
        f"The trained model is not distinguishable from the start model on {', '.join(each.task for each in duels)}: "
        "the difference could be chance.",
    )


def _task(data: TrainingData, train: Sequence[TrainingData], known: set[str], part: str, notes: list[str]) -> Any:
    from embedlab.evaluate.tasks import from_corpus, from_labels, from_scored_pairs

    name = f"{data.name}-{part}"
    about = f"Held-out {part} part of {data.name}, of which nothing was trained on."
    columns = {column: data.rows[column][:] for column in data.rows.column_names}
    try:
        if data.kind in ("pairs", "tuples"):
            negatives = [texts for column, texts in columns.items() if column.startswith("negative")]
            corpus, queries, judged = _retrieval(columns["anchor"], columns["positive"], negatives, known)
            return from_corpus(corpus, queries, judged, name=name, description=about)
        if data.kind == "scored":
            return from_scored_pairs(
                columns["sentence1"], columns["sentence2"], columns["score"], name=name, description=about
            )
        if data.kind == "labels":
            own = next(each for each in train if each.name == data.name)
            names = data.rows.features["label"].names
            learnt = own.rows["text"][:], [names[label] for label in own.rows["label"]]
            seen = set(learnt[1])
            tested = [(text, names[i]) for text, i in zip(columns["text"], columns["label"], strict=True)]
            texts, labels = zip(*[each for each in tested if each[1] in seen], strict=True)
            return from_labels(texts, labels, name=name, train=learnt, description=about)
    except EmbedlabError as error:
        notes.append(f"The {part} part of {data.name} makes no task: {error}.")
        return None
    notes.append(f"The {part} part of {data.name} makes no task: it holds plain texts.")
    return None


def _retrieval(
    anchors: Sequence[str], positives: Sequence[str], negatives: Sequence[Sequence[str]], known: set[str]
) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Make documents and queries by id of a part; equal texts are one document, or one query with several answers."""
    corpus: dict[str, str] = {}
    queries: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    documents: dict[str, str] = {}
    asked: dict[str, str] = {}
    for anchor, positive in zip(anchors, positives, strict=True):
        document = documents.setdefault(text_key(positive), f"d{len(documents)}")
        query = asked.setdefault(text_key(anchor), f"q{len(asked)}")
        corpus[document], queries[query] = positive, anchor
        judged.setdefault(query, {})[document] = 1
    for column in negatives:
        for text in column:
            if text_key(text) not in known and text_key(text) not in documents:
                documents[text_key(text)] = f"d{len(documents)}"
                corpus[documents[text_key(text)]] = text
    return corpus, queries, judged


def _scores(found: Any) -> tuple[Score, ...]:
    listed = []
    for task in found.tasks:
        for run in found.runs:
            if task in run.tasks:
                score, interval = run.tasks[task], found.interval(run.model, task)
                low, high = (None, None) if interval is None else (interval.low, interval.high)
                listed.append(Score(task, score.metric, run.model, score.score, low, high, len(score.items)))
    return tuple(listed)


def _duel(duel: Any, other: str) -> Duel:
    sign = 1.0 if duel.first == TRAINED else -1.0
    low, high = sorted((sign * duel.test.difference.low, sign * duel.test.difference.high))
    verdict: Verdict = "not distinguishable"
    if duel.better is not None:
        verdict = "better" if duel.better == TRAINED else "worse"
    return Duel(duel.task, other, sign * duel.test.difference.estimate, low, high, duel.pvalue, verdict)
