"""What is open to all: the page and its files, the reference, health; and the metrics."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from embedlab import __version__
from embedlab.serve.encoders import Encoders
from embedlab.serve.errors import ApiError
from embedlab.serve.metrics import Metrics
from embedlab.serve.reference import reference_page, reference_style
from embedlab.serve.settings import Settings


def install_pages(app: FastAPI, settings: Settings, encoders: Encoders, metrics: Metrics) -> None:
    """Add the routes that hold no data of the collections.

    Args:
        app: The application to add them to.
        settings: Where the page lies.
        encoders: Models that have to be loaded before the service is ready.
        metrics: The figures to show.
    """
    router = APIRouter(tags=["service"])
    folder = settings.web_folder or Path(str(resources.files("embedlab") / "web"))

    @router.get("/healthz", summary="Whether the process answers")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @router.get("/readyz", summary="Whether the default model is loaded")
    async def ready() -> Response:
        loaded = encoders.is_loaded(encoders.names[0])
        return JSONResponse({"status": "ready" if loaded else "loading"}, 200 if loaded else 503)

    @router.get("/metrics", summary="Figures for Prometheus")
    async def show_metrics() -> Response:
        content, kind = metrics.text()
        return Response(content, headers={"Content-Type": kind})

    @router.get("/docs", include_in_schema=False)
    async def reference() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi(), "/docs.css"))

    @router.get("/docs.css", include_in_schema=False)
    async def style() -> Response:
        return Response(reference_style(), media_type="text/css")

    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        if not (folder / "index.html").is_file():
            raise ApiError(404, "this installation has no page: install embedlab again, or use the API, see /docs")
        return FileResponse(folder / "index.html", headers={"Cache-Control": "no-cache"})

    app.include_router(router)
    app.mount("/static", _Files(directory=folder, check_dir=False), name="static")


class _Files(StaticFiles):
    """The page's files; browsers ask each time whether theirs is the newest, and get an empty answer if it is."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response

    async def get_response(self, path: str, scope: Scope) -> Response:
        if Path(path).suffix == ".py" or any(part.startswith(".") for part in Path(path).parts):
            raise ApiError(404, f"there is no file {path[:100]!r}")
        return await super().get_response(path, scope)
