"""Documents of a collection: list, upload, delete."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from embedlab._core.files import atomic_write
from embedlab.data.files import READERS
from embedlab.search import Collection
from embedlab.search.records import Progress
from embedlab.serve.collections import job_out
from embedlab.serve.errors import ApiError
from embedlab.serve.jobs import Job, Jobs, Undo, Work
from embedlab.serve.pool import Pool
from embedlab.serve.schemas import DeletedOut, DocumentsOut, ProblemOut, UploadOut
from embedlab.serve.settings import Limits
from embedlab.serve.shelf import Shelf, pending_mark
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


def documents_router(shelf: Shelf, jobs: Jobs, pool: Pool, disk: Pool, limits: Limits) -> APIRouter:
    """Build the routes for the documents of one collection.

    Args:
        shelf: The collections.
        jobs: Where uploaded documents are indexed.
        pool: Threads to work in.
        disk: Threads to write uploads with, so that a busy search does not break them off.
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
        received = await receive_files(request, folder, READERS.keys(), limits, disk)
        work, undo = await pool.run(_indexing, collection, folder, received.accepted)
        job = jobs.submit(Job(name, len(received.accepted)), work, undo)
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


def resume(shelf: Shelf, jobs: Jobs) -> None:
    """Index what was uploaded but not indexed when the service last ended.

    Args:
        shelf: The collections.
        jobs: Where to do it.
    """
    for name in shelf.interrupted():
        collection = shelf.open(name)
        folder = shelf.upload_folder(collection)
        if folder.is_dir():
            jobs.submit(Job(name, 0), *_indexing(collection, folder, None))


def _indexing(collection: Collection, folder: Path, accepted: Sequence[str] | None) -> tuple[Work, Undo]:
    """Return how to bring a collection in line with its upload folder, and how to take uploaded files out again."""
    accepted_files = frozenset(accepted or ())
    mark, mine = pending_mark(folder), secrets.token_hex(8)
    atomic_write(mark, mine)

    def work(job: Job) -> None:
        def on_progress(progress: Progress) -> None:
            job.documents_done = progress.files_done
            job.documents_total = progress.files_total or job.documents_total
            job.passages = progress.passages
            job.check()

        report = collection.index([folder], on_progress=on_progress)
        job.passages = report.passages
        job.documents_total = job.documents_done = report.files
        job.errors = [
            (failure.source, failure.reason)
            for failure in report.unreadable
            if accepted is None or not accepted_files.isdisjoint(_files_of(failure.source))
        ]
        unmark()

    def undo() -> None:
        indexed = {file for info in collection.documents() for file in _files_of(info.source)}
        for name in accepted_files - indexed:
            (folder / name).unlink(missing_ok=True)
        unmark()

    def unmark() -> None:
        if mark.exists() and mark.read_text() == mine:  # or a later upload waits for its own job
            mark.unlink()

    return work, undo


def _files_of(source: str) -> set[str]:
    """Return the files a source may mean: itself, or, for a record such as ``x.csv#row=2``, the file it is in."""
    return {source, source.rpartition("#")[0]}
