"""Documents of a collection: list, upload, delete."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from embedlab.data.files import READERS
from embedlab.search import Collection
from embedlab.search.records import Progress
from embedlab.serve.collections import job_out
from embedlab.serve.errors import ApiError
from embedlab.serve.jobs import Job, Jobs
from embedlab.serve.pool import Pool
from embedlab.serve.schemas import DeletedOut, DocumentsOut, ProblemOut, UploadOut
from embedlab.serve.settings import Limits
from embedlab.serve.shelf import Shelf
from embedlab.serve.uploads import FIELD, receive_files

_UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}


def documents_router(shelf: Shelf, jobs: Jobs, pool: Pool, limits: Limits) -> APIRouter:
    """Build the routes for the documents of one collection.

    Args:
        shelf: The collections.
        jobs: Where uploaded documents are indexed.
        pool: Threads to work in.
        limits: Bounds on uploads.

    Returns:
        The routes.
    """
    router = APIRouter(prefix="/api/collections/{name}/documents", tags=["documents"])

    @router.get("", summary="List documents by source")
    async def list_documents(
        name: str,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        prefix: Annotated[str, Query(max_length=1000)] = "",
    ) -> DocumentsOut:
        return await pool.run(shelf.documents, name, offset, limit, prefix)

    @router.post("", summary="Upload documents and index them", status_code=202, openapi_extra=_UPLOAD_BODY)
    async def upload_documents(name: str, request: Request) -> UploadOut:
        collection = await pool.run(shelf.open, name)
        folder = shelf.upload_folder(collection)
        received = await receive_files(request, folder, READERS.keys(), limits, pool)
        job = jobs.submit(Job(name, len(received.accepted)), _indexing(collection, folder, received.accepted))
        return UploadOut(
            job=job_out(job),
            accepted=received.accepted,
            refused=[ProblemOut(source=source, message=message) for source, message in received.refused],
        )

    @router.delete("", summary="Delete documents")
    async def delete_documents(
        name: str, source: Annotated[list[str], Query(min_length=1, max_length=1000)]
    ) -> DeletedOut:
        if jobs.is_writing(name):
            raise ApiError(409, f"collection {name!r} is being written: cancel its jobs or wait for them", field="name")
        deleted = await pool.run(shelf.delete_documents, name, source)
        if not deleted:
            raise ApiError(404, f"none of {len(source)} documents is in {name!r}: see its list", field="source")
        return DeletedOut(deleted=deleted)

    return router


def _indexing(collection: Collection, folder: Path, accepted: Sequence[str]) -> Any:
    """Return the work of bringing a collection up to date with its upload folder."""

    def work(job: Job) -> None:
        def on_progress(progress: Progress) -> None:
            job.documents_done = progress.files_done
            job.documents_total = progress.files_total or job.documents_total
            job.passages = progress.passages
            job.check()

        report = collection.index([folder], on_progress=on_progress)
        job.passages = report.passages
        job.documents_total = job.documents_done = report.files
        mine = set(accepted)
        job.errors = [
            (failure.source, failure.reason)
            for failure in report.unreadable
            if failure.source.partition("#")[0] in mine or failure.source in mine
        ]

    return work
