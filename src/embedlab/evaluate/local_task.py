"""mteb's own task classes, filled from memory: what the builders of ``tasks`` make. Imports mteb; load it late."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import mteb
import numpy as np
from mteb.abstasks import (
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata, TaskType
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from embedlab._core.errors import InputError
from embedlab.evaluate.quiet import random_state_restored


class _FromMemory(AbsTask):
    """Data that came with the class; nothing is downloaded.

    Attributes:
        given: What ``dataset`` becomes.
        item_languages: Language of each item, in the order of the data; None for one language.
    """

    given: ClassVar[dict[str, Any]]
    item_languages: ClassVar[tuple[str, ...] | None] = None

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Point ``dataset`` at the data; the splits are copied, as mteb writes into them."""
        self.dataset = {name: dict(part) if isinstance(part, dict) else part for name, part in self.given.items()}
        self.data_loaded = True


class FairLogisticRegression(LogisticRegression):  # type: ignore[misc]
    """Draws among classes that are equally likely, where scikit-learn takes the first.

    A model that tells nothing apart gives each text the same scores for all classes. Taking the first class then earns
    that class's share of the test texts, which can be far above chance.
    """

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return the likeliest class of each row."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([-scores, scores], axis=1) / 2
        near = scores >= scores.max(axis=1, keepdims=True) - 1e-9  # (N, C)
        draws = np.random.default_rng(self.random_state or 0).random(near.shape)
        likeliest: NDArray[Any] = self.classes_[np.argmax(near * (1 + draws), axis=1)]
        return likeliest


class LocalRetrieval(_FromMemory, AbsTaskRetrieval):
    """Retrieval from memory."""

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Point ``dataset`` at copies of the splits."""
        split: Any = dict(self.given["default"]["test"])
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class LocalReranking(LocalRetrieval):
    """Reranking from memory: retrieval among given candidates."""


class LocalSTS(_FromMemory, AbsTaskSTS):
    """Scored pairs from memory."""


class LocalPairClassification(_FromMemory, AbsTaskPairClassification):
    """Labelled pairs from memory."""

    input1_column_name = "sentence1"
    input2_column_name = "sentence2"
    label_column_name = "labels"


class LocalClassification(_FromMemory, AbsTaskClassification):
    """Labelled texts from memory."""

    evaluator_model = FairLogisticRegression(max_iter=100)


class LocalClustering(_FromMemory, AbsTaskClustering):
    """Texts to cluster, from memory; all of them are embedded."""

    max_fraction_of_documents_to_embed = None


class LocalBitextMining(_FromMemory, AbsTaskBitextMining):
    """Translations from memory."""


class LocalSummarization(_FromMemory, AbsTaskSummarization):
    """Summaries with human judgements, from memory."""

    min_score = 0
    max_score = 1


_KINDS: dict[TaskType, tuple[type[AbsTask], str]] = {  # mteb's type -> class, main score
    "Retrieval": (LocalRetrieval, "ndcg_at_10"),
    "Reranking": (LocalReranking, "map_at_1000"),
    "STS": (LocalSTS, "cosine_spearman"),
    "PairClassification": (LocalPairClassification, "max_ap"),
    "Classification": (LocalClassification, "accuracy"),
    "Clustering": (LocalClustering, "v_measure"),
    "BitextMining": (LocalBitextMining, "f1"),
    "Summarization": (LocalSummarization, "cosine_spearman"),
}


def make_task(
    kind: TaskType,
    *,
    name: str,
    revision: str,
    languages: list[str],
    description: str,
    given: dict[str, Any],
    main_score: str | None = None,
    item_languages: tuple[str, ...] | None = None,
    **settings: Any,
) -> AbsTask:
    """Make a class of its own for a task, register it with mteb, and return an instance with its data loaded.

    Args:
        kind: mteb's name of the task type.
        name: Name under which ``mteb.get_task`` finds it from now on.
        revision: Hash of the data.
        languages: Codes such as ``"eng-Latn"``.
        description: One sentence.
        given: The data in the shape of the type.
        main_score: Name of the main score; None for the type's own.
        item_languages: Language of each item.
        settings: Further class attributes.

    Returns:
        The task.

    Raises:
        InputError: mteb ships a task of that name, or does not know a language.
    """
    registry = known_tasks()
    known = registry.get(name)
    if known is not None and not issubclass(known, _FromMemory):
        raise InputError(
            f"name={name!r}: mteb ships a task of that name; take another, so that scores are not mixed up"
        )
    parent, score = _KINDS[kind]
    with random_state_restored():  # mteb seeds the global generators when a task is made
        try:
            metadata = TaskMetadata(
                name=name,
                description=description or f"{kind} on local data.",
                type=kind,
                category="t2c" if kind in ("Classification", "Clustering") else "t2t",
                dataset={"path": f"embedlab/{name}", "revision": revision},
                eval_splits=["test"],
                eval_langs=languages,
                main_score=main_score or score,
            )
            metadata._validate_metadata()
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"name={name!r}, languages={languages}: mteb refuses them: {reason}") from error
        attributes = {"metadata": metadata, "given": given, "item_languages": item_languages, **settings}
        made = type(parent.__name__, (parent,), {"__doc__": metadata.description, "__module__": __name__, **attributes})
        registry[name] = made
        task: AbsTask = made()
    task.load_data()
    return task


def known_tasks() -> dict[str, type[AbsTask]]:
    """Return mteb's registry itself: its classes by name. A module of its name hides behind a function."""
    registry: dict[str, type[AbsTask]] = sys.modules["mteb.get_tasks"]._TASKS_REGISTRY
    return registry


def is_local(task: AbsTask) -> bool:
    """Tell whether a task was made from memory rather than shipped by mteb."""
    return isinstance(task, _FromMemory)


HOST_VERSION: str = mteb.__version__
