"""Tasks by name: the sets on this machine first, then the tasks that mteb can download."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.evaluate.quiet import random_state_restored

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask


def find_tasks(names: Iterable[str]) -> list[AbsTask]:
    """Return tasks by name.

    Args:
        names: Names of ``embedlab.evaluate.local_sets``, of tasks or of groups, which need no network; or mteb's names,
            whose data mteb fetches when they are evaluated.

    Returns:
        The tasks, in order; those of groups once.

    Raises:
        InputError: no task has that name; the nearest is suggested.
        MissingDataError: the data of a local set are not there.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    require("mteb", extra="evaluate")
    from embedlab.evaluate.local_sets import GROUPS, LOCAL, is_local_name, local_tasks
    from embedlab.evaluate.local_task import known_tasks

    hosted = known_tasks()
    found: list[AbsTask] = []
    for name in names:
        if is_local_name(name):
            already = {task.metadata.name for task in found}
            found += local_tasks([name], without=already)
        elif name in hosted:
            with random_state_restored():
                found.append(hosted[name]())
        else:
            near = get_close_matches(name, [*LOCAL, *GROUPS, *hosted], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"unknown task {name!r}: {hint}on this machine are {', '.join(LOCAL)}, and the groups "
                f"{', '.join(GROUPS)}; the others are mteb's names"
            )
    return found


def needs_network(task: AbsTask) -> bool:
    """Tell whether mteb is still to fetch a task's data, from the hub or from its cache on this machine."""
    return not task.data_loaded
