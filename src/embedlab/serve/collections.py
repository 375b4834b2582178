"""``/api/info``, ``/api/collections`` and ``/api/jobs``."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from embedlab import __version__
from embedlab.data.files import READERS
from embedlab.serve.encoders import Encoders
from embedlab.serve.errors import ApiError
from embedlab.serve.jobs import Job, Jobs
from embedlab.serve.pool import Pool
from embedlab.serve.schemas import (
    CollectionOut,
    CollectionsOut,
    DeletedOut,
    InfoOut,
    JobOut,
    JobsOut,
    NewCollection,
    ProblemOut,
)
from embedlab.serve.settings import Settings
from embedlab.serve.shelf import Shelf

_TOLD = (
    "top_k",
    "query_chars",
    "batch_texts",
    "text_chars",
    "body_bytes",
    "upload_bytes",
    "file_bytes",
    "upload_files",
)


def collections_router(shelf: Shelf, encoders: Encoders, jobs: Jobs, pool: Pool, settings: Settings) -> APIRouter:
    """Build the routes for collections as a whole.

    Args:
        shelf: The collections.
        encoders: Models that a new collection may use.
        jobs: Who writes to them.
        pool: Threads to work in.
        settings: What may be told about the service.

    Returns:
        The routes.
    """
    router = APIRouter(prefix="/api", tags=["collections"])

    @router.get("/info", summary="What this service is and allows")
    async def info() -> InfoOut:
        limits = {name: value for name, value in asdict(settings.limits).items() if name in (*_TOLD, "map_points")}
        return InfoOut(
            version=__version__,
            models=list(encoders.names),
            can_create=shelf.can_create,
            formats=sorted(READERS),
            limits=limits,
        )

    @router.get("/collections", summary="List collections")
    async def list_collections() -> CollectionsOut:
        found = await pool.run(shelf.all)
        return CollectionsOut(collections=[_shown(each, jobs) for each in found])

    @router.post("/collections", summary="Make a collection", status_code=201)
    async def create_collection(new: NewCollection) -> CollectionOut:
        model = encoders.check(new.model) if new.model is not None else encoders.names[0]
        return _shown(await pool.run(shelf.create, new.name, model), jobs)

    @router.get("/collections/{name}", summary="Show a collection")
    async def show_collection(name: str) -> CollectionOut:
        return _shown(await pool.run(shelf.describe, name), jobs)

    @router.delete("/collections/{name}", summary="Delete a collection with its uploaded documents")
    async def delete_collection(name: str) -> DeletedOut:
        if jobs.is_writing(name):
            raise ApiError(409, f"collection {name!r} is being written: cancel its jobs or wait for them", field="name")
        await pool.run(shelf.remove, name)
        return DeletedOut(deleted=name)

    @router.get("/jobs", summary="List jobs, newest first")
    async def list_jobs(collection: str | None = None) -> JobsOut:
        return JobsOut(jobs=[job_out(job) for job in jobs.all(collection)])

    @router.get("/jobs/{job_id}", summary="Show how far a job is")
    async def show_job(job_id: str) -> JobOut:
        return job_out(jobs.get(job_id))

    @router.post("/jobs/{job_id}/cancel", summary="Stop a job; what it committed stays")
    async def cancel_job(job_id: str) -> JobOut:
        return job_out(await pool.run(jobs.cancel, job_id))

    return router


def job_out(job: Job) -> JobOut:
    """Return what callers see of a job.

    Args:
        job: The job; it may be going on meanwhile.

    Returns:
        A copy of where it stands.
    """
    return JobOut(
        id=job.id,
        collection=job.collection,
        state=job.state,
        documents_done=job.documents_done,
        documents_total=job.documents_total,
        passages=job.passages,
        passages_per_s=round(job.passages_per_s, 1),
        errors=[ProblemOut(source=source, message=message) for source, message in list(job.errors)],
        message=job.message,
        created=job.created,
        started=job.started,
        finished=job.finished,
    )


def _shown(collection: CollectionOut, jobs: Jobs) -> CollectionOut:
    return collection.model_copy(update={"writing": jobs.is_writing(collection.name)})
