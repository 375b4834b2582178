"""Work that goes on after the answer: one writer at a time for each collection, with progress and a way to stop."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from embedlab._core.errors import EmbedlabError
from embedlab.serve.errors import ApiError
from embedlab.serve.metrics import Metrics

_log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]
_KEPT = 200  # finished jobs remembered


class Cancelled(Exception):
    """Raised inside a job's work once somebody has cancelled it."""


@dataclass(slots=True)
class Job:
    """One piece of work and how far it is. Written by its own thread, read by any.

    Args:
        collection: The collection it writes to.
        documents_total: Documents to deal with, as far as known.
        id: Random name.
        state: Where it stands.
        documents_done: Documents dealt with.
        passages: Passages written.
        errors: Documents that could not be taken in, and why.
        message: Why it failed, or what it did.
        created: Unix seconds.
        started: Unix seconds, once it runs.
        finished: Unix seconds, once it has ended.
    """

    collection: str
    documents_total: int
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "queued"
    documents_done: int = 0
    passages: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    message: str | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _undo: bool = field(default=False, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("queued", "running")

    @property
    def passages_per_s(self) -> float:
        """Passages written per second so far."""
        if self.started is None:
            return 0.0
        return self.passages / max((self.finished or time.time()) - self.started, 1e-3)

    def check(self) -> None:
        """Call often from the work.

        Raises:
            Cancelled: Somebody has cancelled the job.
        """
        if self._stop.is_set():
            raise Cancelled


Work = Callable[[Job], None]
Undo = Callable[[], None]


def _nothing() -> None:
    pass


class Jobs:
    """All jobs of one application.

    Args:
        metrics: Where ended jobs and written passages are counted.
        most_open: Jobs that may be unfinished at once.
        workers: Collections that may be written to at once.
    """

    def __init__(self, metrics: Metrics, most_open: int, workers: int = 2) -> None:
        self._metrics = metrics
        self._most_open = most_open
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="embedlab-job")
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: dict[str, deque[tuple[Job, Work, Undo]]] = {}
        self._closed = False

    def submit(self, job: Job, work: Work, undo: Undo = _nothing) -> Job:
        """Put a job at the end of its collection's queue.

        Args:
            job: The job.
            work: What to do; calls ``job.check()`` often and writes its progress into the job.
            undo: What to do if a caller cancels the job; not called when the service stops.

        Returns:
            The job.

        Raises:
            ApiError: 503, too many are unfinished or the service is shutting down.
        """
        with self._lock:
            if self._closed or sum(each.is_open for each in self._jobs.values()) >= self._most_open:
                raise ApiError(503, "too many jobs are waiting: try again later", headers={"Retry-After": "10"})
            self._jobs[job.id] = job
            self._forget()
            self._metrics.jobs_open.inc()
            queue = self._waiting.get(job.collection)
            if queue is not None:
                queue.append((job, work, undo))  # the thread that writes to this collection takes it next
            else:
                self._waiting[job.collection] = deque([(job, work, undo)])
                self._threads.submit(self._drain, job.collection)
        return job

    def get(self, job_id: str) -> Job:
        """Return a job by its id.

        Raises:
            ApiError: 404, there is none.
        """
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise ApiError(404, f"job {job_id[:40]!r} is not known: it ended long ago or never was", field="id")
        return job

    def all(self, collection: str | None = None) -> list[Job]:
        """Return the jobs of one collection or all, newest first."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if collection in (None, job.collection)]
        return jobs[::-1]

    def is_writing(self, collection: str) -> bool:
        """Whether a collection has an unfinished job."""
        with self._lock:
            return collection in self._waiting

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop, and undo what it was about to do; one that has ended stays as it is.

        Raises:
            ApiError: 404, there is none.
        """
        job = self.get(job_id)
        self._stop(job, undo=True)
        return job

    def close(self) -> None:
        """Cancel what is unfinished and wait until it has stopped; what was committed stays."""
        with self._lock:
            self._closed = True
            unfinished = [job for job in self._jobs.values() if job.is_open]
        for job in unfinished:
            self._stop(job, undo=False)
        self._threads.shutdown(wait=True)

    def _stop(self, job: Job, *, undo: bool) -> None:
        job._undo = undo
        job._stop.set()
        waiting = None
        with self._lock:
            for queue in self._waiting.values():
                waiting = next((entry for entry in queue if entry[0] is job), None)
                if waiting is not None:
                    queue.remove(waiting)
                    break
        if waiting is not None:
            self._end_early(job, waiting[2])

    def _drain(self, collection: str) -> None:
        while True:
            with self._lock:
                queue = self._waiting[collection]
                if not queue:
                    del self._waiting[collection]
                    return
                job, work, undo = queue.popleft()
                job.state = "running"
                job.started = time.time()
            self._run(job, work, undo)

    def _run(self, job: Job, work: Work, undo: Undo) -> None:
        try:
            job.check()
            work(job)
        except Cancelled:
            self._end_early(job, undo)
        except EmbedlabError as error:
            job.message = str(error)
            self._end(job, "failed")
        except Exception:  # noqa: BLE001 - a job's thread must outlive every job
            number = secrets.token_hex(4)
            _log.exception("job %s on %s failed (%s)", job.id, job.collection, number)
            job.message = f"the job failed: the service's log has the reason under {number}"
            self._end(job, "failed")
        else:
            self._end(job, "done")

    def _end_early(self, job: Job, undo: Undo) -> None:
        job.message = "cancelled: what was committed stays"
        if job._undo:
            try:
                undo()
            except (EmbedlabError, OSError) as error:
                _log.warning("job %s was cancelled but not undone: %s", job.id, error)
        self._end(job, "cancelled")

    def _end(self, job: Job, state: State) -> None:
        job.finished = time.time()
        job.state = state
        self._metrics.jobs.labels(state).inc()
        self._metrics.jobs_open.dec()
        self._metrics.passages.inc(job.passages)

    def _forget(self) -> None:
        ended = [job_id for job_id, job in self._jobs.items() if not job.is_open]
        for job_id in ended[: max(0, len(ended) - _KEPT)]:
            del self._jobs[job_id]
