"""The application: every part is made here, once, and handed to what needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module

from fastapi import FastAPI

from embedlab import __version__
from embedlab.models import Encoder, load_model
from embedlab.serve.collections import collections_router
from embedlab.serve.documents import documents_router, resume
from embedlab.serve.embeddings import embeddings_router
from embedlab.serve.encoders import Encoders
from embedlab.serve.errors import install_error_handlers
from embedlab.serve.guard import Guard
from embedlab.serve.jobs import Jobs
from embedlab.serve.metrics import Metrics
from embedlab.serve.pages import install_pages
from embedlab.serve.pool import Pool
from embedlab.serve.schemas import ErrorOut
from embedlab.serve.searching import searching_router
from embedlab.serve.settings import Settings
from embedlab.serve.shelf import Shelf


def create_app(
    settings: Settings | None = None,
    *,
    load: Callable[[str], Encoder] = load_model,
    on_ready: Callable[[], object] | None = None,
) -> FastAPI:
    """Build the service as an ASGI application.

    Args:
        settings: What to serve and to whom; ``None`` takes the defaults.
        load: Finds a model by its name.
        on_ready: Called once the default model is loaded and calls will be answered.

    Returns:
        The application; give it to uvicorn, or to ``embedlab.serve.run`` together with the limits on connections.

    Raises:
        InputError: A collection to serve does not exist.

    Example:
        >>> from fastapi.testclient import TestClient
        >>> with TestClient(create_app(), base_url="http://localhost") as client:
        ...     client.get("/healthz").json()["status"]
        'ok'
    """
    settings = settings or Settings()
    metrics = Metrics()
    encoders = Encoders(settings.models, load)
    pool = Pool(settings.workers, settings.limits.waiting_calls)
    disk = Pool(2, settings.limits.connections)
    jobs = Jobs(metrics, settings.limits.queued_jobs)
    shelf = Shelf(settings.collections, encoders)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.run(encoders.get, encoders.names[0])  # the first caller shall not wait for it
        await pool.run(resume, shelf, jobs)
        store = asyncio.create_task(pool.run(import_module, "lancedb"))  # slow to import, and soon needed
        if on_ready is not None:
            on_ready()
        yield
        await asyncio.gather(store, return_exceptions=True)
        await asyncio.to_thread(jobs.close)
        await asyncio.to_thread(pool.close)
        await asyncio.to_thread(disk.close)

    app = FastAPI(
        title="embedlab",
        version=__version__,
        summary="Search your documents, and embed texts.",
        description="Errors have one shape and name the field that is to blame.",
        docs_url=None,  # these pages would load their scripts from elsewhere; ours is /docs
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses={"4XX": {"model": ErrorOut}},
    )
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    install_error_handlers(app)
    app.include_router(embeddings_router(encoders, pool, settings.limits, metrics))
    app.include_router(collections_router(shelf, encoders, jobs, pool, settings))
    app.include_router(documents_router(shelf, jobs, pool, disk, settings.limits))
    app.include_router(searching_router(shelf, pool, settings.limits, metrics))
    install_pages(app, settings, encoders, metrics)
    return app
