"""A domain as a benchmark: local tasks under one name, known to mteb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from embedlab._core.errors import InputError
from embedlab._core.extras import require

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

_OURS: set[str] = set()  # names of suites in mteb's registry, which may be replaced


class DomainSuite:
    """Tasks of one domain, registered with mteb as a benchmark: ``mteb.get_benchmark(name)`` finds it from now on.

    A suite is read by type: the score of a model is the mean over types of the mean over each type's tasks, so that
    three retrieval tasks do not outweigh one of similarity.

    Args:
        name: What the suite is called; a suite of that name is replaced.
        tasks: Tasks made by ``embedlab.evaluate.tasks``, or of mteb.
        types: Types of tasks by name, where they are not mteb's own. FinMTEB calls the similarity of documents with
            their summaries ``Summarization``, which mteb's evaluators know as STS.
        description: One sentence about the domain.

    Attributes:
        name: Its name.
        tasks: Its tasks.
        types: The type of every task, by name.

    Raises:
        InputError: no task, two tasks of one name, a type for a task that is not there, or the name of a benchmark
            that mteb ships.
        MissingExtraError: the extra ``evaluate`` is not installed.

    Example:
        >>> from embedlab.evaluate.tasks import from_scored_pairs
        >>> pairs = from_scored_pairs(["profit rose"] * 3, ["profit rose", "profit fell", "rain"], [2, 1, 0], name="p")
        >>> suite = DomainSuite("Tiny finance", [pairs])
        >>> suite.types
        {'p': 'STS'}
        >>> import mteb
        >>> [task.metadata.name for task in mteb.get_benchmark("Tiny finance").tasks]
        ['p']

    References:
        Tang and Yang (2025), FinMTEB: Finance Massive Text Embedding Benchmark, arXiv:2502.10990v1. Official code
        yixuantt/FinMTEB (read, not copied).
    """

    def __init__(
        self, name: str, tasks: Sequence[AbsTask], *, types: Mapping[str, str] | None = None, description: str = ""
    ) -> None:
        names = [task.metadata.name for task in tasks]
        if not names or len(set(names)) < len(names):
            raise InputError(f"tasks={names}: at least one is needed, and each needs a name of its own")
        unknown = sorted(set(types or {}) - set(names))
        if unknown:
            raise InputError(f"types names {unknown[0]!r}, which is not among the tasks: {', '.join(names)}")
        self.name, self.tasks = name, tuple(tasks)
        self.types = {task.metadata.name: (types or {}).get(task.metadata.name, task.metadata.type) for task in tasks}
        self._register(description)

    def type_means(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Average scores by type.

        Args:
            scores: Score by task; a type of which a task is missing is left out.

        Returns:
            Mean by type, in the order of the tasks.
        """
        means = {}
        for kind in dict.fromkeys(self.types.values()):
            own = [task for task, its in self.types.items() if its == kind]
            if all(task in scores for task in own):
                means[kind] = sum(scores[task] for task in own) / len(own)
        return means

    def _register(self, description: str) -> None:
        require("mteb", extra="evaluate")
        from mteb.benchmarks.benchmark import Benchmark
        from mteb.benchmarks.get_benchmark import _build_registry

        registry = _build_registry()
        if self.name in registry and self.name not in _OURS:
            raise InputError(f"name={self.name!r}: mteb ships a benchmark of that name; take another")
        said = description or f"{len(self.tasks)} local tasks."
        registry[self.name] = Benchmark(name=self.name, tasks=list(self.tasks), description=said)
        _OURS.add(self.name)
