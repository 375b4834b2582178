"""Results that are kept on disk, so that an interrupted evaluation goes on and a repeated one takes no time."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_write
from embedlab.evaluate.encoders import HostedEncoder, HostedLexical
from embedlab.evaluate.scores import ModelCost, TaskScore

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

_log = logging.getLogger(__name__)

Hosted = HostedEncoder | HostedLexical
_COSTS = tuple(field.name for field in fields(ModelCost))
_FORMAT = 1  # of kept results; another number forgets the old ones


@dataclass(frozen=True, slots=True)
class KeptResults:
    """Results on disk, by model and task; damaged ones are measured again.

    Attributes:
        folder: Where they lie.
        fresh: Whether to take them for missing, and write new ones.
        seed: What decided ties in them.
    """

    folder: Path
    fresh: bool
    seed: int

    def path(self, host: Hosted, task: AbsTask) -> Path:
        """Return where the result of a model on a task lies: another weight, text or version is another place."""
        import mteb

        meta = task.metadata
        key: list[Any] = [_FORMAT, mteb.__version__, self.seed, type(task).__name__, meta.name, dict(meta.dataset)]
        key += [meta.main_score, list(task.eval_splits), list(task.hf_subsets)]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / host.fingerprint.replace(":", "-") / f"{digest}.json"

    def load(self, host: Hosted, task: AbsTask) -> TaskScore | None:
        """Return a kept result, or None."""
        path = self.path(host, task)
        if self.fresh or not path.is_file():
            return None
        try:
            return TaskScore.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, InputError, OSError) as error:
            _log.warning("the kept result %s is damaged and is measured again: %s", path, error)
            return None

    def save(self, host: Hosted, task: AbsTask, score: TaskScore) -> None:
        """Keep a result."""
        atomic_write(self.path(host, task), json.dumps(score.to_dict(), ensure_ascii=False))

    def load_cost(self, host: Hosted, task: AbsTask) -> ModelCost | None:
        """Return what a model costs on the texts of a task, or None: speeds on other texts cannot be compared."""
        path = self._cost_path(host, task)
        if self.fresh or not path.is_file():
            return None
        try:
            return ModelCost(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, OSError) as error:
            _log.warning("the kept cost %s is damaged and is measured again: %s", path, error)
            return None

    def save_cost(self, host: Hosted, task: AbsTask, cost: ModelCost) -> None:
        """Keep what a model costs."""
        atomic_write(self._cost_path(host, task), json.dumps({name: getattr(cost, name) for name in _COSTS}))

    def _cost_path(self, host: Hosted, task: AbsTask) -> Path:
        path = self.path(host, task)
        return path.with_name(f"cost-{path.name}")
